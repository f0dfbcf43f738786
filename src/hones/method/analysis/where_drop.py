"""What an answer loses when patches of its picture become the picture's mean patch, one place at a time.

    drop[place] = log p(y, end; theta) - log p(y, end; e_s := mean of e over the picture's patches, s in place)

e_s is the picture's token s as it enters the first layer of the language model. A family that adds picture features
between later layers too (Qwen3-VL) has them replaced in the same way.

`slow_drops` is the definition: the whole model once for every place. `replayed_drops` gives the same from the unedited
model's keys and values: places are rows of one batch, ordered by where they begin, and a row runs from there on, since
with causal attention nothing before it changes. `forward_drops` calls the decoder alone, with what the model hands it.
Each is used where it is proven against the definition on some places of the example itself.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesWarning
from hones.models.capture import ENTERING, LEAVING, capture
from hones.models.vlm import VLM, Encoded
from hones.progress import progress_bar
from hones.sweep.decoder import Decoder, DecoderInput, ReadPositions
from hones.sweep.engines import TOLERANCE
from hones.sweep.layer_rows import LayerRows, with_room
from hones.sweep.memory import is_out_of_memory, make_plan, rows_at_once
from hones.sweep.prompts import OTHER_FORM, Picture, encode_pictures, kwargs_of_decoder, why_unserved
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example

Places = Sequence[Sequence[int]]
"""The positions in the prompt of the picture's tokens at each place."""


