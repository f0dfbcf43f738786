"""HONES and its variants: step 2 of the paper (`hones.method.neurons`), read in four ways."""

from typing import ClassVar

from hones.method.direction import RELEASED, Reading
from hones.method.neurons import PositivePart, attribute_neurons
from hones.rivals.base import Context, Importance, Method

PAPER = "Wang, Hu, Jiang 2026, arXiv 2604.17941"


class Hones(Method):
    """Head-guided importance as released."""

    name = "hones"
    summary = "write-in toward the answer that vanishes without the critical heads"
    source = PAPER
    needs_heads = True
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


class HonesPerItem(Hones):
    """The other reading of the paper."""

    name = "hones-per-item"
    summary = "hones, the positive part taken per item before averaging"
    positive_part = "item"


class HonesNormGain(Hones):
    """The direction as the logits see it."""

    name = "hones-norm-gain"
    summary = "hones, the final norm's gain folded into the answer's direction"
    reading = Reading(norm_gain=True)


class HonesAllTokens(Hones):
    """The same direction u_y at every position that predicts a target token, teacher forced; the mean over positions.

    Where the target is one token (retrieval) this is `hones`.
    """

    name = "hones-all-tokens"
    summary = "hones, read at every answer token instead of the first alone"
    reading = Reading(all_tokens=True)
