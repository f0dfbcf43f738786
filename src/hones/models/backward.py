"""Rules for the backward pass: another gradient, while every number of the forward pass stays the same bit.

A rule replaces the derivative of one kind of module of every decoder layer by that of a stand-in with the same value:

    norm         y = w (x - m) / s (+ b), m the mean of a layer norm, 0 of an RMS norm: 1 / s is held, a constant
    pattern      the attention pattern is held: no gradient flows to queries and keys
    softmax      the pattern's Jacobian is that of softmax(x / T), without the factor 1 / T
    factors      gradients of queries, keys and values are multiplied
    activation   a = act(g): the ratio a / g is held, da / dg = a / g
    product      z = a u of a gated FFN: the gradients of a and of u are multiplied

`product` has nothing to do in a plain FFN, z = act(g), nor `activation` at a ReLU. What a module is is measured as it
runs, not read from its name alone: the norm's y has to be linear in x at its 1 / s, z has to be a u, and where the
softmax is replaced, attention computed here has to be the model's. So a family with something else is one line, and
never a plain gradient in the place of a ruled one. Norms are the modules of the decoder whose class has Norm in its
name; attention is what modules get of transformers' attention functions (eager, sdpa and others).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hones.errors import HonesError
from hones.models.anatomy import Anatomy, is_norm
from hones.models.backward_attention import attention_by
from hones.models.backward_rules import Rules, differ, route
from hones.models.capture import Z, before, capture
from hones.models.finding import find_anatomy

INSTEAD = "use a method with the model's own gradient, such as hones+ or atp"


@dataclass
class Met:
    """What the forward passes under rules came across: the gated FFNs among the layers, the plain ones.

    straight: layers whose activation is linear on either side of 0, as ReLU is: its slope is a / g already.
    """

    gated: set[int] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)
    straight: set[int] = field(default_factory=set)


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
        if rules.of_attention:
            stack.enter_context(attention_by(anatomy, rules, run.attended, partial(run.refused, "softmax")))
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
        if missed and self.rules.of_attention:
            why = f"layer {min(missed)} computes attention without transformers' attention functions"
            raise self.refused("attention", why)

    def hold_norm(self, name: str, norm: nn.Module, args: Any, kwargs: Any, y: Tensor) -> Tensor | None:
        """y, and the gradient of a (g * (x - m)) with a = 1 / s held.

        What the norm does to alternating -1 and 1, to ones and to zeros tells its gain g, whether it takes off the
        mean, and its bias; a is then the multiple that fits y at each position.
        """
        x = args[0] if args else kwargs["hidden_states"]
        if not x.requires_grad:
            return None
        if len(args) + len(kwargs) > 1:
            raise self.refused("norm", f"{name} reads a gate beside its input")
        one = torch.ones_like(x[:1])
        signs = one.clone()
        signs[..., ::2] = -1
        bias = norm.forward(torch.zeros_like(one))
        with torch.no_grad():
            gain = (norm.forward(signs) - bias) * signs
            centred = bool((norm.forward(one) - bias).norm() < 1e-2 * gain.norm())
        gain = gain.to(torch.promote_types(y.dtype, torch.float32))
        stand_in = gain * (x - x.mean(-1, keepdim=True) if centred else x)
        of_norm = (y - bias).detach().to(stand_in.dtype)
        a = (of_norm * stand_in).sum(-1, keepdim=True) / stand_in.square().sum(-1, keepdim=True).clamp(min=1e-30)
        stand_in = stand_in * a.detach()
        if differ(stand_in, of_norm, y.dtype):
            raise self.refused("norm", f"{name} is neither an RMS norm nor a layer norm")
        return route(y, stand_in + bias)

    def hold_activation(self, number: int, activation: nn.Module, args: Any, a: Tensor) -> Tensor | None:
        """a, and the gradient of g * (a / g) with a / g held."""
        g = args[0]
        if self.rules.activation and g.requires_grad:
            zero = torch.zeros_like(g[..., :1]).requires_grad_()
            at_zero = activation.forward(zero)
            if at_zero.any():
                raise self.refused("activation", f"that of layer {number} is not 0 at 0")
            sides = torch.stack([zero.detach() - 1, zero.detach() + 1])
            if torch.equal(activation.forward(2 * sides), 2 * activation.forward(sides)):
                self.met.straight.add(number)
            # where g is 0, a / g has the slope there as its limit
            (slope,) = torch.autograd.grad(at_zero.sum(), zero)
            a = route(a, g * torch.where(g == 0, slope, a / g).detach())
        self.activated[number] = a
        return a

    def scale_product(self, number: int, z: Tensor) -> Tensor | None:
        """z, and half (or so) of its gradient to both factors."""
        a = self.activated.pop(number, None)
        if a is None:
            raise self.refused("product", f"z of layer {number} comes from no activation of its FFN")
        if z.numel() == a.numel() and torch.equal(z, a.view_as(z)):  # of another shape where a layer holds its FFN
            self.met.plain.add(number)
            return None
        if not a.requires_grad:
            return None
        # z is a product with a where its derivative in a, times a, is z again
        (u,) = torch.autograd.grad(z, a, torch.ones_like(z), retain_graph=True)
        if differ((u * a.detach()).view_as(z), z.detach(), z.dtype):
            raise self.refused("product", f"z of layer {number} is not its activation times something")
        self.met.gated.add(number)
        return route(z, z, self.rules.product)


def _norms(anatomy: Anatomy, run: _Run) -> dict[str, nn.Module]:
    """The norms of the decoder's layers and the one behind them, by name."""
    norms: dict[str, nn.Module] = {}
    for number, layer in enumerate(anatomy.layers):
        within = layer.block.named_modules()
        of_layer = {f"{name} of layer {number}": module for name, module in within if is_norm(module)}
        if not of_layer:
            raise run.refused("norm", f"layer {number} has none")
        norms |= of_layer
    last = {name: module for name, module in anatomy.decoder.named_children() if is_norm(module)}
    if not last:
        raise run.refused("norm", "the decoder has none behind its layers")
    return norms | last
