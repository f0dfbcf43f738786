"""Controls and evidence of steering on random models: against each arm alone, the run folder and the command line."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_cli import call

from hones import (
    HonesError,
    SteeringSettings,
    evaluate_scales,
    learn_scales,
    load_items,
    make_task,
    select_neurons,
    write_shapes,
)
from hones.method.steering.controls import CONTROLS, GRID, SteeringContext, one_factor
from hones.method.steering.evidence import Arm, evaluate_arms, measure_elsewhere, spread
from hones.method.steering.results import QUANTILES, Evidence
from hones.method.steering.settings import Scales
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.runs.artifacts import write_neurons
from hones.runs.config import RunConfig, read_config
from hones.runs.ways import make_steering, make_steerings
from hones.stats import Interval, PairedBootstrap
from hones.sweep.run import SweepSettings, sweep
from hones.tasks.base import Example
from hones.views.terminal import view

TASK = make_task("retrieval", candidates=6)
NEURONS = [(0, 1), (0, 4), (1, 2), (2, 0), (2, 19)]
SETTINGS = SteeringSettings(learning_rate=0.05, epochs=1)
SWEEP = SweepSettings(max_new_tokens=3)


@pytest.fixture(scope="module")
def given(vlms: dict[str, VLM], shapes: dict[str, Path]) -> SteeringContext:
    examples, _ = TASK.examples(load_items(shapes["dev"], limit=3))
    return SteeringContext(vlms["qwen"], TASK, examples, NEURONS, SETTINGS, SWEEP)


@pytest.fixture(scope="module")
def test_examples(shapes: dict[str, Path]) -> list[Example]:
    return TASK.examples(load_items(shapes["test"], limit=4))[0]


class Killed(BaseException):
    """Nothing catches it."""


def random_scales(vlm: VLM, seed: int) -> Scales:
    """Strong enough to change the ranks of a random model."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (3, vlm.anatomy.neurons))
    return Scales({(layer, i): float(s) for (layer, i), s in np.ndenumerate(values)})


@pytest.fixture(scope="module")
def arms(vlms: dict[str, VLM]) -> list[Arm]:
    scales = [random_scales(vlms["qwen"], seed) for seed in range(4)]
    return [
        Arm("hones", tuple(scales[:2])),
        Arm("rand-neuron", tuple(scales[2:])),
        Arm("fixed-amp", (one_factor(NEURONS, 2.0),)),
        Arm("grid-search", (one_factor(NEURONS, 1.0),)),
    ]


# --- controls ---


def test_learned_ways_differ_in_their_set_and_beta_only(
    given: SteeringContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def learn(vlm, task, examples, neurons, settings, **_) -> Scales:
        seen[way] = (neurons, settings)
        assert (vlm, task, examples) == (given.vlm, given.task, given.examples)
        return Scales(dict.fromkeys(neurons, 0.0), (1.0,))

    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", learn)
    for way in ("hones", "no-kl", "rand-neuron", "ia3"):
        details = CONTROLS[way].make(given).details
        assert CONTROLS[way].learned
        assert details == {"losses": (1.0,), "epochs": [], "held_out": None, "epoch": None, "learned": None}
    layers, _, width = given.vlm.anatomy.shape
    assert seen["hones"] == (NEURONS, SETTINGS)
    assert seen["no-kl"] == (NEURONS, SETTINGS.model_copy(update={"beta": 0.0}))
    assert seen["ia3"] == ([(k, i) for k in range(layers) for i in range(width)], SETTINGS)
    drawn, settings = seen["rand-neuron"]
    assert settings == SETTINGS and len(set(drawn)) == len(NEURONS) and not set(drawn) & set(NEURONS)
    assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in NEURONS)
    way = "rand-neuron"
    other = replace(given, settings=SETTINGS.model_copy(update={"seed": 1}))
    CONTROLS[way].make(other)
    assert seen[way][0] != drawn, "another seed, another draw"


