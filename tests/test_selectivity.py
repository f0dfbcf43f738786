"""Selectivity: what a mask costs other tasks and plain text, and the smallest budget that costs half."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from run_results import make_comparison, make_masking

from hones import HonesError, load_items, load_vlm, make_task, write_shapes
from hones.errors import TaskStops
from hones.files import write_json
from hones.method.beside import Beside
from hones.method.budget import ratio_of_text
from hones.method.found import RankedNeuron
from hones.method.masking import MaskingResult, evaluate_masking
from hones.method.selectivity import OtherTask, PlainTextLoss, Selectivity
from hones.method.smallest import smallest_budget
from hones.models.interventions import BASELINE, Intervention
from hones.models.planted import Plant, load_plant
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.runs.artifacts import read_result, write_result
from hones.runs.record import RunFolder
from hones.runs.study import Study
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import Job, SweepSettings
from hones.tabular import Table, together
from hones.tasks.base import mean_over_items
from hones.tasks.plain_text import PlainText
from hones.views import terminal
from hones.views.report.summary import selectivity_sentences
from hones.views.selectivity import costs_chart, crossed, selective_chart

PLANTED = "planted-llava-1"


def measured(arms: Mapping[str, np.ndarray], seed: int = 0) -> Measurement:
    """Items scored 0 or 1 under every arm."""
    statistics = {arm: np.stack([x, np.ones_like(x)], -1)[None] for arm, x in arms.items()}
    return Measurement(statistics, mean_over_items, seed)


def right(share: float, items: int = 100) -> np.ndarray:
    """Of so many items that share right, the first ones."""
    return (np.arange(items) < round(share * items)).astype(float)


def beside(*others: Measurement, text: Measurement | None = None) -> Beside:
    return Beside([(make_task(name), x) for name, x in zip(("ocr", "caption"), others, strict=False)], text, guess=6.0)


def plain_text(before: float, after: float) -> Measurement:
    """Twelve paragraphs of 100 tokens."""
    arms = {UNEDITED: before, "neurons": after}
    statistics = {arm: np.tile([-100 * loss, 100.0], (1, 12, 1)) for arm, loss in arms.items()}
    return Measurement(statistics, PlainText({}).score, 0)


ABOVE = Interval(0.5, 0.4, 0.6)
OWN = measured({UNEDITED: right(0.8), "neurons": right(0.2)})


def test_selective_drop_is_the_own_share_minus_the_largest_other() -> None:
    few, some = (measured({UNEDITED: right(0.5), "neurons": right(after)}, 1) for after in (0.45, 0.4))
    found = beside(few, some).of(OWN, "neurons", ABOVE)
    assert found.selective_drop is not None
    assert found.selective_drop.value == pytest.approx(0.6 / 0.8 - 0.1 / 0.5)
    assert 0.2 < found.selective_drop.low < found.selective_drop.value < found.selective_drop.high < 0.8
    assert found.general is False
    assert [other.relative_drop.value for other in found.others if other.relative_drop] == pytest.approx([10, 20])


def test_what_cannot_be_lost_is_no_rival() -> None:
    """A task that the model cannot do, as another one or as its own; and where no other is asked nothing is said."""
    nothing = measured({UNEDITED: right(0), "neurons": right(0)})
    found = beside(nothing).of(OWN, "neurons", ABOVE)
    assert found.selective_drop is None and found.general is None and found.others[0].relative_drop is None
    assert beside().of(OWN, "neurons", ABOVE).general is None
    assert beside(OWN).of(nothing, "neurons", ABOVE).selective_drop is None


def test_a_set_that_costs_others_as_much_is_general() -> None:
    everything = measured({UNEDITED: right(0.6), "neurons": right(0)})
    spared = measured({UNEDITED: right(0.6), "neurons": right(0.6)})
    found = beside(spared, everything).of(OWN, "neurons", ABOVE)
    assert found.general and found.selective_drop is not None and found.selective_drop.value == pytest.approx(-0.25)
    assert "GENERAL" in found.sentence()
    no_more_than_chance = beside(everything).of(OWN, "neurons", Interval(0.1, -0.1, 0.3))
    assert no_more_than_chance.general is False


@pytest.mark.parametrize(
    ("before", "after", "general"), [(3.0, 3.1, False), (3.0, 6.0, True), (6.5, 9.0, False)], ids=str
)
def test_plain_text_counts_where_it_is_read(before: float, after: float, general: bool) -> None:
    """As a share of a token's probability; not at all where the model reads it worse than a uniform guess, 6 nats."""
    spared = measured({UNEDITED: right(0.6), "neurons": right(0.6)})
    found = beside(spared, text=plain_text(before, after)).of(OWN, "neurons", ABOVE)
    assert found.general is general and found.plain_text is not None
    assert found.plain_text.increase.value == pytest.approx(after - before)
    assert found.plain_text.share_lost.value == pytest.approx(100 * (1 - np.exp(before - after)))
    assert ("plain text says nothing" in found.sentence()) is (before > 6)
    assert (found.rows()[-1]["relative_drop"] is None) is (before > 6), "a share of what is below chance"
    alone = beside(text=plain_text(before, after)).of(OWN, "neurons", ABOVE)
    assert alone.general is (True if general else None), "without other tasks it can be said that it is, not that not"


