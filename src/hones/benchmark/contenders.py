"""Who takes part in a benchmark: the methods of `hones methods`, and functions of the user's own.

A function of one's own takes the model, the task and its discovery examples and returns a number for every neuron,
larger is more important:

    def rank(vlm, task, items):  # -> importance [L, I], an array or a tensor

It is an arbitrary program: it may use labels, gradients and generation, and leaves the model as it found it, which is
checked by the model's logits on one item.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError
from hones.models.sites import Site
from hones.models.writing import importance_shape
from hones.rivals import METHODS
from hones.rivals.base import Context, Method
from hones.tasks.user_code import module_of_file
from hones.views.text import slug

Rank = Callable[..., Any]


class Own(Method):
    """A function of the user's own as a method."""

    name: ClassVar[str] = "own"
    summary: ClassVar[str] = "a function of the user's own"
    source: ClassVar[str] = "the user"

    def __init__(self, rank: Rank, called: str) -> None:
        self.rank, self.called = rank, called

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """What the function returns, as float64.

        Raises:
            HonesError: it is no finite number per neuron, or the function has changed the model.
        """
        shape = importance_shape(context.vlm)
        expected = f"a finite number for each of {shape[0]} x {shape[1]} neurons"
        before = _logits(context)
        found = self.rank(context.vlm, context.task, context.examples)
        if isinstance(found, Tensor):
            found = found.detach().to("cpu", torch.float64).numpy()
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
            kind = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
            raise HonesError(f"{self.called} returns {kind}", expected=expected)
        if found.shape != shape:
            raise HonesError(f"{self.called} returns shape {list(found.shape)}", expected=expected)
        found = found.astype(np.float64)
        if bad := int((~np.isfinite(found)).sum()):
            raise HonesError(f"{self.called} returns {bad} numbers that are NaN or infinite", expected=expected)
        if context.vlm.model.training or not torch.equal(before, _logits(context)):
            raise HonesError(f"{self.called} has changed the model", do="remove hooks, restore weights and eval mode")
        return found


@torch.no_grad()
def _logits(context: Context) -> Tensor:
    first = context.examples[0]
    encoded = context.vlm.encode([first.open_picture()], [first.prompts[0]])
    return context.vlm.model(**encoded.inputs).logits


@dataclass(frozen=True)
class Contender:
    """A method, its name in tables, and its folder in a run.

    kept: whether a finished ranking is read from the folder; a function that is not from a file may have changed.
    """

    name: str
    method: Method
    folder: str
    kept: bool = True


def contender_of(method: Method) -> Contender:
    """A method of `hones methods`."""
    return Contender(method.name, method, method.name)


def own_contender(rank: Any, name: str) -> Contender:
    """A function at hand, computed anew in every benchmark.

    Raises:
        HonesError: it cannot be called, or a method has this name.
    """
    if not callable(rank):
        raise HonesError(f"{name} is {type(rank).__name__}", expected="a function of model, task and items")
    if name in METHODS:
        raise HonesError(f"the name {name} is taken", expected="another one than those of `hones methods`")
    return Contender(name, Own(rank, name), f"own-{slug(name)}", kept=False)


def contender_of_file(given: str) -> Contender:
    """FILE.py:FUNCTION. A changed file is another contender in a run folder; what it imports is not looked at.

    Raises:
        HonesError: no such file or function, or it does not import.
    """
    place, _, function = given.rpartition(":")
    if not place.endswith(".py") or not function:
        raise HonesError(f"--method {given}", expected="FILE.py:FUNCTION")
    module, source = module_of_file(Path(place), "the method", "--method")
    rank = getattr(module, function, None)
    if not callable(rank):
        raise HonesError(f"{place} has no function {function!r}", expected="def rank(vlm, task, items) -> importance")
    name = f"{Path(place).stem}:{function}"
    return Contender(name, Own(rank, given), f"{slug(name)}-{sha256(source).hexdigest()[:8]}")


@dataclass(frozen=True)
class Ranked:
    """A contender's ranking of one task. chosen: its first |P| neurons, those with an importance above 0."""

    contender: Contender
    folder: Path
    importance: Float[np.ndarray, "layers neurons"]
    chosen: frozenset[Site]
    seconds: float
    refused: str | None = None
    head_seconds: float = 0.0
    through: float | None = None

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the importance."""
        return sha256(self.importance.tobytes()).hexdigest()[:16]
