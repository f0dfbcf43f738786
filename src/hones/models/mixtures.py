"""A mixture of experts as one FFN, so that a neuron of it is a neuron like any other.

With the router's weights w_e, 0 where expert e is not chosen, and g the gate of a shared expert s, 1 without one,

    added = sum over e of w_e W_e z_e + g W_s z_s = W z,    W = [W_0 .. W_E-1 W_s],  z = [w_0 z_0 .. w_E-1 z_E-1, g z_s]

So z [.., E * I + I_s] enters one down projection: neuron i of expert e is number e * I + i, those of the shared expert
come last, and masking one is a zeroed column of its expert's down_proj. No module of a family has this z: while
somebody looks at it, it is made from what the router chose, by the obvious loop over experts, and shown to the hooks of
an `ExpertProjection`. Where they leave z as it was, at a position, the family's own output stays, bit for bit; where
they change it, W z takes its place. That W z is the family's output, to rounding, is measured when it is first used.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hones.errors import HonesError

MIXTURES = ("mlp", "block_sparse_moe", "feed_forward")
SHARED = ("shared_expert", "shared_experts")
BESIDE = ("shared_mlp",)  # an FFN that a layer adds beside its mixture (GraniteMoeShared)
ROUNDINGS = 16
PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Experts:
    """Whose neuron is which: `count` experts of `size` neurons each, then `shared` neurons of a shared expert."""

    count: int
    size: int
    shared: int = 0

    def of(self, neuron: int) -> int:
        """The expert of a neuron; the shared one is number `count`."""
        return min(neuron // self.size, self.count)

    def neurons_of(self, expert: int) -> range:
        """The neurons of an expert."""
        start = expert * self.size
        return range(start, start + (self.shared if expert == self.count else self.size))


class ExpertProjection(nn.Module):
    """The down projections of all experts of a layer as one, W [d, E * I + I_s]; it is in no model.

    shared: the shared expert's down projection; gate: what gives the logit of its gate.
    """

    bias: nn.Parameter | None = None

    def __init__(self, experts: nn.Module, shared: nn.Linear | None, gate: nn.Module | None) -> None:
        super().__init__()
        self.experts, self.shared, self.gate = experts, shared, gate
        self.transposed = bool(getattr(experts, "is_transposed", _takes_all(experts)))
        down: Any = experts.down_proj
        width, inner = down.shape[:0:-1] if self.transposed else down.shape[1:]
        self.layout = Experts(len(down), inner, 0 if shared is None else shared.in_features)
        self.in_features = self.layout.count * inner + self.layout.shared
        self.out_features = width
        self.users = 0  # contexts in which the mixture runs through this; the last that is left ends it
        self.running = ExitStack()
        self.proven = False
        self._passed: tuple[Tensor, Tensor] | None = None

    def columns(self) -> list[Float[Tensor, "width neurons"]]:
        """The columns of every expert, the shared one last: views of the weights."""
        down: Any = self.experts.down_proj
        of_experts = [*(down.mT if self.transposed else down)]
        return of_experts if self.shared is None else [*of_experts, self.shared.weight]

    @property
    def weight(self) -> Float[Tensor, "width neurons"]:
        """W, a copy."""
        return torch.cat(self.columns(), 1)

    def factors(self, factors: Float[Tensor, " neurons"]) -> list[tuple[Tensor, Tensor]]:
        """The parameters that hold W, each with the factors of its columns, to multiply it by."""
        of_experts, of_shared = factors.split([self.in_features - self.layout.shared, self.layout.shared])
        by_expert = of_experts.unflatten(0, (self.layout.count, -1))
        down: Any = self.experts.down_proj
        found = [(down, by_expert[:, :, None] if self.transposed else by_expert[:, None])]
        return found if self.shared is None else [*found, (self.shared.weight, of_shared)]

    def forward(self, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions width"]:
        """W z, expert by expert, at the positions where it has a z; summed in float32 or wider."""
        rows_of_z = z.flatten(0, -2)
        wide = torch.promote_types(z.dtype, torch.float32)
        total = rows_of_z.new_zeros(len(rows_of_z), self.out_features, dtype=wide)
        columns = self.columns()
        for part, weight in zip(rows_of_z.split([w.shape[1] for w in columns], 1), columns, strict=True):
            # a z of 0 has a gradient too
            rows = torch.arange(len(part), device=z.device) if z.requires_grad else part.any(1).nonzero()[:, 0]
            total = total.index_add(0, rows, nn.functional.linear(part[rows], weight).to(wide))
        out = total.to(z.dtype).unflatten(0, z.shape[:-1])
        self._passed = z, out
        return out

    def run(self, forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A pass of the mixture, whose z the hooks of this projection see and may replace; forward: the family's own.

        Raises:
            HonesError: W z is not what the family's own forward gives.
        """
        with _Seen(self) as seen:
            output = forward(hidden_states, *args, **kwargs)
        several = isinstance(output, tuple)
        own = output[0] if several else output
        z = seen.z().unflatten(0, hidden_states.shape[:-1])
        if not self.proven:
            self._prove(own, z)
        projected = self(z)
        assert self._passed is not None
        (entered, plain), self._passed = self._passed, None
        if entered is z and projected is plain and not projected.requires_grad:
            return output
        result = projected.to(own.dtype)
        if not projected.requires_grad:  # a gradient passes through what is said to be edited, everywhere
            same = (entered == z).all(-1, keepdim=True) & (projected == plain).all(-1, keepdim=True)
            result = torch.where(same, own.view_as(result), result)
        result = result.view_as(own)
        return (result, *output[1:]) if several else result

    @torch.no_grad()
    def _prove(self, own: Tensor, z: Tensor) -> None:
        expected = self.forward(z).view_as(own)
        apart = float((own.float() - expected.float()).norm() / own.float().norm().clamp(min=1e-30))
        if not apart <= ROUNDINGS * torch.finfo(own.dtype).eps:
            raise HonesError(
                f"a mixture of {type(self.experts).__name__} gives other than what its experts write ({apart:.2g})",
                expected="the sum of the chosen experts by the router's weights, and of a shared expert",
                do="this family is not served",
            )
        self.proven = True


