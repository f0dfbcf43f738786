"""Both directions and selective drop on the leaderboard: by the definitions, in loops, and nothing else changes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_benchmark import PLANT, SETTINGS, TASK, contenders
from test_benchmark import made_up as made_up
from test_benchmark import variant as variant
from test_cli import call

import hones.benchmark.further as further_module
from hones import evaluate_masking, make_task
from hones.benchmark.aggregate import summarise, value_of
from hones.benchmark.metrics import BUDGETS
from hones.benchmark.page import write_page
from hones.benchmark.results import FURTHER, Benchmark
from hones.benchmark.scored import SEED, Scored
from hones.benchmark.stage import Settings, score_variants
from hones.benchmark.variants import Variant, pictures
from hones.files import read_npy
from hones.method.keeping import evaluate_keeping
from hones.models.vlm import VLM
from hones.rivals.both import areas_of, compare_both
from hones.rivals.compare import Ranking
from hones.runs.artifacts import read_result
from hones.stats import Interval, PairedBootstrap, Share
from hones.views.markdown import markdown

ROOT = Path(__file__).parents[1]
OTHER = make_task("caption")
ONE = replace(SETTINGS, seeds=(0,))
ASKED = replace(ONE, both=True, also=(TASK, OTHER))


def test_the_statistics_are_those_of_keeping_and_masking(
    variant: Variant, vlms: dict[str, VLM], tmp_path: Path
) -> None:
    vlm, planted = vlms["qwen"], len(PLANT.sets["retrieval"])
    found = score_variants([variant], [TASK], contenders("dvp"), ASKED, tmp_path)
    test = pictures(tmp_path / "data", "test", 4, 0)
    (examples, _), (of_other, _) = TASK.examples(test), OTHER.examples(test)
    total = vlm.anatomy.total_neurons
    for s in found:
        folder = "own-known" if s.cell.method == "known" else s.cell.method
        place = tmp_path / "made-up/seed-0/retrieval/methods" / folder
        importance = read_npy(place / "neuron_importance.npy")
        assert s.both is not None and s.both.shape[0] == 2 + 2 * len(BUDGETS)
        ratios = [max(1, round(multiple * planted)) / total for multiple in BUDGETS]
        whole = compare_both(vlm, TASK, examples, [Ranking("m", (importance,), 0.0)], budgets=ratios)
        of_task = [float(TASK.score(x.sum(0))) for x in s.both]
        (curve,) = whole.curves
        levels = [whole.whole, whole.empty, *curve.kept, *curve.removed]
        assert of_task == pytest.approx([level.value for level in levels], abs=1e-6)
        rows = json.loads((place / "neurons.json").read_text())
        sites = [(row["layer"], row["neuron"]) for row in rows]
        alone = evaluate_keeping(vlm, TASK, examples, sites, draws=1)
        at = 2 + BUDGETS.index(1.0)
        by_hand = (alone.kept.value, alone.removed.value)
        assert (of_task[at], of_task[at + len(BUDGETS)]) == pytest.approx(by_hand, abs=1e-6)
        ((other, statistics),) = s.others
        assert other is OTHER, "not the task itself"
        masked = evaluate_masking(vlm, OTHER, of_other, sites, draws=1)
        of_caption = [float(OTHER.score(x.sum(0))) for x in statistics]
        assert of_caption == pytest.approx([masked.baseline.value, masked.masked.value], abs=1e-6)


def same(a: Scored, b: Scored) -> bool:
    assert a.both is not None and b.both is not None
    return np.array_equal(a.both, b.both)


def test_what_is_there_is_read_and_the_cells_stay(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without them, as every earlier version left it, is gone on with; its cells are not touched."""
    methods = contenders("dvp")[:1]
    before = score_variants([variant], [TASK], methods, ONE, tmp_path)
    cells = {file: file.read_bytes() for file in tmp_path.rglob("cell.json")}
    asked = score_variants([variant], [TASK], methods, ASKED, tmp_path)
    assert [s.cell for s in asked] == [s.cell for s in before] and cells
    assert {file: file.read_bytes() for file in cells} == cells
    assert not list(tmp_path.rglob("journal/*.jsonl"))
    swept: list[int] = []
    measure = further_module.measure

    def counted(*args: Any, **options: Any) -> Any:
        swept.append(len(args[2]))
        return measure(*args, **options)

    monkeypatch.setattr(further_module, "measure", counted)
    again = score_variants([variant], [TASK], methods, ASKED, tmp_path)
    assert not swept and same(again[0], asked[0])
    more = score_variants([variant], [TASK], [*methods, *contenders("random")[:1]], ASKED, tmp_path)
    assert swept == [2 + 2 * len(BUDGETS), 2], "only the new method"
    assert same(more[0], asked[0])
    alone = score_variants([variant], [TASK], methods, ONE, tmp_path)
    assert alone[0].both is None and not alone[0].others and not alone[0].further


