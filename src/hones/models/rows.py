"""Positions of a picture's tokens, made for each row of a batch as for that row alone.

HunYuan-VL counts pictures through the whole batch, so a row's positions, and its answer, depend on the rows before it.
Whether a model does is measured when it is attached: where it places the rows of the probe otherwise together than one
at a time, its `get_rope_index` is asked row by row from then on. No other model is touched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

PLACES = "get_rope_index"


@contextmanager
def placed_by_row(model: PreTrainedModel) -> Iterator[list[bool]]:
    """A pass in here shows whether rows are placed alike alone and together; where not, they are from its end on.

    Yields:
        Filled when it is left: True where the model was changed, so that what the pass gave is not what it gives now.
    """
    owner: Any = next((x for x in (model, model.base_model) if hasattr(x, PLACES)), None)
    changed: list[bool] = []
    if owner is None:
        yield changed
        return
    own = getattr(owner, PLACES)
    alike: list[bool] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        together = own(*args, **kwargs)
        apart = by_row(own)(*args, **kwargs)
        alike.append(all(torch.equal(x, y) for x, y in zip(together, apart, strict=True)))
        return together

    former = vars(owner).get(PLACES)
    setattr(owner, PLACES, watched)
    try:
        yield changed
    finally:
        if former is None:
            delattr(owner, PLACES)
        else:
            setattr(owner, PLACES, former)
    if not all(alike):
        setattr(owner, PLACES, by_row(own))
        changed.append(True)


def by_row(place: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The same for each row alone: of what has as many rows as the batch, each gets its own."""

    def placed(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        rows = len(given[0])

        def of(row: int, x: Any) -> Any:
            return x[row : row + 1] if isinstance(x, Tensor) and len(x) == rows else x

        each = [place(*(of(n, x) for x in args), **{k: of(n, x) for k, x in kwargs.items()}) for n in range(rows)]
        # positions are [axes, rows, tokens], how far they are ahead of the count of tokens [rows, 1]
        return tuple(torch.cat(parts, 1 if parts[0].ndim == 3 else 0) for parts in zip(*each, strict=True))

    return placed
