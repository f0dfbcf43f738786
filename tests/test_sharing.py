"""Every export, reloaded as its user would, is the hooked model; what cannot be shared is refused in one line."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub
import pytest
import torch
import yaml
from family_models_apart import save_gemma3, save_glm4v
from helpers import PROMPTS, in_double
from safetensors import safe_open
from test_cli import call
from test_loading import with_packed_weights
from typer.testing import CliRunner

import hones
from hones import HonesError, export_scales, scale_neurons
from hones.cli.commands import app
from hones.data.shapes.scene import draw, make_scene
from hones.log import close_log
from hones.method.steering import results
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.settings import Scales
from hones.models.vlm import VLM
from hones.runs.artifacts import write_result
from hones.runs.record import RunFolder
from hones.sharing import formats
from hones.sharing.manifest import read_manifest
from hones.sharing.push import push_export
from hones.stats import Interval

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SCALES = {(0, 3): 1.5, (0, 7): -1.0, (0, 11): 0.25, (2, 0): -0.5, (2, 19): 0.75, (1, 4): 0.0}
NEW_TOKENS = 6


@pytest.fixture
def scales_file(tmp_path: Path) -> Path:
    return write(tmp_path / "scales.json", rows(SCALES))


def rows(scales: dict[tuple[int, int], float]) -> list[dict[str, Any]]:
    return [{"layer": layer, "neuron": neuron, "scale": s} for (layer, neuron), s in scales.items()]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def as_a_run(vlm: VLM, run: Path, **result: Any) -> Path:
    """scales.json and result.json as `hones steer` leaves them in a run folder."""
    folder = run / "vqa" / "steering" / "hones"
    scales = write(folder / "scales.json", rows(SCALES))
    found = SteeringResult("vqa_soft_accuracy", 7, Interval(0.5, 0.4, 0.6), Interval(0.625, 0.5, 0.75), GAIN)
    write_result(folder / "result.json", replace(found, **result))
    fingerprint = {"model": vlm.name, "revision": vlm.revision, "data": "ab" * 32, "settings": {"beta": 0.05}}
    used = {"items": ["1"] * 7, "left_out": [], "file": "/home/me/secret/test.json", "images": "images"}
    artifacts = [scales, folder / "result.json"]
    RunFolder(run).finish("vqa/steer", {**fingerprint, "dev": {"data": "cd" * 32}}, {"test": used}, artifacts)
    return scales


GAIN = Interval(0.125, 0.03125, 0.25)


def python_of(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code


def load_as_the_card_says(vlm: VLM, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model that the card's own lines load, run inside the folder; a local base is found by its path."""
    monkeypatch.chdir(folder)
    code = python_of(folder).replace(f'base_model = "{Path(vlm.name).name}"', f"base_model = {vlm.name!r}")
    names: dict[str, Any] = {}
    exec(code, names)
    return names.get("model") or names["vlm"].model


