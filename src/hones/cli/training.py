"""The options of a training, and the settings they are turned into."""

from typing import Annotated, Any

import typer

from hones.errors import HonesError, first_invalid

LearningRate = Annotated[float, typer.Option(help="Of AdamW, falling by a cosine to a tenth.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the dev items.")]
Beta = Annotated[float, typer.Option(min=0, help="Weight of the KL divergence from the original model.")]
Gamma = Annotated[float, typer.Option(min=0, help="Weight of the mean squared scale.")]
MaxScale = Annotated[float, typer.Option(help="Bound of each |s|, kept after every step.")]
StepSize = Annotated[int, typer.Option(min=1, help="Items per training step.")]
EarlyStopping = Annotated[
    float | None, typer.Option(help="Share of dev pictures to hold out; the best epoch by their objective is kept.")
]
Patience = Annotated[
    int, typer.Option(min=1, help="Early stopping: epochs without improvement after which training ends.")
]


def steering_settings(*, early_stopping: float | None, patience: int, **options: Any):
    """The settings of these options.

    Raises:
        HonesError: a value out of range; the line names the option.
    """
    from pydantic import ValidationError

    from hones.method.steering.settings import SteeringSettings

    stopping = None if early_stopping is None else {"share": early_stopping, "patience": patience}
    try:
        return SteeringSettings.model_validate({**options, "early_stopping": stopping})
    except ValidationError as error:
        invalid = first_invalid(error)
        field = str(invalid.where[-1])
        option = {"batch_size": "step_size", "share": "early_stopping"}.get(field, field).replace("_", "-")
        raise HonesError(f"--{option} {invalid.value}: {invalid.problem}") from error
