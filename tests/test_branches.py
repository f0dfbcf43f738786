"""Gemma 4 with per-layer inputs: a branch behind the FFN reads the residual and is added to it, then all is scaled.

What is expected comes from the family's own modules: the residual entering the branch is what the FFN has added to.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from census_models import build_text
from test_text_models import capitals, own_answers
from text_models import save_text
from torch import Tensor

from hones import HonesError, load_items, load_vlm, mask_neurons, scale_neurons, verify
from hones.models.interventions import BASELINE, Intervention
from hones.models.probe import check_edits, probe_inputs
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of
from hones.sweep.forward import Forward
from hones.sweep.naive import Naive
from hones.tasks.log_probability import LogProbability

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
MASKED = [(0, 3), (0, 7), (2, 19)]
SCALES = {(0, 3): 0.5, (0, 7): -0.75, (2, 19): 1.5}


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(str(build_text("gemma4_text", tmp_path_factory.mktemp("branches") / "model")))


def asked(vlm: VLM) -> Encoded:
    return vlm.encode([None] * len(PROMPTS), PROMPTS)


def around_the_ffn(vlm: VLM, encoded: Encoded) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of every layer, at the last position: the residual before the FFN and after it, the branch, what leaves."""
    found = []
    for block in vlm.model.model.layers:  # pyright: ignore
        at: dict[str, Tensor] = {}

        def keep(name: str, at: dict[str, Tensor] = at) -> Any:
            return lambda _, args, out=None: at.__setitem__(name, (args[0] if out is None else out)[:, -1].clone())

        hooks = [
            block.pre_feedforward_layernorm.register_forward_pre_hook(keep("before")),
            block.per_layer_input_gate.register_forward_pre_hook(keep("after")),
            block.post_per_layer_input_norm.register_forward_hook(keep("branch")),
            block.register_forward_hook(keep("left")),
        ]
        with torch.no_grad():
            vlm.logits(encoded, 1)
        for hook in hooks:
            hook.remove()
        found.append((at["before"], at["after"], at["branch"], at["left"]))
    return found


def test_every_claim_holds(vlm: VLM) -> None:
    found = verify(vlm)
    assert found.failed == [] and found.engine == "forward" and vlm.no_write_in is None
    assert all(layer.branch is not None for layer in vlm.anatomy.layers)


def test_contributions_sum_to_what_the_ffn_adds_before_the_branch(vlm: VLM) -> None:
    """As it stands in what leaves the layer, which is scaled; the branch's own part is no neuron's."""
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u))
    z = activations(vlm, encoded)
    for number, (before, after, branch, left) in enumerate(around_the_ffn(vlm, encoded)):
        layer = vlm.anatomy.layers[number]
        factor = float(layer.block.layer_scalar)  # pyright: ignore
        assert factor == pytest.approx(0.7) and branch.norm() > 0.1 * left.norm()
        torch.testing.assert_close(left, factor * (after + branch), atol=1e-5, rtol=1e-4)
        expected = (factor * (after - before) * u).sum(-1)
        torch.testing.assert_close(found[:, number].sum(-1), expected, atol=1e-5, rtol=1e-4)
        masked = (left * u).sum(-1) - expected
        with mask_neurons(vlm.model, [(number, i) for i in range(layer.neurons)]):
            without = around_the_ffn(vlm, encoded)[number]
        torch.testing.assert_close(without[1], before, atol=1e-5, rtol=1e-4)
        assert ((without[3] * u).sum(-1) - masked).abs().max() > 1e-2, "the branch makes something of neurons too"
        plain = (z[:, number] * (u @ layer.down_proj.weight)).sum(-1)
        assert not torch.allclose(plain, expected, atol=1e-3)