def test_the_interval_covers() -> None:
    """Items right or wrong by chance: the true difference of shares lies in some 95 of 100 intervals."""
    rng = np.random.default_rng(0)
    true = 0.5 - 0.2
    covered = 0
    for seed in range(60):
        own, other, spared = (
            measured({UNEDITED: before, "neurons": before * (rng.random(80) < kept)}, seed)
            for kept in (0.5, 0.8, 1.0)
            for before in [(rng.random(80) < 0.9).astype(float)]
        )
        found = beside(other, spared).of(own, "neurons", ABOVE).selective_drop
        assert found is not None
        covered += found.low <= true <= found.high
    assert 52 <= covered <= 60


# On a model whose sets are known


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[VLM, Plant, dict[str, Job]]:
    files = write_shapes(tmp_path_factory.mktemp("planted"), {"discovery": 1, "dev": 1, "test": 12}, seed=5)
    items = load_items(files["test"])
    tasks = {name: make_task(name) for name in ("vqa", "ocr")}
    jobs: dict[str, Job] = {name: (task, task.examples(items)[0]) for name, task in tasks.items()}
    return load_vlm(PLANTED), load_plant(PLANTED), jobs


def test_a_planted_set_is_selective_and_one_that_ends_all_is_general(
    planted: tuple[VLM, Plant, dict[str, Job]], tmp_path: Path
) -> None:
    vlm, plant, jobs = planted
    task, examples = jobs["ocr"]
    own = plant.sets["ocr"]
    result = evaluate_masking(vlm, task, examples, own, draws=1, others=[jobs["vqa"]])
    found = result.selectivity
    assert found is not None and found.selective_drop is not None and result.relative_drop is not None
    assert found.selective_drop.value == pytest.approx(result.relative_drop.value / 100, abs=0.2)
    assert found.selective_drop.value > 0.7 and found.general is False
    everything = evaluate_masking(vlm, task, examples, [*own, *plant.sets["vqa"]], draws=1, others=[jobs["vqa"]])
    assert everything.selectivity is not None and everything.selectivity.general
    assert everything.absolute_drop.low > 0
    # what is measured of the task itself does not depend on who is asked beside
    alone = evaluate_masking(vlm, task, examples, own, draws=1)
    assert alone.absolute_drop == result.absolute_drop and alone.control == result.control
    # as a file, and as a file of a version that did not measure it
    write_result(tmp_path / "masking.json", result)
    assert read_result(tmp_path / "masking.json", MaskingResult) == result
    text = (tmp_path / "masking.json").read_text()
    older = text[: text.index(',\n "selectivity"')] + "\n}\n"
    (tmp_path / "masking.json").write_text(older)
    assert read_result(tmp_path / "masking.json", MaskingResult).selectivity is None


