"""The benchmark on random models with made-up plants: cells, resume, own functions, statistics, command line, page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import call

import hones.benchmark.stage as stage_module
import hones.benchmark.variants as variants_module
from hones import evaluate_masking, load_items, make_task
from hones.benchmark import run_benchmark, score_ranking
from hones.benchmark.aggregate import percentiles, sign_flip_p, summarise, value_of
from hones.benchmark.contenders import Contender, contender_of, contender_of_file, own_contender
from hones.benchmark.metrics import judge
from hones.benchmark.page import write_page
from hones.benchmark.results import Benchmark, Cell
from hones.benchmark.stage import Scored, Settings, score_variants
from hones.benchmark.variants import Variant, check_variant, pictures, planted_variants
from hones.errors import HonesError
from hones.files import read_npy
from hones.models.planted import Plant
from hones.models.vlm import VLM
from hones.rivals import make_method
from hones.runs.artifacts import read_result
from hones.stats import Interval
from hones.tasks.base import Task
from hones.tasks.retrieval import Retrieval
from hones.views.terminal import show

ROOT = Path(__file__).parents[1]
TASK = make_task("retrieval", candidates=6)
SETTINGS = Settings(items=3, test=4, seeds=(0, 1))


PLANT = Plant(
    name="made-up",
    base="qwen",
    role="report",
    sets={"retrieval": ((0, 1), (1, 2), (2, 3)), "vqa": ((0, 5), (2, 4))},
    general=((1, 1),),
    decoys={"loud": ((0, 0), (0, 2))},
    through={"retrieval": tuple((layer, head) for layer in range(3) for head in range(4))},
)


def known(plant: Plant, vlm: VLM, task: Task) -> np.ndarray:
    """An importance that is right, but for a loud decoy between the first and the second planted neuron."""
    found = np.zeros((3, vlm.anatomy.neurons))
    for n, site in enumerate(plant.sets[task.name]):
        found[site] = 10 - n
    found[0, 0] = 9.5
    return found


@pytest.fixture
def variant(vlms: dict[str, VLM]) -> Variant:
    return Variant(PLANT, lambda: vlms["qwen"])


def contenders(*names: str) -> list[Contender]:
    own = own_contender(lambda vlm, task, items: known(PLANT, vlm, task), "known")
    return [*(contender_of(make_method(name)) for name in names), own]


def test_cells_say_what_the_ranking_and_its_mask_give(variant: Variant, vlms: dict[str, VLM], tmp_path: Path) -> None:
    found = score_variants([variant], [TASK], contenders("hones", "dvp", "random"), SETTINGS, tmp_path)
    assert [(s.cell.seed, s.cell.method) for s in found] == [
        (seed, method) for seed in (0, 1) for method in ("hones", "dvp", "random", "known")
    ]
    planted, test = PLANT.sets["retrieval"], pictures(tmp_path / "data", "test", 4, 0)
    examples, _ = TASK.examples(test)
    assert len({test.sha256, *(pictures(tmp_path / "data", "discovery", 3, seed).sha256 for seed in (0, 1))}) == 3
    for s in found:
        c = s.cell
        place = tmp_path / "made-up" / f"seed-{c.seed}" / "retrieval" / "methods"
        folder = place / ("own-known" if c.method == "known" else c.method)
        importance = read_npy(folder / "neuron_importance.npy")
        truth = judge(importance, planted, PLANT.general, {"loud": PLANT.decoys["loud"]})
        assert (c.average_precision, c.precision, c.wide_recall) == (
            truth.average_precision,
            truth.precision,
            truth.wide_recall,
        )
        assert c.others["decoy loud"] == truth.others["loud"] and set(c.others) == {
            "decoy loud",
            "shared by all",
            "of other tasks",
        }
        rows = json.loads((folder / "neurons.json").read_text())
        chosen = [(row["layer"], row["neuron"]) for row in rows]
        assert c.masked_neurons == len(chosen) <= 3 == c.planted
        for sites, metric in ((chosen, c.masked), (planted, c.masked_planted)):
            alone = evaluate_masking(vlms["qwen"], TASK, examples, sites, draws=1)
            assert (alone.baseline.value, alone.masked.value) == pytest.approx((c.baseline, metric), abs=1e-6)
        assert read_result(folder / "cell.json", Cell) == c
        assert c.head_seconds == (c.head_seconds if c.method == "hones" else 0) and c.refused is None
        assert (c.through is None) == (c.method != "hones")
    ours = [s.cell for s in found if s.cell.method == "known"]
    assert [c.average_precision for c in ours] == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3] * 2)
    assert [c.precision for c in ours] == pytest.approx([2 / 3] * 2) and {c.wide_recall for c in ours} == {1}
    assert {c.others["decoy loud"] for c in ours} == {1}
    first, second = (read_npy(next(tmp_path.glob(f"*/seed-{n}/retrieval/methods/random/*e.npy"))) for n in (0, 1))
    assert not np.array_equal(first, second)


def test_a_second_run_computes_nothing_and_a_new_method_only_itself(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(SETTINGS, seeds=(0,))
    methods = [contender_of(make_method(name)) for name in ("hones", "random")]
    before = score_variants([variant], [TASK], methods, one, tmp_path)
    swept, ranked = [], []
    sweep, rank = stage_module.run_sweep, stage_module.rank
    monkeypatch.setattr(stage_module, "run_sweep", lambda *a: swept.append(len(a[3])) or sweep(*a))
    monkeypatch.setattr(make_method("hones"), "importance", lambda context: ranked.append("hones"))
    again = score_variants([variant], [TASK], methods, one, tmp_path)
    assert [s.cell for s in again] == [s.cell for s in before] and not swept
    assert all(np.array_equal(a.statistics, b.statistics) for a, b in zip(again, before, strict=True))
    more = score_variants([variant], [TASK], [*methods, contender_of(make_method("dvp"))], one, tmp_path)
    assert [s.cell for s in more[:2]] == [s.cell for s in before] and swept == [3] and not ranked
    assert rank is stage_module.rank
    with pytest.raises(HonesError, match=r"holds retrieval/methods/hones/cell with planted"):
        moved = replace(PLANT, general=((2, 2),))
        score_variants([Variant(moved, variant.load)], [TASK], methods, one, tmp_path)


def test_a_run_killed_in_its_masks_has_its_rankings(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, one = [contender_of(make_method("dvp"))], replace(SETTINGS, seeds=(0,))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "run_sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            score_variants([variant], [TASK], methods, one, tmp_path)
    assert not list(tmp_path.rglob("cell.json"))
    monkeypatch.setattr(make_method("dvp"), "importance", killed)
    (found,) = score_variants([variant], [TASK], methods, one, tmp_path)
    assert found.cell.method == "dvp"


def test_heads_that_guide_to_nothing_are_named_and_scored_as_no_preference(variant: Variant, tmp_path: Path) -> None:
    one = replace(SETTINGS, seeds=(0,))
    methods = [contender_of(make_method(name)) for name in ("hones", "dvp")]
    found = run_benchmark([variant], [make_task("vqa")], methods, one, tmp_path)  # a random model answers nothing
    cells = {c.method: c for c in found.cells}
    hones = cells["hones"]
    assert "no head's replacement lowers" in (hones.refused or "") and cells["dvp"].refused is None
    assert hones.precision == pytest.approx(2 / hones.neurons) and hones.ranked == hones.masked_neurons == 0
    (board,) = found.leaderboards
    assert {s.method: s.refused for s in board.standings} == {"hones": 1, "dvp": 0}
    assert {s.method: s.relative for s in board.standings} == {"hones": None, "dvp": None}  # P's mask lowers nothing
    assert "hones: 1 of 1" in (tmp_path / "leaderboard.md").read_text()


def _plus_one(module: Any, args: Any, out: Any) -> Any:
    return out + 1


def with_hook(vlm: VLM, task: Task, items: Sequence[Any]) -> np.ndarray:
    vlm.anatomy.layers[0].down_proj.register_forward_hook(_plus_one)
    return np.ones((3, vlm.anatomy.neurons))


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (lambda vlm, task, items: None, "mine returns NoneType; expected a finite number for each of 3 x"),
        (lambda vlm, task, items: np.ones((2, 5)), r"mine returns shape \[2, 5\]; expected"),
        (lambda vlm, task, items: np.full((3, vlm.anatomy.neurons), np.nan), "numbers that are NaN or infinite"),
        (lambda vlm, task, items: np.full((3, vlm.anatomy.neurons), "x"), "mine returns an array of <U1"),
        (with_hook, "mine has changed the model"),
    ],
)
def test_what_a_function_must_return(variant: Variant, tmp_path: Path, rank: Callable[..., Any], line: str) -> None:
    hooks = variant.load().anatomy.layers[0].down_proj._forward_hooks
    try:
        with pytest.raises(HonesError, match=line):
            run_benchmark([variant], [TASK], [own_contender(rank, "mine")], replace(SETTINGS, seeds=(0,)), tmp_path)
    finally:
        hooks.clear()


def test_a_tensor_of_any_dtype_on_any_device_is_an_importance(variant: Variant, tmp_path: Path) -> None:
    def rank(vlm: VLM, task: Task, items: Sequence[Any]) -> torch.Tensor:
        assert len(items) == 3 and items[0].target == "Yes" and items[0].open_picture().mode == "RGB"
        weight = torch.tensor(known(PLANT, vlm, task), dtype=torch.bfloat16, device=vlm.device)
        return weight.requires_grad_()

    (cell,) = run_benchmark(
        [variant], [TASK], [own_contender(rank, "mine")], replace(SETTINGS, seeds=(0,)), tmp_path
    ).cells
    assert cell.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_what_cannot_take_part(tmp_path: Path, vlms: dict[str, VLM]) -> None:
    with pytest.raises(HonesError, match="the name hones is taken"):
        own_contender(len, "hones")
    with pytest.raises(HonesError, match="mine is int"):
        own_contender(3, "mine")
    for names in ([], ["dvp", "dvp"]):
        with pytest.raises(HonesError, match="expected one or more"):
            score_variants([], [], [contender_of(make_method(name)) for name in names], SETTINGS, tmp_path)
    (tmp_path / "own.py").write_text("x = 1\ndef rank(vlm, task, items):\n    return 1\n")
    for given, line in (
        ("own.py", "--method own.py; expected FILE.py:FUNCTION"),
        (f"{tmp_path}/absent.py:rank", "cannot read the method"),
        (f"{tmp_path}/own.py:x", "has no function 'x'"),
    ):
        with pytest.raises(HonesError, match=line):
            contender_of_file(given)
    before = contender_of_file(f"{tmp_path}/own.py:rank")
    assert before.name == "own:rank"
    (tmp_path / "own.py").write_text("def rank(vlm, task, items):\n    return 2\n")
    after = contender_of_file(f"{tmp_path}/own.py:rank")
    assert after.name == before.name and after.folder != before.folder
    for settings in (Settings(items=0), Settings(seeds=()), Settings(seeds=(1, 1))):
        with pytest.raises(HonesError, match="expected at least one of each"):
            settings.check()
    with pytest.raises(HonesError, match="made-up has nothing planted for caption"):
        check_variant(PLANT, vlms["qwen"], [make_task("caption")])
    with pytest.raises(HonesError, match="no neuron"):
        check_variant(replace(PLANT, general=((9, 9),)), vlms["qwen"], [TASK])


def test_pictures_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / ".discovery-2-seed-5.1.part").mkdir(parents=True)
    first = pictures(tmp_path, "discovery", 2, 5)
    assert len(first.items) == 2 and pictures(tmp_path, "discovery", 2, 5).sha256 == first.sha256
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["discovery-2-seed-5"]


class Share(Retrieval):
    """A metric that is the mean of one statistic."""

    def score(self, sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]


@pytest.fixture
def made_up() -> list[Scored]:
    """Two models x two tasks x three seeds, three methods."""
    rng, found = np.random.default_rng(4), []
    for model, task, seed, method in product(("a", "b"), ("vqa", "ocr"), (0, 1, 2), ("hones", "good", "bad")):
        level = {"hones": 0.5, "good": 0.8, "bad": 0.1}[method] + 0.1 * float(rng.random())
        hits = np.stack([rng.random(20) < p for p in (0.9, 0.2, 0.9 - 0.7 * level)]).astype(float)
        statistics = np.stack([hits, np.ones_like(hits)], -1)
        baseline, masked_planted, masked = hits.mean(1).tolist()
        cell = Cell(
            model,
            "tiny",
            "report" if model == "a" else "select",
            task,
            seed,
            method,
            10,
            100,
            level,
            level,
            level,
            level,
            (level,) * 9,
            {"shared by all": 1.0},
            90,
            "share",
            8,
            20,
            baseline,
            masked,
            masked_planted,
            10 if method != "bad" else 5,
            1.0,
            2.0 if method == "hones" else 0.0,
        )
        found.append(Scored(cell, Share(), statistics))
    return found


def test_leaderboards_are_means_over_cells_with_intervals_over_pairs_and_seeds(made_up: list[Scored]) -> None:
    found = summarise(made_up)
    assert [b.role for b in found.leaderboards] == ["report", "select"]
    for board, model in zip(found.leaderboards, "ab", strict=True):
        cells = [s.cell for s in made_up if s.cell.model == model]
        assert board.models == (model,) and board.tasks == ("vqa", "ocr") and board.chance == pytest.approx(0.1)
        assert [s.method for s in board.standings] == ["good", "hones", "bad"]
        for s in board.standings:
            own = [c for c in cells if c.method == s.method]
            assert s.cells == 6 and value_of(s.precision) == pytest.approx(np.mean([c.precision for c in own]))
            assert isinstance(s.average_precision, Interval)
            assert s.average_precision.low <= s.average_precision.value <= s.average_precision.high
            per_neuron = [np.mean([(c.baseline - x) / n for c in own for x, n in of(c)]) for of in (masks, planted)]
            assert s.relative is not None and value_of(s.relative) == pytest.approx(per_neuron[0] / per_neuron[1])
            if s.method == "hones":
                assert s.ahead is None and s.p_value is None
            else:
                assert s.ahead is not None and s.p_value == 0.5  # two pairs, both on one side
                hones = [c for c in cells if c.method == "hones"]
                assert s.ahead.value == pytest.approx(
                    np.mean([c.precision for c in own]) - np.mean([c.precision for c in hones])
                )
                assert (s.ahead.low > 0) == (s.method == "good")
    row = next(r for r in found.rows if (r.model, r.task, r.method) == ("a", "ocr", "good"))
    own = [s.cell for s in made_up if (s.cell.model, s.cell.task, s.cell.method) == ("a", "ocr", "good")]
    levels = [c.precision for c in own]
    assert (row.precision.value, row.precision.low, row.precision.high) == (
        pytest.approx(np.mean(levels)),
        min(levels),
        max(levels),
    )
    assert (
        row.drop.value == pytest.approx(np.mean([c.baseline - c.masked for c in own])) and row.drop.low < row.drop.value
    )
    assert row.planted_drop.value == pytest.approx(own[0].baseline - own[0].masked_planted)
    assert (row.seeds, row.planted, row.others) == (3, 10, {"shared by all": 1.0})


def masks(c: Cell) -> list[tuple[float, int]]:
    return [(c.masked, c.masked_neurons)]


def planted(c: Cell) -> list[tuple[float, int]]:
    return [(c.masked_planted, c.planted)]


def test_the_interval_equals_a_loop_over_resamples(made_up: list[Scored]) -> None:
    """Resampling pairs, then seeds, one at a time; the ends agree up to the noise of 2,000 resamples."""
    rng = np.random.default_rng(1)
    values = rng.random((4, 1)) + 0.2 * rng.random((4, 3))
    first = made_up[0]
    cells = [
        replace(first.cell, model=str(p), seed=s, average_precision=float(values[p, s]))
        for p, s in product(range(4), range(3))
    ]
    (board,) = summarise([replace(first, cell=c) for c in cells]).leaderboards
    found = board.standings[0].average_precision
    means = []
    for _ in range(4000):
        pairs = [values[rng.integers(4)] for _ in range(4)]
        means.append(np.mean([np.mean([pair[rng.integers(3)] for _ in range(3)]) for pair in pairs]))
    expected = percentiles(float(values.mean()), np.array(means))
    assert isinstance(found, Interval)
    assert found.as_dict() == pytest.approx(expected.as_dict(), abs=0.02)


def test_sign_flips_equal_their_enumeration() -> None:
    rng = np.random.default_rng(2)
    for pairs in (1, 2, 5, 8):
        d = rng.normal(0.3, 1, pairs)
        flipped = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=pairs)]
        assert sign_flip_p(d) == pytest.approx(np.mean([f >= abs(d.sum()) - 1e-9 for f in flipped]))
    assert sign_flip_p(np.ones(8)) == 2 / 256
    assert sign_flip_p(np.zeros(3)) == 1 and sign_flip_p(np.ones(20)) == pytest.approx(1 / 65536)


def test_one_cell_has_no_interval(made_up: list[Scored]) -> None:
    one = [s for s in made_up if (s.cell.model, s.cell.task, s.cell.seed) == ("a", "ocr", 0)]
    (board,) = summarise(one).leaderboards
    assert all(isinstance(s.average_precision, float) and isinstance(s.relative, float) for s in board.standings)
    assert all(s.ahead is None for s in board.standings)


def test_tables_page_and_chart(made_up: list[Scored], tmp_path: Path) -> None:
    from rich.console import Console

    named = [
        replace(s, cell=replace(s.cell, method="knowledge-neurons" if s.cell.method == "good" else s.cell.method))
        for s in made_up
    ]
    found = summarise(named)
    console = Console(width=100, record=True)
    console.print(show(*(board.table() for board in found.leaderboards), found.model_table("a")))
    text = console.export_text()
    assert (
        all(name in text for name in ("knowledge-neurons", "p=.5", "chance 0.100", "vqa, |P| = 10")) and "…" not in text
    )
    assert "knowledge-neurons" in str(found)
    assert [table.name for table in found.tables()] == ["leaderboard", "tasks", "cells"]
    assert found._repr_html_().count("<table>") == 3
    written = write_page(tmp_path / "page.md", found, "hones benchmark planted --out runs/a")
    assert [f.name for f in written] == ["page.md", "page-report.svg", "page-select.svg"]
    page = written[0].read_text()
    assert all(part in page for part in ("`hones benchmark planted --out runs/a`", "](page-report.svg)", "### b, ocr"))
    assert page.index("kept aside to report on") < page.index("methods may be chosen")
    assert all(
        len(line.split("|")) == len(page.splitlines()[n - 1].split("|"))
        for n, line in enumerate(page.splitlines())
        if line.startswith("| ---")
    )
    assert "knowledge-neurons" in written[1].read_text()


def test_either_copy_has_a_column_where_every_cell_has_copies(made_up: list[Scored], tmp_path: Path) -> None:
    def page(scored: list[Scored]) -> str:
        return write_page(tmp_path / "page.md", summarise(scored), "hones benchmark planted")[0].read_text()

    assert "either copy" not in page(made_up)
    copied = [replace(s, cell=replace(s.cell, either=s.cell.seed / 2)) for s in made_up]
    found = summarise(copied)
    assert all(
        value_of(s.either) == 0.5 for board in found.leaderboards for s in board.standings if s.either is not None
    )
    assert all(row.either == Interval(0.5, 0.0, 1.0) for row in found.rows)
    assert page(copied).count("either copy") == 6
    some = [replace(s, cell=replace(s.cell, either=None)) if s.cell.task == "ocr" else s for s in copied]
    assert all(s.either is None for board in summarise(some).leaderboards for s in board.standings)


def test_copies_reach_the_cells(variant: Variant, tmp_path: Path) -> None:
    first, second, third = PLANT.sets["retrieval"]
    plant = replace(PLANT, copies={"retrieval": ((first, third), (second,))})
    one = replace(SETTINGS, seeds=(0,))
    (s,) = score_variants([replace(variant, plant=plant)], [TASK], contenders(), one, tmp_path)
    assert s.cell.either == 0.5  # the loud decoy stands before the second


@pytest.fixture
def fake_plants(monkeypatch: pytest.MonkeyPatch, vlms: dict[str, VLM]) -> None:
    """Two made-up plants of random models in place of the planted ones."""
    a, b = replace(PLANT, name="planted-a"), replace(PLANT, name="planted-b", role="select")
    plants = {plant.name: plant for plant in (a, b)}
    monkeypatch.setattr(variants_module, "PLANTS", tuple(plants))
    monkeypatch.setattr(variants_module, "load_plant", plants.__getitem__)
    monkeypatch.setattr(variants_module, "load_vlm", lambda name, device: vlms["qwen"])


FILE = """import torch
def rank(vlm, task, items):
    return torch.stack([layer.down_proj.weight.norm(dim=0) for layer in vlm.anatomy.layers])
