"""A mixture of experts as one FFN, so that a neuron of it is a neuron like any other.

With the router's weights w_e, 0 where expert e is not chosen, and g the gate of a shared expert s, 1 without one,

    added = sum over e of w_e (W_e z_e + b_e) + g W_s z_s = W z + b
    W = [W_0 .. W_E-1 W_s],  z = [w_0 z_0 .. w_E-1 z_E-1, g z_s],  b = sum over e of w_e b_e

The experts' biases b_e, which few families have (gpt-oss), are no neuron's. Some multiply what all experts give by one
number more (MiniMax M3): it is part of w_e here.

So z [.., E * I + I_s] enters one down projection: neuron i of expert e is number e * I + i, those of the shared expert
come last, and masking one is a zeroed column of its expert's down_proj. No module of a family has this z: while
somebody looks at it, it is made from what the router chose, by the obvious loop over experts, and shown to the hooks of
an `ExpertProjection`. Where they leave z as it was, at a position, the family's own output stays, bit for bit; where
they change it, W z takes its place. That W z is the family's output, to rounding, is measured when it is first used.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hones.errors import HonesError
from hones.models.experts import Experts, takes_all, z_of_all, z_of_chosen

ROUNDINGS = 16


class ExpertProjection(nn.Module):
    """The down projections of all experts of a layer as one, W [d, E * I + I_s]; it is in no model.

    groups: the fused experts; where there are two, the second are those of a picture's tokens.
    shared: the shared expert's down projection; gate: what gives the logit of its gate. scalings: what the experts'
    sum may be multiplied by beside the router's weights; the one with which W z is the family's output is taken.
    """

    bias: nn.Parameter | None = None

    def __init__(
        self,
        groups: Sequence[nn.Module],
        shared: nn.Linear | None,
        gate: nn.Module | None,
        scalings: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(groups)
        self.shared, self.gate = shared, gate
        self.scalings = scalings
        self.transposed = bool(getattr(groups[0], "is_transposed", takes_all(groups[0])))
        counts = [(len(down), down.shape[1 if self.transposed else 2]) for down in self.downs()]
        self.layout = Experts(*counts[0], 0 if shared is None else shared.in_features, *counts[1:])
        self.in_features = self.layout.neurons
        self.out_features = self.downs()[0].shape[2 if self.transposed else 1]
        self.users = 0  # contexts in which the mixture runs through this; the last that is left ends it
        self.running = ExitStack()
        self.scaling: float | None = None  # until it is proven
        self._biases: Tensor | None = None  # b of the pass that runs
        self._passed: tuple[Tensor, Tensor] | None = None

    def downs(self) -> list[Tensor]:
        """The down projections of all experts, one tensor for each group."""
        groups: Any = self.groups
        return [experts.down_proj for experts in groups]

    def columns(self) -> list[Float[Tensor, "width neurons"]]:
        """The columns of every expert, the shared one last: views of the weights."""
        of_experts = [column for down in self.downs() for column in (down.mT if self.transposed else down)]
        return of_experts if self.shared is None else [*of_experts, self.shared.weight]

    @property
    def weight(self) -> Float[Tensor, "width neurons"]:
        """W, a copy."""
        return torch.cat(self.columns(), 1)

    def factors(self, factors: Float[Tensor, " neurons"]) -> list[tuple[Tensor, Tensor]]:
        """The parameters that hold W, each with the factors of its columns, to multiply it by."""
        *of_groups, of_shared = factors.split([*self.sizes(), self.layout.shared])
        found = []
        for down, of_group in zip(self.downs(), of_groups, strict=True):
            by_expert = of_group.unflatten(0, (len(down), -1))
            found.append((down, by_expert[:, :, None] if self.transposed else by_expert[:, None]))
        return found if self.shared is None else [*found, (self.shared.weight, of_shared)]

    def sizes(self) -> list[int]:
        """How many neurons each group has."""
        return [down.numel() // self.out_features for down in self.downs()]

    def forward(self, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions width"]:
        """W z + b, expert by expert, at the positions where it has a z; summed in float32 or wider."""
        total = self.summed(z.flatten(0, -2), self.columns())
        if self._biases is not None:
            total = total + self._biases
        out = total.to(z.dtype).unflatten(0, z.shape[:-1])
        self._passed = z, out
        return out

    def summed(
        self, z: Float[Tensor, "positions neurons"], columns: Sequence[Float[Tensor, "width _"]]
    ) -> Float[Tensor, "positions width"]:
        """What these columns write, float32 or wider."""
        wide = torch.promote_types(z.dtype, torch.float32)
        total = z.new_zeros(len(z), self.out_features, dtype=wide)
        for part, weight in zip(z.split([w.shape[1] for w in columns], 1), columns, strict=True):
            # a z of 0 has a gradient too
            rows = torch.arange(len(part), device=z.device) if z.requires_grad else part.any(1).nonzero()[:, 0]
            total = total.index_add(0, rows, nn.functional.linear(part[rows], weight).to(wide))
        return total

    def run(self, forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A pass of the mixture, whose z the hooks of this projection see and may replace; forward: the family's own.

        Raises:
            HonesError: W z is not what the family's own forward gives.
        """
        types = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        with Seen(self, types) as seen:
            output = forward(hidden_states, *args, **kwargs)
        several = isinstance(output, tuple)
        own = output[0] if several else output
        result = self.edited(own, seen, hidden_states.shape[:-1])
        if result is own:
            return output
        return (result, *output[1:]) if several else result

    def edited(self, own: Tensor, seen: "Seen", shape: torch.Size) -> Tensor:
        """What the family's own output becomes; itself where nothing changes z. shape: of the positions."""
        if self.scaling is None:
            self.scaling = self._prove(own, seen)
        z = seen.z(self.scaling).unflatten(0, shape)
        self._biases = seen.biases(self.scaling)
        projected = self(z)
        assert self._passed is not None
        (entered, plain), self._passed, self._biases = self._passed, None, None
        if entered is z and projected is plain and not projected.requires_grad:
            return own
        result = projected.to(own.dtype)
        if not projected.requires_grad:  # a gradient passes through what is said to be edited, everywhere
            same = (entered == z).all(-1, keepdim=True) & (projected == plain).all(-1, keepdim=True)
            result = torch.where(same, own.view_as(result), result)
        return result.view_as(own)

    def watching(self) -> AbstractContextManager[Any]:
        """What is to be watched from outside of the module that is run."""
        return nullcontext()

    @torch.no_grad()
    def _prove(self, own: Tensor, seen: "Seen") -> float:
        """The number that the experts' sum is multiplied by."""
        apart = float("nan")
        for scaling in self.scalings:
            self._biases = seen.biases(scaling)
            expected = self.forward(seen.z(scaling)).view_as(own)
            self._biases = None
            apart = float((own.float() - expected.float()).norm() / own.float().norm().clamp(min=1e-30))
            if apart <= ROUNDINGS * torch.finfo(own.dtype).eps:
                return scaling
        raise HonesError(
            f"a mixture of {type(self.groups[0]).__name__} gives other than what its experts write ({apart:.2g})",
            expected="the sum of the chosen experts by the router's weights, and of a shared expert",
            do="this family is not served",
        )


