"""The objective of one step, without what training does not change: same numbers as the definition, less work.

What one step costs. A decoder of L layers costs F flops per position (two per weight that multiplies), the vision part
E flops per picture. A step of B pairs, S positions each, costs by the definition, d and V being width and vocabulary,

    B (E + F S + F S + F S (L - l) / L + 2 d V S')    vision; teacher; scaled, and back to the lowest scaled layer l

(the backbone is frozen: backwards only activations, so as many flops as forwards; S' positions have logits). Saved are

    picture_once   B E                the picture's features, and its prefix for the teacher, once per picture
    teacher_once   B F S              the original model's states at the answer once per pair, in all epochs
    lower_once     B F S l / L        the residual entering the lowest scaled layer, from the teacher's pass
    written        B F S 2 / L        and that layer too: x + (z s) W_down^T, of its scaled neurons alone
    last_ffn       the last layer's FFN, forwards and backwards, where no answer is predicted: about 2/3 of 2 B F S / L
    answer_logits  2 B d V (S' - n)   logits of the n positions that predict an answer's tokens

so that what is left of a step is B F S 2 (L - l - 1) / L. The first time a picture is seen costs E + F P and F T for
each of its pairs (P positions of its prefix, T after it). See `hones.method.steering.kept` for what stays in memory.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hones.errors import HonesError, HonesWarning
from hones.method.steering import definition
from hones.method.steering.definition import Losses
from hones.method.steering.kept import Row, Rows
from hones.method.steering.pairs import Pair
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.trainable import Trainable
from hones.models.anatomy import matrix
from hones.models.vlm import VLM
from hones.sweep.decoder import DecoderInput, ReadPositions
from hones.sweep.engines import TOLERANCE
from hones.sweep.layer_rows import LayerRows
from hones.sweep.memory import free_memory
from hones.sweep.prompts import OTHER_FORM, why_unserved

SHARE_OF_MEMORY = 0.3
PROBE = 0.1

Objective = Callable[[Sequence[Pair], dict[int, Tensor]], Losses]


@dataclass(frozen=True)
class Savings:
    """Which savings are on, in the order of the module's list. memory: bytes kept; None: a share of what is free."""

    picture_once: bool = True
    teacher_once: bool = True
    lower_once: bool = True
    written: bool = True
    last_ffn: bool = True
    answer_logits: bool = True
    memory: int | None = None


