"""Rules for the backward pass: another gradient, while every number of the forward pass stays the same bit.

A rule replaces the derivative of one kind of module of every decoder layer by that of a stand-in with the same value:

    norm         y = w (x - m) / s (+ b), m the mean of a layer norm, 0 of an RMS norm: 1 / s is held, a constant
    pattern      the attention pattern is held: no gradient flows to queries and keys
    softmax      the pattern's Jacobian is that of softmax(x / T), without the factor 1 / T
    factors      gradients of queries, keys and values are multiplied
    activation   a = act(g): the ratio a / g is held, da / dg = a / g
    product      z = a u of a gated FFN: the gradients of a and of u are multiplied

`product` has nothing to do in a plain FFN, z = act(g). What a module is is measured as it runs, not read from its name
alone: the norm's y has to be linear in x at its 1 / s, z has to be a u, and where the softmax is replaced, attention
computed here has to be the model's. So a family with something else is one line, and never a plain gradient in the
place of a ruled one. Norms are the modules of the decoder whose class ends in Norm; attention is what modules get of
transformers' attention functions (eager, sdpa and others).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import AttentionInterface

from hones.errors import HonesError
from hones.models.anatomy import Anatomy, find_anatomy
from hones.models.capture import Z, before, capture

ROUNDING = 64
"""By how many roundings of its dtype a stand-in's value may differ from the model's, relative."""
INSTEAD = "use a method with the model's own gradient, such as hones+ or atp"

Factors = tuple[float, float, float]


@dataclass(frozen=True)
class Rules:
    """Which rules are in force, each off by default.

    softmax: T. factors: of queries, keys and values. product: of both factors of a gated FFN.
    """

    norm: bool = False
    pattern: bool = False
    softmax: float = 1.0
    factors: Factors = (1.0, 1.0, 1.0)
    activation: bool = False
    product: float = 1.0

    def alone(self) -> dict[str, "Rules"]:
        """Each rule that is in force, without the others, by its name."""
        nothing = Rules()
        asked = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: Rules(**{name: value}) for name, value in asked.items() if value != getattr(nothing, name)}


@dataclass
class Met:
    """What the forward passes under rules came across: the gated FFNs among the layers, the plain ones."""

    gated: set[int] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)


@contextmanager
def backward_by(model: PreTrainedModel, rules: Rules) -> Iterator[Met]:
    """Let gradients of what runs in this context follow rules; they may be taken after it is left.

    The rules are gone when the context is left, also through an error. They come before what is hooked inside the
    context: a gradient with respect to z of `hones.models.capture` is that of z itself, no `product` between.

    Raises:
        HonesError: a module that a rule is for is not what the rule is about; the line names rule, layer and family.
    """
    anatomy = find_anatomy(model)
    run = _Run(anatomy, rules, type(model).__name__)
    with ExitStack() as stack:
        if rules.norm:
            for name, norm in _norms(anatomy, run).items():
                stack.enter_context(norm.register_forward_hook(partial(run.hold_norm, name), with_kwargs=True))
        if rules.pattern or rules.softmax != 1 or rules.factors != (1, 1, 1):
            stack.enter_context(_attention_by(run))
        if rules.activation or rules.product != 1:
            for number, layer in enumerate(anatomy.layers):
                if layer.activation is None:
                    raise run.refused("activation", f"that of layer {number} is no module")
                stack.enter_context(layer.activation.register_forward_hook(partial(run.hold_activation, number)))
        if rules.product != 1:
            stack.enter_context(capture(anatomy, Z, run.scale_product))
        for number, layer in enumerate(anatomy.layers):
            stack.enter_context(before(layer.block, partial(run.enter, number)))
        yield run.met
        run.check_attention()


class _Route(torch.autograd.Function):
    """A value whose gradient goes to another tensor of its shape, multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, to: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, ctx.factor * gradients[0], None