@pytest.fixture
def measured(made_up: list[Scored]) -> list[Scored]:
    """The made-up cells with made-up statistics of both directions and of another task."""
    rng = np.random.default_rng(8)

    def arm(p: float) -> np.ndarray:
        return np.stack([(rng.random(20) < p).astype(float), np.ones(20)], -1)

    found = []
    for s in made_up:
        level = s.cell.precision
        kept = [arm(0.1 + 0.7 * level * b / (1 + b)) for b in BUDGETS]
        replaced = [arm(0.9 - 0.7 * level * b / (1 + b)) for b in BUDGETS]
        both = np.stack([s.statistics[0], arm(0.05), *kept, *replaced])
        others = [(s.task, np.stack([arm(0.9), arm(0.8 - 0.3 * x)])) for x in (0.0, level)]
        found.append(replace(s, both=both, others=others))
    return found


def by_hand(s: Scored) -> dict[str, np.ndarray]:
    """Every number of a cell on all items and every resample, one weight vector at a time."""
    assert s.both is not None
    weights = np.concatenate([np.ones((1, 20)), PairedBootstrap(20, SEED).counts])

    def level(x: np.ndarray) -> np.ndarray:
        return np.array([(w @ x)[0] / (w @ x)[1] for w in weights])

    whole, empty, *arms = map(level, s.both)
    shares = [(arm - empty) / (whole - empty) for arm in arms]
    kept, replaced, at = shares[: len(BUDGETS)], shares[len(BUDGETS) :], BUDGETS.index(1.0)
    x = np.log(BUDGETS)

    def area(y: list[np.ndarray]) -> np.ndarray:
        parts = [(x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1)]
        return np.sum(parts, axis=0) / (x[-1] - x[0])

    lost = [(level(a) - level(b)) / level(a) for a, b in [s.statistics[[0, 2]], *(pair for _, pair in s.others)]]
    # resamples of another task are other ones: that of one place further along for each (`Share.beyond`)
    rolled = [np.concatenate([y[:1], np.roll(y[1:], k)]) for k, y in enumerate(lost[1:], 1)]
    return {
        "faithfulness": kept[at],
        "completeness": replaced[at],
        "cpr": area(kept),
        "cmd": area([np.abs(1 - y) for y in kept]),
        "selective_drop": lost[0] - np.maximum(*rolled),
    }


def test_a_cells_numbers_equal_a_loop_over_resamples(measured: list[Scored]) -> None:
    for s in measured[:4]:
        expected = by_hand(s)
        assert set(s.further) == set(expected) == set(FURTHER)
        for name, values in expected.items():
            np.testing.assert_allclose(s.further[name], values, atol=1e-9, err_msg=name)


def test_a_leaderboard_is_their_mean_with_intervals_over_items_too(measured: list[Scored]) -> None:
    found = summarise(measured)
    for board, model in zip(found.leaderboards, "ab", strict=True):
        for s in board.standings:
            cells = [x for x in measured if (x.cell.model, x.cell.method) == (model, s.method)]
            for name in FURTHER:
                interval = getattr(s, name)
                assert isinstance(interval, Interval)
                assert interval.value == pytest.approx(np.mean([x.further[name][0] for x in cells]))
                assert interval.low < interval.value < interval.high
    row = next(row for row in found.rows if (row.model, row.task, row.method) == ("a", "vqa", "good"))
    cells = [s for s in measured if (s.cell.model, s.cell.task, s.cell.method) == ("a", "vqa", "good")]
    assert row.cpr is not None and row.cpr.value == pytest.approx(np.mean([x.further["cpr"][0] for x in cells]))
    good, bad = (next(s for s in found.leaderboards[0].standings if s.method == name) for name in ("good", "bad"))
    assert value_of(good.cpr or 0.0) > value_of(bad.cpr or 0.0) and value_of(good.cmd or 0.0) < value_of(bad.cmd or 0.0)