@torch.no_grad()
def plainly(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and greedy tokens as anyone would ask for them."""
    return model(**inputs).logits, model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)


@pytest.mark.parametrize("form", ["merged", "ia3", "lora"])
def test_a_reloaded_export_is_the_hooked_model(
    vlm: VLM, form: str, scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    attributes, flags = set(vars(vlm.model)), [p.requires_grad for p in vlm.model.parameters()]
    done = export_scales(vlm, scales_file, tmp_path / "out", format=form)
    after = vlm.model.state_dict()
    assert list(after) == list(weights) and all(torch.equal(after[name], weights[name]) for name in weights)
    assert set(vars(vlm.model)) == attributes and [p.requires_grad for p in vlm.model.parameters()] == flags

    loaded = load_as_the_card_says(vlm, done.folder.resolve(), monkeypatch).eval()
    assert type(loaded).__name__ == {"merged": type(vlm.model).__name__}.get(form, "PeftModel")
    changed = 0
    for picture, prompt in ((draw(make_scene(f"test/{i}")), prompt) for i, prompt in enumerate(PROMPTS)):
        inputs = vlm.encode([picture], [prompt]).inputs
        base, base_tokens = plainly(vlm.model, inputs)
        with scale_neurons(vlm.model, SCALES):
            hooked, hooked_tokens = plainly(vlm.model, inputs)
        exported, exported_tokens = plainly(loaded, inputs)
        assert (hooked - base).abs().max() > 0.1
        torch.testing.assert_close(exported, hooked, atol=1e-5, rtol=0)
        assert torch.equal(exported_tokens, hooked_tokens)
        changed += not torch.equal(hooked_tokens, base_tokens)
    assert changed > 0
    assert done.check is not None and done.check.effect > 0.1 and done.check.deviation <= 1e-5
    assert not [p for p in done.folder.iterdir() if p.suffix not in (".json", ".safetensors", ".md", ".jinja")]


@pytest.fixture(scope="module")
def planted() -> VLM:
    return hones.load_vlm("planted-llava-1")


@pytest.mark.parametrize("form", ["merged", "ia3", "lora", "json"])
def test_an_export_of_a_planted_model_says_what_it_was_made_from(
    planted: VLM, form: str, scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = export_scales(planted, scales_file, tmp_path / "out", format=form)
    assert (done.manifest.model, done.manifest.kind, done.manifest.commit) == (planted.name, "built-in", None)
    check = done.check
    assert done.manifest.license == "MIT" and check is not None and check.deviation <= 1e-5 * check.largest_logit
    text = (done.folder / "README.md").read_text()
    assert "| Base model | planted-llava-1, built into hones: tiny-llava with planted neurons |" in text
    assert "base_model" not in yaml.safe_load(text.split("---")[1])
    if form == "merged":
        assert (done.folder / "tokenizer.json").is_file()
    loaded = load_as_the_card_says(planted, done.folder.resolve(), monkeypatch).eval()
    inputs = planted.encode([draw(make_scene("test/planted"))], [PROMPTS[0]]).inputs
    with scale_neurons(planted.model, SCALES):
        hooked, _ = plainly(planted.model, inputs)
    if form == "json":
        with scale_neurons(loaded, hones.scales_for(planted, done.folder / "scales.json")[0].values):
            exported, _ = plainly(loaded, inputs)
    else:
        exported, _ = plainly(loaded, inputs)
    torch.testing.assert_close(exported, hooked, atol=1e-5 * check.largest_logit, rtol=0)


@pytest.mark.parametrize("form", ["ia3", "lora"])
def test_adapters_touch_the_scaled_layers_of_the_language_model_alone(
    vlm: VLM, form: str, scales_file: Path, tmp_path: Path
) -> None:
    done = export_scales(vlm, scales_file, tmp_path / "out", format=form, check=False)
    with safe_open(done.folder / "adapter_model.safetensors", "pt") as file:
        layers = {name.partition(".mlp.down_proj.")[0] for name in file.keys()}  # noqa: SIM118
    assert layers == {f"base_model.model.model.language_model.layers.{i}" for i in (0, 2)}
    config = json.loads((done.folder / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.language_model.layers.{i}.mlp.down_proj" for i in (0, 2)]
    if form == "lora":
        assert config["r"] == config["lora_alpha"] == done.manifest.rank == 3


def test_the_formulas_hold_in_float64(vlm: VLM) -> None:
    """Merged and LoRA weights equal W diag(1 + s), one entry at a time; what is left in float32 is rounding."""
    double = in_double(vlm)
    merged = formats.merged_weights(double, SCALES)
    vectors = formats.scale_vectors(double, SCALES)
    assert sorted(vectors) == [0, 2]
    for layer, s in vectors.items():
        weight = double.anatomy.layers[layer].down_proj.weight.detach()
        wanted = weight.clone()
        for (at, neuron), scale in SCALES.items():
            for row in range(weight.shape[0] if at == layer else 0):
                wanted[row, neuron] = (1 + scale) * weight[row, neuron]
        a, b = formats.lora_matrices(weight, s.double(), 4)
        assert a.sum(1).tolist() == [1, 1, 1 if layer == 0 else 0, 0] and a.shape[0] == 4
        torch.testing.assert_close(weight + b @ a, wanted, atol=1e-15, rtol=1e-14)
        found = merged[f"model.language_model.layers.{layer}.mlp.down_proj.weight"]
        torch.testing.assert_close(found, wanted, atol=1e-15, rtol=1e-14)


def test_merged_in_bfloat16_reports_its_deviation(vlms: dict[str, VLM], scales_file: Path, tmp_path: Path) -> None:
    half = hones.load_vlm(vlms["llava"].name, dtype="bfloat16")
    done = export_scales(half, scales_file, tmp_path / "out")
    assert done.check is not None and 0 < done.check.deviation < done.check.tolerance < done.check.effect
    assert f"the largest deviation is {done.check.deviation:.3g} logits" in (done.folder / "README.md").read_text()
    with safe_open(done.folder / "model.safetensors", "pt") as file:
        assert all(file.get_tensor(name).dtype == torch.bfloat16 for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize("form", ["merged", "ia3", "lora"])
def test_a_deviating_export_is_not_kept(
    vlm: VLM, form: str, scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = formats.scale_vectors
    monkeypatch.setattr(formats, "scale_vectors", lambda *a: {layer: s * 1.01 for layer, s in true(*a).items()})
    message = "the merged export deviates from the scaled model by .* nothing was written"
    with pytest.raises(HonesError, match=message if form == "merged" else f"the {form} adapter reads back with"):
        export_scales(vlm, scales_file, tmp_path / "out", format=form)
    assert [p.name for p in tmp_path.iterdir()] == ["scales.json"]


@pytest.mark.parametrize("scale", [0.05, 0.005])
def test_a_merged_export_that_lost_its_scales_is_not_kept(
    vlms: dict[str, VLM], scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the scales change less than rounding may, so that the base model is near enough to the scaled one."""
    half = hones.load_vlm(vlms["llava"].name, dtype="bfloat16")
    small = Scales(dict.fromkeys(SCALES, scale))
    check = export_scales(half, small, tmp_path / "right").check
    assert check is not None and check.effect < check.tolerance
    monkeypatch.setattr(formats, "scale_vectors", lambda *_: {})
    with pytest.raises(HonesError, match="merged export makes 0% of the change that the scales make"):
        export_scales(half, small, tmp_path / "wrong")
    assert [p.name for p in tmp_path.iterdir()] == ["right"]


@pytest.mark.parametrize("form", ["ia3", "lora"])
def test_small_scales_in_half_precision_are_told_from_others(
    vlms: dict[str, VLM], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They move logits by less than rounding does; an adapter of other scales, or of one more layer, is found out."""
    half, small = hones.load_vlm(vlms["llava"].name, dtype="bfloat16"), Scales({(0, 3): 0.001, (2, 0): -0.002})
    check = export_scales(half, small, tmp_path / "right", format=form).check
    assert check is not None and check.effect < check.tolerance
    true = formats.scale_vectors
    for wrong, message in (
        (lambda *a: {k: -s for k, s in true(*a).items()}, "another layer 0"),
        (lambda *a: {0: true(*a)[0]}, "another layer 2"),
        (lambda *a: {**true(*a), 1: true(*a)[0]}, "more than the scaled layers"),
    ):
        with monkeypatch.context() as patch, pytest.raises(HonesError, match=message):
            patch.setattr(formats, "scale_vectors", wrong)
            export_scales(half, small, tmp_path / "out", format=form)


@pytest.mark.parametrize("save", [save_gemma3, save_glm4v])
def test_where_a_norm_follows_the_export_is_the_hooked_model(save: Any, tmp_path: Path) -> None:
    """The norm sees what the scaled neurons write, in every form."""
    vlm = hones.load_vlm(str(save(tmp_path / "model")))
    assert all(layer.post_norm is not None for layer in vlm.anatomy.layers)
    for form in ("merged", "ia3", "lora"):
        check = export_scales(vlm, Scales(SCALES), tmp_path / form, format=form).check
        assert check is not None and check.deviation <= 1e-5 * check.largest_logit and check.effect > 0.1


def test_a_checkpoint_that_reads_back_otherwise_is_not_kept(
    vlm: VLM, scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, calls = formats.merged_weights, []

    def other_in_the_file(*given: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        return {name: weight * (1 + 1e-6) for name, weight in true(*given).items()}

    monkeypatch.setattr(formats, "merged_weights", other_in_the_file)
    with pytest.raises(HonesError, match=r"reads back with another model.language_model.layers.0"):
        export_scales(vlm, scales_file, tmp_path / "out")
    assert calls and not (tmp_path / "out").exists()


BAD_FILES = {
    "not JSON": ("[{", "not readable JSON"),
    "deep": ("[" * 100_000, "not readable JSON"),
    "digits": ('[{"layer": ' + "9" * 5000 + "}]", "not readable JSON"),
    "empty": ([], "holds no scales"),
    "not a list": ({"layer": 0}, "list"),
    "a number": (3, "list"),
    "rows": ([[0, 1, 0.5]], "row 0"),
    "missing": ([{"layer": 0, "neuron": 1}], "row 0: scale: Field required"),
    "text": ([{"layer": 0, "neuron": 1, "scale": "0.5"}], 'row 0: scale: .* found "0.5"'),
    "truth": ([{"layer": True, "neuron": 1, "scale": 0.5}], "row 0: layer"),
    "fraction": ([{"layer": 0, "neuron": 1.5, "scale": 0.5}], "row 0: neuron"),
    "negative": ([{"layer": 0, "neuron": 1, "scale": 0}, {"layer": -1, "neuron": 1, "scale": 0.5}], "row 1: layer"),
    "NaN": ('[{"layer": 0, "neuron": 1, "scale": NaN}]', "row 0: scale"),
    "infinity": ('[{"layer": 0, "neuron": 1, "scale": 1e400}]', "row 0: scale"),
    "too large": ([{"layer": 0, "neuron": 1, "scale": 1e39}], "row 0: scale"),
    "twice": (rows({(0, 1): 0.5}) * 2, r"row 1: neuron \(0, 1\) again"),
    "layer": (rows({(3, 1): 0.5}), r"no neuron \(3, 1\); expected layer < 3"),
    "neuron": (rows({(0, 24): 0.5}), r"no neuron \(0, 24\); expected"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_scale_files_are_refused_in_one_line(name: str, vlms: dict[str, VLM], tmp_path: Path) -> None:
    content, message = BAD_FILES[name]
    file = write(tmp_path / "scales.json", content)
    with pytest.raises(HonesError, match=message) as refused:
        export_scales(vlms["llava"], file, tmp_path / "out")
    assert "\n" not in str(refused.value) and str(file) in str(refused.value) and len(str(refused.value)) < 400
    assert not (tmp_path / "out").exists()


def test_files_that_are_none_or_too_large_are_refused(
    vlms: dict[str, VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HonesError, match="is not a file"):
        hones.scales_for(vlms["llava"], tmp_path)
    with pytest.raises(HonesError, match="no file"):
        hones.scales_for(vlms["llava"], tmp_path / "nothing.json")
    monkeypatch.setattr("hones.runs.artifacts.MAX_SCALES_BYTES", 10)
    with pytest.raises(HonesError, match="bytes; expected at most 10"):
        hones.scales_for(vlms["llava"], write(tmp_path / "scales.json", rows(SCALES)))
    with pytest.raises(HonesError, match="every scale is 0"):
        export_scales(vlms["llava"], Scales({(0, 1): 0.0}), tmp_path / "out")


def test_another_models_scales_are_refused(vlms: dict[str, VLM], tmp_path: Path) -> None:
    file = as_a_run(vlms["llava"], tmp_path / "run")
    assert hones.scales_for(vlms["llava"], file)[0].values == SCALES
    with pytest.raises(HonesError, match=r"run.json names .*llava at revision sha256:.*, this is .*qwen at sha256:"):
        hones.scales_for(vlms["qwen"], file)
    export = export_scales(vlms["llava"], file, tmp_path / "out", format="json", check=False).folder
    for exported in (export / "scales.json", export / "steering.json"):
        assert hones.scales_for(vlms["llava"], exported)[0].values == SCALES
        with pytest.raises(HonesError, match=r"hones_export.json names llava at revision"):
            hones.scales_for(vlms["qwen"], exported)
    copied = Path(shutil.copy(file, tmp_path / "copied.json"))
    assert hones.scales_for(vlms["llava"], copied)[1] is None
    with pytest.raises(HonesError, match=r"run.json names"):
        hones.scales_for(vlms["qwen"], copied, tmp_path / "run")
    write(copied, rows({(0, 1): 0.5}))
    with pytest.raises(HonesError, match="wrote no scales file like"):
        hones.scales_for(vlms["llava"], copied, tmp_path / "run")
    for changed in (file, export / "scales.json"):
        write(changed, rows({(0, 1): 0.5}))
        with pytest.raises(HonesError, match="is not the file that"):
            hones.scales_for(vlms["llava"], changed)


def test_the_card_says_what_the_run_recorded(vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = as_a_run(vlm, tmp_path / "run")
    done = export_scales(vlm, file, tmp_path / "out", format="json")
    text = (done.folder / "README.md").read_text()
    assert "| Gain, paired | +0.1250 [+0.0312, +0.2500] |" in text and "vqa_soft_accuracy on 7 test items" in text
    assert f"| Its revision | {vlm.revision} |" in text and "| Settings | beta 0.05 |" in text
    assert "| Tested on | 7 items of test.json, SHA-256 abababababababab |" in text
    assert "| Learned on | not recorded with the scales |" in text and "5 of " in text and "+1.5" in text
    everything = text + (done.folder / "hones_export.json").read_text()
    assert "secret" not in everything and str(tmp_path) not in everything and vlm.name not in everything
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "hones" and {"hones", "vqa"} <= set(front["tags"]) and "base_model" not in front
    assert front["license"] == "other" and front["license_name"] == "unknown" and "names none" in text
    header = json.loads((done.folder / "steering.json").read_text())
    assert (header["model"], header["revision"], header["task"]) == (Path(vlm.name).name, vlm.revision, "vqa")
    assert load_as_the_card_says(vlm, done.folder.resolve(), monkeypatch) is not None

    result = file.parent / "result.json"
    result.write_text(result.read_text().replace("0.625", "0.925"))
    with pytest.raises(HonesError, match=r"result.json is not the file that its run wrote"):
        export_scales(vlm, file, tmp_path / "again", format="json")
    result.unlink()
    text = (export_scales(vlm, file, tmp_path / "again", format="json").folder / "README.md").read_text()
    assert "No test figures were recorded" in text and "0.1250" not in text


def test_evidence_beside_the_scales_goes_into_the_card(vlms: dict[str, VLM], tmp_path: Path) -> None:
    """As `hones steer --methods` leaves it: figures of all ways and seeds in one file, a folder per further seed."""
    vlm, run = vlms["llava"], tmp_path / "run"
    first = as_a_run(vlm, run)
    level = Interval(0.5, 0.25, 0.75)
    gains = {"hones": replace(level, value=0.11), "random:1": replace(level, value=0.12)}
    ways = tuple(results.SteeredBy(name, 5, level, (0.5,), gain, 0.04) for name, gain in gains.items())
    tested = results.Tested("data/test.json", "anls", 9, level, ways)
    elsewhere = results.Elsewhere("caption", "bleu4", 4, level, level, replace(level, value=-0.13))
    content = results.Evidence("vqa", (3407, 2), tested, (elsewhere,), replace(tested, items=3), ())
    evidence = run / "vqa/steering/evidence.json"
    write_result(evidence, content)
    second = write(first.parent / "seed-2" / "scales.json", rows({(0, 1): 0.5}))
    control = write(run / "vqa/steering/random-1/scales.json", rows({(0, 2): 0.5}))
    settings = {"seed": 2, "early_stopping": {"share": 0.25, "patience": 1}}
    fingerprint = {"model": vlm.name, "revision": vlm.revision, "settings": settings, "data": "ef" * 32}
    dev = {"items": ["1", "2"], "file": "dev.json"}
    RunFolder(run).finish("vqa/steer/hones/seed-2", fingerprint, {"dev": dev}, [second])
    RunFolder(run).finish("vqa/steer/random-1", fingerprint, {}, [control])
    RunFolder(run).finish("vqa/evidence", fingerprint, {"test": {"items": ["1"]}}, [evidence])

    def card_of(file: Path) -> str:
        return (
            export_scales(vlm, file, tmp_path / f"out-{file.parent.name}", format="json").folder / "README.md"
        ).read_text()

    shown = "0.5000 [0.2500, 0.7500]"
    text = card_of(second)
    assert "No test figures were recorded with these scales" in text and "| Method | hones |" in text
    assert (
        "| Learned on | 2 items of dev.json, SHA-256 efefefefefefefef |" in text
        and "| seed 2, early_stopping.share 0.25, " in text
    )
    assert f"| random:1, test items | anls | 9 | {shown} | {shown} | +0.1200 [+0.2500, +0.7500] |" in text
    assert f"| hones, out of domain | anls | 3 | {shown}" in text and "| caption items | bleu4 | 4 |" in text
    assert "vqa_soft_accuracy on 7 test items" in card_of(first)
    assert "caption items" not in card_of(control), "measured under HONES's scales alone"
    write_result(evidence, replace(content, elsewhere=()))
    with pytest.raises(HonesError, match=r"evidence.json is not the file that its run wrote"):
        export_scales(vlm, second, tmp_path / "out", format="json")
    write(evidence, {"test": 3})
    RunFolder(run).finish("vqa/evidence", fingerprint, {}, [evidence])
    with pytest.raises(HonesError, match=r"evidence.json is not an evidence file"):
        export_scales(vlm, second, tmp_path / "out", format="json")


def test_the_licence_is_the_base_models(vlms: dict[str, VLM], tmp_path: Path) -> None:
    folder = shutil.copytree(vlms["llava"].name, tmp_path / "base")
    write(folder / "README.md", "---\nlicense: apache-2.0\n---\n# A model\n")
    write(folder / "LICENSE", "Apache")
    vlm = replace(vlms["llava"], name=str(folder))
    done = export_scales(vlm, Scales(SCALES), tmp_path / "out")
    assert yaml.safe_load((done.folder / "README.md").read_text().split("---")[1])["license"] == "apache-2.0"
    assert (done.folder / "LICENSE").read_text() == "Apache"
    write(folder / "README.md", "---\nlicense: [\n---\n")
    assert export_scales(vlm, Scales(SCALES), tmp_path / "other", format="json").manifest.license is None


def test_a_folder_in_use_is_refused_and_a_kill_leaves_nothing(
    vlms: dict[str, VLM], scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, out = vlms["llava"], tmp_path / "out"
    write(out / "mine.txt", "mine")
    with pytest.raises(HonesError, match="is not empty"):
        export_scales(vlm, scales_file, out, format="json")
    with pytest.raises(HonesError, match="is not an export of hones"):
        export_scales(vlm, scales_file, out, format="json", overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    (out / "mine.txt").unlink()
    export_scales(vlm, scales_file, out, format="json")
    before = (out / "hones_export.json").read_text()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hones.sharing.export.write_adapter", killed)
        with pytest.raises(KeyboardInterrupt):
            export_scales(vlm, scales_file, out, format="ia3", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scales.json"]
    assert (out / "hones_export.json").read_text() == before
    export_scales(vlm, scales_file, out, format="ia3", overwrite=True)
    assert read_manifest(out).format == "ia3" and not (out / "steering.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scales.json"]


def test_what_a_format_cannot_hold_is_refused(
    vlms: dict[str, VLM], scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HonesError, match="no format 'pickle'; expected merged or ia3 or lora or json"):
        export_scales(vlms["llava"], scales_file, tmp_path / "out", format="pickle")
    half = hones.load_vlm(vlms["llava"].name, dtype="float16")
    with pytest.raises(HonesError, match="layer 0: a scaled weight does not fit float16"):
        export_scales(half, Scales({(0, 1): 1e30}), tmp_path / "out")
    monkeypatch.setattr(formats, "MAX_RANK", 2)
    with pytest.raises(HonesError, match=r"layer 0 has 3 scaled neurons.*expected at most 2 per layer"):
        export_scales(vlms["llava"], scales_file, tmp_path / "out", format="lora")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(HonesError, match=r"need peft; pip install 'hones\[share\]'"):
        export_scales(vlms["llava"], scales_file, tmp_path / "out", format="ia3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["merged", "lora"])
def test_columns_of_quantised_weights_are_refused(vlms: dict[str, VLM], form: str, tmp_path: Path) -> None:
    with pytest.raises(HonesError, match="packed: layer 0: the weights of its Packed are quantised"):
        export_scales(with_packed_weights(vlms["llava"]), Scales(SCALES), tmp_path / "out", format=form, check=False)
    assert not [*tmp_path.iterdir()]


def test_push_uploads_what_was_written(
    vlms: dict[str, VLM], scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_scales(vlms["llava"], scales_file, tmp_path / "out", format="ia3", check=False).folder
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMine too.\n")
    monkeypatch.setenv("SHARE_TOKEN", "token-of-the-test")
    with hub.running() as there:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there.url)
        assert push_export(folder, "me/steered", token_from_env="SHARE_TOKEN").url is None and not there.asked
        done = push_export(folder, "me/steered", yes=True, private=True, token_from_env="SHARE_TOKEN")
        assert done.url is not None and done.url.endswith("/commit/" + "1" * 40)
        assert there.tokens == {"Bearer token-of-the-test"} and "private" in str(there.created[0])
        assert there.files == {p.name: p.read_bytes() for p in folder.iterdir()}
        there.refuse = True
        with pytest.raises(HonesError, match="the hub did not take me/steered") as refused:
            push_export(folder, "me/steered", yes=True, token_from_env="SHARE_TOKEN")
    with pytest.raises(HonesError, match=r"the hub did not take me/steered \(.*refused\)"):  # nobody is there now
        push_export(folder, "me/steered", yes=True, token_from_env="SHARE_TOKEN")
    assert "token-of-the-test" not in str(refused.value) and "\n" not in str(refused.value)


def test_an_export_and_a_push_are_in_the_runs_log(vlms: dict[str, VLM], tmp_path: Path) -> None:
    run = tmp_path / "run"
    scales_file = as_a_run(vlms["llava"], run)
    arguments = ["export", str(scales_file), "--model", vlms["llava"].name, "--format", "ia3", "--no-check"]
    for command in ([*arguments, "--to", str(run / "out")], ["push", str(run / "out"), "--to", "me/steered"]):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert close_log() == run / "hones.log"
    said = (run / "hones.log").read_text()
    assert f"exported {scales_file} to {run / 'out'} as ia3" in said
    assert f"would upload {run / 'out'} to me/steered" in said


def test_push_refuses_what_hones_did_not_write(
    vlms: dict[str, VLM], scales_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HonesError, match="is not an export of hones"):
        push_export(tmp_path, "me/steered")
    folder = export_scales(vlms["llava"], scales_file, tmp_path / "out", format="ia3", check=False).folder
    for name in ("you", "you/me/x", "../x", "me/st eered"):
        with pytest.raises(HonesError, match="no repository name"):
            push_export(folder, name)
    with pytest.raises(HonesError, match="environment variable NO_TOKEN is empty"):
        push_export(folder, "me/steered", token_from_env="NO_TOKEN")
    stranger = write(folder / "weights.bin", "pickle")
    with pytest.raises(HonesError, match=r"holds weights.bin, which hones did not write"):
        push_export(folder, "me/steered")
    manifest = json.loads((folder / "hones_export.json").read_text())
    write(folder / "hones_export.json", {**manifest, "files": {**manifest["files"], "weights.bin": "0"}})
    with pytest.raises(HonesError, match=r"weights.bin is not a kind of file"):
        push_export(folder, "me/steered")
    stranger.unlink()
    with pytest.raises(HonesError, match=r"lacks weights.bin"):
        push_export(folder, "me/steered")
    write(folder / "hones_export.json", manifest)
    write(folder / "scales.json", "[]")
    with pytest.raises(HonesError, match=r"scales.json has changed since the export"):
        push_export(folder, "me/steered")
    shutil.move(folder / "scales.json", tmp_path / "elsewhere.json")
    (folder / "scales.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(HonesError, match=r"scales.json is not a kind of file"):
        push_export(folder, "me/steered")
    write(folder / "hones_export.json", {**manifest, "more": 1})
    with pytest.raises(HonesError, match="more: Extra inputs are not permitted"):
        push_export(folder, "me/steered")


def test_ask_gives_both_answers_with_their_probabilities(vlm: VLM, tmp_path: Path) -> None:
    scales = {(layer, neuron): 1.5 for layer in range(3) for neuron in range(20)}
    scales_file = write(tmp_path / "scales.json", rows(scales))
    picture = draw(make_scene("ask/0"))
    picture.save(tmp_path / "picture.png")
    asked = hones.ask(vlm, tmp_path / "picture.png", "What is it?", scales=scales_file, max_new_tokens=NEW_TOKENS)
    plain, steered = asked.replies
    encoded = vlm.encode([picture], [asked.prompt])
    with torch.no_grad():
        answers = [vlm.encode_with_answers([picture], [asked.prompt], [r.answer], r.ended) for r in asked.replies]
        assert plain.answer == vlm.generate(encoded, NEW_TOKENS)[0]
        assert [plain.probability, plain.others] == pytest.approx([p(vlm, a) for a in answers])
        first = vlm.logits(encoded)[0, -1].softmax(-1)
        with scale_neurons(vlm.model, scales):
            assert steered.answer == vlm.generate(encoded, NEW_TOKENS)[0] != plain.answer
            assert [steered.others, steered.probability] == pytest.approx([p(vlm, a) for a in answers])
    assert [share for _, share in plain.first] == pytest.approx(first.sort(descending=True).values[:3].tolist())
    alone = hones.ask(vlm, tmp_path / "picture.png", "What is it?", max_new_tokens=NEW_TOKENS)
    assert alone.replies == (replace(plain, others=None),)


def p(vlm: VLM, encoded: Any) -> float:
    return float(vlm.log_probabilities(encoded).exp()[0])


def test_the_commands(
    model_folders: dict[str, Path], scales_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out, picture = model_folders["llava"], tmp_path / "out", tmp_path / "picture.png"
    draw(make_scene("ask/0")).save(picture)
    assert call("export", scales_file, "--model", model, "--format", "lora", "--to", out) == 0
    said = capsys.readouterr().out
    assert "5 neurons in 2 layers, largest scale +1.5, rank 3; reloaded: at most" in " ".join(said.split())
    assert call("export", scales_file, "--model", model, "--to", out) == 2
    assert "is not empty" in capsys.readouterr().err
    assert call("push", out, "--to", "me/steered") == 0
    assert "nothing was uploaded: this is a dry run" in capsys.readouterr().out
    asking = ("ask", "--model", model, "--image", picture, "--max-new-tokens", 3)
    assert call(*asking, "--scales", out / "scales.json", "What is it?") == 0
    said = capsys.readouterr().out
    assert "as it is" in said and "steered" in said and "5 neurons scaled" in said.replace("\n", " ")
    assert call(*asking, "--task", "ocr", "--box", "5,5,30,30") == 0
    assert "steered" not in capsys.readouterr().out
    for wrong, message in {
        ("--task", "caption", "What?"): "a question with caption",
        (): "no question",
        ("--task", "retrieval"): "no question for retrieval",
        ("--box", "1,2,3", "--task", "ocr"): "expected four numbers X,Y,W,H",
        ("--box", "1,2,3,4", "What?"): "a box for vqa",
        ("--image", tmp_path / "no.png", "What?"): "no picture",
        ("--image", scales_file, "What?"): "cannot read picture",
        ("--scales", picture, "What?"): "is not readable JSON",
    }.items():
        assert call(*asking, *wrong) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("hones: ") and message in error