class FastObjective:
    """The objective of any of the pairs, from kept rows.

    Args:
        trained: the scaled neurons, or what else is trained.
        pairs: all that training will see.
    """

    def __init__(
        self,
        vlm: VLM,
        pairs: Sequence[Pair],
        trained: Trainable,
        settings: SteeringSettings,
        savings: Savings | None = None,
    ) -> None:
        self.vlm, self.trained, self.settings = vlm, trained, settings
        self.savings = savings = savings or Savings()
        lowest, last = min(trained.layers), len(vlm.anatomy.layers) - 1
        scaled = trained.written(lowest)
        few = scaled is not None and len(scaled) <= vlm.anatomy.width  # so that z takes no more than the residual
        written = savings.lower_once and savings.written and few and lowest < last
        self.below = lowest if written else None
        self.scaled = scaled if scaled is not None and written else torch.zeros(0, dtype=torch.long, device=vlm.device)
        self.start = lowest + written if savings.lower_once else 0
        self.rows = Rows(
            vlm,
            pairs,
            self.start,
            self.scaled,
            memory=int(SHARE_OF_MEMORY * free_memory(vlm.device)) if savings.memory is None else savings.memory,
            picture_once=savings.picture_once,
            answers_only=savings.last_ffn,
        )
        self.decoder = self.rows.baseline.decoder

    def __call__(self, pairs: Sequence[Pair], scales: dict[int, Tensor]) -> Losses:
        """The objective of one step; scales: s by layer."""
        rows = self.rows.of(pairs)
        with torch.no_grad():
            if self.savings.teacher_once:
                teacher = self._logits(torch.cat([row.original for row in rows]))
            else:
                teacher = self._run(rows, {})
        self.vlm.check_finite(teacher)
        per_row = torch.tensor([len(row.labels) for row in rows], device=self.vlm.device)
        labels = torch.cat([row.labels for row in rows])
        return definition.losses(teacher, self._run(rows, scales), labels, per_row, scales, self.settings)

    def _run(self, rows: Sequence[Row], scales: dict[int, Tensor]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits that predict the answers, under the scales."""
        hidden = pad_sequence([torch.cat([row.prefix.entering, row.rest.entering]) for row in rows], batch_first=True)
        if self.below in scales:
            z = pad_sequence([torch.cat([row.prefix.written, row.rest.written]) for row in rows], batch_first=True)
            weight = matrix(self.decoder.layers[self.below].down_proj)
            weight = weight[:, self.scaled.to(weight.device)]
            hidden = hidden.to(weight.device) + (z * scales[self.below].to(z.device)).to(hidden.dtype) @ weight.T
        width = hidden.shape[1]
        above = [layer for layer in scales if layer >= self.start]
        # What the family adds behind each layer at the prefixes' positions, zero elsewhere
        between = {layer: torch.zeros_like(hidden) for row in rows for layer in row.prefix.between}
        for number, row in enumerate(rows):
            for layer, features in row.prefix.between.items():
                between[layer][number, : len(features)] = features
        # The last positions of each row predict its answer, as many as that has tokens
        ends = [len(row.prefix.entering) + len(row.rest.entering) for row in rows]
        predicting = [(r, ends[r] - len(row.labels) + n) for r, row in enumerate(rows) for n in range(len(row.labels))]
        at = torch.tensor(predicting, device=hidden.device)
        wanted = ReadPositions(at[:, 0], at[:, 1])
        positions = [torch.cat([row.prefix.positions, row.rest.positions], -1) for row in rows]
        with self.trained.on({layer: scales[layer] for layer in above}):
            entry = DecoderInput(
                hidden=hidden,
                positions=torch.stack([F.pad(x, (0, width - x.shape[-1])) for x in positions], -2),
                valid=torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device),
                cache=[LayerRows(0) for _ in self.decoder.layers],
                start=self.start,
                between=between,
            )
            output = self.decoder.run(
                entry, wanted=wanted if self.savings.last_ffn else None, gradients=torch.is_grad_enabled()
            )
        assert output is not None
        if self.savings.answer_logits:
            return self._logits(wanted.of(output))
        return wanted.of(self._logits(output))

    def _logits(self, hidden: Float[Tensor, "*positions d"]) -> Float[Tensor, "*positions vocabulary"]:
        """At least in float32, as the definition's."""
        logits = self.vlm.head(hidden).to(self.vlm.device)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def make_objective(
    vlm: VLM,
    pairs: Sequence[Pair],
    first: Sequence[Pair],
    trained: Trainable,
    settings: SteeringSettings,
    savings: Savings | None = None,
) -> Objective:
    """The fastest objective that is proven, on the `first` batch, to be the definition; at last the definition itself.

    The model must be frozen.

    Raises:
        HonesError: the model passes no gradient on.
    """
    savings = savings or Savings()
    scales = probe(trained)
    expected = gradient_of(partial(definition.objective, vlm, trained=trained, settings=settings), first, scales)
    check_gradient(vlm, expected[1], scales, settings.gamma)
    problem = None
    for tried in dict.fromkeys((savings, replace(savings, written=False))):
        try:
            fast = FastObjective(vlm, pairs, trained, settings, tried)
            problem = disproof(gradient_of(fast, first, scales), expected, vlm.model.dtype)
        except OTHER_FORM as error:
            problem = why_unserved(error)
        else:
            if problem is None:
                return fast
    family = type(vlm.model).__name__
    warnings.warn(
        f"{family} cannot be served by the fast trainer ({problem}); whole passes take longer",
        HonesWarning,
        stacklevel=2,
    )
    return partial(definition.objective, vlm, trained=trained, settings=settings)


def check_gradient(vlm: VLM, gradient: Float[Tensor, " k"], scales: dict[int, Tensor], gamma: float) -> None:
    """Raises HonesError where the gradient of an objective is that of gamma mean(s^2) alone.

    An operation without a gradient (as some of bitsandbytes on a CPU) says no more than a warning, and the scales would
    stay 0.
    """
    s = torch.cat(list(scales.values())).detach()
    of_size = 2 * gamma * s / len(s)
    if (gradient - of_size).norm() <= 1e-5 * of_size.norm():
        raise HonesError(
            f"{vlm.name}: no gradient reaches the scales",
            expected="a model that can be differentiated",
            do="load it without quantisation, or steer on a GPU",
        )


def probe(trained: Trainable) -> dict[int, Tensor]:
    """Scales that change every layer: at 0 the divergence has no gradient and a stale state is right.

    Of what else is trained, what starts at 0.
    """
    generator = torch.Generator().manual_seed(0)
    start = trained.start()
    signs = {layer: torch.randint(2, (len(own),), generator=generator) * 2.0 - 1 for layer, own in start.items()}
    moved = {layer: torch.where(own == 0, (PROBE * signs[layer]).to(own), own) for layer, own in start.items()}
    return {layer: x.requires_grad_() for layer, x in moved.items()}


def gradient_of(
    objective: Objective, pairs: Sequence[Pair], scales: dict[int, Tensor]
) -> tuple[Float[Tensor, ""], Float[Tensor, " k"]]:
    """The objective and its gradient, all layers in one vector."""
    total = objective(pairs, scales).total
    return total.detach(), torch.cat(torch.autograd.grad(total, list(scales.values())))


def disproof(
    found: tuple[Float[Tensor, ""], Float[Tensor, " k"]],
    expected: tuple[Float[Tensor, ""], Float[Tensor, " k"]],
    dtype: torch.dtype,
) -> str | None:
    """How an objective or its gradient differs from the definition's by more than the dtype's rounding."""
    for what, x, y in zip(("its objective", "its gradient"), found, expected, strict=True):
        difference, norm = (x - y).norm(), y.norm()
        if not difference <= TOLERANCE[dtype] * norm.clamp(min=TOLERANCE[dtype]):
            return f"{what} differs by {difference / norm:.2g} of its size from the definition's"
    return None
