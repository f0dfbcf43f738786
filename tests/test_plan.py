"""`hones plan`: forecasts against the operations really done, against memory really kept, and what it refuses."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig
from typer.testing import CliRunner

from hones import Items, attribute_neurons, evaluate_masking, learn_scales, load_items, localize_heads
from hones.cli.commands import app
from hones.errors import HonesError
from hones.method import beside
from hones.method.found import HeadScore
from hones.method.steering.settings import SteeringSettings
from hones.models.interventions import BASELINE
from hones.models.place import BUILT_IN_FOLDER
from hones.models.vlm import VLM
from hones.runs.config import read_config
from hones.runs.plan.forecast import plan
from hones.runs.plan.lengths import Asked, Job, measure
from hones.runs.plan.pictures import picture_work
from hones.runs.plan.rates import OF_CPU, Rates, cache_file, calibrate, given_rate, key_of, save_rates, saved_rates
from hones.runs.plan.request import Request, make_request
from hones.runs.plan.shapes import Shapes, Work, shapes_of, weightless
from hones.runs.plan.sweeping import Edits, Sweep, common_start, masks, only_read, sweep_plan
from hones.runs.plan.training import drawn_of, pairs_of, train
from hones.stats import Interval
from hones.sweep.memory import free_memory
from hones.sweep.naive import Naive
from hones.sweep.plain_text import Paragraphs
from hones.sweep.run import SweepSettings
from hones.tasks import make_task
from hones.tasks.base import Example
from hones.tasks.plain_text import PlainText

ATEN = torch.ops.aten
SHARE = 0.03
NEW_TOKENS = 4


def counted(run: Callable[[], Any]) -> float:
    """The operations that a call really does."""
    with FlopCounterMode(display=False, custom_mapping=OF_CPU) as counter:
        run()
    return float(counter.get_total_flops())


@pytest.fixture(scope="session")
def measured(model_folders: dict[str, Path], discovery: Items) -> dict[str, tuple[Shapes, dict[str, Job]]]:
    found = {}
    for name, folder in model_folders.items():
        light = weightless(str(folder))
        shapes = shapes_of(light, "float32")
        tasks = [make_task(task, candidates=6) for task in ("vqa", "ocr", "retrieval")]
        found[name] = (shapes, measure(light, shapes, tasks, discovery, max_new_tokens=NEW_TOKENS)[0])
    return found


def as_answered(vlm: VLM, asked: tuple[Asked, ...], discovery: Items, task: str) -> list[Asked]:
    """The lengths with those of the answers that the model really gives."""
    examples, _ = make_task(task, candidates=6).examples(discovery)
    if asked[0].kind != "text":
        return list(asked)
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    answers = vlm.generate_ids(encoded, NEW_TOKENS)
    return [replace(one, answer=len(answer)) for one, answer in zip(asked, answers, strict=True)]


def test_shapes_need_no_weights(vlm: VLM, model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = next(f for f in model_folders.values() if vlm.name == str(f))
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    light = weightless(str(tmp_path))
    assert all(p.device.type == "meta" for p in light.model.parameters())
    assert replace(shapes_of(light, "float32"), name="") == replace(shapes_of(vlm, "float32"), name="")
    assert shapes_of(light, "bfloat16").bytes == 2 * sum(p.numel() for p in vlm.model.parameters())


def test_one_prompt_costs_what_is_counted(
    vlm: VLM, measured: dict[str, tuple[Shapes, dict[str, Job]]], discovery: Items, request: pytest.FixtureRequest
) -> None:
    shapes, jobs = measured[request.node.callspec.params["vlm"]]
    asked = jobs["vqa"].asked[0]
    example = make_task("vqa").examples(discovery)[0][0]
    encoded = vlm.encode([example.open_picture()], example.prompts[:1])
    assert encoded.inputs["input_ids"].shape[1] == asked.length
    real = counted(lambda: vlm.logits(encoded, 1))
    assert asked.whole(shapes, asked.length).flop == pytest.approx(real, rel=0.005)


class Moved(TorchDispatchMode):
    """Bytes that linears and convolutions read and write, and keys and values that the decoder's attention reads."""

    def __init__(self, decoder_heads: int, positions: int) -> None:
        super().__init__()
        self.of_decoder, self.bytes = (decoder_heads, positions), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (ATEN.mm, ATEN.addmm, ATEN.convolution):
            tensors = [x for x in (*args, found) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        elif func.overloadpacket in OF_CPU and (args[1].shape[1], args[1].shape[2]) == self.of_decoder:
            self.bytes += sum(x.numel() * x.element_size() for x in args[1:3])
        return found


def test_one_prompt_moves_the_bytes_that_are_counted(
    vlm: VLM, measured: dict[str, tuple[Shapes, dict[str, Job]]], discovery: Items, request: pytest.FixtureRequest
) -> None:
    shapes, jobs = measured[request.node.callspec.params["vlm"]]
    asked = jobs["vqa"].asked[0]
    example = make_task("vqa").examples(discovery)[0][0]
    encoded = vlm.encode([example.open_picture()], example.prompts[:1])
    with torch.no_grad(), Moved(vlm.anatomy.heads, asked.length) as really:
        vlm.logits(encoded, 1)
    assert asked.whole(shapes, asked.length).moved == pytest.approx(really.bytes, rel=0.05)


@pytest.mark.parametrize("task", ["vqa", "retrieval"])
def test_forecasts_are_what_is_counted(
    vlm: VLM,
    measured: dict[str, tuple[Shapes, dict[str, Job]]],
    discovery: Items,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
) -> None:
    # plain text under the masks, some hundred tokens, is not counted
    monkeypatch.setattr(beside, "plain_text_of", lambda vlm: Paragraphs(PlainText({}), (), ()))
    shapes, jobs = measured[request.node.callspec.params["vlm"]]
    asked = as_answered(vlm, jobs[task].asked, discovery, task)
    own = make_task(task, candidates=6)
    examples, _ = own.examples(discovery)
    settings = SweepSettings(max_new_tokens=NEW_TOKENS)
    sweep = sweep_plan(shapes, asked, free_memory(vlm.device), "cpu", None)

    heads = Sweep(shapes, asked, each_head(shapes), sweep)
    found = heads.work(left=1.0) + heads.proof()
    least = heads.work(left=0.0) + heads.proof()
    real = counted(lambda: localize_heads(vlm, own, examples, sweep=settings))
    assert (1 - SHARE) * least.flop <= real <= (1 + SHARE) * found.flop
    assert found.flop <= 1.25 * least.flop

    sites = [(0, 1), (1, 2), (2, 0)]
    guides = [HeadScore(layer, head, Interval(1.0, 1.0, 1.0), 1.0, 0.0) for layer, head in sites]
    proven = Sweep(shapes, asked, Edits({layer: 1 for layer, _ in sites}, heads=1), sweep)
    found = replace(proven, asked=only_read(asked)).work() + proven.proof()
    real = counted(lambda: attribute_neurons(vlm, own, examples, guides))
    assert found.flop == pytest.approx(real, rel=SHARE)

    neurons = [(layer, 3) for layer in range(shapes.layers)]
    masking = Sweep(shapes, asked, Edits({0: 3}, written=True), sweep)
    real = counted(lambda: evaluate_masking(vlm, own, examples, neurons, draws=2, sweep=settings))
    assert (masking.work(left=0.3) + masking.proof()).flop == pytest.approx(real, rel=0.1)

    found, _ = train(shapes, asked, len(asked), epochs=2, batch_size=2, neurons=1, free=1e9)
    real = counted(lambda: learn_scales(vlm, own, examples, neurons, SteeringSettings(batch_size=2)))
    assert found.flop == pytest.approx(real, rel=0.06)


def each_head(shapes: Shapes) -> Edits:
    return Edits(dict.fromkeys(range(shapes.layers), shapes.heads), heads=1)


def test_all_tasks_share_the_prefix(measured: dict[str, tuple[Shapes, dict[str, Job]]]) -> None:
    shapes, jobs = measured["llava"]
    together = [one for job in jobs.values() for one in job.asked if one.task != "ocr"]
    sweep = sweep_plan(shapes, together, 1e9, "cpu", None)
    alone = sum(
        Sweep(shapes, job.asked, each_head(shapes), sweep).work().flop for name, job in jobs.items() if name != "ocr"
    )
    assert Sweep(shapes, together, each_head(shapes), sweep).work().flop < 0.95 * alone


def test_the_release_costs_what_is_counted(
    vlms: dict[str, VLM], measured: dict[str, tuple[Shapes, dict[str, Job]]], discovery: Items
) -> None:
    vlm, (shapes, jobs) = vlms["llava"], measured["llava"]
    task = make_task("retrieval", candidates=6)
    examples, _ = task.examples(discovery)
    naive = Naive(vlm, max_new_tokens=NEW_TOKENS, batch_size=1)

    real = counted(lambda: naive.statistics([(task, examples[0])], [BASELINE]))
    sweep = Sweep(shapes, jobs["retrieval"].asked[:1], Edits({}), sweep_plan(shapes, [], 1e9, "cpu", None))
    assert sweep.release().flop == pytest.approx(real, rel=0.01)


def a_shape(**more: Any) -> Shapes:
    """LLaVA-1.5-7B's, from its configuration."""
    text = LlamaConfig(
        vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(vision_config=vision, text_config=text, **more)  # pyright: ignore


@pytest.fixture(scope="session")
def llava_7b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LLaVA-1.5-7B's config.json, and the processor's files of the built-in model at 336 pixels."""
    folder, built_in = tmp_path_factory.mktemp("llava-7b"), BUILT_IN_FOLDER / "tiny-llava"
    token = AutoConfig.from_pretrained(built_in).image_token_id
    a_shape(image_token_id=token).save_pretrained(folder)  # pyright: ignore
    for file in built_in.iterdir():
        if "token" in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    processor = json.loads((built_in / "processor_config.json").read_text())
    sizes = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    processor |= {"patch_size": 14, "image_processor": processor["image_processor"] | sizes}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_7b_model_is_planned_from_its_configuration(llava_7b: Path, shapes: dict[str, Path]) -> None:
    light = weightless(str(llava_7b))
    found = shapes_of(light, "bfloat16")
    assert found.parameters == 7_063_427_072 and found.layers * found.neurons == 352_256
    done = plan(a_request(llava_7b, shapes, limit={"discovery": 5000}, tflops=400.0))
    heads = done.stages[0]
    jobs, _ = measure(light, found, [make_task("vqa")], _items(shapes), max_new_tokens=24)
    positions = jobs["vqa"].asked[0].length
    by_hand = 1024 * 5000 * 0.5 * 2 * 6.5e9 * positions  # heads x items x half the layers x 2 x weights x positions
    assert 0.85 * by_hand < heads.work.flop < 1.1 * by_hand
    assert heads.hours(done.rates)[0] == pytest.approx(heads.work.flop / 400e12 / 3600)
    assert heads.cells == 1025 * 5000 and done.devices == 1


def _items(shapes: dict[str, Path]) -> Items:
    return load_items(shapes["discovery"])


def a_request(llava_7b: Path, shapes: dict[str, Path], **more: Any) -> Request:
    options: dict[str, Any] = {"tflops": 100.0, "memory": 80.0, **more}
    return make_request(model=str(llava_7b), data={"discovery": shapes["discovery"]}, tasks=("vqa",), **options)


def test_what_does_not_fit_is_refused_with_what_would(llava_7b: Path, shapes: dict[str, Path]) -> None:
    with pytest.raises(HonesError, match=r"does not fit 1 x 16.0 GiB: weights 26.3 GiB.*bfloat16.*--gpus 2"):
        plan(a_request(llava_7b, shapes, memory=16.0, dtype="float32"))
    spread = plan(a_request(llava_7b, shapes, memory=16.0, dtype="float32", gpus=5))
    assert (spread.devices, spread.copies) == (2, 2)
    assert plan(a_request(llava_7b, shapes, memory=16.0)).devices == 1


def test_several_gpus_wait_for_the_last_shard(llava_7b: Path, shapes: dict[str, Path]) -> None:
    done = plan(a_request(llava_7b, shapes, gpus=4, limit={"discovery": 16 * 5}))
    heads = done.stages[0]
    assert heads.shards == 5
    one, four = (heads.hours(done.rates, copies)[0] for copies in (1, done.copies))
    assert four == pytest.approx(2 / 5 * one)  # five shards on four copies: two rounds
    assert done.total(4)[0] < done.total(1)[0]


def test_a_missing_picture_has_its_annotated_size(shapes: dict[str, Path], tmp_path: Path) -> None:
    content = json.loads(shapes["discovery"].read_text())
    for number, item in enumerate(content["data"]):
        item["image_info"] = {"file_name": f"{number}.jpg", **({"width": 64, "height": 48} if number else {})}
    file = tmp_path / "data.json"
    file.write_text(json.dumps(content))
    light = weightless("tiny-qwen2.5-vl")
    own = shapes_of(light, "float32")
    jobs, notes = measure(light, own, [make_task("vqa")], load_items(file), max_new_tokens=4)
    assert any("5 of 6 measured pictures are not there; their annotated" in note for note in notes)
    assert any("no annotated size; assumed 640 x 480" in note for note in notes)
    positions = [one.before for one in jobs["vqa"].asked]
    assert positions[0] > positions[1] == picture_work(light, own, 64, 48)[1]


def test_the_scenario_of_a_race_is_not_part_of_the_total(llava_7b: Path, shapes: dict[str, Path]) -> None:
    exact, raced = (plan(a_request(llava_7b, shapes, racing=racing)) for racing in (None, (0.1, 0.2)))
    assert exact.total(1).tolist() == raced.total(1).tolist()
    (scenario,) = [stage for stage in raced.stages if stage.race]
    heads = raced.stages[0].hours(raced.rates)[0]
    middle, least, most = scenario.hours(raced.rates)
    assert (least, middle, most) == pytest.approx((0.1 * heads, 0.15 * heads, 0.2 * heads), rel=0.01)
    with pytest.raises(HonesError, match="--racing-share"):
        a_request(llava_7b, shapes, racing=(0.3, 0.2))


def test_passes_leave_out_what_is_not_run() -> None:
    light = weightless("tiny-llava")
    shapes = shapes_of(light, "float32")
    one = shapes.passing(2, 10, 0, start=5).flop
    assert one == 2 * 20 * (shapes.qkv.weights + shapes.out.weights + shapes.ffn.weights) + 4 * 20 * 10 * shapes.inner
    assert shapes.passing(2, 10, 0, start=5, given=True).flop == 2 * 20 * shapes.ffn.weights
    assert shapes.passing(2, 10, 0, start=5, keys_only=True).flop == 2 * 20 * shapes.qkv.weights
    assert shapes.passing(2, 10, 0, start=5, given=True, keys_only=True).flop == 0
    assert shapes.passing(2, 10, 0, start=5, given=True, wanted=3).flop == 2 * 3 * shapes.ffn.weights
    assert shapes.passing(2, 10, 0).flop == pytest.approx(6 * one)


def test_lengths_that_prompts_share() -> None:
    assert common_start([(1, 2, 3, 4), (1, 2, 9)]) == 2
    assert common_start([(1, 2), (1, 2)]) == 1  # one token remains of each
    assert common_start([(1, 2, 3)]) == 2


def test_pairs_of_a_training() -> None:
    example = Example("", None, ("",), "", ())
    text = Asked("caption", "text", example, None, Work(), 5, ((1, 2),), 3, (4, 6))
    assert pairs_of(text, 2) == (1, 1.5, 5)
    asked = Asked("retrieval", "yes_no", example, None, Work(), 5, tuple((1, n) for n in range(9)), 0, (2,))
    assert pairs_of(asked, 1) == (5, 5.0, 2)
    assert drawn_of(8, 4, 2) == 6


def test_kept_rows_take_what_is_forecast(
    vlms: dict[str, VLM], measured: dict[str, tuple[Shapes, dict[str, Job]]], discovery: Items
) -> None:
    from hones.method.steering.kept import Rows
    from hones.method.steering.pairs import make_plan as make_training

    vlm, (shapes, jobs) = vlms["llava"], measured["llava"]
    task = make_task("retrieval", candidates=6)
    examples, _ = task.examples(discovery)
    pairs = make_training(task, examples, SteeringSettings()).pairs
    rows = Rows(vlm, pairs, 1, torch.tensor([3]), memory=10**9)
    rows.of(pairs)
    real = sum(known.bytes for known in rows.known.values())
    asked = jobs["retrieval"].asked
    _, memory = train(shapes, asked, len(examples), epochs=2, batch_size=4, neurons=1, free=1e9)
    assert memory.kept == pytest.approx(real, rel=0.15)


def test_memory_shrinks_with_less_at_once(measured: dict[str, tuple[Shapes, dict[str, Job]]]) -> None:
    shapes, jobs = measured["qwen"]
    asked = jobs["vqa"].asked
    few, many = (
        Sweep(shapes, asked, Edits({0: 100}), sweep_plan(shapes, asked, 1e8, "cpu", n)).memory(100) for n in (1, 6)
    )
    assert few.weights == many.weights == shapes.bytes and few.kept < many.kept


def test_rates_are_kept_per_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONES_CACHE", str(tmp_path))
    key = key_of("a device", shapes_of(weightless("tiny-llava"), "float32"), "float32", ["vqa"])
    assert saved_rates(key) is None
    rates = Rates("a device", 2e12, "calibrated", {"heads": [0.5, 0.4]})
    save_rates(key, rates)
    save_rates("another", rates)
    assert saved_rates(key) == rates and rates.calibrated
    assert rates.seconds("heads", 2e12) == pytest.approx((1 / 0.45, 2.0, 2.5))
    file = cache_file()
    file.write_text(json.dumps({key: {"device": "a device"}}))
    with pytest.raises(HonesError, match="holds no rates above 0"):
        saved_rates(key)
    file.write_text(json.dumps({key: {**rates.__dict__, "flop_rate": 0.0}}))
    with pytest.raises(HonesError, match="holds no rates above 0"):
        saved_rates(key)


def test_a_calibration_runs_every_stage(
    measured: dict[str, tuple[Shapes, dict[str, Job]]], model_folders: dict[str, Path]
) -> None:
    shapes, jobs = measured["llava"]
    light = weightless(str(model_folders["llava"]))
    heard: list[str] = []
    options: dict[str, Any] = {"dtype": "float32", "device": torch.device("cpu"), "seconds": 0.02}
    rates = calibrate(light, shapes, jobs, on_stage=heard.append, **options)
    assert heard == [*rates.shares] == ["heads", "neurons", "mask", "steer"]
    assert all(0 < share < 1.5 for own in rates.shares.values() for share in own)


def test_the_command_prints_and_writes(
    shapes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONES_CACHE", str(tmp_path))
    file = tmp_path / "plan.json"
    arguments = ["plan", "--model", "tiny-llava", "--data", str(shapes["discovery"]), "--task", "vqa,ocr"]
    arguments += ["--items", "100,50,60", "--tflops", "1", "--memory", "8", "--gpus", "4", "--json", str(file)]
    arguments += ["--compare", "dvp,random", "--analyze", "--racing-share", "0.15", "--steering", "all"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written = json.loads(file.read_text())
    names = [stage["stage"] for stage in written["stages"]]
    assert names == [
        "heads",
        "heads, racing: if 15% to 15% of the cells run",
        *["neurons"] * 2,
        *["mask"] * 2,
        *["compare"] * 2,
        *["steer"] * 2,
        "analyze (at most)",
    ]
    counted_stages = [stage for stage in written["stages"] if not stage["scenario"]]
    total = sum(stage["flop"] for stage in counted_stages)
    assert written["total_hours_one_copy"][0] == pytest.approx(total / 1e12 / 3600)
    assert written["stages"][0]["cells"] == 37 * 200
    assert "The release's way" in done.output and "no file given" in done.output


def test_a_configuration_takes_the_place_of_options(shapes: dict[str, Path], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    files = ", ".join(f"{split}: {file}" for split, file in shapes.items())
    config.write_text(f"model: tiny-llava\nout: out\ndata: {{{files}}}\ntasks: [vqa]\nlimit: {{discovery: 4}}\n")
    done = CliRunner().invoke(app, ["plan", str(config), "--tflops", "1", "--memory", "8"], catch_exceptions=False)
    assert done.exit_code == 0 and "steer" in done.output and not (tmp_path / "out").exists()


def test_tests_of_steering_elsewhere_and_a_second_ranking_are_counted(shapes: dict[str, Path], tmp_path: Path) -> None:
    splits = {split: f"{file}" for split, file in shapes.items()}

    def planned(steering: dict[str, Any], **more: Any) -> Any:
        content = {"model": "tiny-llava", "out": "out", "data": splits, "tasks": ["vqa", "ocr"], "steering": steering}
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({**content, **more}))
        return plan(make_request(**read_config(file).model_dump(exclude_unset=True), tflops=1.0, memory=8.0)).stages

    def flop(stages: Any, name: str) -> float:
        return next(stage.work.flop for stage in stages if stage.name == name and stage.tasks == ("vqa",))

    alone = planned({"epochs": 1, "seeds": [1], "also": []}, compare={"methods": ["random"], "curves": False})
    more = planned({"epochs": 1, "seeds": [1], "ood": str(shapes["test"])}, limit={"ood": 14})
    other = planned({"epochs": 1, "seeds": [1]})
    assert flop(alone, "steer") < flop(other, "steer") < flop(more, "steer")
    (test,) = (stage for stage in alone if stage.name == "mask" and stage.tasks == ("ocr",))
    assert flop(other, "steer") - flop(alone, "steer") < test.work.flop, "one edit, the masks of the control are five"
    assert flop(alone, "compare") > flop(alone, "neurons")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to plan"),
        (["--model", "tiny-llava", "--data", "DATA", "--items", "5,x"], "--items 5,x"),
        (["--model", "tiny-llava", "--data", "DATA", "--items", "0"], "--items 0"),
        (["--model", "tiny-llava", "--data", "DATA", "--racing-share", "x"], "--racing-share x"),
        (["--model", "tiny-llava", "--data", "DATA", "--tflops", "0", "--memory", "8"], "--tflops 0"),
        (["--model", "tiny-llava", "--data", "DATA", "--tflops", "9"], "--tflops without --memory"),
        (["--model", "tiny-llava", "--data", "DATA", "--tflops", "9", "--calibrate"], "--tflops and --calibrate"),
        (["--model", "tiny-llava", "--data", "DATA", "--memory", "0"], "--memory 0"),
        (["--model", "/nowhere", "--data", "DATA"], "cannot read the configuration of '/nowhere'"),
        (["x.yaml", "--model", "tiny-llava"], "x.yaml and --model; expected a configuration"),
        (["x.yaml", "--gpus", "2", "--ratio", "0.1"], "x.yaml and --ratio; expected a configuration"),
        (["--model", "tiny-llava", "--data", "DATA", "--ratio", "2"], "ratio 2.0; expected a share of all neurons"),
    ],
)
def test_bad_options_are_named(shapes: dict[str, Path], options: list[str], message: str) -> None:
    given = ["plan", *(str(shapes["discovery"]) if x == "DATA" else x for x in options)]
    with pytest.raises(HonesError, match=message.replace("(", r"\(")):
        CliRunner().invoke(app, given, catch_exceptions=False)


def test_masks_of_many_neurons_are_not_written() -> None:
    shapes = shapes_of(weightless("tiny-llava"), "float32")
    assert masks(shapes, 6, 0.01).written and not masks(shapes, 6, 0.1).written


@pytest.mark.parametrize("tflops", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_means_nothing_is_refused(tflops: float) -> None:
    with pytest.raises(HonesError, match=f"--tflops {tflops:g}; expected"):
        given_rate(tflops)


def test_a_planted_model_has_the_shapes_of_its_base() -> None:
    planted, base = (shapes_of(weightless(name), "float32") for name in ("planted-llava-1", "tiny-llava"))
    assert replace(planted, name=base.name) == base