def test_the_smallest_budget_is_that_of_trying_them_all(planted: tuple[VLM, Plant, dict[str, Job]]) -> None:
    """Twenty neurons of no use are ranked before the planted ones."""
    vlm, plant, jobs = planted
    task, examples = jobs["ocr"]
    layers, _, width = vlm.anatomy.shape
    useless = [site for sites in plant.decoys.values() for site in sites]
    useless += [(0, i) for i in range(width) if (0, i) not in {*plant.sets["ocr"], *useless}][: 20 - len(useless)]
    ranked = [*useless[:20], *plant.sets["ocr"]]
    importance = np.zeros((layers, width), dtype=np.float32)
    for place, site in enumerate(ranked):
        importance[site] = len(ranked) - place
    found = smallest_budget(vlm, task, examples, importance)
    every = {n: Intervention(masked=frozenset(ranked[:n])) for n in range(1, len(ranked) + 1)}
    (all_of_them,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE, **every}, seed=0)
    base = all_of_them.value(UNEDITED)
    halves = [n for n in every if all_of_them.value(n) <= base / 2]
    assert 20 < min(halves) <= found.neurons <= 1.1 * min(halves) + 1 and found.neurons in halves
    assert found.ratio == found.neurons / importance.size and dict(found.tried)[found.neurons] >= 0.5
    assert f"{found.neurons} neurons" in str(found)
    for place in range(20, len(ranked)):
        importance[ranked[place]] = 0
    with pytest.raises(TaskStops, match=r"masking 20 neurons costs .* expected half of it"):
        smallest_budget(vlm, task, examples, importance)


def test_a_ratio_is_a_share_or_auto() -> None:
    assert ratio_of_text("auto") is None and ratio_of_text("0.02") == 0.02
    for text in ("half", "0", "2"):
        with pytest.raises(HonesError, match="a share of all neurons"):
            ratio_of_text(text)


def test_a_finished_mask_grows_by_other_tasks_and_never_shrinks(
    planted: tuple[VLM, Plant, dict[str, Job]], tmp_path: Path
) -> None:
    vlm, plant, _ = planted
    files = write_shapes(tmp_path / "data", {"discovery": 1, "dev": 1, "test": 4}, seed=6)
    items = load_items(files["test"])
    vqa, ocr, caption = (make_task(name) for name in ("vqa", "ocr", "caption"))
    neurons = tmp_path / "neurons.json"
    rows = [RankedNeuron(rank, *site, 1.0) for rank, site in enumerate(plant.sets["vqa"], 1)]
    write_json(neurons, [vars(row) for row in rows])
    run = RunFolder(tmp_path / "run")
    study = Study(vlm, run, SweepSettings(max_new_tokens=8))
    alone = study.mask(vqa, items, neurons, 1)
    beside = study.mask(vqa, items, neurons, 1, [ocr])
    assert beside.selectivity is not None and [other.task for other in beside.selectivity.others] == ["ocr"]
    assert replace(beside, selectivity=alone.selectivity) == alone
    finished = run.record.stages["vqa/mask"].finished, (run.path / "vqa/masking.json").stat().st_mtime_ns
    assert study.mask(vqa, items, neurons, 1) == beside, "none asked: what is there stays"
    assert (run.record.stages["vqa/mask"].finished, (run.path / "vqa/masking.json").stat().st_mtime_ns) == finished
    with pytest.raises(HonesError, match="also holds ocr"):
        study.mask(vqa, items, neurons, 1, [caption])
    with pytest.raises(HonesError, match="also vqa; expected tasks other than vqa"):
        study.mask(vqa, items, neurons, 1, [vqa])
    both = study.mask(vqa, items, neurons, 1, [ocr, caption])
    assert both.selectivity is not None and len(both.selectivity.others) == 2
    assert [*(run.path / "journal").glob("*")] == []
    # the smallest set by a method, found on these items and known to later stages
    found = study.neurons(ocr, items, None, None, method=METHODS["atp"])
    assert run.record.stages["ocr/neurons"].fingerprint["ratio"] == "auto"
    assert run.record.ratio_of("ocr") == len(found) / vlm.anatomy.total_neurons
    assert study.neurons(ocr, items, None, None, method=METHODS["atp"]) == found
    masked = study.mask(ocr, items, run.path / "ocr/neurons.json", 1)
    assert masked.masked.value <= masked.baseline.value / 2


