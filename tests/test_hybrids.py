"""Layers without attention: heads of gated delta rules and state spaces, and layers that have none.

What is expected comes from each family's own modules, by their paths below, not from the anatomy.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from census_models import build_text, load
from helpers import encoded_probe
from test_text_models import capitals, own_answers
from torch import Tensor

from hones import HonesError, load_items, load_vlm, mask_neurons, replace_heads, verify
from hones.data.shapes.scene import draw, make_scene
from hones.method.analysis.explain import explain
from hones.method.analysis.explanation import ExplainedHead
from hones.method.analysis.where import attention_map, layout_of
from hones.method.steering.controls import SteeringContext
from hones.method.steering.parts import PARTS
from hones.method.steering.settings import SteeringSettings
from hones.models.capture import FFN, HEADS, O_PROJ, after, collect
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, Encoded
from hones.models.writing import contributions, readout_of
from hones.sweep.engines import make_engine
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.tasks.base import Example
from hones.tasks.log_probability import LogProbability

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
DELTA, ATTENTION = ("linear_attn.out_proj", 6, 16), ("self_attn.o_proj", 4, 8)
MAMBA, CONVOLUTION = ("mamba.out_proj", 8, 8), ("conv.out_proj", 0, 0)
KIMI = ("self_attn.o_proj", 6, 8)  # a delta rule under attention's name
QWEN = (DELTA, DELTA, ATTENTION)
KINDS: dict[str, tuple[tuple[tuple[str, int, int], ...], str]] = {
    "qwen3_5": (QWEN, "mlp.down_proj"),
    "qwen3_next": (QWEN, ""),  # a mixture: its columns are in tests/test_mixtures.py
    "kimi_linear": ((ATTENTION, KIMI, KIMI), ""),
    "lfm2": ((CONVOLUTION, ("self_attn.out_proj", 4, 8), CONVOLUTION), "feed_forward.w2"),
    "bamba": ((MAMBA, ATTENTION, MAMBA), "feed_forward.down_proj"),
    "granitemoehybrid": ((MAMBA, ATTENTION, MAMBA), "shared_mlp.output_linear"),
    "jamba": ((("mamba.out_proj", 0, 0), ATTENTION, ("mamba.out_proj", 0, 0)), "feed_forward.down_proj"),
}
"""Of each layer its mixer's output projection, how many heads and how wide; and the FFN's output projection."""
OF_ALL = pytest.mark.parametrize("family", KINDS)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("hybrids"), {}

    def get(family: str) -> VLM:
        if family not in known:
            place = folder / family
            known[family] = load(family, place) if family == "qwen3_5" else load_vlm(str(build_text(family, place)))
        return known[family]

    return get


def blocks(model: Any) -> Any:
    return getattr(model.model, "language_model", model.model).layers


def asked(vlm: VLM) -> Encoded:
    """Prompts of three lengths, so that two rows are padded."""
    encoded = encoded_probe(vlm) if vlm.shows_pictures else vlm.encode([None] * len(PROMPTS), PROMPTS)
    assert (encoded.inputs["attention_mask"] == 0).any(1).sum() == 2
    return encoded


def logits_and_text(vlm: VLM, model: Any, encoded: Encoded) -> tuple[Tensor, list[list[int]]]:
    """By transformers alone: logits of all tokens, greedy answers through the family's own cache."""
    mask = encoded.inputs["attention_mask"]
    with torch.no_grad():
        positions = {} if vlm.shows_pictures else {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
        logits = model(**encoded.inputs, **positions).logits[mask.bool()]
        ids = model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return logits, ids.tolist()


@OF_ALL
def test_heads_are_as_many_and_as_wide_as_the_mixer_says(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    of_layers, _ = KINDS[family]
    anatomy = vlm.anatomy
    assert [(layer.heads, layer.head_dim) for layer in anatomy.layers] == [kind[1:] for kind in of_layers]
    for layer, block, (path, *_) in zip(anatomy.layers, blocks(vlm.model), of_layers, strict=True):
        assert layer.o_proj is block.get_submodule(path) and layer.attention is block.get_submodule(path.split(".")[0])
        assert layer.keeps_state is (not path.startswith("self_attn") or layer.heads == 6)
    assert anatomy.head_sites == [(n, h) for n, (_, heads, _) in enumerate(of_layers) for h in range(heads)]
    assert anatomy.heads == max(heads for _, heads, _ in of_layers)
    assert anatomy.headless == tuple(n for n, (_, heads, _) in enumerate(of_layers) if heads == 0)
    assert find_anatomy(vlm.model) is anatomy, "it is found once"


@OF_ALL
def test_every_claim_holds_and_a_batch_is_padded(family: str, loaded: Callable[[str], VLM]) -> None:
    """A state takes nothing from padding: what `verify` says of a batch with padded rows."""
    result = verify(loaded(family))
    assert result.failed == [] and result.engine == "forward"
    claims = {claim.name: claim for claim in result.claims}
    assert not claims["a batch gives what each row alone does"].note.startswith("0 ")
    note = claims["the heads' slices through o_proj sum to its output"].note
    if family == "lfm2":
        assert note == "4 heads in 1 of 3 layers; no heads in 2 of 3 layers"
    if family == "qwen3_5":
        assert note == "6 heads in 2 of 3 layers; 4 heads in 1 of 3 layers"


@OF_ALL
def test_a_replaced_head_equals_a_folded_output_projection(family: str, loaded: Callable[[str], VLM]) -> None:
    """W_j += W_h / (H - 1) and W_h = 0, of two heads of two layers at once, also while writing from a state."""
    vlm = loaded(family)
    encoded = asked(vlm)
    base, base_text = logits_and_text(vlm, vlm.model, encoded)
    folded = copy.deepcopy(vlm.model)
    sites = [(layer, heads - 1) for layer, (_, heads, _) in enumerate(KINDS[family][0]) if heads]
    for layer, head in sites:
        path, heads, width = KINDS[family][0][layer]
        weight = blocks(folded)[layer].get_submodule(path).weight.data.unflatten(1, (heads, width))
        removed = weight[:, head].clone()
        weight += removed[:, None] / (heads - 1)
        weight[:, head] = 0
    expected, text = logits_and_text(vlm, folded, encoded)
    with replace_heads(vlm.model, sites):
        found, hooked_text = logits_and_text(vlm, vlm.model, encoded)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert hooked_text == text and (found - base).abs().max() > 1e-2
    after, after_text = logits_and_text(vlm, vlm.model, encoded)
    assert torch.equal(after, base) and after_text == base_text


@OF_ALL
def test_slices_through_the_output_projection_sum_to_its_output(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    with collect(vlm.anatomy, HEADS) as entering, collect(vlm.anatomy, O_PROJ) as given, torch.no_grad():
        vlm.logits(asked(vlm))
    for number, (path, heads, width) in enumerate(KINDS[family][0]):
        weight = blocks(vlm.model)[number].get_submodule(path).weight
        parts = [(entering[number][..., h * width : (h + 1) * width], h) for h in range(heads)]
        total = sum(x @ weight[:, h * width : (h + 1) * width].T for x, h in parts)
        if heads:
            torch.testing.assert_close(total, given[number], atol=1e-5, rtol=1e-4)
            assert entering[number].shape[-1] == heads * width


@pytest.mark.parametrize("family", [family for family, (_, path) in KINDS.items() if path])
def test_masked_neurons_equal_zeroed_columns(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    sites = [(0, 3), (0, 7), (1, 5), (2, 19)]
    folded = copy.deepcopy(vlm.model)
    for layer, neuron in sites:
        blocks(folded)[layer].get_submodule(KINDS[family][1]).weight.data[:, neuron] = 0
    expected, text = logits_and_text(vlm, folded, encoded)
    base, _ = logits_and_text(vlm, vlm.model, encoded)
    with mask_neurons(vlm.model, sites):
        found, hooked_text = logits_and_text(vlm, vlm.model, encoded)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert hooked_text == text and (found - base).abs().max() > 1e-3


@OF_ALL
def test_contributions_sum_to_what_the_ffn_adds(family: str, loaded: Callable[[str], VLM]) -> None:
    """Measured at the residual: what leaves a layer, less what leaves it with its FFN's output taken away."""
    vlm = loaded(family)
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    for number, block in enumerate(blocks(vlm.model)):
        left: list[Tensor] = []
        hooks = [after(block, lambda x, left=left: left.append(x[:, -1].clone()))]
        with torch.no_grad():
            vlm.logits(encoded, 1)
            hooks.append(after(vlm.anatomy.layers[number].mlp, torch.zeros_like))
            vlm.logits(encoded, 1)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(found[:, number], ((left[0] - left[1]) * u).sum(-1), atol=1e-5, rtol=1e-4)
    with collect(vlm.anatomy, FFN, lambda x: x[:, -1]) as added, torch.no_grad():
        vlm.logits(encoded, 1)
    assert all((x != 0).any() for x in added.values())


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2", "bamba"])
def test_forward_gives_the_cells_of_the_definition(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    """Cell by cell, prompts of other lengths in one batch; replay is refused in words, not by a wrong number."""
    vlm = loaded(family)
    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:3]
    edits = [BASELINE, *(Intervention(heads=frozenset({site})) for site in vlm.anatomy.head_sites[::2])]
    edits += [Intervention(masked=frozenset({(layer, 3), (layer, 5)})) for layer in range(3)]
    edits += [Intervention(scales={(layer, i): -6.0 for i in range(24)}) for layer in range(3)]  # other answers
    log_p = LogProbability(task)
    golden = [log_p.with_gold(example) for example in examples]
    for asked_of, of_task, apart in ((task, examples, 0.0), (log_p, golden, 1e-4)):
        members = [(asked_of, example) for example in of_task]
        naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
        found = np.stack(Forward(vlm, 4, 4).statistics(members, edits))
        np.testing.assert_allclose(found, naive, rtol=apart / 10, atol=apart)
        assert (naive[:, 1:] != naive[:, :1]).any(), "an edit shows"
    with pytest.warns(UserWarning, match=r"replay \(layer 0 goes on from a state, not from keys and values\)"):
        engine = make_engine(vlm, "replay", 4, 4, make_plan(vlm, 64, 4), examples, edits)
    assert isinstance(engine, Forward)


def test_a_head_that_is_not_there_cannot_be_edited(loaded: Callable[[str], VLM]) -> None:
    without, few = loaded("lfm2"), loaded("qwen3_5")
    with pytest.raises(HonesError, match=r"no head \(0, 0\): layer 0 has no heads; expected one of the 1 layers with"):
        replace_heads(without.model, [(0, 0)]).__enter__()
    with pytest.raises(HonesError, match=r"no head \(2, 4\); expected layer < 3 and head < 4"):
        replace_heads(few.model, [(2, 4)]).__enter__()
    with replace_heads(few.model, [(1, 5)]):
        pass
    assert "3 layers x 4 heads (2 layers have none)" in repr(without)


def test_offsets_of_heads_are_of_one_width(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("qwen3_5")
    task = capitals()
    example = Example("0", None, ("What?",), "Lima", ("Lima",))
    context = SteeringContext(vlm, task, [example], [(0, 1)], SteeringSettings(), heads=((0, 1), (2, 1)))
    with pytest.raises(HonesError, match="head-offset of critical heads of widths 8 and 16"):
        PARTS["head-offset"].check(context)
    PARTS["head-offset"].check(replace(context, heads=((1, 1), (0, 1))))


def test_a_state_that_padding_changes_is_refused_in_one_line(tmp_path: Path) -> None:
    """RecurrentGemma's convolution reads padded positions."""
    with pytest.raises(HonesError, match=r"padding before a prompt moves its logits by 0\.\d+ of"):
        load_vlm(str(build_text("recurrent_gemma", tmp_path / "model")))


def test_heads_that_do_not_fit_a_mixers_projection_are_refused_in_one_line(loaded: Callable[[str], VLM]) -> None:
    model = copy.deepcopy(loaded("qwen3_next").model)
    blocks(model)[1].linear_attn.num_v_heads = 5
    with pytest.raises(
        HonesError, match="layer 1: 5 heads of width 16; expected 96, which its output projection reads"
    ):
        find_anatomy(model)


def test_a_mixer_beside_attention_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(HonesError, match="layer 0: a mamba beside its attention; expected one of them in a layer"):
        load_vlm(str(build_text("falcon_h1", tmp_path / "model")))


def test_maps_over_a_picture_are_of_a_head_that_looks(
    loaded: Callable[[str], VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strongest head is one of a delta rule, which has no attention to show."""
    vlm = loaded("qwen3_5")
    draw(make_scene("test/0")).save(tmp_path / "picture.png")
    drops = {(0, 1): 3.0, (2, 1): 2.0, (1, 4): 1.0}
    heads = tuple(ExplainedHead(*site, drop, 0.1) for site, drop in drops.items())
    monkeypatch.setattr("hones.method.analysis.explain.head_drops", lambda *_: (-3.0, heads))
    with pytest.warns(UserWarning, match="goes on from a state"):
        found = explain(vlm, tmp_path / "picture.png", "What colour is the star?", answer="red")
    assert [of.kind for of in found.maps] == ["drop", "attention", "lens", "activation"]
    assert "head 2, 1" in found.maps[1].title
    layout = layout_of(vlm, Example("0", tmp_path / "picture.png", ("What?",), "red", ("red",)))
    with pytest.raises(HonesError, match="layer 1 has no attention to show; expected a head of a layer with attention"):
        attention_map(vlm, Example("0", tmp_path / "picture.png", ("What?",), "red", ("red",)), (1, 4), layout=layout)
