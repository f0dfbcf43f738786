"""Golden runs: both built-in models through the command line, and a run folder that an earlier version left.

What is frozen, what is left out of it and the two strengths of comparison: golden_runs.py.
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_runs import (
    MODELS,
    OF_TEXT,
    OLD_RUN,
    SAMPLED,
    TOLERANCE,
    call,
    differences,
    golden_run,
    old_stages,
    packed,
    read_golden,
    standing_in,
    unpacked,
)

import hones


@pytest.mark.parametrize("model", MODELS)
def test_a_run_leaves_what_it_left(model: str, tmp_path: Path) -> None:
    found = differences(read_golden(model), golden_run(model, tmp_path))
    assert not found, "\n".join([f"{len(found)} differences", *found[:40]])


# The comparison itself, on the committed fixtures alone


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden(MODELS[0])


def change_score(run: Any) -> None:
    run["files"]["vqa/neurons.json"]["content"][3]["score"] += 3 * TOLERANCE


def change_scale(run: Any) -> None:
    run["files"]["vqa/steering/hones/scales.json"]["content"][3]["scale"] += 0.1


def change_metric(run: Any) -> None:
    run["files"]["vqa/comparison.json"]["content"]["methods"][1]["masked"]["value"] += 1e-3


def change_share_of_text(run: Any) -> None:
    run["files"]["vqa/masking.json"]["content"]["selectivity"]["plain_text"]["share_lost"]["value"] += 3 * OF_TEXT


def change_array(run: Any) -> None:
    run["files"]["ocr/head_scores.npy"]["content"]["values"][2][1] += 3 * TOLERANCE


def change_sample(run: Any) -> None:
    run["files"]["vqa/methods/dvp/neuron_importance.npy"]["content"]["sample"][7] += 3 * TOLERANCE


def change_neuron(run: Any) -> None:
    run["files"]["ocr/neurons.json"]["content"][0]["neuron"] += 1


def swap_ranks(run: Any) -> None:
    rows = run["files"]["ocr/neurons.json"]["content"]
    rows[0]["layer"], rows[1]["layer"] = rows[1]["layer"], rows[0]["layer"]
    rows[0]["neuron"], rows[1]["neuron"] = rows[1]["neuron"], rows[0]["neuron"]


def change_text(run: Any) -> None:
    run["files"]["analysis/analysis.json"]["content"]["cards"][0]["promotes"][0]["text"] += "x"


def change_type(run: Any) -> None:
    run["files"]["vqa/masking.json"]["content"]["items"] = 6.0


def drop_key(run: Any) -> None:
    del run["files"]["vqa/steering/evidence.json"]["content"]["elsewhere"][0]["change"]["low"]


def drop_file(run: Any) -> None:
    del run["files"]["vqa/masking.json"]


def change_input(run: Any) -> None:
    run["stages"]["vqa/heads"]["fingerprint"]["asked"] = "0123456789abcdef"


def change_digest(run: Any) -> None:
    run["stages"]["vqa/neurons"]["fingerprint"]["heads"] = run["files"]["ocr/heads.json"]["sha256"][:16]


def add_input(run: Any) -> None:
    run["stages"]["vqa/mask"]["fingerprint"]["more"] = 1


def change_items(run: Any) -> None:
    run["stages"]["vqa/steer"]["test"]["items"].pop()


def drop_stage(run: Any) -> None:
    del run["stages"]["analysis"]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        change_score,
        change_scale,
        change_metric,
        change_share_of_text,
        change_array,
        change_sample,
        change_neuron,
        swap_ranks,
        change_text,
        change_type,
        drop_key,
        drop_file,
        change_input,
        change_digest,
        add_input,
        change_items,
        drop_stage,
    ],
)
def test_a_change_is_found(golden: dict[str, Any], change: Callable[[Any], None], exact: bool) -> None:
    changed = copy.deepcopy(golden)
    change(changed)
    for name, file in changed["files"].items():  # other content has other bytes
        if json.dumps(file) != json.dumps(golden["files"][name]):
            file["sha256"] = "0" * 64
    assert differences(golden, changed, exact)
    assert not differences(golden, copy.deepcopy(golden), exact)


def test_what_another_cpu_may_leave_is_no_change(golden: dict[str, Any]) -> None:
    """Rounding, the order of ties, another neuron of the value that a list ends at, and the digests of all that."""
    names = ("vqa/neurons.json", "vqa/methods/hones/neurons.json")  # computed in the same way, the same bytes
    tied, other = copy.deepcopy(golden), copy.deepcopy(golden)
    digest = golden["files"][names[0]]["sha256"][:16]
    text = json.dumps(other["stages"])
    assert digest in text
    other["stages"] = json.loads(text.replace(digest, "f" * 16))
    for name in names:
        for run in (tied, other):
            rows = run["files"][name]["content"]
            rows[10]["score"] = rows[11]["score"]
        rows = other["files"][name]["content"]
        other["files"][name]["sha256"] = "f" * 64
        rows[10], rows[11] = {**rows[11], "rank": 11}, {**rows[10], "rank": 12}
        rows[3]["score"] *= 1 + TOLERANCE / 2
        rows[-1]["neuron"] += 1
    assert not differences(tied, other, exact=False)
    assert differences(tied, other, exact=True)


def test_one_bit_is_a_change_where_every_byte_counts(golden: dict[str, Any]) -> None:
    changed, reordered = copy.deepcopy(golden), copy.deepcopy(golden)
    file = changed["files"]["vqa/neurons.json"]
    file["content"][0]["score"] = float(np.nextafter(file["content"][0]["score"], 2))
    file["sha256"] = "0" * 64
    lines = differences(golden, changed, exact=True)
    assert [line.partition(":")[0].partition(".json/")[2] for line in lines] == ["content/0/score", "sha256"]
    entry = reordered["stages"]["vqa/heads"]
    entry["fingerprint"] = dict(reversed(entry["fingerprint"].items()))
    told = ["stages/vqa/heads: the same values, other bytes or another order"]
    assert differences(golden, reordered, exact=True) == told
    assert not differences(golden, reordered, exact=False)


def test_fixtures_are_packed_without_loss(golden: dict[str, Any]) -> None:
    assert unpacked(json.loads(json.dumps(packed(golden)))) == golden
    neurons = golden["files"]["vqa/neuron_importance.npy"]["content"]
    assert len(neurons["sample"]) == -(-int(np.prod(neurons["shape"])) // SAMPLED)


# A run folder of an earlier version


def state(run: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes and the time of every file of results."""
    files = (f for f in run.rglob("*") if f.is_file() and f.suffix in (".json", ".npy", ".jpg"))
    return {str(f.relative_to(run)): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}


