"""Models that come in other ways: already loaded, quantised, on given devices, pinned to a commit, or not at all."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_probe
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2VLConfig
from transformers.utils import is_torchvision_available

from hones import (
    HonesError,
    SteeringSettings,
    attach,
    attribute_neurons,
    learn_scales,
    load_vlm,
    make_task,
    mask_neurons,
    replace_heads,
    verify,
)
from hones.data.items import Items
from hones.method.found import HeadScore
from hones.models.agreement import check_parts
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Intervention
from hones.models.processors import load_processor
from hones.models.vlm import VLM
from hones.runs.plan.shapes import weightless
from hones.stats import Interval
from hones.sweep.run import SweepSettings, sweep


class Packed(nn.Linear):
    """A linear layer whose weights are bytes and a scale, as quantised checkpoints have them."""

    def __init__(self, own: nn.Linear) -> None:
        super().__init__(own.in_features, own.out_features, bias=False)
        scale = own.weight.detach().abs().max() / 127
        self.register_buffer("scale", scale)
        self.weight = nn.Parameter((own.weight.detach() / scale).round().to(torch.int8), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input) * self.get_buffer("scale"))


def with_packed_weights(vlm: VLM) -> VLM:
    """A copy whose projections are packed."""
    model = copy.deepcopy(vlm.model)
    for layer in find_anatomy(model).layers:
        layer.attention.o_proj = Packed(layer.o_proj)  # pyright: ignore[reportArgumentType]
        layer.mlp.down_proj = Packed(layer.down_proj)  # pyright: ignore[reportArgumentType]
    return attach("packed", model, vlm.processor)


@pytest.fixture(scope="module")
def packed(vlms: dict[str, VLM]) -> VLM:
    return with_packed_weights(vlms["llava"])


def test_quantised_weights_can_be_masked_and_heads_scored(packed: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    examples = task.examples(discovery)[0][:3]
    edits = [BASELINE, Intervention(heads=frozenset({(1, 2)})), Intervention(masked=frozenset({(0, 1)}))]
    expected = sweep(packed, task, examples, edits, SweepSettings("naive", max_new_tokens=3))
    with pytest.warns(UserWarning, match=r"cannot be served by replay \(the weights of its Packed are quantised\)"):
        found = sweep(packed, task, examples, edits, SweepSettings("replay", max_new_tokens=3))
    np.testing.assert_array_equal(found, expected)
    assert verify(packed).failed[0].name == "an FFN adds what its neurons write"


def test_quantised_weights_have_no_write_in(packed: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    heads = [HeadScore(0, 1, Interval(1.0, 1.0, 1.0), 0.0, 0.0)]
    with pytest.raises(
        HonesError, match=r"packed: layer 0: the weights of its Packed are quantised; expected floating"
    ):
        attribute_neurons(packed, task, task.examples(discovery)[0][:2], heads, sweep=SweepSettings("naive"))


@pytest.mark.parametrize("gamma", [0.0, 1e-5])
def test_a_model_that_passes_no_gradient_on_is_not_steered(
    vlms: dict[str, VLM], discovery: Items, gamma: float
) -> None:
    """As bitsandbytes' 4-bit layers on a CPU, whose operations have no gradient: all scales would stay 0."""
    task = make_task("vqa")
    settings = SteeringSettings(epochs=1, gamma=gamma)
    hook = vlms["llava"].anatomy.layers[2].mlp.register_forward_hook(lambda _, __, out: out.detach())  # pyright: ignore
    before = vlms["llava"].anatomy.layers[2].block.register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    try:
        with pytest.raises(HonesError, match="no gradient reaches the scales; expected a model that can be diff"):
            learn_scales(vlms["llava"], task, task.examples(discovery)[0][:2], [(0, 1), (1, 3)], settings)
    finally:
        hook.remove()
        before.remove()


def test_a_loaded_pair_is_attached_as_it_is(vlms: dict[str, VLM]) -> None:
    own = vlms["qwen"]
    model, before = copy.deepcopy(own.model).train(), {k: v.clone() for k, v in own.model.state_dict().items()}
    vlm = attach("mine", model, own.processor, revision="abc")
    assert vlm.model is model and not model.training and (vlm.name, vlm.revision) == ("mine", "abc")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    encoded = encoded_probe(own)
    with torch.no_grad():
        assert torch.equal(vlm.logits(encoded, 1), own.logits(encoded, 1))
    of_text = copy.copy(own.processor)
    del of_text.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(HonesError, match=r"has no image_processor"):
        attach("mine", model, of_text)


def test_offloaded_weights_are_refused(vlms: dict[str, VLM]) -> None:
    model = copy.deepcopy(vlms["llava"].model)
    find_anatomy(model).layers[2].down_proj.to("meta")
    with pytest.raises(HonesError, match=r"layers\.2\.mlp\.down_proj\.weight is not on any device"):
        attach("offloaded", model, vlms["llava"].processor)
    torch.nn.Module.to(model, device="meta")
    with pytest.raises(HonesError, match=r"bare: it has no weights \(meta\); expected what from_pretrained gives"):
        attach("bare", model, vlms["llava"].processor)


