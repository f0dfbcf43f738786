"""Experts beside a dense FFN, each behind a norm of its own: Gemma 4 with experts.

    y = N_e(W_e z_e) + N_s(W_s z_s),   z = [z_e, z_s],   added = N(y)

with z_e of all experts, the router's weights in it, and z_s of the dense FFN, the shared one of `mixtures`. y is no
module's output: it is what enters the layer's own norm N, where it is seen and replaced. Each norm is linear while its
denominator is held fixed, so what a neuron writes goes through two of them (`hones.models.writing`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hones.models.mixtures import ExpertProjection, Seen


class NormedProjection(ExpertProjection):
    """The down projections of all experts and of a dense FFN, and the norms behind both.

    norms: behind the experts, and behind the dense FFN.
    """

    def __init__(self, experts: nn.Module, dense: nn.Linear, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__([experts], dense, None)
        self.norms = nn.ModuleList(norms)
        self._seen = Seen(self, None)

    def parts(self, z: Float[Tensor, "*positions neurons"]) -> list[tuple[nn.Module, Tensor, list[Tensor]]]:
        """Each norm, the z of its neurons and their columns."""
        of_experts, of_dense = z.split([self.in_features - self.layout.shared, self.layout.shared], -1)
        *experts, dense = self.columns()
        return [(self.norms[0], of_experts, experts), (self.norms[1], of_dense, [dense])]

    def forward(self, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions width"]:
        """y."""
        parts = [norm(self.summed(x.flatten(0, -2), w).to(z.dtype)) for norm, x, w in self.parts(z)]
        out = (parts[0] + parts[1]).unflatten(0, z.shape[:-1])
        self._passed = z, out
        return out

    def watching(self) -> AbstractContextManager[Any]:
        """The experts and the dense FFN, which run before the norm."""
        self._seen = Seen(self, None)
        return self._seen

    def run(self, forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A pass of the layer's norm. Raises HonesError as `ExpertProjection.run`."""
        y = self.edited(hidden_states, self._seen, hidden_states.shape[:-1])
        self._seen.forget()
        return forward(y, *args, **kwargs)
