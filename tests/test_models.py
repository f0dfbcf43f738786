"""Loading, anatomy, encoding: what a model must be before anything is measured on it."""

import copy
import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PROMPTS, encoded_probe, with_model

from hones import HonesError, attach, load_vlm
from hones.data.shapes.scene import draw, make_scene
from hones.models.finding import find_anatomy
from hones.models.probe import find_answer_tokens, probe_inputs
from hones.models.processors import load_processor
from hones.models.vlm import VLM, Encoded


def test_anatomy_is_that_of_the_language_model(vlms: dict[str, VLM]) -> None:
    llava, qwen = vlms["llava"].anatomy, vlms["qwen"].anatomy
    assert (llava.shape, llava.head_dim, llava.width) == ((3, 4, 20), 8, 24)
    assert (qwen.shape, qwen.head_dim, qwen.width) == ((3, 4, 24), 8, 32)
    for vlm in vlms.values():
        inside = set(map(id, vlm.model.get_decoder().modules()))
        assert all(id(layer.o_proj) in inside and id(layer.down_proj) in inside for layer in vlm.anatomy.layers)


def test_heads_that_do_not_fit_the_projection_are_an_error(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model)
    model.config.get_text_config().num_attention_heads = 5
    with pytest.raises(HonesError, match=r"layer 0: o_proj and down_proj map 32 -> .*expected 30 -> "):
        find_anatomy(model)


def test_a_decoder_without_the_sites_is_an_error(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model)
    blocks: Any = model.get_decoder().layers
    del blocks[1].mlp.down_proj
    with pytest.raises(HonesError, match=r"layer 1: none of mlp\.down_proj"):
        find_anatomy(model)


def test_an_anatomy_is_found_once_and_anew_where_modules_were_replaced(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model)
    anatomy = find_anatomy(model)
    assert find_anatomy(model) is anatomy
    assert anatomy is not vlm.anatomy
    blocks: Any = model.get_decoder().layers
    for change in (
        lambda: setattr(blocks[1].mlp, "down_proj", copy.deepcopy(blocks[1].mlp.down_proj)),
        lambda: setattr(blocks[2].self_attn, "o_proj", copy.deepcopy(blocks[2].self_attn.o_proj)),
        lambda: setattr(blocks[0], "mlp", copy.deepcopy(blocks[0].mlp)),
        lambda: setattr(blocks[0], "self_attn", copy.deepcopy(blocks[0].self_attn)),
        lambda: blocks.__setitem__(1, copy.deepcopy(blocks[1])),
        lambda: setattr(blocks[2].mlp, "act_fn", copy.deepcopy(blocks[2].mlp.act_fn)),
        lambda: model.set_output_embeddings(copy.deepcopy(model.get_output_embeddings())),
        lambda: blocks.__delitem__(0),
    ):
        change()
        found = find_anatomy(model)
        assert found is not anatomy
        assert [layer.down_proj for layer in found.layers] == [block.mlp.down_proj for block in blocks]
        assert [layer.o_proj for layer in found.layers] == [block.self_attn.o_proj for block in blocks]
        assert find_anatomy(model) is found
        anatomy = found
    forgotten = weakref.ref(model)
    del model, blocks, change
    gc.collect()
    assert forgotten() is None, "what is known of a model does not keep it"


def test_a_model_says_what_it_is_in_three_lines(vlm: VLM) -> None:
    first, second, third = repr(vlm).splitlines()
    assert first.startswith(f"VLM {vlm.name} ({type(vlm.model).__name__}), revision {vlm.revision}, float32 on cpu")
    layers, heads, neurons = vlm.anatomy.shape
    width = vlm.anatomy.width
    assert second.strip() == f"{layers} layers x {heads} heads, {neurons} neurons in each layer, width {width}"
    assert f"Yes is token {vlm.answer_tokens.yes}, No {vlm.answer_tokens.no}" in third
    assert "what neurons write is known" in third


