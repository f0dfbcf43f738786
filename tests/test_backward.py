"""Rules of the backward pass: what they conserve, by a slow definition, and what is refused."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand_models import BY_HAND, load_family
from family_models import FAMILIES
from helpers import double_inputs, in_double, with_model
from text_models import OTHER_SHAPES, TEXT_FAMILIES, save_text
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from hones import HonesError, load_vlm
from hones.data.shapes.scene import draw, make_scene
from hones.models.backward import backward_by
from hones.models.backward_rules import Rules
from hones.models.capture import ENTERING, LEAVING, Z, before, capture
from hones.models.vlm import VLM, Encoded, frozen
from hones.rivals.gim import GradientInteraction
from hones.rivals.relp import RelevancePatching

RELP, GIM = RelevancePatching.rules, GradientInteraction.rules
TOKEN = 5  # whose logit is taken
PLAIN_FFNS = {
    "Arcee": partial(save_text, family="arcee", head_dim=8),
    "Nemotron": partial(save_text, family="nemotron"),
}
RULED = [family for family in OTHER_SHAPES if not family.startswith("Falcon")]  # whose attention is its own
# biases, layer norms, pictures that enter between layers or as keys, norms behind down_proj, fused gates, plain FFNs
VARIED = [
    "Qwen2.5-VL",
    "Qwen3-VL",
    "Gemma 3",
    "Mllama",
    "Molmo 2",
    "Gemma 2",
    "Phi-3",
    "Cohere 2",
    "Granite",
    *PLAIN_FFNS,
    *RULED,
]


def vlm_of(family: str, folder: Path) -> VLM:
    if family in BY_HAND:
        return load_family(family, folder)
    return load_vlm(str((FAMILIES | TEXT_FAMILIES | PLAIN_FFNS)[family](folder)))


def asked(vlm: VLM) -> Encoded:
    picture = draw(make_scene("rules")) if vlm.shows_pictures else None
    return vlm.encode([picture], ["What is the colour of the star?"])


def last_logit(vlm: VLM, inputs: dict[str, Tensor]) -> Tensor:
    """lm_head's own, before a family's scale or cap."""
    seen: list[Tensor] = []
    with vlm.anatomy.lm_head.register_forward_hook(lambda *args: seen.append(args[2])):
        vlm.model(**inputs)
    return seen[0][0, -1, TOKEN]


def conserved(vlm: VLM, inputs: dict[str, Tensor], rules: Rules) -> tuple[float, float]:
    """A logit, and the relevance of all that enters the layers: the residual, pictures on the way, and biases."""
    anatomy = vlm.anatomy
    entering: list[Tensor] = []
    leaving: list[Tensor] = []
    pictures: list[Tensor] = []

    def begin(layer: int, x: Tensor) -> Tensor:
        entering.append(x.detach().requires_grad_() if layer == 0 else x)
        return entering[-1]

    def see_picture(x: Tensor) -> Tensor:
        pictures.append(x.detach().requires_grad_())
        return pictures[-1]

    parameters = [*anatomy.decoder.named_parameters(), *anatomy.lm_head.named_parameters()]
    biases = [p for name, p in parameters if name.endswith("bias")]
    crossed = [layer.attention.v_proj for layer in anatomy.layers if hasattr(layer.block, "cross_attn")]
    with frozen(vlm.model):
        for p in biases:
            p.requires_grad_(True)
        with backward_by(vlm.model, rules), capture(anatomy, ENTERING, begin):
            hooks = [before(module, see_picture) for module in crossed if isinstance(module, nn.Module)]
            with capture(anatomy, LEAVING, lambda _, y: leaving.append(y)):
                logit = last_logit(vlm, inputs)
            for hook in hooks:
                hook.remove()
        inputs_and_ends = [*entering, *leaving, *pictures, *biases]
        gradients = torch.autograd.grad(logit, inputs_and_ends, allow_unused=True)
    shares = [
        0.0 if g is None else float((x.detach() * g).sum()) for x, g in zip(inputs_and_ends, gradients, strict=True)
    ]
    count = len(anatomy.layers)
    between = sum(shares[1:count]) - sum(shares[count : 2 * count - 1])  # what is added after a layer
    return float(logit.detach()), shares[0] + between + sum(shares[2 * count :])


@pytest.mark.parametrize("family", VARIED)
def test_relevance_adds_up_to_the_logit_in_every_kind_of_family(family: str, tmp_path: Path) -> None:
    vlm = vlm_of(family, tmp_path / "model")
    double = with_model(vlm, copy.deepcopy(vlm.model).double())
    inputs = double_inputs(asked(vlm)).inputs
    logit, relevance = conserved(double, inputs, RELP)
    # transformers' norms are float32 in a float64 model too
    assert relevance == pytest.approx(logit, rel=1e-5)
    for name in RELP.alone():
        others = Rules(**{k: v for k, v in vars(RELP).items() if k != name})
        if name == "activation" and family == "OPT":  # ReLU
            assert not others.activation and conserved(double, inputs, others)[1] == pytest.approx(relevance)
        elif name == "product" and family in (*PLAIN_FFNS, *RULED):
            assert others.product == 1 and conserved(double, inputs, others)[1] == relevance
        else:
            assert abs(conserved(double, inputs, others)[1] - logit) > 1e-3 * abs(logit), f"{name} does nothing"


def test_without_biases_the_residual_carries_all_of_the_logit(vlms: dict[str, VLM]) -> None:
    """To float64's rounding, so that what is left above is that of float32."""
    double = in_double(vlms["llava"])
    assert not [name for name, _ in double.anatomy.decoder.named_parameters() if name.endswith("bias")]
    logit, relevance = conserved(double, double_inputs(asked(double)).inputs, RELP)
    assert relevance == pytest.approx(logit, rel=1e-12)