def test_neuron_edits_equal_folded_columns(vlm: VLM) -> None:
    encoded = asked(vlm)
    mask = encoded.inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    edits: dict[str, Any] = {"mask": (mask_neurons(vlm.model, MASKED), dict.fromkeys(MASKED, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, SCALES), {site: 1 + s for site, s in SCALES.items()})
    with torch.no_grad():
        base = vlm.model(**encoded.inputs, position_ids=positions).logits[mask.bool()]
        for edit, factors in edits.values():
            folded: Any = copy.deepcopy(vlm.model)
            for (layer, neuron), factor in factors.items():
                folded.model.layers[layer].mlp.down_proj.weight.data[:, neuron] *= factor
            expected = folded(**encoded.inputs, position_ids=positions).logits[mask.bool()]
            ids = folded.generate(**encoded.inputs, max_new_tokens=6, do_sample=False)
            with edit:
                found = vlm.model(**encoded.inputs, position_ids=positions).logits[mask.bool()]
                of_edited: Any = vlm.model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False)  # pyright: ignore
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert of_edited.tolist() == ids.tolist() and (found - base).abs().max() > 1e-2


def test_passes_of_the_decoder_give_the_definitions_cells(vlm: VLM, tmp_path: Path) -> None:
    """Answers too, whose tokens have per-layer inputs of their own."""
    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:3]
    edits = [BASELINE, *(Intervention(heads=frozenset({(layer, h)})) for layer in range(3) for h in (0, 3))]
    edits += [Intervention(masked=frozenset({site})) for site in MASKED]
    edits += [Intervention(scales=SCALES), Intervention(scales={(1, i): -6.0 for i in range(24)})]
    log_p = LogProbability(task)
    for of_task, given, apart in ((task, examples, 0.0), (log_p, [log_p.with_gold(x) for x in examples], 1e-4)):
        members = [(of_task, example) for example in given]
        naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
        found = np.stack(Forward(vlm, 4, 4).statistics(members, edits))
        np.testing.assert_allclose(found, naive, rtol=0, atol=apart)
        assert (naive[:, 1:] != naive[:, :1]).any(), "an edit shows"


def problems(vlm: VLM) -> list[str | None]:
    return [layer.problem for layer in check_edits(vlm, probe_inputs(vlm.model, vlm.processor, prompts=1))]


def test_a_branch_that_is_not_known_is_found_out(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = tuple(replace(layer, branch=None) for layer in vlm.anatomy.layers)
    monkeypatch.setattr(vlm, "anatomy", replace(vlm.anatomy, layers=layers))
    assert all(found is not None and "is not what its neurons write" in found for found in problems(vlm))


def test_what_else_a_layer_does_behind_a_branch_is_found_out(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    block: Any = vlm.anatomy.layers[1].block
    forward = block.forward
    monkeypatch.setattr(block, "forward", lambda *args, **kwargs: 1.1 * forward(*args, **kwargs))
    first, second, third = problems(vlm)
    assert first is None and third is None
    assert second is not None and "what the FFN of layer 1 adds" in second


def test_experts_beside_an_ffn_are_named_and_heads_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the norms behind both are not known: as Gemma 4's with experts, were it another family's."""
    monkeypatch.setattr("hones.models.finding_mixtures.NORMS", ("unknown",))
    more: dict[str, Any] = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 12}
    shape: dict[str, Any] = {
        "head_dim": 8,
        "global_head_dim": 8,
        "hidden_size_per_layer_input": 0,
        "sliding_window": 24,
    }
    beside = load_vlm(str(save_text(tmp_path / "model", "gemma4_text", **more, **shape)))
    line = "layer 0 has experts beside its FFN, whose neurons are not counted"
    (failed,) = verify(beside).failed
    assert (failed.name, failed.note) == ("an FFN adds what its neurons write", line)
    with pytest.raises(HonesError, match=f"{line}; head scores and masking work"):
        readout_of(beside, torch.ones(1, 32))


def test_a_residual_of_several_streams_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        HonesError, match=r"gemma3n: layer 0 gives 4 axes; expected three: rows, positions, width of one"
    ):
        load_vlm(str(build_text("gemma3n_text", tmp_path / "gemma3n")))