"""


@pytest.mark.usefixtures("fake_plants")
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    few = ("--task", "retrieval", "--candidates", 6, "--items", 3, "--test", 3, "--draws", 1)
    own = ("--methods", "dvp,random", "--method", f"{tmp_path}/mine.py:rank")
    arguments = (
        "benchmark",
        "planted",
        *few,
        *own,
        "--out",
        tmp_path / "run",
        "--markdown",
        tmp_path / "docs/board.md",
    )
    assert call(*arguments, "--details") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("mine:rank", "models to report on", "models to select on", "planted-b"))
    content = json.loads((tmp_path / "run/benchmark.json").read_text())
    assert len(content["cells"]) == 6 and {b["role"] for b in content["leaderboards"]} == {"report", "select"}
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {"board.md", "board-report.svg", "board-select.svg"}
    assert "mine:rank" in (tmp_path / "docs/board.md").read_text()
    monkeypatch.setattr(stage_module, "run_sweep", None)
    assert call(*arguments, "--models", "planted-b") == 0
    assert read_result(tmp_path / "run/benchmark.json", Benchmark).leaderboards[0].role == "select"
    for wrong, line in (
        (("--models", "planted-c"), "no planted model 'planted-c'; expected one of planted-a, planted-b"),
        (("--models", "planted-a,planted-a"), "expected each model once"),
        (("--methods", "none"), "methods none; expected one or more"),
    ):
        capsys.readouterr()
        assert call("benchmark", "planted", *few, *wrong, "--out", tmp_path / "other") == 2
        assert line in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("fake_plants")
def test_the_example_of_the_docs_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/benchmark.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    small = code.replace(
        "score_ranking(rank",
        "score_ranking(rank, models=['planted-a'], tasks='retrieval', seeds=1, items=3, test=3, candidates=6",
    )
    assert small != code
    exec(small, {})
    out = capsys.readouterr().out
    assert "yours" in out and "hones" in out and "Leaderboard, models to report on" in out


@pytest.mark.usefixtures("fake_plants")
def test_score_ranking_takes_models_by_name_or_as_variants(variant: Variant, tmp_path: Path) -> None:
    def rank(vlm: VLM, task: Task, items: Sequence[Any]) -> np.ndarray:
        return known(PLANT, vlm, task)

    options: dict[str, Any] = {"tasks": "retrieval", "seeds": 1, "items": 3, "test": 3, "candidates": 6, "against": ()}
    found = score_ranking(rank, models=[variant, "planted-b"], out=tmp_path, **options)
    assert [b.models for b in found.leaderboards] == [("made-up",), ("planted-b",)]
    assert [c.method for c in found.cells] == ["yours", "yours"]
    flipped = score_ranking(lambda *a: -rank(*a), models=[variant], out=tmp_path, **options)
    assert flipped.cells[0].average_precision < found.cells[0].average_precision  # computed anew
    assert [v.plant.name for v in planted_variants()] == ["planted-a", "planted-b"]
    assert load_items(next(tmp_path.glob("data/test*/*.json"))).items