def place_drops(vlm: VLM, example: Example, places: Places, settings: SweepSettings | None = None) -> list[float]:
    """The drop of every place, in nats, by the fastest way that is proven on some of them.

    Args:
        example: with its answer as target. settings: engine "naive" is the definition.

    Raises:
        HonesError: logits that are not finite, too little memory.
    """
    settings = settings or SweepSettings()
    if settings.engine == "naive":
        return slow_drops(vlm, example, places)
    checked = [*dict.fromkeys((0, len(places) // 2, len(places) - 1))]
    expected = slow_drops(vlm, example, places, checked)
    tolerance = TOLERANCE[vlm.model.dtype] * len(vlm.gold_ids(example.prompts[0], example.target))
    for way, compute, then in (
        ("replay", partial(replayed_drops, batch_size=settings.batch_size), "whole passes of the decoder"),
        ("whole passes of the decoder", forward_drops, "passes of the whole model"),
    ):
        try:
            drops = compute(vlm, example, places)
        except OTHER_FORM as error:
            problem = why_unserved(error)
        else:
            apart = max(abs(drops[place] - drop) for place, drop in zip(checked, expected, strict=True))
            if apart <= tolerance:
                return drops
            problem = f"its drops differ by {apart:.2g} nats from the model's"
        family = type(vlm.model).__name__
        said = f"{family}: no patches by {way} ({problem}); {then} take longer"
        warnings.warn(said, HonesWarning, stacklevel=2)
    return slow_drops(vlm, example, places)


@torch.no_grad()
def slow_drops(vlm: VLM, example: Example, places: Places, only: Sequence[int] | None = None) -> list[float]:
    """The drop of every place, or of some numbers of them, by the definition."""
    encoded = vlm.encode_with_answers([example.open_picture()], example.prompts[:1], [example.target])
    return _one_by_one(vlm, encoded, places, only, lambda: float(vlm.log_probabilities(encoded)))


@torch.no_grad()
def forward_drops(vlm: VLM, example: Example, places: Places) -> list[float]:
    """The drop of every place by whole passes of the decoder; the picture is encoded once.

    Raises:
        OTHER_FORM: this family's decoder is called in another way.
    """
    encoded = vlm.encode_with_answers([example.open_picture()], example.prompts[:1], [example.target])
    assert encoded.answer is not None
    kwargs = kwargs_of_decoder(vlm, encoded.inputs)
    predicts = encoded.answer[0, 1:].nonzero()[:, 0]
    labels = encoded.inputs["input_ids"][0, predicts + 1]

    def log_p() -> float:
        hidden = vlm.anatomy.decoder(**kwargs).last_hidden_state[0]
        return float(vlm.token_log_probabilities(hidden[predicts.to(hidden.device)], labels).double().sum())

    return _one_by_one(vlm, encoded, places, None, log_p)


def _one_by_one(
    vlm: VLM, encoded: Encoded, places: Places, only: Sequence[int] | None, log_p: Callable[[], float]
) -> list[float]:
    """The drop of `log_p` when each place is replaced, a pass of the model for each."""
    patches = [position for place in places for position in place]
    added = _between(vlm, encoded)
    base = log_p()
    drops = []
    with progress_bar("patches", total=len(places if only is None else only), unit=" patches") as bar:
        for number in range(len(places)) if only is None else only:
            with _replaced(vlm, places[number], patches, added):
                drops.append(base - log_p())
            bar.update()
    return drops


@contextmanager
def _replaced(vlm: VLM, place: Sequence[int], patches: Sequence[int], added: Mapping[int, Tensor]) -> Iterator[None]:
    """The model that is given the mean patch at a place."""

    def entering(_: int, x: Tensor) -> Tensor:
        edited = x.clone()
        edited[:, place] = mean_patch(x, patches)
        return edited

    def between(layer: int, x: Tensor) -> Tensor:
        delta = added[layer - 1].to(x.device)
        edited = x.clone()
        edited[:, place] += mean_patch(delta, patches) - delta[:, place]
        return edited

    with ExitStack() as stack:
        stack.enter_context(capture(vlm.anatomy, ENTERING, entering, [0]))
        stack.enter_context(capture(vlm.anatomy, ENTERING, between, [layer + 1 for layer in added]))
        yield


def mean_patch(x: Float[Tensor, "rows t d"], patches: Sequence[int]) -> Float[Tensor, "rows 1 d"]:
    """The mean over the picture's patches, at least in float32, as x is."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x[:, patches].to(wide).mean(1, keepdim=True).to(x.dtype)


def _between(vlm: VLM, encoded: Encoded) -> dict[int, Tensor]:
    """What the family adds to what leaves a layer before it enters the next, at the layers where it does."""
    left: dict[int, Tensor] = {}
    added: dict[int, Tensor] = {}

    def entering(layer: int, x: Tensor) -> None:
        delta = x - left.pop(layer - 1)
        if delta.any():
            added[layer - 1] = delta

    count = len(vlm.anatomy.layers)
    with (
        capture(vlm.anatomy, LEAVING, left.__setitem__, range(count - 1)),
        capture(vlm.anatomy, ENTERING, entering, range(1, count)),
    ):
        vlm.logits(encoded, keep=1)
    return added


@torch.no_grad()
def replayed_drops(vlm: VLM, example: Example, places: Places, batch_size: int | None = None) -> list[float]:
    """The drop of every place, from the unedited model's keys and values.

    Args:
        batch_size: places at once; None: as many as memory holds.

    Raises:
        OTHER_FORM: this family's layers are of another form. HonesError: too little memory.
    """
    (picture,) = encode_pictures(vlm, [replace(example, prompts=example.prompts[:1])])
    replay = _Replay(vlm, picture, vlm.gold_ids(example.prompts[0], example.target), places)
    plan = make_plan(vlm, replay.length, batch_size)
    order = sorted(range(len(places)), key=lambda number: min(places[number]))
    drops = [0.0] * len(places)
    done = 0
    with progress_bar("patches", total=len(places), unit=" patches") as bar:
        while done < len(order):
            first = min(places[order[done]])
            fitting = batch_size or rows_at_once(vlm, plan, replay.length - first, first)
            rows = order[done : done + fitting]
            try:
                found = replay.log_probabilities([places[number] for number in rows])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if vlm.device.type == "cuda":
                    torch.cuda.empty_cache()
                plan = plan.halved(last=len(rows) == 1)
                batch_size = None
                continue
            for number, log_p in zip(rows, found, strict=True):
                drops[number] = replay.base - log_p
            done += len(rows)
            bar.update(len(rows))
    return drops


class _Replay:
    """The unedited model on a prompt and its answer, kept for rows that begin anywhere in it."""

    def __init__(self, vlm: VLM, picture: Picture, answer: Sequence[int], places: Places) -> None:
        device = picture.embeddings.device
        self.vlm = vlm
        self.decoder = Decoder(vlm.anatomy)
        self.answer = torch.tensor(answer, device=device)
        following = vlm.model.get_input_embeddings()(self.answer[:-1])
        self.hidden = torch.cat([picture.embeddings, following])[None]
        steps = torch.arange(1, len(answer), device=device)
        self.positions = torch.cat([picture.positions, picture.positions[..., -1:] + steps], -1)[..., None, :]
        self.length = self.hidden.shape[1]
        silent = self.hidden.new_zeros(1, len(answer) - 1, self.hidden.shape[-1])
        self.between = {layer: torch.cat([x[None], silent], 1) for layer, x in picture.between.items()}
        patches = [position for place in places for position in place]
        self.mean = mean_patch(self.hidden, patches)[:, 0]
        self.mean_between = {layer: mean_patch(x, patches)[:, 0] for layer, x in self.between.items()}
        self.cache = [LayerRows(0) for _ in self.decoder.layers]
        (self.base,) = self._run(self.hidden, 0, self.cache, self.between)

    def log_probabilities(self, places: Places) -> list[float]:
        """The answer's log-probability with each place replaced; a row of the pass for each, from the first on."""
        first = min(min(place) for place in places)
        count = len(places)
        hidden = self.hidden[:, first:].repeat(count, 1, 1)
        between = {layer: x[:, first:].repeat(count, 1, 1) for layer, x in self.between.items()}
        for row, place in enumerate(places):
            here = [position - first for position in place]
            hidden[row, here] = self.mean
            for layer, x in between.items():
                x[row, here] = self.mean_between[layer]
        return self._run(hidden, first, [self._past(layer, first, count) for layer in self.cache], between)

    def _past(self, layer: LayerRows, first: int, count: int) -> LayerRows:
        """The unedited keys and values before a position, for so many rows, with room for what follows."""
        assert layer.keys is not None and layer.values is not None
        keys, values = (
            with_room(x[:, :, :first].expand(count, -1, -1, -1), self.length - first)
            for x in (layer.keys, layer.values)
        )
        return LayerRows(first, keys, values)

    def _run(
        self, hidden: Tensor, first: int, cache: Sequence[LayerRows], between: Mapping[int, Tensor]
    ) -> list[float]:
        rows, width, _ = hidden.shape
        count = len(self.answer)
        positions = self.positions[..., first:]
        entry = DecoderInput(
            hidden,
            positions.expand(*positions.shape[:-2], rows, width),
            torch.ones(rows, self.length, dtype=torch.bool, device=hidden.device),
            cache,
            between=between,
            embedded=True,
        )
        numbers = torch.arange(rows, device=hidden.device).repeat_interleave(count)
        columns = torch.arange(width - count, width, device=hidden.device).repeat(rows)
        wanted = ReadPositions(numbers, columns)
        final = self.decoder.run(entry, wanted=wanted)
        assert final is not None
        log_p = self.vlm.token_log_probabilities(wanted.of(final), self.answer.repeat(rows))
        return log_p.view(rows, count).double().sum(1).tolist()
