"""Greedy decoding by transformers' generate: nothing but the argmax, and only of finite logits."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from hones.models.head import check_finite


@contextmanager
def bare_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Greedy means the argmax: generate would take a repetition penalty and the like from the model's own settings."""
    of_model = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = of_model


class Finite(LogitsProcessor):
    """Stops a generation whose logits are not finite."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, input_ids: Int[Tensor, "batch t"], scores: Float[Tensor, "batch v"]) -> Float[Tensor, "batch v"]:
        check_finite(scores, self.name)
        return scores
