"""What a training is asked for, and what it gives: settings, losses of an epoch, scales."""

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hones.models.anatomy import Site


class EarlyStopping(BaseModel):
    """Hold out pictures of dev, stop once their objective has not improved for `patience` epochs, keep the best epoch.

    share: of the dev pictures, at least one and not all. Their pairs are drawn once and never trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(default=0.2, gt=0, lt=1)
    patience: int = Field(default=1, ge=1)


class SteeringSettings(BaseModel):
    """Training settings; the defaults are the released ones. `batch_size` items make one step (released: 1 x 4).

    AdamW without weight decay; cosine from `learning_rate` to `final_learning_rate` of it over all steps; gradient norm
    at most `clip`; |s| <= `max_scale` after every step; no early stopping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    beta: float = Field(default=0.05, ge=0)
    gamma: float = Field(default=1e-5, ge=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    final_learning_rate: float = Field(default=0.1, ge=0, le=1, description="as a share of learning_rate")
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=4, ge=1)
    clip: float = Field(default=1.0, gt=0)
    max_scale: float = Field(default=1.5, gt=0)
    seed: int = Field(default=3407, ge=0)
    early_stopping: EarlyStopping | None = None


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
class Scales:
    """Learned scales s by (layer, neuron), and the mean objective of each epoch.

    epochs: all losses of each epoch. held_out: the objective on the pictures held out, before training. epoch: whose
    scales these are, from 1 (0: none was better than no scaling); None: the last one's, without early stopping.
    """

    values: dict[Site, float]
    losses: tuple[float, ...] = ()
    epochs: tuple[EpochLosses, ...] = ()
    held_out: float | None = None
    epoch: int | None = None


def training_record(scales: Scales) -> dict[str, Any]:
    """What run.json keeps of a training."""
    epochs = [asdict(epoch) for epoch in scales.epochs]
    return {"losses": scales.losses, "epochs": epochs, "held_out": scales.held_out, "epoch": scales.epoch}