def test_an_old_run_folder_stays_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that left it compute nothing: no file is written, run.json has the times it had."""
    run = tmp_path / "run"
    shutil.copytree(OLD_RUN, run)
    before = state(run)
    recorded = json.loads((run / "run.json").read_text())["stages"]
    stages = ("heads", "neurons", "mask", "steer", "evidence", "compare")
    assert {*(f"vqa/{stage}" for stage in stages), "analysis"} <= set(recorded)
    assert set(before) == {"run.json", *(name for entry in recorded.values() for name in entry["artifacts"])}
    with standing_in(tmp_path):
        read = hones.load_items("data/test.json")
        assert read.sha256 == recorded["vqa/mask"]["fingerprint"]["data"], "the built-in pictures are others now"
        for command in old_stages():
            assert call(*command) == 0, (command, capsys.readouterr().err)
            assert {name: when for name, (_, when) in state(run).items()} == {
                n: when for n, (_, when) in before.items()
            }
        assert state(run) == before
        assert not list(run.glob("journal/*"))

        heads, _, mask, *_ = old_stages()
        assert call(*mask, "--draws", 3) == 2 and "holds vqa/mask with draws = 2, now 3" in capsys.readouterr().err
        assert call(*heads, "--seed", 1) == 2 and "holds vqa/heads with seed = 3407, now 1" in capsys.readouterr().err
        assert state(run) == before
        (run / "vqa/masking.json").unlink()
        assert call(*mask) == 0
    after = state(run)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {"run.json", "vqa/masking.json"}
