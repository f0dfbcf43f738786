"""What a training is asked for, and what it gives: settings, losses of an epoch, scales.

AdamW moves a scale by about the learning rate a step, so that few steps at the paper's rate leave every scale where it
was. Unless a rate is named, it is the paper's 5e-4 from 1,000 steps on (2,000 dev items, 4 a step, 2 epochs), 0.05 up
to 200 steps, and between them a straight line of the logarithms.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from hones.models.sites import Site

if TYPE_CHECKING:
    from hones.models.adapters import Adapter

HONES = "hones"
"""The paper's way to steer, by name (`hones.method.steering.controls`)."""
SET = "set:"
"""Before the name of a comparison method: steering on the set that it selects (`hones.runs.ways`)."""
PAPER_RATE = 5e-4
PAPER_STEPS = 1000
FEW_STEPS = 200
RATE_OF_FEW = 0.05
STILL = 0.02
"""A training none of whose scales is further from 0 has moved nothing."""


class EarlyStopping(BaseModel):
    """Hold out pictures of dev, stop once their objective has not improved for `patience` epochs, keep the best epoch.

    share: of the dev pictures, at least one and not all. Their pairs are drawn once and never trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(default=0.2, gt=0, lt=1, description="of the dev pictures")
    patience: int = Field(default=1, ge=1, description="epochs without improvement")


class SteeringSettings(BaseModel):
    """Training settings; the defaults are the released ones. `batch_size` items make one step (released: 1 x 4).

    AdamW without weight decay; cosine from `learning_rate` to `final_learning_rate` of it over all steps; gradient norm
    at most `clip`; |s| <= `max_scale` after every step; no early stopping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    beta: float = Field(default=0.05, ge=0, description="weight of the KL divergence from the original model")
    gamma: float = Field(default=1e-5, ge=0, description="weight of the mean squared scale")
    learning_rate: float | None = Field(default=None, gt=0, description="null: by the number of steps; paper: 5e-4")
    final_learning_rate: float = Field(default=0.1, ge=0, le=1, description="as a share of learning_rate")
    epochs: int = Field(default=2, ge=1, description="passes over the dev items")
    batch_size: int = Field(default=4, ge=1, description="items per training step")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    max_scale: float = Field(default=1.5, gt=0, description="bound of each |s|")
    seed: int = Field(default=3407, ge=0, description="of the training; left out: the run's")
    early_stopping: EarlyStopping | None = Field(default=None, description="hold out dev pictures, keep the best epoch")

    @property
    def rate(self) -> float:
        """The learning rate of settings that have one, as `for_steps` gives them."""
        assert self.learning_rate is not None
        return self.learning_rate

    def for_steps(self, steps: int) -> "SteeringSettings":
        """These settings with a learning rate: their own, or the default for so many steps."""
        if self.learning_rate is not None:
            return self
        between = (math.log(PAPER_STEPS) - math.log(max(1, steps))) / (math.log(PAPER_STEPS) - math.log(FEW_STEPS))
        rate = PAPER_RATE * (RATE_OF_FEW / PAPER_RATE) ** min(1.0, max(0.0, between))
        return self.model_copy(update={"learning_rate": rate})


@dataclass(frozen=True)
class EpochLosses:
    """Means over an epoch's steps, in nats: the objective, its cross-entropy and its divergence.

    held_out: the objective on the pictures held out, after the epoch; None without early stopping.
    """

    total: float
    cross_entropy: float
    divergence: float
    held_out: float | None = None


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did to its scales: how far they went, and what it did to the objective.

    first_loss, last_loss: means of the objective over the first and the last tenth of the steps, in nats. largest,
    median: of |s|. clamped: how many scales are at the bound.
    """

    steps: int
    learning_rate: float
    first_loss: float
    last_loss: float
    largest: float
    median: float
    clamped: int
    scales: int

    @property
    def moved(self) -> bool:
        """Whether any scale went further than rounding and the first steps carry it, or to a bound nearer than that."""
        return self.largest > STILL or self.clamped > 0

    def __str__(self) -> str:
        text = (
            f"{self.steps} steps at learning rate {self.learning_rate:.2g}: loss {self.first_loss:.3f} -> "
            f"{self.last_loss:.3f}; |s| at most {self.largest:.3f}, median {self.median:.3f}, "
            f"{self.clamped} of {self.scales} at the bound"
        )
        if self.moved:
            return text
        if self.largest == 0:
            return f"nothing was learned, every scale is 0: {text}; early stopping keeps that where no epoch was better"
        return f"nothing was learned, an effect is not of the scales: {text}; raise the learning rate or the epochs"


@dataclass(frozen=True)
class Scales:
    """Learned scales s by (layer, neuron), or an adapter that was learned in their place, and each epoch's objective.

    epochs: all losses of each epoch. held_out: the objective on the pictures held out, before training. epoch: whose
    scales these are, from 1 (0: none was better than no scaling); None: the last one's, without early stopping.
    learned: None where nothing was trained.
    """

    values: dict[Site, float]
    losses: tuple[float, ...] = ()
    epochs: tuple[EpochLosses, ...] = ()
    held_out: float | None = None
    epoch: int | None = None
    learned: TrainingSummary | None = None
    adapter: "Adapter | None" = None

    @property
    def parameters(self) -> int:
        """How many numbers there are."""
        return len(self.values) if self.adapter is None else self.adapter.parameters


def training_record(scales: Scales) -> dict[str, Any]:
    """What run.json keeps of a training."""
    epochs = [asdict(epoch) for epoch in scales.epochs]
    learned = None if scales.learned is None else asdict(scales.learned)
    return {
        "losses": scales.losses,
        "epochs": epochs,
        "held_out": scales.held_out,
        "epoch": scales.epoch,
        "learned": learned,
    }
