"""HONES and its variants: step 2 of the paper (`hones.method.neurons`), read in four ways."""

from typing import ClassVar

from hones.method.budget import PositivePart
from hones.method.direction import RELEASED, Reading
from hones.method.neurons import attribute_neurons
from hones.rivals.base import Context, Importance, Method


class Hones(Method, known="hones"):
    """Head-guided importance as released."""

    cut_by_items = True
    positive_part: ClassVar[PositivePart] = "mean"
    reading: ClassVar[Reading] = RELEASED

    def importance(self, context: Context) -> Importance:
        return attribute_neurons(
            context.vlm,
            context.task,
            context.examples,
            context.heads,
            positive_part=self.positive_part,
            reading=self.reading,
            sweep=context.sweep,
        )


class HonesPerItem(Hones, known="hones-per-item"):
    """The other reading of the paper."""

    positive_part = "item"


class HonesNormGain(Hones, known="hones-norm-gain"):
    """The direction as the logits see it."""

    reading = Reading(norm_gain=True)


class HonesAllTokens(Hones, known="hones-all-tokens"):
    """The same direction u_y at every position that predicts a target token, teacher forced; the mean over positions.

    Where the target is one token (retrieval) this is `hones`.
    """

    reading = Reading(all_tokens=True)
