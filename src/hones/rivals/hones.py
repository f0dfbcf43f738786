"""HONES and its variants: step 2 of the paper (`hones.method.neurons`), read in four ways."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.method.direction import RELEASED, Reading
from hones.method.neurons import PositivePart, attribute_neurons
from hones.rivals.base import Context, Method

PAPER = "Wang, Hu, Jiang 2026, arXiv 2604.17941"


class Hones(Method):
    """Head-guided importance as released."""

    name: ClassVar[str] = "hones"
    summary: ClassVar[str] = "write-in toward the answer that vanishes without the critical heads"
    source: ClassVar[str] = PAPER
    needs_heads: ClassVar[bool] = True
    positive_part: ClassVar[PositivePart] = "mean"
    reading: ClassVar[Reading] = RELEASED

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """I[l,i] of `attribute_neurons`."""
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

    name: ClassVar[str] = "hones-per-item"
    summary: ClassVar[str] = "hones, the positive part taken per item before averaging"
    positive_part: ClassVar[PositivePart] = "item"


class HonesNormGain(Hones):
    """The direction as the logits see it."""

    name: ClassVar[str] = "hones-norm-gain"
    summary: ClassVar[str] = "hones, the final norm's gain folded into the answer's direction"
    reading: ClassVar[Reading] = Reading(norm_gain=True)


class HonesAllTokens(Hones):
    """The same direction u_y at every position that predicts a target token, teacher forced; the mean over positions.

    Where the target is one token (retrieval) this is `hones`.
    """

    name: ClassVar[str] = "hones-all-tokens"
    summary: ClassVar[str] = "hones, read at every answer token instead of the first alone"
    reading: ClassVar[Reading] = Reading(all_tokens=True)