def test_hones_is_learn_scales_and_the_others_need_no_training(
    given: SteeringContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learn_scales(given.vlm, TASK, given.examples, NEURONS, SETTINGS)
    assert CONTROLS["hones"].make(given).scales == expected
    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", None)
    assert CONTROLS["base"].make(given).scales.values == {}
    assert CONTROLS["fixed-amp"].make(given).scales.values == dict.fromkeys(NEURONS, 1.0)


def test_grid_search_takes_the_factor_of_best_dev_metric(given: SteeringContext) -> None:
    vlm = given.vlm
    neurons = [(layer, i) for layer in range(3) for i in range(vlm.anatomy.neurons)]
    made = CONTROLS["grid-search"].make(replace(given, neurons=neurons))
    assert len(set(made.details["dev_metric"].values())) > 1, "the factors matter"
    metrics = {}
    for factor in GRID:  # each alone
        scales = dict.fromkeys(neurons, factor - 1)
        metrics[factor] = evaluate_scales(vlm, TASK, given.examples, Scales(scales), sweep=SWEEP).steered.value
    assert made.details["dev_metric"] == pytest.approx({f"{f:g}": m for f, m in metrics.items()})
    best = max(metrics.values())
    (chosen,) = {1 + s for s in made.scales.values.values()}
    assert metrics[chosen] == pytest.approx(best)
    equal = [f for f in GRID if metrics[f] == pytest.approx(best)]
    assert chosen == min(equal, key=lambda f: (abs(f - 1), f))
    assert set(made.scales.values) == set(neurons)


def test_ties_of_the_grid_go_to_the_model_itself(given: SteeringContext, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.ones((len(GRID), 3, len(TASK.statistic_names)), dtype=np.float32)
    for better, expected in (((), 1.0), ((1, 3), 0.75), ((0, 5), 0.5), ((5,), 2.0)):
        cells = flat.copy()
        cells[list(better), :, 0] = 1.5
        monkeypatch.setattr("hones.method.steering.controls.run_sweep", lambda *_, found=cells: found)
        made = CONTROLS["grid-search"].make(given)
        assert set(made.scales.values.values()) == {expected - 1}


def test_names(given: SteeringContext, tmp_path: Path) -> None:
    assert [w.name for w in make_steerings("ia3,base")] == ["hones", "ia3"]
    names = ["hones", "no-kl", "rand-neuron", "fixed-amp", "grid-search", "ia3"]
    assert [w.name for w in make_steerings("all,set:dvp")] == [*names, "set:dvp"]
    for wrong, message in (
        ("telepathy", "no way to steer 'telepathy'; expected one of hones, no-kl"),
        ("set:telepathy", "no method 'telepathy'"),
        ("ia3,ia3", "--methods ia3,ia3; expected each once"),
        ("all,ia3", "expected each once"),
    ):
        with pytest.raises(HonesError, match=message):
            make_steerings(wrong)
    with pytest.raises(HonesError, match="0 neurons and 3 dev items to steer; expected at least one each"):
        CONTROLS["fixed-amp"].check(replace(given, neurons=[]))


def test_another_methods_set_is_read_and_must_have_the_same_budget(given: SteeringContext, tmp_path: Path) -> None:
    way = make_steering("set:dvp")
    for methods in (None, tmp_path):
        with pytest.raises(HonesError, match="hones compare --task retrieval --methods dvp"):
            way.check(replace(given, methods=methods))
    importance = np.random.default_rng(0).random((3, given.vlm.anatomy.neurons), dtype=np.float32)
    chosen = select_neurons(importance, 0.2)
    write_neurons(tmp_path / "dvp", importance, chosen)
    assert len(chosen) > len(NEURONS)
    with pytest.raises(HonesError, match=f"holds {len(chosen)} neurons, the HONES set 5; expected the same budget"):
        way.check(replace(given, methods=tmp_path))
    write_neurons(tmp_path / "dvp", importance, chosen[:5])
    ready = replace(given, methods=tmp_path)
    way.check(ready)
    assert set(way.make(ready).scales.values) == {(n.layer, n.neuron) for n in chosen[:5]}
    before = way.depends(ready)
    write_neurons(tmp_path / "dvp", importance, chosen[:4])
    assert way.depends(ready) != before


# --- evidence ---


def test_every_arm_equals_its_own_evaluation(vlms: dict[str, VLM], test_examples, arms: list[Arm]) -> None:
    vlm = vlms["qwen"]
    found, first = evaluate_arms(vlm, TASK, test_examples, arms, file="x", sweep=SWEEP, seed=2)
    alone = {
        (arm.method, k): evaluate_scales(vlm, TASK, test_examples, scales, sweep=SWEEP, seed=2)
        for arm in arms
        for k, scales in enumerate(arm.scales)
    }
    assert (found.file, found.metric_name, found.items) == ("x", "ndcg@5", 4)
    assert len({alone["hones", k].steered.value for k in (0, 1)}) == 2, "the seeds differ"
    for arm, result in zip(arms, found.methods, strict=True):
        of_arm = [alone[arm.method, k] for k in range(len(arm.scales))]
        assert found.base == of_arm[0].base and first[arm.method] == of_arm[0]
        assert result.by_seed == pytest.approx([r.steered.value for r in of_arm])
        assert result.steered.value == pytest.approx(np.mean([r.steered.value for r in of_arm]))
        assert result.gain.value == pytest.approx(result.steered.value - found.base.value)
        if len(of_arm) == 1:
            assert result.steered == of_arm[0].steered and result.gain == of_arm[0].gain
        if arm.method == "hones":
            assert result.hones_advantage is None and result.p_value is None
        else:
            assert result.hones_advantage is not None
            assert result.hones_advantage.value == pytest.approx(found.methods[0].steered.value - result.steered.value)
    assert found.methods[3].gain == Interval(0.0, 0.0, 0.0) and found.methods[3].gain_p == 1


def test_intervals_resample_items_and_average_over_seeds(vlms, test_examples, arms: list[Arm]) -> None:
    """The definition, one resample, seed and item at a time."""
    vlm, bootstrap = vlms["qwen"], PairedBootstrap(len(test_examples), 2)
    found, _ = evaluate_arms(vlm, TASK, test_examples, arms, sweep=SWEEP, seed=2)
    scales = [(arm.method, k, s) for arm in arms for k, s in enumerate(arm.scales)]
    edits = [BASELINE, *(Intervention(scales=s.values) for *_, s in scales)]
    base, *swept = sweep(vlm, TASK, test_examples, edits, replace(SWEEP, batch_size=1))
    cells: dict[str, list[np.ndarray]] = {arm.method: [] for arm in arms}
    for (method, *_), of_items in zip(scales, swept, strict=True):
        cells[method].append(of_items)

    def metric(of_items: np.ndarray, counts: np.ndarray) -> float:
        return float(TASK.score(counts @ of_items))

    drawn: dict[str, Any] = {
        m: [np.mean([metric(x, w) for x in xs]) for w in bootstrap.counts] for m, xs in cells.items()
    }
    drawn["base"] = [metric(base, w) for w in bootstrap.counts]
    for result in found.methods:
        of_way = np.array(drawn[result.method])
        for interval, values in (
            (result.steered, of_way),
            (result.gain, of_way - drawn["base"]),
            (result.hones_advantage, np.array(drawn["hones"]) - of_way),
        ):
            if interval is not None:
                assert (interval.low, interval.high) == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=1e-6)


def test_one_sweep_answers_every_distinct_arm_once(vlms, test_examples, arms: list[Arm], monkeypatch) -> None:
    import hones.sweep.measure as module

    calls = []
    run = module.sweep_tasks
    monkeypatch.setattr(module, "sweep_tasks", lambda *args, **more: calls.append(len(args[2])) or run(*args, **more))
    twin = Arm("no-kl", arms[0].scales)
    evaluate_arms(vlms["qwen"], TASK, test_examples[:2], [*arms, twin], sweep=SWEEP)
    assert calls == [6], "the model itself, which is also the grid's factor 1; four learned; twice"
    with pytest.raises(HonesError, match="expected hones, and one item"):
        evaluate_arms(vlms["qwen"], TASK, test_examples, arms[1:], sweep=SWEEP)


def test_other_tasks_under_the_scales_equal_each_alone(vlms, shapes: dict[str, Path], arms: list[Arm]) -> None:
    vlm, items = vlms["qwen"], load_items(shapes["test"], limit=3)
    jobs = [(task, task.examples(items)[0]) for task in (make_task("caption"), TASK)]
    found = measure_elsewhere(vlm, jobs, arms[0], sweep=SWEEP, seed=2)
    for (task, examples), result in zip(jobs, found, strict=True):
        alone = [evaluate_scales(vlm, task, examples, s, sweep=SWEEP, seed=2) for s in arms[0].scales]
        assert (result.task, result.metric_name, result.items) == (task.name, task.metric_name, 3)
        assert result.base == alone[0].base
        assert result.steered.value == pytest.approx(np.mean([r.steered.value for r in alone]))
        assert result.change.value == pytest.approx(np.mean([r.gain.value for r in alone]))
    assert found[1].change.value != 0


def test_the_spread_of_scales_equals_its_definition() -> None:
    first = Scales({(0, 1): float(np.float32(0.35)), (0, 2): 0.0, (2, 1): -float(np.float32(0.35))})
    second = Scales({(0, 1): 0.1, (0, 2): 0.3, (2, 1): 0.2})
    found = spread(Arm("hones", (first, second)), 0.35)
    values = [*first.values.values(), *second.values.values()]
    assert (found.count, found.mean, found.deviation) == pytest.approx((6, np.mean(values), np.std(values)))
    assert found.clamped == pytest.approx(2 / 6), "the bound as float32, which is below 0.35"
    assert found.quantiles == pytest.approx(np.quantile(values, QUANTILES))
    assert [(x.layer, x.count) for x in found.layers] == [(0, 4), (2, 2)]
    assert found.layers[1].quantiles[0] == pytest.approx(-0.35) and found.layers[1].mean == pytest.approx(-0.075)


def wide_evidence(vlm: VLM, test_examples, arms: list[Arm]) -> Evidence:
    tested, _ = evaluate_arms(vlm, TASK, test_examples[:2], arms, file="signs/test.json", sweep=SWEEP)
    widest = Interval(-0.123, -0.123, -0.123)
    named = {"rand-neuron": "set:knowledge-neurons"}
    methods = tuple(
        replace(m, method=named.get(m.method, m.method), neurons=352256, gain=widest, gain_p=0.0123)
        for m in tested.methods
    )
    tested = replace(tested, methods=methods, metric_name="vqa_soft_accuracy")
    elsewhere = measure_elsewhere(vlm, [(TASK, test_examples[:2])], arms[0], sweep=SWEEP)
    spreads = tuple(replace(spread(arm, 1.5), count=1234567) for arm in arms)
    return Evidence("retrieval", (3407, 3408), tested, elsewhere, tested, spreads)


def test_tables_fit_eighty_columns_and_notebooks(vlms, test_examples, arms: list[Arm]) -> None:
    from rich.console import Console

    evidence = wide_evidence(vlms["qwen"], test_examples, arms)
    console = Console(width=80, record=True)
    console.print(view(evidence))
    text = console.export_text()
    assert "…" not in text and all(
        name in text for name in ("hones", "set:knowledge-neurons", "out of domain", "clamped")
    )
    assert [table.name for table in evidence.tables()] == ["steering", "out of domain", "other tasks", "scales"]
    html = evidence._repr_html_()
    assert "hones_advantage" in html and "q95" in html and "gain" in html


# --- the stage ---


@pytest.fixture(scope="module")
def found(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path_factory) -> tuple[Path, list[object]]:
    """A HONES set, and the arguments of `hones steer` on it."""
    folder = tmp_path_factory.mktemp("found")
    width = 24
    importance = np.random.default_rng(0).random((3, width), dtype=np.float32)
    write_neurons(folder, importance, select_neurons(importance, 0.1))
    write_shapes(folder / "signs", {"test": 2}, seed=8)
    common = ["--model", model_folders["qwen"], "--task", "retrieval", "--candidates", 4, "--limit", 2]
    common += ["--dev", shapes["dev"], "--test", shapes["test"], "--neurons", folder / "neurons.json"]
    return folder, ["steer", *common, "--learning-rate", 0.02, "--epochs", 1]


ALL = ("--methods", "all", "--seeds", "3407,1", "--also", "ocr")


def test_steer_writes_everything_picks_up_and_grows(found, tmp_path: Path, capsys, monkeypatch) -> None:
    folder, arguments = found
    out = tmp_path / "run"
    ood = ("--ood", folder / "signs/test.json")
    assert call(*arguments, "--out", out, *ALL) == 0
    first = capsys.readouterr().out
    assert "retrieval: steered, 2 items" in first and "Other tasks under the scales" in first
    steering = out / "retrieval/steering"
    learned = ("hones", "no-kl", "rand-neuron", "ia3")
    expected = {
        f"{way}/{file}" for way in (*learned, "fixed-amp", "grid-search") for file in ("scales.json", "result.json")
    }
    expected |= {f"{way}/seed-1/scales.json" for way in learned} | {"evidence.json"}
    files = {str(f.relative_to(steering)): f.read_bytes() for f in steering.rglob("*") if f.is_file()}
    assert set(files) == expected
    content = json.loads(files["evidence.json"])
    assert content["seeds"] == [3407, 1] and [len(m["by_seed"]) for m in content["test"]["methods"]] == [
        2,
        2,
        2,
        1,
        1,
        2,
    ]
    assert [e["task"] for e in content["elsewhere"]] == ["ocr"] and content["out_of_domain"] is None
    assert [s["method"] for s in content["scales"]] == [*learned]
    record = json.loads((out / "run.json").read_text())["stages"]
    ends = [f"{way}/seed-{seed}" for way in learned for seed in (3407, 1)] + ["fixed-amp/scales", "grid-search/scales"]
    assert set(record) == {"retrieval/steer", "retrieval/evidence", *(f"retrieval/steer/{end}" for end in ends)}
    assert set(record["retrieval/steer/grid-search/scales"]["dev_metric"]) == {f"{f:g}" for f in GRID}
    assert not [*(out / "journal").iterdir()]

    alone = tmp_path / "alone"
    assert call(*arguments, "--out", alone) == 0
    for name in ("scales.json", "result.json"):
        assert (alone / "retrieval/steering/hones" / name).read_bytes() == files[f"hones/{name}"]
    assert call(*arguments, "--out", alone, "--seed", 1) == 2  # the same seed alone is the same stage
    assert "holds retrieval/steer with seed = 3407, now 1" in capsys.readouterr().err

    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", None)
    assert call(*arguments, "--out", alone, "--methods", "fixed-amp") == 0, "what `hones steer` learned is taken"
    assert call(*arguments, "--out", out) == 0, "and the other way round"
    capsys.readouterr()
    monkeypatch.setattr("hones.runs.steering.evaluate_arms", None)
    assert call(*arguments, "--out", out, *ALL) == 0
    assert capsys.readouterr().out == first, "what was read back is shown as what was computed"
    monkeypatch.undo()

    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", None)
    assert call(*arguments, "--out", out, *ALL, *ood) == 0, "only the new file is new"
    grown = json.loads((steering / "evidence.json").read_text())
    assert grown["out_of_domain"]["file"] == "signs/test.json" and grown["test"] == content["test"]
    assert {f: (steering / f).read_bytes() for f in files if f != "evidence.json"} == {
        f: x for f, x in files.items() if f != "evidence.json"
    }
    assert "out of domain, 2 items of signs/test.json" in " ".join(capsys.readouterr().out.split())
    assert call(*arguments, "--out", out, "--methods", "hones,ia3", "--seeds", "3407,1") == 2
    assert "evidence.json also holds no-kl/scales.json" in capsys.readouterr().err
    assert call(*arguments, "--out", out, *ALL, "--seeds", "1,3407") == 2
    assert "holds retrieval/steer with" in capsys.readouterr().err


def test_results_say_which_epoch_early_stopping_kept(found, tmp_path: Path) -> None:
    more = ("--early-stopping", 0.5, "--learning-rate", 0.05)
    assert call(*found[1], "--out", tmp_path / "alone", *more) == 0
    assert call(*found[1], "--out", tmp_path / "both", *more, "--methods", "no-kl,fixed-amp") == 0
    alone, one, other, fixed = (
        tmp_path / run / "retrieval/steering" / way / "result.json"
        for run, way in (("alone", "hones"), ("both", "hones"), ("both", "no-kl"), ("both", "fixed-amp"))
    )
    assert alone.read_bytes() == one.read_bytes()
    stages = json.loads((tmp_path / "both/run.json").read_text())["stages"]
    for file, stage in ((one, "retrieval/steer"), (other, "retrieval/steer/no-kl/seed-3407")):
        epoch, held_out = json.loads(file.read_text())["epoch"], stages[stage]["held_out"]
        later = [epoch["held_out"] for epoch in stages[stage]["epochs"]]
        assert epoch == stages[stage]["epoch"] == int(later[0] < held_out)
    assert json.loads(fixed.read_text())["epoch"] is None


def test_a_killed_run_redoes_nothing_that_had_finished(found, tmp_path: Path, capsys, monkeypatch) -> None:
    folder, arguments = found
    out, learn, done = tmp_path / "run", learn_scales, []
    more = ("--out", out, "--methods", "no-kl,rand-neuron", "--seeds", "3407,1", "--ood", folder / "signs/test.json")

    def until(number: int):
        def wrapped(*args, **more) -> Scales:
            if len(done) == number:
                raise Killed
            done.append(args[4].seed)
            return learn(*args, **more)

        return wrapped

    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", until(3))
    with pytest.raises(Killed):
        call(*arguments, *more)
    steering = out / "retrieval/steering"
    times = {f: f.stat().st_mtime_ns for f in steering.rglob("scales.json")}
    assert len(times) == 3 and not (steering / "evidence.json").exists()
    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", until(6))

    import hones.runs.steering as stage

    evaluate, swept = stage.evaluate_arms, []

    def then_stop(*args, **options):
        if swept:
            raise Killed
        swept.append(len(args[3]))
        return evaluate(*args, **options)

    monkeypatch.setattr(stage, "evaluate_arms", then_stop)
    with pytest.raises(Killed):
        call(*arguments, *more)
    assert done == [3407, 1, 3407, 1, 3407, 1], "each (way, seed) once"
    assert {f: f.stat().st_mtime_ns for f in times} == times
    assert [*(out / "journal").glob("retrieval.evidence.test.*.jsonl")], "the sweep on the test items is kept"

    monkeypatch.setattr("hones.method.steering.trainings.learn_scales", None)
    monkeypatch.setattr(stage, "evaluate_arms", evaluate)
    from hones.sweep.replay import Replay

    answered = []
    run = Replay.answer
    monkeypatch.setattr(Replay, "answer", lambda *a: answered.append(a[1][0][1].image.parent) or run(*a))
    assert call(*arguments, *more) == 0
    assert set(answered) == {folder / "signs/images"}, "only the file that was not swept"
    assert not [*(out / "journal").iterdir()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "telepathy"), "no way to steer 'telepathy'; expected one of hones, "),
        (("--methods", "ia3,ia3"), "--methods ia3,ia3; expected each once"),
        (("--methods", "set:dvp"), "run `hones compare --task retrieval --methods dvp` with the same --out first"),
        (("--seeds", "1,x"), "--seeds 1,x; expected whole numbers with commas"),
        (("--seeds", "1,1"), "seeds 1, 1; expected distinct numbers from 0"),
        (("--seeds", "-1"), "seeds -1; expected distinct numbers from 0"),
        (("--also", "retrieval"), "also retrieval; expected tasks other than retrieval"),
        (("--also", "telepathy"), "no task 'telepathy'"),
        (("--ood", "nowhere.json"), "no file nowhere.json"),
        (("--ood-images", "x"), "--ood-images x without --ood"),
    ],
)
def test_mistakes_are_one_line(found, tmp_path: Path, monkeypatch, capsys, more, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*found[1], "--out", "o", *more) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.splitlines()[-1].startswith("hones: ") and "Traceback" not in error
    assert not (tmp_path / "o/retrieval").exists(), "nothing half-written"


