"""Families of another shape: other names than o_proj and down_proj, Conv1D, biases, FFNs without a gate.

What is expected comes from each family's own modules, by their paths below, not from the anatomy.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from census_models import build_text
from safetensors.torch import load_file, save_file
from test_text_models import CAPITALS, capitals, own_answers
from text_models import OTHER_SHAPES, TEXT_FAMILIES, save_text
from torch import Tensor, nn

from hones import HonesError, load_items, load_vlm, mask_neurons, replace_heads, scale_neurons, verify
from hones.method.analysis.lens import logit_lens
from hones.method.direction import Reading, target_directions
from hones.method.steering.settings import Scales
from hones.models.backward import backward_by
from hones.models.capture import FFN, Z, capture, collect
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of
from hones.rivals import METHODS, make_method
from hones.rivals.base import Context
from hones.rivals.relp import RelevancePatching
from hones.sharing.export import export_scales
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.tasks.log_probability import LogProbability

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
MASKED = [(0, 3), (0, 7), (2, 19)]
SCALES = {(0, 3): 0.5, (0, 7): -0.75, (2, 19): 1.5}
PARALLEL = ("Falcon", "Phi", "GPT-NeoX")

FALCON = ("transformer.h", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.act", "mlp.dense_4h_to_h")
PATHS = {
    "GPT-2": ("transformer.h", "attn.c_proj", "mlp.c_fc", "mlp.act", "mlp.c_proj"),
    "OPT": ("model.decoder.layers", "self_attn.out_proj", "fc1", "activation_fn", "fc2"),
    "Falcon": FALCON,
    "Falcon-RW": FALCON,
    "Phi": ("model.layers", "self_attn.dense", "mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    "StarCoder2": ("model.layers", "self_attn.o_proj", "mlp.c_fc", "mlp.act", "mlp.c_proj"),
    "GPT-NeoX": ("gpt_neox.layers", "attention.dense", "mlp.dense_h_to_4h", "mlp.act", "mlp.dense_4h_to_h"),
}
NORMS = {"GPT-2": "transformer.ln_f", "OPT": "model.decoder.final_layer_norm", "Phi": "model.final_layernorm"}
OF_ALL = pytest.mark.parametrize("family", OTHER_SHAPES)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("shapes"), {}

    def load(family: str) -> VLM:
        if family not in known:
            known[family] = load_vlm(str(TEXT_FAMILIES[family](folder / family)))
        return known[family]

    return load


def parts(model: nn.Module, family: str) -> list[tuple[Any, ...]]:
    """The block, its attention's output projection, fc1, activation and down projection, layer by layer."""
    layers, *paths = PATHS[family]
    blocks: Any = model.get_submodule(layers)
    return [(block, *(block.get_submodule(path) for path in paths)) for block in blocks]


def columns(projection: Any, family: str) -> Tensor:
    """The weight as [out, in], a view."""
    return projection.weight.data.T if family == "GPT-2" else projection.weight.data


def asked(vlm: VLM) -> Encoded:
    return vlm.encode([None] * len(PROMPTS), PROMPTS)


