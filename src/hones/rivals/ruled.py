"""What `relp` and `gim` share: hones+'s contrast, its gradient taken under rules of the backward pass.

    score[l,i] = sum_x w_x sum_s z[l,i](s) R_x[l,i](s),    R_x = dV_x / dz under rules (`hones.models.backward`)

V is that of `hones.rivals.hones_plus`: the log-probability of the gold answer less that of other items' answers. Both
sources ask for a difference of logits between a right answer and a wrong one; the answer's log-probability alone also
rewards what every answer needs. z counts from 0, not from its mean over items, because masking sets it to 0. The
numbers of the forward pass stay as they are, so that all that differs from hones+ is the backward pass.

Before a gradient counts, each rule alone is tried on the first prompt. One that leaves the gradient what it was is
refused: what it is for is not in this model, and a ranking under its name would be that of another method.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError
from hones.models.backward import INSTEAD, Met, backward_by
from hones.models.backward_rules import Rules
from hones.models.vlm import VLM
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.gates import GateGradients
from hones.rivals.hones_plus import Knowledge, KnowledgeOf, knowledge_of
from hones.sweep.shards import Advance
from hones.tasks.base import Example, Task

NO_CHANGE = 10
"""Roundings of the model's dtype within which two gradients are the same, relative to their size."""


class Ruled(Method):
    """Contrastive attribution under rules."""

    cut_by_items = True
    rules: ClassVar[Rules]

    def importance(self, context: Context) -> Importance:
        """The score above, float32.

        Raises:
            HonesError: all answers are the same, or a rule does not fit the model or changes nothing in it.
        """
        plain = knowledge_of(context.task, context.examples)
        job = RuledKnowledgeOf(plain.task, plain.examples, self.name, self.rules)
        gradients = GateGradients(context, [job], rounds=1)
        (gradient,) = gradients.at(np.ones(importance_shape(context.vlm), dtype=np.float32))
        return gradient.astype(np.float32)


@dataclass(frozen=True)
class RuledKnowledgeOf(KnowledgeOf):
    """Makes `RuledKnowledge` where the model is (a `hones.rivals.gates.Job`)."""

    method: str
    rules: Rules

    def __call__(self, vlm: VLM, rows: int) -> "RuledKnowledge":
        return RuledKnowledge(vlm, self.task, self.examples, self.method, self.rules, rows)


class RuledKnowledge(Knowledge):
    """V, with a gradient under rules; its value is that of `Knowledge`."""

    def __init__(
        self,
        vlm: VLM,
        task: Task,
        examples: Sequence[Example],
        method: str,
        rules: Rules,
        rows: int | None = None,
    ) -> None:
        super().__init__(vlm, task, examples, rows)
        self.method = method
        self.rules = rules
        self.tried = False
        self.met = Met()

    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        for batch in self.batches(prompts):
            with backward_by(self.vlm.model, self.rules) as self.met:
                (value,) = super().parts(gates, batch)
            yield value

    def hasten(self, rounds: int, most: int | None) -> bool:
        """No: rules are measured on the modules of whole passes."""
        return False

    def gradient(
        self, gates: Importance, prompts: range | None = None, advance: Advance = lambda prompts: None
    ) -> Importance:
        """As `Gated.gradient` has it, under the rules.

        Raises:
            HonesError: a rule does not fit the model, or changes nothing in it.
        """
        if not self.tried:
            self._try_rules(gates)
            self.tried = True
        return super().gradient(gates, prompts, advance)

    def _try_rules(self, gates: Importance) -> None:
        plain, _ = self._under(Rules(), gates)
        least = NO_CHANGE * torch.finfo(self.vlm.model.dtype).eps * float(np.linalg.norm(plain))
        for name, rule in self.rules.alone().items():
            found, met = self._under(rule, gates)
            if name == "product" and met.plain and not met.gated:
                continue  # there is no product in a plain FFN
            if name == "activation" and met.straight:
                continue  # a ReLU's gradient is what the rule makes of others
            if not float(np.linalg.norm(found - plain)) > least:
                raise HonesError(
                    f"{self.method}: the rule {name!r} changes no gradient of {type(self.vlm.model).__name__}",
                    do=INSTEAD,
                )

    def _under(self, rules: Rules, gates: Importance) -> tuple[Importance, Met]:
        """The gradient of the first prompt under other rules, and the FFNs that they met."""
        other = copy(self)
        other.rules = rules
        other.tried = True
        return other.gradient(gates, range(1)), other.met
