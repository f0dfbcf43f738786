"""What rounding changes: flips of a sweep against float32, and the dtype that is fast where the device has units."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hones import HonesError, load_items, make_task, write_shapes
from hones.cli.commands import app
from hones.method.flips import flips_between
from hones.models import dtypes
from hones.models.dtypes import dtype_named
from hones.models.spec import ModelSpec
from hones.runs.flips import count_flips
from hones.stats import UNEDITED, Measurement

SITES = [(0, 0), (0, 1), (1, 0)]


def measured(answers: dict[object, list[float]]) -> Measurement:
    """Of statistics (score, 1) per item."""
    arms = {arm: np.array([[(x, 1.0) for x in row]], dtype=np.float32) for arm, row in answers.items()}
    return Measurement(arms, make_task("vqa").score, seed=0)


def test_flips_are_counted_and_scores_compared_by_hand() -> None:
    unedited = [1.0, 1.0, 1.0, 0.0]
    exact = measured({UNEDITED: unedited, SITES[0]: [0, 0, 1, 0], SITES[1]: [1, 1, 0, 0], SITES[2]: unedited})
    rounded = measured({UNEDITED: unedited, SITES[0]: [0, 1, 1, 0], SITES[1]: unedited, SITES[2]: [1, 1, 1, 1]})
    found = flips_between(make_task("vqa"), exact, rounded, SITES, 2, "bfloat16")
    # of 4 arms x 4 items three differ: one of the first head, one of the second, one of the third
    assert (found.cells, found.flipped, found.items) == (16, 3, 4)
    # scores: .5 and .25, .25 and 0, 0 and -.25
    assert found.largest == pytest.approx(0.25) and found.mean == pytest.approx(0.25)
    # the second is no longer critical
    assert (found.critical, found.shared) == (2, 1)
    same = flips_between(make_task("vqa"), exact, exact, SITES, 2, "bfloat16")
    assert (same.flipped, same.largest, same.shared) == (0, 0.0, 2)


def test_a_sweep_in_bfloat16_is_counted_against_float32(tmp_path: Path) -> None:
    file = write_shapes(tmp_path, {"discovery": 3}, seed=5)["discovery"]
    tasks = [make_task("vqa"), make_task("retrieval", candidates=4)]
    found = count_flips(ModelSpec("tiny-llava", dtype="bfloat16"), tasks, load_items(file))
    assert [flips.task for flips in found.tasks] == ["vqa", "retrieval"] and found.dtype == "bfloat16"
    assert all(flips.cells == 3 * 37 and flips.flipped < flips.cells / 4 for flips in found.tasks)
    (table,) = found.tables()
    assert "an item, unedited or under one head's replacement, flips" in table.caption
    assert [row["of"] for row in table.rows] == [f"{flips.flipped} of 111" for flips in found.tasks]


def test_a_dtype_that_rounds_nothing_is_refused(tmp_path: Path) -> None:
    items = load_items(write_shapes(tmp_path, {"discovery": 1}, seed=5)["discovery"])
    with pytest.raises(HonesError, match="--dtype auto is float32 here; expected bfloat16 or float16"):
        count_flips(ModelSpec("tiny-llava", device="cpu"), [make_task("vqa")], items)


def test_the_command_writes_what_it_counted(tmp_path: Path) -> None:
    file = write_shapes(tmp_path, {"discovery": 2}, seed=5)["discovery"]
    asked = ["--model", "tiny-llava", "--task", "vqa", "--data", str(file), "--json", str(tmp_path / "flips.json")]
    done = CliRunner().invoke(app, ["flips", *asked])
    assert done.exit_code == 0, done.output
    assert "bfloat16 against float32" in done.output and "of 74" in done.output and "…" not in done.output
    (flips,) = json.loads((tmp_path / "flips.json").read_text())["tasks"]
    assert flips["cells"] == 74 and flips["exact"].keys() == {"value", "low", "high"}


def test_heads_in_another_dtype_name_the_command_that_counts_flips(tmp_path: Path) -> None:
    file = write_shapes(tmp_path, {"discovery": 1}, seed=5)["discovery"]
    asked = ["heads", "--model", "tiny-llava", "--task", "vqa", "--data", str(file)]
    rounded = CliRunner().invoke(app, [*asked, "--dtype", "bfloat16", "--out", str(tmp_path / "rounded")])
    assert rounded.exit_code == 0 and f"next: hones flips --model tiny-llava --task vqa --data {file}" in rounded.output
    exact = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "exact")])
    assert exact.exit_code == 0 and "hones flips" not in exact.output


@pytest.mark.parametrize(("unit", "expected"), [("amx_bf16", "bfloat16"), ("bf16", "bfloat16"), ("avx2", "float32")])
def test_fast_is_bfloat16_where_the_cpu_has_units_for_it(
    unit: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtypes.torch.cpu, "get_capabilities", lambda: {unit: True}, raising=False)
    assert dtype_named("fast", "cpu") == expected
    assert dtype_named("auto", "cpu") == "float32" and dtype_named("auto", "cuda:1") == "bfloat16"


def test_a_torch_that_cannot_tell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with pytest.raises(HonesError, match="cannot say what this CPU has"):
        dtype_named("fast", "cpu")