def logits_and_text(vlm: VLM, model: Any, encoded: Encoded) -> tuple[Tensor, list[list[int]]]:
    """By transformers alone: logits of all tokens, greedy answers."""
    mask = encoded.inputs["attention_mask"]
    with torch.no_grad():
        logits = model(**encoded.inputs, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits[mask.bool()]
        ids = model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return logits, ids.tolist()


@OF_ALL
def test_z_is_what_the_activation_gives(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    entering: list[Tensor] = []
    of_fc1 = [fc1 for _, _, fc1, *_ in parts(vlm.model, family)]
    hooks = [fc1.register_forward_pre_hook(lambda _, args: entering.append(args[0])) for fc1 in of_fc1]
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, FFN) as added, torch.no_grad():
        vlm.logits(encoded)
    for hook in hooks:
        hook.remove()
    shape = encoded.inputs["input_ids"].shape
    for number, (_, _, fc1, act, down) in enumerate(parts(vlm.model, family)):
        with torch.no_grad():
            expected = act(fc1(entering[number]))
            torch.testing.assert_close(z[number], expected.view(*shape, 24))
            torch.testing.assert_close(added[number], down(expected).view(*shape, 32))
            assert down.bias is None or down.bias.abs().min() > 0


@OF_ALL
def test_neuron_edits_equal_folded_weights(family: str, loaded: Callable[[str], VLM]) -> None:
    """Columns of the down projection, or rows where it is a Conv1D."""
    vlm = loaded(family)
    encoded = asked(vlm)
    base, base_text = logits_and_text(vlm, vlm.model, encoded)
    edits = {"mask": (mask_neurons(vlm.model, MASKED), dict.fromkeys(MASKED, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, SCALES), {site: 1 + s for site, s in SCALES.items()})
    for edit, factors in edits.values():
        folded = copy.deepcopy(vlm.model)
        for (layer, neuron), factor in factors.items():
            columns(parts(folded, family)[layer][-1], family)[:, neuron] *= factor
        expected, text = logits_and_text(vlm, folded, encoded)
        with edit:
            found, hooked_text = logits_and_text(vlm, vlm.model, encoded)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert hooked_text == text and (found - base).abs().max() > 1e-2
    assert logits_and_text(vlm, vlm.model, encoded)[1] == base_text


@OF_ALL
def test_a_replaced_head_equals_folded_weights(family: str, loaded: Callable[[str], VLM]) -> None:
    """W_j += W_h / (H - 1), W_h = 0: the bias of the projection stays."""
    vlm = loaded(family)
    encoded = asked(vlm)
    base, _ = logits_and_text(vlm, vlm.model, encoded)
    for layer, head in ((0, 1), (2, 3)):
        folded = copy.deepcopy(vlm.model)
        by_head = columns(parts(folded, family)[layer][1], family).unflatten(1, (4, 8))
        removed = by_head[:, head].clone()
        by_head += removed[:, None] / 3
        by_head[:, head] = 0
        expected, text = logits_and_text(vlm, folded, encoded)
        with replace_heads(vlm.model, [(layer, head)]):
            found, hooked_text = logits_and_text(vlm, vlm.model, encoded)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert hooked_text == text and (found - base).abs().max() > 1e-3


@OF_ALL
def test_contributions_sum_to_what_the_ffn_adds_less_its_bias(family: str, loaded: Callable[[str], VLM]) -> None:
    """Measured at the residual: what leaves a layer, less what leaves it with its FFN's output taken away."""
    vlm = loaded(family)
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    total = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    for number, (block, *_, down) in enumerate(parts(vlm.model, family)):
        left: list[Tensor] = []

        def keep(_: Any, __: Any, out: Any, left: list[Tensor] = left) -> None:
            left.append((out[0] if isinstance(out, tuple) else out)[:, -1].clone())

        hooks = [block.register_forward_hook(keep)]
        with torch.no_grad():
            vlm.logits(encoded, 1)
            hooks.append(down.register_forward_hook(lambda _, __, out: torch.zeros_like(out)))
            vlm.logits(encoded, 1)
        for hook in hooks:
            hook.remove()
        added = left[0] - left[1]
        of_neurons = added if down.bias is None else added - down.bias.detach()
        torch.testing.assert_close(total[:, number], (of_neurons * u).sum(-1), atol=1e-5, rtol=1e-4)
        assert down.bias is None or (total[:, number] - (added * u).sum(-1)).abs().max() > 1e-3, "a bias is no neuron's"


@OF_ALL
def test_a_head_reaches_its_own_layers_neurons_unless_they_stand_beside_it(
    family: str, loaded: Callable[[str], VLM]
) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    base = activations(vlm, encoded)
    with replace_heads(vlm.model, [(1, 0)]):
        change = (activations(vlm, encoded) - base).abs().amax((0, 2))
    assert change[0] == 0 and change[2] > 0
    assert bool(change[1] == 0) is (family in PARALLEL)


@OF_ALL
def test_all_engines_give_the_same_cells(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    vlm = loaded(family)
    task = capitals()
    examples, _ = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))
    edits = [BASELINE, *(Intervention(heads=frozenset({(layer, h)})) for layer in range(3) for h in (0, 3))]
    edits += [Intervention(masked=frozenset({(0, 3)})), Intervention(masked=frozenset(MASKED))]
    edits += [Intervention(scales=SCALES), Intervention(heads=frozenset({(1, 0)}), masked=frozenset({(1, 5)}))]
    edits += [Intervention(scales={(layer, i): -6.0 for i in range(24)}) for layer in range(3)]  # other answers
    log_p = LogProbability(task)
    golden = [log_p.with_gold(example) for example in examples]
    kinds = ((task, examples, 0.0), (log_p, golden, 1e-4))
    for asked_of, of_task, apart in kinds:
        members = [(asked_of, example) for example in of_task]
        naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
        for engine in (Replay(vlm, max_new_tokens=4, plan=make_plan(vlm, 64, 4)), Forward(vlm, 4, 4)):
            found = np.stack(engine.statistics(members, edits))
            np.testing.assert_allclose(found, naive, rtol=0, atol=apart, err_msg=type(engine).__name__)
        assert (naive[:, 1:] != naive[:, :1]).any(), "an edit shows"


@OF_ALL
@pytest.mark.parametrize("form", ["merged", "ia3", "lora"])
def test_exports_scale_the_right_tensor_along_the_right_axis(
    family: str, form: str, loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    vlm = loaded(family)
    done = export_scales(vlm, Scales(SCALES), tmp_path / "out", format=form)
    assert done.manifest.check is not None and done.manifest.check.effect > 1e-3
    if form != "merged":
        assert json.loads((done.folder / "adapter_config.json").read_text())["fan_in_fan_out"] is (family == "GPT-2")
        return
    before, after = (load_file(folder / "model.safetensors") for folder in (Path(vlm.name), done.folder))
    down = PATHS[family][-1]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith((f".0.{down}.weight", f".2.{down}.weight"))}
    for name in changed:
        ratio = after[name] / before[name]
        ratio = ratio.T if family == "GPT-2" else ratio
        factors = torch.ones(24)
        for (layer, neuron), s in SCALES.items():
            if f".{layer}.{down}" in name:
                factors[neuron] = 1 + s
        torch.testing.assert_close(ratio, factors.expand(32, 24))


@OF_ALL
def test_attribution_patching_equals_a_gradient_by_hand(
    family: str, loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    vlm = loaded(family)
    task = capitals()
    examples, _ = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))
    examples = examples[:2]
    found = METHODS["atp"].importance(Context(vlm, task, examples))
    expected = np.zeros(found.shape)
    for example in examples:
        encoded = vlm.encode_with_answers([None], example.prompts[:1], [task.answers_to_learn(example)[0]])
        read: list[Tensor] = []

        def see(_: Any, args: Any, read: list[Tensor] = read) -> None:
            args[0].retain_grad()
            read.append(args[0])

        hooks = [down.register_forward_pre_hook(see) for *_, down in parts(vlm.model, family)]
        vlm.log_probabilities(encoded).sum().backward()
        for layer, z in enumerate(read):
            assert z.grad is not None
            expected[layer] += (z.detach() * z.grad).reshape(-1, 24).sum(0).numpy() / len(examples)
        for hook in hooks:
            hook.remove()
        vlm.model.zero_grad()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-3)


