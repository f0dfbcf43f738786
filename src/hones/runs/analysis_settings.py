"""What an analysis is asked for; a configuration holds it."""

from pydantic import BaseModel, ConfigDict, Field


class AnalysisSettings(BaseModel):
    """lens_items, cards: of each task; draws: random sets per group; limit: test items of each task, None: all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lens_items: int = Field(default=2, ge=0, description="items of each task under the delta logit lens")
    cards: int = Field(default=8, ge=0, description="neuron cards of each task")
    draws: int = Field(default=3, ge=1, description="random control sets per group")
    limit: int | None = Field(default=None, ge=1, description="mask on the first N test items only; null: all")