class Seen:
    """What the experts were given in one pass of a mixture, and what entered the shared expert's down projection.

    types: of the tokens, above 0 a picture's, in a mixture of two groups.
    """

    def __init__(self, of: ExpertProjection, types: Tensor | None) -> None:
        self.of = of
        self.types = types
        self.given: dict[int, tuple[Tensor, ...]] = {}
        self.shared: Tensor | None = None
        self.logit: Tensor | None = None
        self.stack = ExitStack()

    def __enter__(self) -> "Seen":
        def given(group: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.given[group] = (*args, *kwargs.values())

        def shared(_: nn.Module, args: tuple[Any, ...]) -> None:
            (self.shared,) = args

        def logit(_: nn.Module, __: Any, output: Tensor) -> None:
            self.logit = output

        for group, experts in enumerate(self.of.groups):
            hook = experts.register_forward_pre_hook(partial(given, group), with_kwargs=True)
            self.stack.enter_context(hook)
        if self.of.shared is not None:
            self.stack.enter_context(self.of.shared.register_forward_pre_hook(shared))
        if self.of.gate is not None:
            self.stack.enter_context(self.of.gate.register_forward_hook(logit))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def forget(self) -> None:
        """What was seen in a pass that is over."""
        self.given = {}
        self.shared = self.logit = None

    def z(self, scaling: float) -> Float[Tensor, "positions neurons"]:
        """z of all neurons at every position."""
        z = self.of_group(0) if len(self.of.groups) == 1 else self.of_groups()
        z = z if scaling == 1 else z * scaling
        if self.shared is None:
            return z
        shared = self.shared.flatten(0, -2)
        if self.logit is not None:
            shared = shared * self.logit.flatten(0, -2).sigmoid()
        return torch.cat([z, shared.to(z.dtype)], 1)

    def of_group(self, group: int) -> Float[Tensor, "rows neurons"]:
        """z of the experts of a group, at the positions that it was given."""
        given = self.given[group]
        return (z_of_all if len(given) == 1 else z_of_chosen)(self.of.groups[group], *given)

    def of_groups(self) -> Float[Tensor, "positions neurons"]:
        """z of all experts, 0 where a position is of the other group."""
        count = sum(len(hidden) for hidden, *_ in self.given.values())
        hidden = self.given[0][0]
        seeing = torch.zeros(count, dtype=torch.bool, device=hidden.device)
        if 1 in self.given:
            assert self.types is not None
            seeing = self.types.flatten() > 0
        parts = []
        for group, size in enumerate(self.of.sizes()):
            rows = seeing if group else ~seeing
            z = hidden.new_zeros(count, size)
            parts.append(z.index_put((rows.nonzero()[:, 0],), self.of_group(group)) if group in self.given else z)
        return torch.cat(parts, 1)

    def biases(self, scaling: float) -> Float[Tensor, "positions width"] | None:
        """b at every position; None where the experts have none."""
        of_experts: Any = getattr(self.of.groups[0], "down_proj_bias", None)
        if of_experts is None:
            return None
        _, chosen, weights = self.given[0]
        return scaling * (weights[..., None] * of_experts[chosen]).sum(1)