@pytest.mark.parametrize("method", ["relp", "gim", "hones+"])
def test_ruled_gradients_of_layers_that_hold_their_ffns(method: str, loaded: Callable[[str], VLM]) -> None:
    """No rule is refused in OPT: neither is there a product, nor does a ReLU need `activation`."""
    vlm = loaded("OPT")
    task = capitals()
    examples, _ = task.examples(load_items(CAPITALS / "discovery.csv"))
    found = make_method(method).importance(Context(vlm, task, examples[:2]))
    assert found.shape == (3, 24) and np.isfinite(found).all() and (found > 0).any()


@pytest.mark.parametrize("family", NORMS)
def test_log_probability_gain_through_a_layer_norm(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    """One neuron at a time: the norm's standard deviation held, its mean, its bias and lm_head's (Phi) in place."""
    vlm = loaded(family)
    task = capitals()
    examples, _ = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))
    found = METHODS["logprob-gain"].importance(Context(vlm, task, examples[:1]))
    token = vlm.answer_ids(examples[0].prompts[0], examples[0].target)[0]
    encoded = vlm.encode([None], examples[0].prompts[:1])
    norm: Any = vlm.model.get_submodule(NORMS[family])
    lm_head = vlm.anatomy.lm_head
    for layer, (block, *_, down) in enumerate(parts(vlm.model, family)):
        z: list[Tensor] = []
        left: list[Tensor] = []
        hooks = [down.register_forward_pre_hook(lambda _, args, z=z: z.append(args[0].reshape(-1, 24)[-1]))]
        hooks.append(block.register_forward_hook(lambda _, __, out, left=left: left.append(out[0, -1])))
        with torch.no_grad():
            vlm.model(**encoded.inputs)
            for hook in hooks:
                hook.remove()
            h = left[0] - down(z[0][None])[0]
            deviation = (h.var(unbiased=False) + norm.eps).sqrt()
            for neuron in (0, 7, 23):
                log_p = []
                for x in (h, h + z[0][neuron] * columns(down, family)[:, neuron]):
                    normed = norm.weight * (x - x.mean()) / deviation + norm.bias
                    log_p.append(float(lm_head(normed).log_softmax(0)[token]))
                assert found[layer, neuron] == pytest.approx(log_p[1] - log_p[0], rel=2e-3, abs=1e-5)