def gradients_of_z(vlm: VLM, encoded: Encoded, rules: Rules) -> tuple[Tensor, list[Tensor]]:
    """The logits, and d logit / dz of every layer."""
    read: list[Tensor] = []

    def see(_: int, z: Tensor) -> Tensor:
        read.append(z if z.requires_grad else z.detach().requires_grad_())
        return read[-1]

    with frozen(vlm.model), torch.enable_grad(), backward_by(vlm.model, rules), capture(vlm.anatomy, Z, see):
        logits = vlm.model(**encoded.inputs).logits
    return logits.detach(), [*torch.autograd.grad(logits[:, -1, TOKEN].sum(), read)]


def softmax_at(scores: Tensor, temperature: float) -> Tensor:
    """softmax, whose derivative is diag(p) - p p^T of p = softmax(scores / T), written out."""
    value, p = scores.softmax(-1), (scores / temperature).softmax(-1).detach()
    jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    along = (jacobian @ scores[..., None])[..., 0]
    return value.detach() + along - along.detach()


def share(x: Tensor, factor: float) -> Tensor:
    """x, with so much of its gradient."""
    return x.detach() * (1 - factor) + x * factor


def by_hand(vlm: VLM, rotary: Callable[[Tensor, Tensor], Any], hidden: Tensor, rules: Rules) -> list[Tensor]:
    """d logit / dz of a LLaMA decoder, one sequence, all rules written with what is held constant."""
    heads, width = vlm.anatomy.heads, vlm.anatomy.head_dim
    positions = torch.arange(hidden.shape[0])
    allowed = positions[:, None] >= positions[None]
    read = []

    def norm(module: Any, x: Tensor) -> Tensor:
        rms = (x.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
        return module.weight * x / (rms.detach() if rules.norm else rms)

    x = hidden
    for layer in vlm.anatomy.layers:
        block: Any = layer.block
        entering = norm(block.input_layernorm, x)
        q, k, v = (
            getattr(block.self_attn, f"{name}_proj")(entering).unflatten(-1, (-1, width)).transpose(0, 1)
            for name in "qkv"
        )
        q, k = rotary(q, k)
        k, v = (y.repeat_interleave(heads // len(y), 0) for y in (k, v))
        q, k, v = (share(y, factor) for y, factor in zip((q, k, v), rules.factors, strict=True))
        scores = (q @ k.transpose(1, 2) / width**0.5).masked_fill(~allowed, -1e30)
        pattern = softmax_at(scores, rules.softmax)
        pattern = pattern.detach() if rules.pattern else pattern
        x = x + block.self_attn.o_proj((pattern @ v).transpose(0, 1).flatten(1))
        inner = norm(block.post_attention_layernorm, x)
        g = block.mlp.gate_proj(inner)
        a = g * g.sigmoid().detach() if rules.activation else g * g.sigmoid()
        z = share(a * block.mlp.up_proj(inner), rules.product)
        read.append(z if z.requires_grad else z.detach().requires_grad_())
        x = x + block.mlp.down_proj(read[-1])
    logit = vlm.anatomy.lm_head(norm(vlm.anatomy.decoder.get_submodule("norm"), x))[-1, TOKEN]
    return [*torch.autograd.grad(logit, read)]


@pytest.mark.parametrize("rules", [RELP, GIM, *RELP.alone().values(), *GIM.alone().values()])
def test_gradients_are_those_of_the_definition(vlms: dict[str, VLM], rules: Rules) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    double = in_double(vlms["llava"])
    encoded = double_inputs(asked(double))
    entering: list[Tensor] = []
    with torch.no_grad(), capture(double.anatomy, ENTERING, lambda _, x: entering.append(x), [0]):
        double.model(**encoded.inputs)
    turn: Any = double.anatomy.decoder.get_submodule("rotary_emb")
    cos, sin = turn(entering[0], torch.arange(entering[0].shape[1])[None])

    def rotary(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        turned = apply_rotary_pos_emb(q[None], k[None], cos, sin)
        return turned[0][0], turned[1][0]

    _, found = gradients_of_z(double, encoded, rules)
    with frozen(double.model):
        expected = by_hand(double, rotary, entering[0][0], rules)
    _, plain = gradients_of_z(double, encoded, Rules())
    assert not all(torch.allclose(f, p, rtol=1e-3, atol=0) for f, p in zip(found, plain, strict=True))
    for f, e in zip(found, expected, strict=True):
        # the softmax of the ruled attention is float64 here; sin and cos are the model's own
        torch.testing.assert_close(f[0], e, rtol=1e-7, atol=1e-9 * float(e.abs().max()))


@pytest.mark.parametrize("rules", [RELP, GIM])
def test_the_forward_pass_stays_the_same_bit_with_either_attention(vlm: VLM, rules: Rules) -> None:
    gradients = {}
    encoded = vlm.encode([draw(make_scene(f"rules/{n}")) for n in range(2)], ["What?", "What is the colour of it?"])
    for attention in ("sdpa", "eager"):
        other = with_model(vlm, copy.deepcopy(vlm.model))
        other.model.set_attn_implementation(attention)
        plain, of_plain = gradients_of_z(other, encoded, Rules())
        ruled, gradients[attention] = gradients_of_z(other, encoded, rules)
        assert torch.equal(plain, ruled)
        assert not torch.allclose(of_plain[0], gradients[attention][0], rtol=1e-2)
    for sdpa, eager in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=1e-3, atol=1e-5 * float(eager.abs().max()))


def test_all_is_as_it_was_afterwards_and_other_models_are_left_alone(vlms: dict[str, VLM]) -> None:
    vlm, other = vlms["llava"], vlms["qwen"]
    own = AttentionInterface.get_interface
    encoded = asked(vlm)
    _, plain = gradients_of_z(vlm, encoded, Rules())
    _, of_other = gradients_of_z(other, asked(other), Rules())

    def hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()]

    placed = hooks()
    meanwhile: list[Tensor] = []
    with pytest.raises(RuntimeError, match="on the way"), backward_by(vlm.model, GIM):
        assert hooks() != placed and AttentionInterface.get_interface is not own
        meanwhile += gradients_of_z(other, asked(other), Rules())[1]
        raise RuntimeError("on the way")
    assert hooks() == placed and AttentionInterface.get_interface is own
    assert meanwhile
    for x, y in zip(of_other, meanwhile, strict=True):
        assert torch.equal(x, y)
    for x, y in zip(plain, gradients_of_z(vlm, encoded, Rules())[1], strict=True):
        assert torch.equal(x, y)


class OddNorm(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.sign() * hidden_states.abs().sqrt()


class Shifted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) + 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("norm", "the rule 'norm' cannot be applied: input_layernorm of layer 1 is neither an RMS norm nor a layer"),
        ("no norm", "the rule 'norm' cannot be applied: the decoder has none behind its layers"),
        ("attention", "the rule 'attention' cannot be applied: layer 1 computes attention without transformers'"),
        ("softmax", r"the rule 'softmax' cannot be applied: attention of layer 1 is not softmax\(q k\) v under"),
        ("activation", "the rule 'activation' cannot be applied: that of layer 1 is not 0 at 0"),
        ("function", "the rule 'activation' cannot be applied: that of layer 1 is no module"),
        ("product", "the rule 'product' cannot be applied: z of layer 1 is not its activation times something"),
    ],
)
def test_what_is_not_what_a_rule_is_about_is_one_line(
    vlms: dict[str, VLM], monkeypatch: pytest.MonkeyPatch, spoil: str, said: str
) -> None:
    vlm = with_model(vlms["llava"], copy.deepcopy(vlms["llava"].model))
    block: Any = vlm.anatomy.layers[1].block
    if spoil == "norm":
        block.input_layernorm = OddNorm()
    elif spoil == "no norm":
        last = vlm.anatomy.decoder.get_submodule("norm")
        monkeypatch.setattr("hones.models.backward.is_norm", lambda m: "Norm" in type(m).__name__ and m is not last)
    elif spoil == "attention":
        o_proj = block.self_attn.o_proj
        block.self_attn.forward = lambda hidden_states, **_: (o_proj(hidden_states.repeat(1, 1, 2)[..., :32]), None)
    elif spoil == "softmax":
        attend = AttentionInterface.get_interface

        def doubled(*args: Any) -> Any:
            inner = attend(*args)

            def attend_twice(module: nn.Module, *rest: Any, **more: Any) -> Any:
                output, *others = inner(module, *rest, **more)
                return (2 * output if module is block.self_attn else output, *others)

            return attend_twice

        monkeypatch.setattr(AttentionInterface, "get_interface", doubled)
    elif spoil == "activation":
        block.mlp.act_fn = Shifted()
    elif spoil == "function":
        del block.mlp.act_fn
        block.mlp.act_fn = nn.functional.silu
    else:
        mlp = block.mlp
        mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x) + 1)
    vlm = with_model(vlm, vlm.model)
    rules = GIM if spoil == "softmax" else RELP
    with pytest.raises(HonesError, match=f"LlavaForConditionalGeneration: {said}"):
        gradients_of_z(vlm, asked(vlm), rules)


def test_rules_alone_are_those_in_force() -> None:
    assert [*RELP.alone()] == ["norm", "pattern", "activation", "product"]
    assert [*GIM.alone()] == ["norm", "softmax", "factors", "product"]
    assert GIM.alone()["factors"] == Rules(factors=(0.25, 0.25, 0.5)) and not Rules().alone()