def test_nothing_else_changes(made_up: list[Scored], measured: list[Scored], tmp_path: Path) -> None:
    plain, more = summarise(made_up), summarise(measured)
    for before, after in zip(plain.leaderboards, more.leaderboards, strict=True):
        emptied = [replace(s, **dict.fromkeys(FURTHER)) for s in after.standings]
        assert [*before.standings] == emptied
        assert after.table().columns[: len(before.table().columns)] == before.table().columns
        assert before.narrow() == [before.table()]
        names = {column.name for column in before.table().columns}
        assert not names & set(FURTHER)
        assert [table.name for table in after.narrow()] == ["leaderboard", "beside"]
    assert [replace(row, **dict.fromkeys(FURTHER)) for row in more.rows] == [*plain.rows]
    assert not {c.name for table in plain.tables() for c in table.columns} & set(FURTHER)
    assert {c.name for c in more.table("tasks").columns} >= set(FURTHER)
    pages = [write_page(tmp_path / f"{n}.md", found, "x")[0].read_text() for n, found in enumerate((plain, more))]
    assert all("CPR" not in page for page in pages[:1]) and "selective drop" in pages[1] and "| CPR | CMD |" in pages[1]
    text = str(more)
    assert "Both directions, and other tasks" in text and max(map(len, text.splitlines())) <= 100 and "…" not in text


def test_where_one_cell_has_no_scale_the_board_has_no_number(measured: list[Scored]) -> None:
    first = measured[0]
    assert first.both is not None
    hopeless = replace(first, both=np.stack([first.both[1], *first.both[1:]]))  # the whole model is as if empty
    assert set(hopeless.further) == {"selective_drop"}
    nothing = replace(first, others=[(first.task, np.stack([np.array([[0.0, 1.0]] * 20)] * 2))])
    assert "selective_drop" not in nothing.further
    board = summarise([hopeless, *measured[1:]]).leaderboards[0]
    by_method = {s.method: s for s in board.standings}
    assert by_method[first.cell.method].cpr is None and by_method[first.cell.method].selective_drop is not None
    assert sum(s.cpr is None for s in board.standings) == 1
    assert FURTHER["cpr"].text(by_method[first.cell.method].cpr) == "-"


def test_a_share_ahead_of_others_is_that_of_beyond() -> None:
    rng = np.random.default_rng(3)
    own, *others = (Share(0.4, rng.random(50)) for _ in range(3))
    ahead = own.ahead_of(others)
    assert ahead.interval == own.beyond(others)
    by_loop = [own.resampled[r] - max(others[k].resampled[r - k - 1] for k in (0, 1)) for r in range(50)]
    assert ahead.resampled == pytest.approx(by_loop)


def test_an_earlier_benchmark_is_read_and_shown_as_it_is() -> None:
    """The figures of the published page come from this file, rounded there to the third digit."""
    found = read_result(ROOT / "bench/results/planted-benchmark-cpu.json", Benchmark)
    page = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    for board in found.leaderboards:
        assert not any(column.name in FURTHER for column in board.table().columns)
        assert len(markdown(board.table()).splitlines()) == 2 + len(board.standings)
        for standing in board.standings:
            found_there = standing.average_precision
            assert isinstance(found_there, Interval)
            assert f"| {standing.method} | {found_there.value:.3f} {found_there.bounds('.2f')} | " in page


def test_areas_along_multiples_are_those_along_shares() -> None:
    """The axis is logarithmic: dividing every budget by N moves it and changes no area."""
    rng = np.random.default_rng(5)
    shares = [Share(float(rng.random()), rng.random(10)) for _ in BUDGETS]
    for a, b in zip(areas_of(BUDGETS, shares), areas_of([x * 10 / 3840 for x in BUDGETS], shares), strict=True):
        assert a is not None and b is not None and a.value == pytest.approx(b.value)


def test_the_command_line(
    variant: Variant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hones.benchmark.variants as variants_module

    monkeypatch.setattr(variants_module, "PLANTS", ("planted-a",))
    monkeypatch.setattr(variants_module, "load_plant", lambda name: replace(PLANT, name=name))
    monkeypatch.setattr(variants_module, "load_vlm", lambda name, device: variant.load())
    few = ("--task", "retrieval", "--candidates", 6, "--items", 3, "--test", 4, "--draws", 1, "--methods", "dvp,random")
    out = tmp_path / "run"
    assert call("benchmark", "planted", *few, "--both", "--also", "caption", "--out", out) == 0
    assert {file.name for file in out.rglob("*.npy")} >= {"both.npy", "also-caption.npy", "masked.npy"}
    assert "Leaderboard" in capsys.readouterr().out
    assert read_result(out / "benchmark.json", Benchmark).leaderboards[0].standings
    assert Settings().both is False and Settings().also == ()
    assert call("benchmark", "planted", *few, "--also", "chess", "--out", out) == 2
    assert "no task 'chess'" in " ".join(capsys.readouterr().err.split())
