"""Reading what flows through a model, and replacing it, by hooks that are gone when the context is left.

A place is what enters or leaves a module of every decoder layer, [batch, positions, width]:

    ENTERING, LEAVING           the residual before and after the layer
    HEADS, ATTENTION            the heads' outputs, side by side, entering o_proj; what the attention adds
    GATE, Z, FFN                act(gate); z entering down_proj; what the FFN gives
    O_PROJ, DOWN_PROJ           what these projections give

Some layers run their FFN on the positions of all rows in one, [batch * positions, width] (OPT, Llama 4): what is there
is shown, and replaced, by row all the same. Others go on in place with what a module gives (Falcon): `collect` keeps
its own. Z of a mixture of experts is that of all of them (`hones.models.mixtures`).

Edits (`hones.models.interventions`) are replacements of HEADS and of Z.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from hones.models.anatomy import Anatomy, Layer
from hones.models.mixtures import ExpertProjection

See = Callable[[int, Tensor], Tensor | None]
"""Called with a layer's number and the tensor that is there; a tensor that it returns takes its place."""


@dataclass(frozen=True)
class Place:
    """A tensor of every decoder layer: what enters, or leaves, the module that `module` finds in a layer."""

    module: Callable[[Layer], nn.Module]
    enters: bool


ENTERING = Place(attrgetter("block"), enters=True)
LEAVING = Place(attrgetter("block"), enters=False)
HEADS = Place(attrgetter("o_proj"), enters=True)
O_PROJ = Place(attrgetter("o_proj"), enters=False)
ATTENTION = Place(attrgetter("attention"), enters=False)
GATE = Place(attrgetter("activation"), enters=False)
Z = Place(attrgetter("down_proj"), enters=True)
DOWN_PROJ = Place(attrgetter("down_proj"), enters=False)
FFN = Place(attrgetter("mlp"), enters=False)


@contextmanager
def capture(anatomy: Anatomy, place: Place, see: See, layers: Iterable[int] | None = None) -> Iterator[None]:
    """Show `see` what is at a place whenever the model runs; layers: by default all."""
    numbers = range(len(anatomy.layers)) if layers is None else layers
    hook = before if place.enters else after
    with ExitStack() as stack:
        for number in numbers:
            layer = anatomy.layers[number]
            seen = partial(see, number)
            if not layer.by_position:
                rows = stack.enter_context(_counted(layer))
                seen = partial(_by_row, rows, seen)
            module = place.module(layer)
            if place is Z and layer.absent:
                seen = partial(_with_absent, layer.absent, seen)
            if isinstance(module, ExpertProjection):
                stack.enter_context(_through(module, layer.mlp))
            stack.enter_context((before if place is FFN and layer.ffn_enters else hook)(module, seen))
        yield


@contextmanager
def _through(projection: ExpertProjection, mixture: nn.Module) -> Iterator[None]:
    """Let a mixture run through the projection that stands for its experts' own, once in however many contexts."""
    if projection.users == 0:
        projection.running.enter_context(projection.watching())
        projection.running.enter_context(forward_is(mixture, partial(projection.run, mixture.forward)))
    projection.users += 1
    try:
        yield
    finally:
        projection.users -= 1
        if projection.users == 0:
            projection.running.close()


@contextmanager
def _counted(layer: Layer) -> Iterator[list[int]]:
    """How many rows the layer runs on, told by what enters its attention, which comes before the FFN."""
    rows = [0]

    def count(x: Tensor) -> None:
        rows[0] = len(x)

    with before(layer.attention, count):
        yield rows


def _by_row(rows: list[int], see: Callable[[Tensor], Tensor | None], x: Tensor) -> Tensor | None:
    """Show a tensor by row, [batch, positions, width]."""
    if x.ndim > 2:
        return see(x)
    changed = see(x.unflatten(0, (rows[0], -1)))
    return None if changed is None else changed.flatten(0, 1)


def _with_absent(absent: int, see: Callable[[Tensor], Tensor | None], z: Tensor) -> Tensor | None:
    """Show z with a 0 for every neuron that the layer lacks."""
    changed = see(pad(z, (0, absent)))
    return None if changed is None else changed[..., : z.shape[-1]]


@contextmanager
def collect(
    anatomy: Anatomy, place: Place, part: Callable[[Tensor], Tensor] = lambda x: x
) -> Iterator[dict[int, Tensor]]:
    """Part of what is at a place in every layer, filled while the model runs; the newest pass counts."""
    collected: dict[int, Tensor] = {}

    def keep(layer: int, x: Tensor) -> None:
        collected[layer] = part(x).clone()

    with capture(anatomy, place, keep):
        yield collected


def before(module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Show `see` the first input of a module, until the handle is removed; it is a context manager that does so."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if not args:  # some decoders name what they hand to a layer
            changed = see(kwargs["hidden_states"])
            return None if changed is None else (args, {**kwargs, "hidden_states": changed})
        changed = see(args[0])
        return None if changed is None else ((changed, *args[1:]), kwargs)

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def after(module: nn.Module, see: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Show `see` the output of a module, the first of several, until the handle is removed."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        several = isinstance(output, tuple)
        changed = see(output[0] if several else output)
        return (changed, *output[1:]) if several and changed is not None else changed

    return module.register_forward_hook(hook)


@contextmanager
def forward_is(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let this instance's forward be another function for a while."""
    before_that = module.__dict__.get("forward")  # accelerate sets one where a model is spread over devices
    module.forward = forward
    try:
        yield
    finally:
        if before_that is None:
            del module.forward
        else:
            module.forward = before_that