@pytest.mark.parametrize("left", [None, {}])
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_half_a_configuration_is_refused_before_defaults_are_taken(
    part: str, left: dict[str, Any] | None, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """A model of transformers' own defaults has billions of numbers, and `hones plan` would count them."""
    folder = shutil.copytree(model_folders["llava"], tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    if left is None:
        del config[part]
    else:
        config[part] = left
    (folder / "config.json").write_text(json.dumps(config))
    for load in (load_vlm, weightless):
        with pytest.raises(HonesError, match=rf"config.json has no {part}; expected all parts of a llava; put"):
            load(str(folder))


def test_parts_may_stand_at_the_top_or_under_another_name(tmp_path: Path) -> None:
    config = Qwen2VLConfig()
    for written in ({"hidden_size": 8, "vision_config": {"depth": 1}}, {"thinker_config": {"hidden_size": 8}}):
        (tmp_path / "config.json").write_text(json.dumps(written))
        check_parts(tmp_path, config)


def test_devices_and_attention_are_those_asked_for(model_folders: dict[str, Path], vlms: dict[str, VLM]) -> None:
    folder = str(model_folders["llava"])
    vlm = load_vlm(folder, device_map={"": "cpu"}, attn_implementation="eager")
    assert vlm.attention == "eager" != vlms["llava"].attention and vlm.device.type == "cpu"
    encoded = encoded_probe(vlm)
    with torch.no_grad():
        torch.testing.assert_close(vlm.logits(encoded, 1), vlms["llava"].logits(encoded, 1), atol=1e-4, rtol=1e-3)
    with pytest.raises(HonesError, match="device 'cpu' and a device_map; expected one of them"):
        load_vlm(folder, device="cpu", device_map="auto")
    with pytest.raises(HonesError, match="cannot load the model"):
        load_vlm(folder, attn_implementation="abacus")


def test_a_text_only_model_without_a_tokenizer_is_refused_but_can_be_edited(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(HonesError, match=r"has no tokenizer; expected tokenizer\.json, or a vocabulary"):
        load_vlm(str(tmp_path))
    ids = torch.arange(5)[None]
    with torch.no_grad():
        base = model(ids).logits
        for edit in (replace_heads(model, [(0, 1)]), mask_neurons(model, [(1, 3)])):
            with edit:
                assert not torch.equal(model(ids).logits, base)


def test_code_from_the_hub_is_not_run_unless_asked(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "own-code"
    shutil.copytree(model_folders["llava"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(HonesError, match="cannot load the model"):
        load_vlm(str(folder))
    with pytest.raises(SystemExit, match="ran"):
        load_vlm(str(folder), trust_remote_code=True)


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is here")
@pytest.mark.parametrize("family", ["Molmo2", "Phi4Multimodal"])
def test_image_processors_that_need_torchvision_are_refused(
    family: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    for file in model_folders["llava"].glob("token*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": f"{family}ImageProcessor"}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": f"{family}Processor"}))
    with pytest.raises(HonesError, match="cannot load the processor"):
        load_processor(str(tmp_path), family.lower())


def test_the_commit_that_a_branch_stands_for_is_recorded(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """In a cache of the hub's form, without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(model_folders["llava"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = "from hones import load_vlm; print(load_vlm('someone/tiny').revision)"
    paths: Any = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == commit, done.stderr


def test_every_command_that_loads_a_model_takes_the_loading_options() -> None:
    from typer.main import get_command

    from hones.cli.commands import app

    loading = {"device_map", "attention", "trust_remote_code"}
    commands: dict[str, Any] = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    with_options = {name for name, command in commands.items() if loading <= {option.name for option in command.params}}
    assert {"heads", "neurons", "mask", "steer", "compare", "analyze", "explain", "verify"} <= with_options
    assert "demo" not in with_options


def with_config(folder: Path, to: Path, **changes: object) -> str:
    """A copy of a model whose config.json says something else of its language model."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    text = config.get("text_config", config)
    text.update({key: value for key, value in changes.items() if value is not None})
    for key in [key for key, value in changes.items() if value is None]:
        del text[key]
    (to / "config.json").write_text(json.dumps(config))
    return str(to)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "config.json says 2 layers, the weights hold 3; expected one number of layers"),
        ({"num_hidden_layers": 5}, "config.json says 5 layers, the weights hold 3"),
        ({"num_attention_heads": 8}, "config.json says 8 heads of width 8, 64 together, but the weights have 32"),
        ({"num_attention_heads": 8, "num_key_value_heads": 4}, "config.json says 8 heads of width 8, 64 together"),
        ({"intermediate_size": 16}, "9 weights have another shape than config.json says, the first is model.lang"),
        ({"attention_bias": True}, "12 weights are missing"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    model_folders: dict[str, Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(HonesError, match=re.escape(message)):
        load_vlm(with_config(model_folders["llava"], tmp_path / "changed", **changes))


def test_a_decoder_with_weights_that_have_no_place_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = with_config(model_folders["llava"], tmp_path / "changed")
    file = Path(folder, "model.safetensors")
    tensors = load_file(file)
    (layer,) = (name for name in tensors if name.endswith("layers.1.self_attn.o_proj.weight") and "language" in name)
    harmless = {
        "vision_head.weight": torch.ones(2),
        layer.replace("o_proj.weight", "rotary_emb.inv_freq"): torch.ones(2),
    }
    save_file(tensors | harmless, file, metadata={"format": "pt"})
    assert load_vlm(folder).anatomy.shape == (3, 4, 20)
    save_file(tensors | {layer.replace("weight", "bias"): torch.ones(24)}, file, metadata={"format": "pt"})
    with pytest.raises(
        HonesError, match=r"1 weights have no place .*layers\.1\.self_attn\.o_proj\.bias; expected a pl"
    ):
        load_vlm(folder)


def test_a_config_that_contradicts_itself_is_one_line(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = with_config(model_folders["qwen"], tmp_path / "changed", num_hidden_layers=2)
    with pytest.raises(HonesError, match=r"cannot load the model .*`num_hidden_layers` \(2\) must be equal to"):
        load_vlm(folder)
    folder = with_config(model_folders["qwen"], tmp_path / "dropped", num_hidden_layers=2, layer_types=None)
    with pytest.raises(HonesError, match=r"config\.json says 2 layers, the weights hold 3"):
        load_vlm(folder)