def test_out_of_domain_shares_no_picture_with_the_splits(found, shapes: dict[str, Path], tmp_path, capsys) -> None:
    for split in ("dev", "test"):
        assert call(*found[1], "--out", tmp_path / "o", "--ood", shapes[split]) == 2
        assert f"{split}_00000.png is in both {split} and ood" in capsys.readouterr().err


def test_a_configuration_runs_the_evidence_of_every_task(found, shapes, model_folders, tmp_path: Path, capsys) -> None:
    folder = found[0]
    content = {
        "model": str(model_folders["qwen"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "limit": {"discovery": 3, "dev": 2, "test": 2, "ood": 1},
        "tasks": ["retrieval"],
        "candidates": 4,
        "ratio": 0.1,
        "draws": 1,
        "seed": 5,
        "compare": {"methods": ["dvp"], "curves": False},
        "steering": {"epochs": 1, "methods": ["set:dvp"], "also": ["ocr", "retrieval"], "ood": "signs/test.json"},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    config = read_config(file)
    assert config.steering.ood == folder / "signs/test.json"
    assert config.training == SteeringSettings(epochs=1, seed=5) and type(config.training) is SteeringSettings
    settings: Any = SteeringSettings(seed=9)
    plain = RunConfig(model="m", out=tmp_path, data=config.data, steering=settings)
    assert plain.training == SteeringSettings(seed=9) and not plain.steering.wants_evidence
    assert call("run", file) == 0
    assert "set:dvp" in capsys.readouterr().out
    evidence = json.loads((folder / "run/retrieval/steering/evidence.json").read_text())
    assert [m["method"] for m in evidence["test"]["methods"]] == ["hones", "set:dvp"] and evidence["seeds"] == [5]
    assert (evidence["out_of_domain"]["items"], [e["task"] for e in evidence["elsewhere"]]) == (1, ["ocr"])
    chosen = json.loads((folder / "run/retrieval/methods/dvp/neurons.json").read_text())
    scales = json.loads((folder / "run/retrieval/steering/set-dvp/scales.json").read_text())
    assert {(x["layer"], x["neuron"]) for x in scales} == {(x["layer"], x["neuron"]) for x in chosen}
    assert 'id="evidence"' in (folder / "run/report.html").read_text()
    for keys, message in (
        ({"methods": ["telepathy"]}, "steering.methods: no way to steer"),
        ({"also": ["telepathy"]}, "steering.also: telepathy; expected some of vqa"),
        ({"also": ["nowhere.yaml"]}, "cannot read the task"),
        ({"seeds": [1, 1]}, "steering.seeds: 1, 1; expected each once"),
        ({"methods": ["set:dvp", "set:atp"]}, "steering.methods: set:atp; expected atp in compare.methods too"),
        ({"ood_images": "x"}, "ood_images x without ood; expected both"),
        ({"ood": str(shapes["dev"])}, "dev_00000.png is in both dev and ood"),
    ):
        file.write_text(yaml.safe_dump({**content, "steering": keys}))
        assert call("run", file) == 2 and message in capsys.readouterr().err
    file.write_text(yaml.safe_dump({**content, "compare": None}))
    with pytest.raises(HonesError, match=r"set:dvp; expected dvp in compare.methods too"):
        read_config(file)