def test_a_batch_equals_its_rows_alone(vlm: VLM) -> None:
    pictures = [draw(make_scene(f"test/{i}")) for i in range(3)]
    batch = vlm.encode(pictures, PROMPTS)
    assert (batch.inputs["attention_mask"][:, 0] == 0).any(), "the prompts must differ in length to test padding"
    assert (batch.inputs["attention_mask"][:, -1] == 1).all(), "padding is on the left"
    with torch.no_grad():
        together = vlm.logits(batch, keep=1)[:, -1]
    texts = vlm.generate(batch, 6)
    for i, (picture, prompt) in enumerate(zip(pictures, PROMPTS, strict=True)):
        alone = vlm.encode([picture], [prompt])
        with torch.no_grad():
            torch.testing.assert_close(together[i], vlm.logits(alone, keep=1)[0, -1], atol=2e-5, rtol=1e-4)
        assert texts[i] == vlm.generate(alone, 6)[0]


def test_greedy_generation_is_the_argmax_of_each_step(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model's own generation settings say."""
    assert vlm.model.generation_config is not None and vlm.eos_ids
    for field, value in (("repetition_penalty", 5.0), ("no_repeat_ngram_size", 1), ("num_beams", 3)):
        monkeypatch.setattr(vlm.model.generation_config, field, value)
    own = vlm.model.generation_config
    encoded = vlm.encode([draw(make_scene("test/0"))], [PROMPTS[0]])
    inputs, new = dict(encoded.inputs), []
    for _ in range(5):
        with torch.no_grad():
            token = vlm.logits(Encoded(inputs), keep=1)[0, -1].argmax()
        if int(token) in vlm.eos_ids:
            break
        new.append(token)
        for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                column = torch.full((1, 1), int(value), dtype=inputs[name].dtype)
                inputs[name] = torch.cat([inputs[name], column], dim=1)
    assert vlm.generate(encoded, 5) == [vlm.tokenizer.decode(torch.tensor(new), skip_special_tokens=True).strip()]
    assert vlm.model.generation_config is own


def test_qwen_needs_its_token_types(vlms: dict[str, VLM]) -> None:
    """Left out, picture positions silently become text positions."""
    vlm = vlms["qwen"]
    encoded = encoded_probe(vlm)
    types, ids = encoded.inputs["mm_token_type_ids"], encoded.inputs["input_ids"]
    assert torch.equal(types == 1, ids == vlm.model.config.image_token_id)
    without = {k: v for k, v in encoded.inputs.items() if k != "mm_token_type_ids"}
    with torch.no_grad():
        difference = (vlm.logits(encoded, keep=1) - vlm.logits(Encoded(without), keep=1)).abs().max()
    assert difference > 0.05


def test_qwen_inputs_from_parts(model_folders: dict[str, Path], vlms: dict[str, VLM]) -> None:
    """Without its video part the processor gives what the image processor and the tokenizer give by hand."""
    vlm = vlms["qwen"]
    picture = draw(make_scene("test/0")).resize((160, 96))
    encoded = vlm.encode([picture], ["What?"])
    pixels = vlm.processor.image_processor(images=[picture], return_tensors="pt")  # pyright: ignore
    tokens = int(pixels["image_grid_thw"][0].prod()) // vlm.processor.image_processor.merge_size**2  # pyright: ignore
    text = vlm.wrap("What?").replace("<|image_pad|>", "<|image_pad|>" * tokens)
    assert encoded.inputs["input_ids"][0].tolist() == vlm.tokenizer(text)["input_ids"]
    assert torch.equal(encoded.inputs["pixel_values"], pixels["pixel_values"])
    assert (encoded.inputs["input_ids"] == vlm.model.config.image_token_id).sum() == tokens == 60


def test_pictures_are_prepared_by_pil(vlm: VLM) -> None:
    assert vlm.image_backend == "pil"
    assert type(vlm.processor.image_processor).__name__.endswith("Pil")  # pyright: ignore[reportAttributeAccessIssue]


def test_templates(vlms: dict[str, VLM]) -> None:
    assert vlms["llava"].wrap("Hi?") == "USER: <image>\nHi?\nASSISTANT:"
    assert vlms["qwen"].wrap("Hi?") == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_teacher_forcing_marks_exactly_the_answer(vlm: VLM) -> None:
    answers = ["red", "a blue star", "K7X"]
    encoded = vlm.encode_with_answers([draw(make_scene(f"test/{i}")) for i in range(3)], PROMPTS, answers)
    assert encoded.answer is not None
    end = vlm.tokenizer.decode([vlm.eos_ids[0]])
    for ids, marks, answer in zip(encoded.inputs["input_ids"], encoded.answer, answers, strict=True):
        assert vlm.tokenizer.decode(ids[marks]) == f"{vlm.answer_tokens.lead}{answer}{end}"


@pytest.mark.parametrize("lead", ["", " "])
def test_yes_and_no_are_those_the_model_continues_with(vlm: VLM, lead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(vlm.model)
    forms = {"Yes": 300, "No": 301, "ĠYes": 302, "ĠNo": 303}
    monkeypatch.setattr(type(vlm.tokenizer), "get_vocab", lambda self: forms)
    favoured = [302, 303] if lead else [300, 301]
    hidden = []
    norm: Any = model.get_decoder().norm
    norm.register_forward_hook(lambda _, args, out: hidden.append(out[:, -1]))
    inputs = probe_inputs(model, vlm.processor)
    find_answer_tokens("model", model, vlm.processor, inputs)
    find_anatomy(model).lm_head.weight.data[favoured] = 5 * torch.nn.functional.normalize(hidden[0].mean(0), dim=0)
    found = find_answer_tokens("model", model, vlm.processor, inputs)
    assert [found.yes, found.no, found.lead] == [*favoured, lead]


def test_equal_yes_and_no_ids_are_an_error_where_they_are_read(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = probe_inputs(vlm.model, vlm.processor)
    for vocabulary, problem in (
        ({"Yes": 300, "No": 300}, "model: Yes and No are the same token, id 300; expected two different tokens"),
        ({"Yes": 300}, "model: its vocabulary has no single tokens for Yes and No"),
    ):
        monkeypatch.setattr(type(vlm.tokenizer), "get_vocab", lambda self, words=vocabulary: words)
        found = find_answer_tokens("model", vlm.model, vlm.processor, inputs)
        assert found.ids is None
        with pytest.raises(HonesError, match=problem):
            found.of("Yes")


@pytest.mark.parametrize("site", ["o_proj", "down_proj"])
def test_an_edit_that_changes_nothing_is_an_error(vlm: VLM, site: str) -> None:
    model = copy.deepcopy(vlm.model)
    getattr(find_anatomy(model).layers[1], site).weight.data.zero_()
    with pytest.raises(HonesError, match=f"an edit at {site} of layer 1 changes nothing that leaves it"):
        attach("model", model, vlm.processor)


@pytest.mark.parametrize("site", ["o_proj", "down_proj"])
def test_an_edit_whose_hook_does_nothing_is_an_error(vlm: VLM, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer may use the weights of a projection without calling it: its hooks are never asked."""
    model = copy.deepcopy(vlm.model)
    projection = getattr(find_anatomy(model).layers[2], site)
    monkeypatch.setattr(type(projection), "__call__", _calls_all_but(projection))
    with pytest.raises(HonesError, match=f"an edit at {site} of layer 2 changes nothing that leaves it"):
        attach("model", model, vlm.processor)


def _calls_all_but(silent: torch.nn.Linear) -> Any:
    call = torch.nn.Module.__call__
    return lambda self, x: torch.nn.functional.linear(x, self.weight, self.bias) if self is silent else call(self, x)


def test_an_edit_that_stays_behind_is_an_error(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.hooks.RemovableHandle.remove", lambda self: None)
    with pytest.raises(
        HonesError, match=r"at \w+ of layer 0 changes nothing that leaves it; expected a change, gone when"
    ):
        attach("model", copy.deepcopy(vlm.model), vlm.processor)


def test_a_layer_that_is_not_run_is_an_error(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model)
    blocks: Any = model.get_decoder().layers
    blocks[1].__class__ = type("Skipped", (type(blocks[1]),), {"__call__": lambda self, x, *_, **__: x})
    with pytest.raises(HonesError, match="an edit at o_proj of layer 1 changes nothing that leaves it"):
        attach("model", model, vlm.processor)


def test_the_check_of_edits_is_one_pass_and_leaves_nothing_behind(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(vlm.model)
    before = [[*module._forward_pre_hooks, *module._forward_hooks] for module in model.modules()]
    passes: list[None] = []
    model.register_forward_pre_hook(lambda *_: passes.append(None))
    attached = attach("model", model, vlm.processor)
    assert len(passes) == 2, "the answer tokens are read from one, edits are checked in the other"
    model._forward_pre_hooks.clear()
    assert before == [[*module._forward_pre_hooks, *module._forward_hooks] for module in model.modules()]
    assert all("forward" not in vars(layer.block) for layer in attached.anatomy.layers)


def test_logits_that_are_not_finite_are_an_error(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model)
    find_anatomy(model).lm_head.weight.data[0, 0] = float("nan")
    broken = with_model(vlm, model)
    with pytest.raises(HonesError, match="not finite"):
        broken.generate(encoded_probe(vlm), 3)
    with pytest.raises(HonesError, match="not finite"):
        broken.yes_margins(encoded_probe(vlm))


def test_unknown_models_and_options_are_errors(model_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(HonesError, match=r"no folder .*nothing; expected .*tiny-llava"):
        load_vlm(str(tmp_path / "nothing"))
    with pytest.raises(HonesError, match="unknown dtype 'float8'"):
        load_vlm(str(model_folders["llava"]), dtype="float8")
    with pytest.raises(HonesError, match="no device 'abacus'"):
        load_vlm(str(model_folders["llava"]), device="abacus")
    with pytest.raises(HonesError, match="no processor is known"):
        load_processor(str(tmp_path), "abacus")


def test_corrupt_weights_are_an_error(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model_folders["llava"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HonesError, match="cannot load the model"):
        load_vlm(str(folder))


def test_weights_that_are_missing_are_an_error(model_folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers would fill them with random numbers and a warning."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(model_folders["qwen"], folder)
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layers.1.mlp.down_proj" in name)
    tensors.pop(gone)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HonesError, match=r"1 weights are missing.*layers\.1\.mlp\.down_proj"):
        load_vlm(str(folder))


def test_the_revision_tells_models_apart(model_folders: dict[str, Path], vlms: dict[str, VLM], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model_folders["llava"], folder)
    assert load_vlm(str(folder)).revision == vlms["llava"].revision
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 1e-4
    (folder / "config.json").write_text(json.dumps(config))
    assert load_vlm(str(folder)).revision != vlms["llava"].revision


def test_margins_of_a_bfloat16_model_do_not_tie(vlm: VLM) -> None:
    """Logits in bfloat16 would lie on a coarse grid; the margin is read from the hidden state in float32."""
    half = with_model(vlm, copy.deepcopy(vlm.model).bfloat16())
    pictures = [draw(make_scene("test/0"))] * 12
    encoded = vlm.encode(pictures, [f"Is there a {i} star?" for i in range(12)])
    margins = half.yes_margins(encoded)
    assert margins.dtype == torch.float32 and len(set(margins.tolist())) == 12
    torch.testing.assert_close(margins, vlm.yes_margins(encoded), atol=0.3, rtol=0.1)


def test_margins_are_differences_of_logits(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    with torch.no_grad():
        logits = vlm.logits(encoded, keep=1)[:, -1]
    expected = logits[:, vlm.answer_tokens.yes] - logits[:, vlm.answer_tokens.no]
    torch.testing.assert_close(vlm.yes_margins(encoded), expected, atol=1e-5, rtol=1e-4)