def _route(value: Tensor, to: Tensor, factor: float = 1.0) -> Tensor:
    """The value; its gradient is that of `to` times a factor."""
    return _Route.apply(value.detach(), to.to(value.dtype), factor)  # pyright: ignore[reportReturnType]


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else _route(x, x, factor)


class _Softmax(torch.autograd.Function):
    """softmax(x) over the last dimension, with the Jacobian that softmax has at x / T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward((x / temperature).softmax(-1))
        return x.softmax(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (p,) = ctx.saved_tensors
        return p * (gradients[0] - (p * gradients[0]).sum(-1, keepdim=True)), None


@dataclass
class _Run:
    """The hooks of one context, and what they have seen."""

    anatomy: Anatomy
    rules: Rules
    family: str
    met: Met = field(default_factory=Met)
    entered: set[int] = field(default_factory=set)
    attended: set[int] = field(default_factory=set)
    activated: dict[int, Tensor] = field(default_factory=dict)

    def refused(self, rule: str, why: str) -> HonesError:
        return HonesError(f"{self.family}: the rule {rule!r} cannot be applied: {why}", do=INSTEAD)

    def enter(self, number: int, _: Tensor) -> None:
        self.entered.add(number)

    def check_attention(self) -> None:
        """Raises HonesError where a layer ran without asking for an attention function."""
        missed = self.entered - self.attended
        if missed and (self.rules.pattern or self.rules.softmax != 1 or self.rules.factors != (1, 1, 1)):
            why = f"layer {min(missed)} computes attention without transformers' attention functions"
            raise self.refused("attention", why)

    def hold_norm(self, name: str, norm: nn.Module, args: Any, kwargs: Any, y: Tensor) -> Tensor | None:
        """y, and the gradient of a (g * (x - m)) with a = 1 / s held.

        What the norm does to alternating -1 and 1, to ones and to zeros tells its gain g, whether it takes off the mean,
        and its bias; a is then the multiple that fits y at each position.
        """
        x = args[0] if args else kwargs["hidden_states"]
        if not x.requires_grad:
            return None
        with torch.no_grad():
            one = torch.ones_like(x[:1])
            signs = one.clone()
            signs[..., ::2] = -1
            bias = norm.forward(torch.zeros_like(one))
            gain = (norm.forward(signs) - bias) * signs
            centred = bool((norm.forward(one) - bias).norm() < 1e-2 * gain.norm())
        gain = gain.to(torch.promote_types(y.dtype, torch.float32))
        route = gain * (x - x.mean(-1, keepdim=True) if centred else x)
        of_norm = (y - bias).detach().to(route.dtype)
        a = (of_norm * route).sum(-1, keepdim=True) / route.square().sum(-1, keepdim=True).clamp(min=1e-30)
        route = route * a.detach()
        if _differ(route, of_norm, y.dtype):
            raise self.refused("norm", f"{name} is neither an RMS norm nor a layer norm")
        return _route(y, route)

    def hold_activation(self, number: int, _: nn.Module, args: Any, a: Tensor) -> Tensor | None:
        """a, and the gradient of g * (a / g) with a / g held; at g = 0 the activation's own."""
        g = args[0]
        if self.rules.activation and g.requires_grad:
            ratio = (a / g).detach()
            # 0 / 0: where act(0) = 0 its slope there is the limit of the ratio
            ratio = torch.where(g == 0, 0.5, ratio) if bool((a[g == 0] == 0).all()) else ratio
            if not bool(ratio.isfinite().all()):
                raise self.refused("activation", f"that of layer {number} is not 0 at 0")
            a = _route(a, g * ratio)
        self.activated[number] = a
        return a

    def scale_product(self, number: int, z: Tensor) -> Tensor | None:
        """z, and half (or so) of its gradient to both factors."""
        a = self.activated.pop(number, None)
        if a is None:
            raise self.refused("product", f"z of layer {number} comes from no activation of its FFN")
        if z.shape == a.shape and torch.equal(z, a):
            self.met.plain.add(number)
            return None
        if not a.requires_grad:
            return None
        # z is a product with a where its derivative in a, times a, is z again
        (u,) = torch.autograd.grad(z, a, torch.ones_like(z), retain_graph=True)
        if _differ(u * a.detach(), z.detach(), z.dtype):
            raise self.refused("product", f"z of layer {number} is not its activation times something")
        self.met.gated.add(number)
        return _route(z, z, self.rules.product)


