"""best-of: its choice by the definition, what it leaves out, what run.json says, and that a killed one goes on."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_running_sum import Killed, Several

from hones import HonesError, RunFolder, Study, load_items, load_vlm, make_task, select_neurons, write_shapes
from hones.data.items import Items
from hones.errors import TaskStops
from hones.method.found import sites_of
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.rivals import best_of, make_method
from hones.rivals.base import Context
from hones.rivals.best_of import BestOf, put_aside
from hones.runs.method_inputs import other_tasks
from hones.sweep.plain_text import plain_text_losses
from hones.sweep.run import SweepSettings, sweep_tasks

RATIO = 0.02
FEW = ("hones+", "atp")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("items"), {"discovery": 9}, seed=4)["discovery"]


@pytest.fixture(scope="module")
def tiny() -> VLM:
    return load_vlm("tiny-llava")


def context_of(vlm: VLM, items: Items, name: str = "vqa") -> Context:
    task = make_task(name, candidates=3)
    examples = task.examples(items)[0]
    return Context(vlm, task, examples, others=other_tasks(vlm, task, items, examples))


def margin_by_hand(context: Context, taught: set[str], method: str) -> float:
    """Rank on the items that are named, mask, ask about all others one after another, with the definition's engine."""

    def part(examples: Any, learnt: bool) -> list[Any]:
        return [e for e in examples if (e.id in taught) == learnt]

    others = [(task, part(examples, True)) for task, examples in context.others]
    learnt = replace(context, examples=part(context.examples, True), others=others)
    found = make_method(method).for_budget(RATIO).importance(learnt)
    masked = Intervention(masked=frozenset(sites_of(select_neurons(found, RATIO))))
    naive = SweepSettings("naive")
    lost = []
    for task, examples in context.jobs:
        (statistics,) = sweep_tasks(context.vlm, [(task, part(examples, False))], [BASELINE, masked], naive)
        before, after = (float(task.score(of_arm.sum(0))) for of_arm in statistics.astype(np.float64))
        lost.append((before - after) / before)
    before, after = (float(np.mean(losses)) for losses in plain_text_losses(context.vlm, [BASELINE, masked], naive))
    if before < math.log(context.vlm.anatomy.lm_head.out_features):
        lost.append(1 - math.exp(before - after))
    return lost[0] - max(lost[1:])


def test_it_takes_the_largest_margin_and_ranks_on_all_items(
    tiny: VLM, items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_of, "TRIED", FEW)
    context = context_of(tiny, load_items(items))
    found = BestOf().for_budget(RATIO).importance(context)
    taught = {e.id for n, e in enumerate(context.examples) if n % 3 != 2}
    assert len(taught) == 6
    trial = context.shared[best_of.TRIALS, "vqa", RATIO]
    expected = {name: margin_by_hand(context, taught, name) for name in FEW}
    values = {name: margin.value for name, margin in trial.margins.items()}
    assert values == pytest.approx(expected, abs=1e-6) and expected["atp"] != expected["hones+"]
    assert (trial.items, trial.of) == (3, 9) and values[trial.taken] == max(values.values())
    assert all(margin.low <= margin.value <= margin.high for margin in trial.margins.values())
    np.testing.assert_array_equal(found, make_method(trial.taken).for_budget(RATIO).importance(context))


def test_pictures_are_on_one_side_with_all_that_is_asked_of_them(tiny: VLM, items: Path) -> None:
    context = context_of(tiny, load_items(items))
    twice = replace(context, examples=[e for e in context.examples for _ in range(2)])
    elsewhere = replace(twice, elsewhere=[(make_task("ocr"), context.examples[:5])])
    learnt, aside = put_aside(elsewhere)
    assert (len(learnt.examples), len(aside.examples)) == (12, 6)
    pictures = [{e.image for e in part.examples} for part in (learnt, aside)]
    assert len(pictures[0]) == 6 and len(pictures[1]) == 3 and not pictures[0] & pictures[1]
    for part, of in zip((learnt, aside), pictures, strict=True):
        assert all({e.image for e in examples} <= of for _, examples in part.others)
    assert [len(part.elsewhere[0][1]) for part in (learnt, aside)] == [4, 1]


def test_what_cannot_be_tried(tiny: VLM, vlms: dict[str, VLM], items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(tiny, load_items(items))
    with pytest.raises(TaskStops, match="best-of on vqa: 2 pictures or texts"):
        BestOf().importance(replace(context, examples=context.examples[:2]))
    monkeypatch.setattr(best_of, "TRIED", ("hones+",))
    with pytest.raises(TaskStops, match="the model does nothing right on the 3 items put aside"):
        BestOf().importance(context_of(vlms["qwen"], load_items(items)))
    said: list[str] = []
    monkeypatch.setattr(best_of, "remark", said.append)
    monkeypatch.setattr(best_of, "TRIED", ("selective", "hones+"))
    monkeypatch.setattr("hones.rivals.selective._reads", lambda context: False)
    alone = replace(context, others=())
    BestOf().for_budget(RATIO).importance(alone)
    assert said[0].startswith("best-of on vqa leaves out selective: vqa stands alone")
    assert said[1].startswith("vqa: best-of takes hones+: margin on 3 of 9 items put aside: hones+ ")


def test_a_killed_one_goes_on_and_the_trial_is_recorded(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_of, "TRIED", ("rounds", "hones+"))
    method = make_method("best-of").with_schedule(rounds=2)
    task, vlm = make_task("retrieval", candidates=3), vlms["qwen"]  # a random model ranks captions somehow

    def rank(run: Path, workers: Several, ratio: float = 0.1) -> bytes:
        study = Study(vlm, RunFolder(run), SweepSettings(batch_size=6, workers=workers))
        study.neurons(task, load_items(shapes["discovery"]), None, ratio, method=method)
        return (run / "retrieval" / "neuron_importance.npy").read_bytes()

    whole = Several(1)
    expected = rank(tmp_path / "whole", whole)
    for last in (1, 5):
        run = tmp_path / str(last)
        with pytest.raises(Killed):
            rank(run, Several(1, last))
        again = Several(1)
        assert rank(run, again) == expected
        gradients = [shard for shard in whole.computed if hasattr(shard, "gates")]
        assert len([shard for shard in again.computed if hasattr(shard, "gates")]) == len(gradients) - last
        assert not [*(run / "journal").iterdir()]
    record = json.loads((tmp_path / "whole" / "run.json").read_text())["stages"]["retrieval/neurons"]
    trial = record["best-of"]
    assert trial["taken"] in ("rounds", "hones+") and [*trial["margins"]] == ["rounds", "hones+"]
    assert (trial["items"], trial["of"]) == (2, 6)
    assert record["fingerprint"]["options"]["tried"] == ["rounds", "hones+"]
    with pytest.raises(HonesError, match=r"options\.ratio"):
        rank(tmp_path / "whole", Several(1), ratio=0.2)