class _Seen:
    """What the experts were given in one pass of a mixture, and what entered the shared expert's down projection."""

    def __init__(self, of: ExpertProjection) -> None:
        self.of = of
        self.given: tuple[Tensor, ...] = ()
        self.shared: Tensor | None = None
        self.logit: Tensor | None = None
        self.stack = ExitStack()

    def __enter__(self) -> "_Seen":
        def given(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.given = (*args, *kwargs.values())

        def shared(_: nn.Module, args: tuple[Any, ...]) -> None:
            (self.shared,) = args

        def logit(_: nn.Module, __: Any, output: Tensor) -> None:
            self.logit = output

        self.stack.enter_context(self.of.experts.register_forward_pre_hook(given, with_kwargs=True))
        if self.of.shared is not None:
            self.stack.enter_context(self.of.shared.register_forward_pre_hook(shared))
        if self.of.gate is not None:
            self.stack.enter_context(self.of.gate.register_forward_hook(logit))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def z(self) -> Float[Tensor, "positions neurons"]:
        """z of all neurons at every position."""
        of_experts = z_of_all if len(self.given) == 1 else z_of_chosen
        z = of_experts(self.of.experts, *self.given)
        if self.shared is None:
            return z
        shared = self.shared.flatten(0, -2)
        if self.logit is not None:
            shared = shared * self.logit.flatten(0, -2).sigmoid()
        return torch.cat([z, shared.to(z.dtype)], 1)


def z_of_chosen(
    experts: Any, hidden: Float[Tensor, "positions width"], chosen: Tensor, weights: Tensor
) -> Float[Tensor, "positions neurons"]:
    """w_e z_e of all experts from what the router chose, [positions, k] each: transformers' fused experts."""
    up = experts.gate_up_proj if experts.has_gate else experts.up_proj
    places, values = [], []
    for expert in range(len(up)):
        rows, place = torch.where(chosen == expert)
        inner = hidden[rows] @ (up[expert] if experts.is_transposed else up[expert].T)
        inner = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)
        places.append(rows * len(up) + expert)
        values.append((inner * weights[rows, place, None]).to(hidden.dtype))
    z = hidden.new_zeros(len(hidden) * len(up), values[0].shape[-1])
    return z.index_put((torch.cat(places),), torch.cat(values)).unflatten(0, (-1, len(up))).flatten(1)


def z_of_all(experts: Any, hidden: Float[Tensor, "experts_and_positions width"]) -> Float[Tensor, "positions neurons"]:
    """z of experts whose input the router has weighed, every expert at every position: Llama 4."""
    count = len(experts.gate_up_proj)
    gate, up = torch.bmm(hidden.unflatten(0, (count, -1)), experts.gate_up_proj).chunk(2, -1)
    return (up * experts.act_fn(gate)).transpose(0, 1).flatten(1)


def find_mixture(block: nn.Module, where: str) -> tuple[nn.Module, ExpertProjection] | None:
    """The mixture of a decoder layer and its down projections as one; None in a layer without experts.

    Raises:
        HonesError: its experts are of a form that is not served; the line names it.
    """
    found = next((name for name in MIXTURES if hasattr(getattr(block, name, None), "experts")), None)
    if found is None:
        return None
    mixture = block.get_submodule(found)
    experts: Any = mixture.experts
    shared = next((getattr(mixture, name) for name in SHARED if getattr(mixture, name, None) is not None), None)
    problem = next(_problems(block, experts, shared), None)
    if problem is not None:
        raise HonesError(
            f"{where}: {found}.experts is a {type(experts).__name__}: {problem}",
            expected="fused experts as transformers 5 has them, in plain numbers, whose sum is all of the FFN",
            do="load the model without quantisation" if "quantised" in problem else "this family is not served",
        )
    gate = getattr(mixture, "shared_expert_gate", None)
    return mixture, ExpertProjection(experts, None if shared is None else shared.down_proj, gate)


def _problems(block: nn.Module, experts: Any, shared: Any) -> Iterator[str]:
    """Why what experts write is not known as W z."""
    down = getattr(experts, "down_proj", None)
    if getattr(experts, "has_bias", False):
        yield "its experts have biases, which are no neuron's"
    elif not isinstance(down, Tensor) or not isinstance(getattr(experts, "act_fn", None), nn.Module):
        yield "not the weights of all experts in one"
    elif down.dtype not in PLAIN or down.ndim != 3:
        yield f"its weights are quantised ({str(down.dtype).removeprefix('torch.')} {[*down.shape]})"
    elif getattr(experts, "has_post_expert_norm", False):
        yield "a norm follows every expert"
    elif not hasattr(experts, "has_gate") and not _takes_all(experts):
        yield "it has no implementation that can be chosen"
    if shared is not None:
        down = getattr(shared, "down_proj", None)
        if not isinstance(down, nn.Linear) or down.bias is not None:
            yield "the shared expert beside them has no down_proj without a bias"
        elif down.weight.dtype not in PLAIN:
            yield "the weights of the shared expert beside them are quantised"
    beside = next((name for name in BESIDE if getattr(block, name, None) is not None), None)
    if beside is not None:
        yield f"the layer has a {beside} beside them"


def _takes_all(experts: nn.Module) -> bool:
    """Whether every expert is run on its own weighted input."""
    return len(signature(experts.forward).parameters) == 1