def test_a_direction_with_a_layer_norms_gain_is_its_derivative(loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    vlm = loaded("GPT-2")
    task = capitals()
    examples, _ = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))
    (u,) = target_directions(vlm, task, examples[:1], Reading(norm_gain=True).norm_gain)
    ids = vlm.answer_ids(examples[0].prompts[0], examples[0].target)
    v = vlm.anatomy.lm_head.weight[ids].detach().sum(0)
    norm: Any = vlm.model.get_submodule(NORMS["GPT-2"])
    gain = norm.weight.detach()
    change = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = gain.double() * (change - change.mean())  # at a standard deviation that is held
    length = (gain * v - (gain * v).mean()).norm()
    assert float(u.double() @ change) == pytest.approx(float(v.double() @ changed / length), rel=1e-5)


@OF_ALL
def test_the_last_layers_lens_is_the_models_logits(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    with torch.no_grad():
        torch.testing.assert_close(logit_lens(vlm, encoded)[-1], vlm.logits(encoded, 1)[:, -1], atol=1e-4, rtol=1e-4)


def test_the_margin_of_yes_and_no_has_the_heads_bias(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("Phi")
    encoded = asked(vlm)
    yes, no = vlm.answer_tokens.both()
    with torch.no_grad():
        logits = vlm.logits(encoded, 1)[:, -1]
        found = vlm.yes_margins(encoded)
    torch.testing.assert_close(found, logits[:, yes] - logits[:, no], atol=1e-4, rtol=1e-4)
    bias = vlm.anatomy.lm_head.bias
    assert bias is not None and float((bias[yes] - bias[no]).detach().abs()) > 1e-3


@pytest.mark.parametrize("family", ["Falcon", "Falcon-RW"])
def test_rules_of_attention_are_refused_where_it_is_a_familys_own(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    said = (
        "the rule 'attention' cannot be applied: layer 0 computes attention without transformers' attention functions"
    )
    with pytest.raises(HonesError, match=said), backward_by(vlm.model, RelevancePatching.rules):
        vlm.logits(asked(vlm), 1)


def test_an_opt_with_projections_around_its_layers_is_one_line(tmp_path: Path) -> None:
    folder = save_text(tmp_path, "opt", ffn_dim=24, word_embed_proj_dim=16, do_layer_norm_before=False)
    with pytest.raises(HonesError, match="OPTForCausalLM: its layers have width 32, its lm_head reads 16; expected"):
        load_vlm(str(folder))


def test_an_opt_with_its_norms_behind_the_residual_has_no_write_in(tmp_path: Path) -> None:
    folder = save_text(tmp_path, "opt", ffn_dim=24, word_embed_proj_dim=32, do_layer_norm_before=False)
    vlm = load_vlm(str(folder))
    assert [claim.name for claim in verify(vlm).failed] == ["an FFN adds what its neurons write"]
    with pytest.raises(HonesError, match="is not what its neurons write"):
        readout_of(vlm, torch.ones(1, 32))


@pytest.mark.parametrize("family", ["ctrl", "mamba"])
def test_still_other_shapes_are_refused_in_one_line(family: str, tmp_path: Path) -> None:
    with pytest.raises(HonesError, match=r"layer 0: none of self_attn, .*; expected a decoder layer with that part"):
        load_vlm(str(build_text(family, tmp_path)))


@pytest.mark.parametrize(
    ("family", "buffer"), [("GPT-2", "h.{}.attn.bias"), ("GPT-NeoX", "gpt_neox.layers.{}.attention.masked_bias")]
)
def test_checkpoints_of_the_hub_with_buffers_of_their_time_load(
    family: str, buffer: str, loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    """GPT-2's also has no name before its layers'."""
    vlm = loaded(family)
    folder = tmp_path / "older"
    folder.mkdir()
    for file in Path(vlm.name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = {name.removeprefix("transformer."): x for name, x in load_file(folder / "model.safetensors").items()}
    tensors |= {buffer.format(layer): torch.ones(4, 4) for layer in range(3)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    older = load_vlm(str(folder))
    encoded = asked(vlm)
    with torch.no_grad():
        assert torch.equal(older.logits(encoded, 1), vlm.logits(encoded, 1))


@pytest.mark.parametrize("family", ["GPT-2", "OPT"])
def test_what_a_hook_returns_takes_the_place_of_z(family: str, loaded: Callable[[str], VLM]) -> None:
    """By row, whether the layer runs its FFN on rows or on all positions in one."""
    vlm = loaded(family)
    encoded = asked(vlm)
    base = vlm.logits(encoded, 1)

    def only_first_row(_: int, z: Tensor) -> Tensor:
        assert z.shape[:2] == encoded.inputs["input_ids"].shape
        return torch.cat([torch.zeros_like(z[:1]), z[1:]])

    with capture(vlm.anatomy, Z, only_first_row, [1]):
        changed = (vlm.logits(encoded, 1) - base).abs().amax((1, 2))
    assert changed[0] > 1e-3 and changed[1:].max() == 0
