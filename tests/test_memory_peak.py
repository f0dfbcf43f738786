"""A sweep over long prompts takes no more than it may: measured in processes of their own, as memory has one peak."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hones import load_items, load_vlm, make_task, write_shapes
from hones.cli.commands import app
from hones.models.interventions import BASELINE, Intervention
from hones.sweep.memory import GIB, make_plan
from hones.sweep.run import SweepSettings, sweep

MIB_OF_GIB = 1024


def grown(gib: float) -> float:
    """MiB by which a sweep of 2,025 picture tokens and ten candidates through thirty layers grew its process."""
    command = [sys.executable, str(Path(__file__).with_name("memory_peak.py")), "retrieval", str(gib)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    return float(json.loads(done.stdout.splitlines()[-1])["grown"])


def test_a_sweep_of_long_prompts_stays_within_what_it_may_take() -> None:
    bound = 0.1
    assert grown(bound) < bound * MIB_OF_GIB < grown(8)


def test_less_memory_is_smaller_passes_and_the_same_numbers(tmp_path: Path) -> None:
    vlm = load_vlm("tiny-llava")
    task = make_task("vqa")
    examples = task.examples(load_items(write_shapes(tmp_path, {"test": 3}, seed=4)["test"]))[0]
    edits = [BASELINE, Intervention(heads=frozenset({(2, 1)})), Intervention(masked=frozenset({(4, 7)}))]
    few, many = make_plan(vlm, 300, None, most=GIB // 1000), make_plan(vlm, 300, None)
    assert few.pictures < many.pictures and few.row_bytes < many.row_bytes
    found = sweep(vlm, task, examples, edits, SweepSettings(memory=0.001))
    assert (found == sweep(vlm, task, examples, edits, SweepSettings())).all()


@pytest.mark.parametrize("given", ["0", "-1"])
def test_memory_that_is_none_is_refused(given: str) -> None:
    asked = ["heads", "--model", "tiny-llava", "--task", "vqa", "--data", "x.json", "--out", "x", "--memory", given]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2 and "--memory" in done.output