# As people see it


def beside_others(general: bool, ocr: float = 2.0) -> Selectivity:
    """A set of vqa, measured on two other tasks and plain text."""
    level, drop = Interval(0.9, 0.85, 0.95), Interval(0.02, -0.01, 0.05)
    others = tuple(
        OtherTask(task, "anls", 50, level, level, drop, Interval(lost, lost - 1, lost + 1))
        for task, lost in (("ocr", ocr), ("caption", 1.0))
    )
    text = PlainTextLoss(12, Interval(3.5, 3.2, 3.8), Interval(3.6, 3.3, 3.9), drop, Interval(2.0, -1.0, 4.9), 10.8)
    return Selectivity(others, text, Interval(0.25, -0.02 if general else 0.1, 0.4), general)


def lines_of(*tables: Table) -> list[str]:
    """As a terminal of 80 columns shows them."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal.show(*tables))
    return console.export_text().splitlines()


@pytest.mark.parametrize("general", [False, True])
def test_a_mask_says_what_it_costs_elsewhere(general: bool) -> None:
    around = Interval(0.25, 0.2, 0.3)
    result = replace(make_masking(around, around), selectivity=beside_others(general))
    lines = lines_of(together([("vqa", result)]), *result.tables()[1:])
    text = " ".join(" ".join(lines).split())
    assert "selective drop +0.25" in text and "ocr" in text and "plain text" in text and "…" not in text
    assert ("GENERAL" in text) is general
    both = [("vqa", result), ("ocr", result)]
    text = " ".join(lines_of(*crossed(both)))
    assert "…" not in text and ("general" in text.partition("general: others")[0]) is general
    said = " ".join(selectivity_sentences("vqa", result))
    assert "selective drop of 0.25" in said and ("The set is general" in said) is general
    chart = costs_chart(both)
    assert chart is not None and len(chart.table.rows) == 8 and len(chart.drawing.labels) == 8
    assert any("neurons of vqa on ocr: 2.0 [1.0, 3.0] %" in label for label in chart.drawing.labels.values())
    older = replace(result, selectivity=None)
    assert crossed([("vqa", older)]) == [] and costs_chart([("vqa", older)]) is None and len(older.tables()) == 1
    assert [*selectivity_sentences("vqa", older)] == []


def test_a_comparison_says_what_the_same_masks_cost_elsewhere() -> None:
    plain = make_comparison("vqa")
    methods = tuple(
        replace(m, selectivity=beside_others(general=i % 2 == 1, ocr=float(i))) for i, m in enumerate(plain.methods)
    )
    curves = tuple(replace(c, selectivity=(beside_others(False),) * len(c.ratios)) for c in plain.curves)
    comparison = replace(plain, methods=methods, curves=curves)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal.view(comparison))
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert "selective drop by share masked" in text and text.count("general") >= 4
    along = comparison.table("curves")
    lost = [column.heading for column in along.columns if column.heading.endswith(" lost, %")]
    assert lost == ["ocr lost, %", "caption lost, %", "plain text lost, %"]
    assert {row["on ocr"].value for row in along.rows} == {2.0}
    chart = selective_chart(comparison)
    assert chart is not None and len(chart.drawing.labels) == len(methods)
    assert any(label.endswith("general") for label in chart.drawing.labels.values())
    assert selective_chart(plain) is None and len(plain.tables()) == 2