def _differ(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two values of one tensor differ by more than rounding."""
    # norms of transformers compute in float32 whatever the model's dtype
    rounding = ROUNDING * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    return not bool((found - expected).norm() <= rounding * expected.norm())


def _norms(anatomy: Anatomy, run: _Run) -> dict[str, nn.Module]:
    """The norms of the decoder's layers and the one behind them, by name."""
    layers: list[tuple[str, nn.Module]] = [(f"layer {n}", layer.block) for n, layer in enumerate(anatomy.layers)]
    norms = {}
    for where, block in layers:
        within = {f"{name} of {where}": module for name, module in block.named_modules() if _is_norm(module)}
        if not within:
            raise run.refused("norm", f"{where} has none")
        norms |= within
    last = {name: module for name, module in anatomy.decoder.named_children() if _is_norm(module)}
    if not last:
        raise run.refused("norm", "the decoder has none behind its layers")
    return norms | last


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")


@contextmanager
def _attention_by(run: _Run) -> Iterator[None]:
    """Let this model's attention modules get ruled attention functions; those of others get their own."""
    number_of = {layer.attention: number for number, layer in enumerate(run.anatomy.layers)}
    get = AttentionInterface.get_interface

    def get_interface(interface: AttentionInterface, *asked: Any, **named: Any) -> Callable[..., Any]:
        attend = get(interface, *asked, **named)

        def ruled(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **more: Any) -> Any:
            mask = more.pop("attention_mask", mask)
            if module not in number_of:
                return attend(module, query, key, value, mask, **more)
            run.attended.add(number_of[module])
            return _attend(run, number_of[module], partial(attend, module), query, key, value, mask, more)

        return ruled

    AttentionInterface.get_interface = get_interface
    try:
        yield
    finally:
        AttentionInterface.get_interface = get


def _attend(
    run: _Run,
    number: int,
    attend: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    more: dict[str, Any],
) -> Any:
    """What the model's attention function gives, with ruled gradients."""
    rules = run.rules
    q, k, v = (_scaled(x, factor) for x, factor in zip((query, key, value), rules.factors, strict=True))
    if rules.pattern:
        q, k = q.detach(), k.detach()
    output, *others = attend(q, k, v, mask, **more)
    if rules.softmax != 1 and output.requires_grad:
        module = run.anatomy.layers[number].attention
        here = _plain_attention(module, q, k, v, mask, rules.softmax, more)
        if here.shape != output.shape or _differ(here.detach(), output.detach(), output.dtype):
            raise run.refused("softmax", f"attention of layer {number} is not softmax(q k) v under its mask")
        output = _route(output, here)
    return output, *others


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    temperature: float,
    more: dict[str, Any],
) -> Tensor:
    """softmax(q k / sqrt(d_h) + mask) v, [batch, positions, heads, d_h], the softmax's Jacobian taken at x / T."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scaling = more.get("scaling")
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if (cap := more.get("softcap")) is not None:
        scores = cap * (scores / cap).tanh()
    asked = more.get("is_causal")
    if mask is None and (getattr(module, "is_causal", True) if asked is None else asked):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    nothing = None
    if mask is not None and mask.dtype == torch.bool:
        nothing = ~mask.any(-1, keepdim=True)  # a padded row sees no key, and its output is 0
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    pattern: Tensor = _Softmax.apply(wide, temperature).to(query.dtype)  # pyright: ignore
    if nothing is not None:
        pattern = pattern.masked_fill(nothing, 0)
    return (pattern @ value).transpose(1, 2)
