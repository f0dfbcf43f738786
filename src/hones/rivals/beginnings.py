"""Log-probabilities of gold answers with gates on z, without what gates do not change: same numbers, less work.

A decoder costs F flops per position, the vision part E per picture. n prompts about a picture begin with the same P
positions and go on with T of their own, answer included, so that a gradient in gates costs by the definition, forwards
and backwards (activations alone, as many flops),

    n E + 2 n F (P + T)        the vision part; whole prompts

    picture_once    E          a picture's embeddings, for all its prompts and, while they fit into memory, all rounds
    shared prefix   2 F P      once for all n prompts; their T positions go on from its keys and values, through which
                               gradients flow back. Gates edit the prefix too, so it is run anew for each gradient
    last_ffn                   the last layer's FFN where no answer is predicted, of the prefix its attention too

so that E / rounds + 2 F (P + n T) is left. Steering's *lower layers once* has nothing to save: there scales begin at
some layer, here every layer has gates and gradients.

Where every prompt of a task has a picture of its own they run whole from their embeddings. A pass holds as many
prompts as whole ones would take, or one more of one picture: P + (n + 1) T positions are no more than n (P + T) where
n > 1 and T <= P. Pictures are encoded one by one, so that the numbers do not depend on which were kept. A model is
served so only where its gradients are the whole model's on the first prompts.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hones.models.vlm import VLM
from hones.models.writing import importance_shape
from hones.rivals.gates import Gated, gates_on
from hones.sweep.baseline import Baseline, prefix_input
from hones.sweep.decoder import DecoderInput, ReadPositions
from hones.sweep.engines import TOLERANCE
from hones.sweep.layer_rows import SharedPast
from hones.sweep.memory import free_memory
from hones.sweep.prompts import OTHER_FORM, Picture, encode_pictures, why_unserved
from hones.tasks.base import Example

SHARE_OF_MEMORY = 0.1
"""Of what is free, for the embeddings of one task's pictures; selective has up to four tasks."""
PROBE = 0.1
PROVEN = 2
"""Prompts of each picture, and pictures at most, that a model is proven on."""

WORTH_SHARED = 4
WORTH_ALONE = 16
"""A ranking with fewer times the prompts of its proof, where some share a prefix or none do, takes whole passes."""


class Asked(Protocol):
    """One prompt and its gold answer's tokens."""

    @property
    def example(self) -> Example: ...

    @property
    def prompt(self) -> str: ...

    @property
    def ids(self) -> tuple[int, ...]: ...


def pieces(asked: Sequence[Asked], prompts: range, rows: int) -> list[range]:
    """The prompts, those together that run from one prefix: consecutive ones about a picture, `rows` and one at most.

    A single row shares nothing.
    """
    most = rows + 1 if rows > 1 else 1
    found = []
    for _, same in groupby(prompts, key=lambda n: (asked[n].example.about, asked[n].example.box)):
        numbers = [*same]
        group = range(numbers[0], numbers[-1] + 1)
        found += [group[start : start + most] for start in range(0, len(group), most)]
    return found


class Beginnings:
    """The prompts of a task, from kept embeddings of their pictures and from shared prefixes. The model must be frozen.

    Args:
        rows: whole prompts at once.
        memory: bytes of embeddings to keep.
    """

    def __init__(self, vlm: VLM, asked: Sequence[Asked], rows: int, memory: int) -> None:
        self.vlm = vlm
        self.asked = asked
        self.rows = rows
        self.free = memory
        self.baseline = Baseline(vlm)
        self.kept: dict[range, Picture] = {}
        # one way for all passes of a task: what the proof has seen, also where some pictures have a single prompt
        self.shares = any(len(part) > 1 for part in pieces(asked, range(len(asked)), rows))

    def passes(self, prompts: range) -> list[range]:
        """Whole pieces, `rows` prompts at once; one piece may be one prompt more."""
        passes: list[range] = []
        for piece in pieces(self.asked, prompts, self.rows):
            if passes and len(passes[-1]) + len(piece) <= self.rows:
                passes[-1] = range(passes[-1].start, piece.stop)
            else:
                passes.append(piece)
        return passes

    def log_p(self, gates: Float[Tensor, "layers neurons"], batch: range) -> Float[Tensor, "tokens vocabulary"]:
        """log p where each answer token of a batch is predicted, prompts in order, at least in float32.

        Raises:
            HonesError: logits that are not finite.
            Unserved: the family's decoder is given more than embeddings, positions and a padding mask.
        """
        parts = pieces(self.asked, batch, self.rows)
        pictures = [self._picture(part) for part in parts]
        with gates_on(self.vlm, gates):
            hidden = self._shared(pictures, parts) if self.shares else self._alone(pictures, batch)
            logits = self.vlm.head(hidden).to(self.vlm.device)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.vlm.check_finite(logits)
        return logits.log_softmax(-1)

    def _picture(self, piece: range) -> Picture:
        """The picture of a piece and its prompts, kept if it fits."""
        if piece in self.kept:
            return self.kept[piece]
        prompts = tuple(self.asked[n].prompt for n in piece)
        (picture,) = encode_pictures(self.vlm, [replace(self.asked[piece.start].example, prompts=prompts)])
        size = sum(x.nbytes for x in (picture.embeddings, picture.positions, *picture.between.values()))
        if size <= self.free:
            self.free -= size
            self.kept[piece] = picture
        return picture

    def _shared(self, pictures: Sequence[Picture], parts: Sequence[range]) -> Float[Tensor, "tokens d"]:
        """The hidden states that predict the answers, from the pictures' prefixes."""
        entry = prefix_input(pictures, self.baseline.empty_cache())
        self.baseline.decoder.run(entry, gradients=torch.is_grad_enabled())
        rows = self.baseline.forced(
            pictures,
            entry.valid,
            [(row, prompt) for row, picture in enumerate(pictures) for prompt in picture.prompts],
            [[*self.asked[n].ids] for part in parts for n in part],
        )
        counts = [len(part) for part in parts]
        past = [SharedPast(entry.valid.shape[1], layer.keys, layer.values, counts) for layer in entry.cache]
        behind = DecoderInput(rows.hidden, rows.positions, rows.valid, past, embedded=True)
        return self._run(behind, rows.wanted)

    def _alone(self, pictures: Sequence[Picture], batch: range) -> Float[Tensor, "tokens d"]:
        """The same, of one whole prompt for each picture; padded on the right, where nothing that is read sees it."""
        device = self.vlm.device
        answers = [self.asked[n].ids for n in batch]
        following = [torch.tensor(ids[:-1], dtype=torch.long, device=device) for ids in answers]
        embedded = [torch.cat([x.embeddings, self.baseline.embed(y)]) for x, y in zip(pictures, following, strict=True)]
        hidden = pad_sequence(embedded, batch_first=True)
        width = hidden.shape[1]
        positions = []
        for picture, row in zip(pictures, embedded, strict=True):
            last = picture.positions[..., -1:]
            behind = torch.arange(1, len(row) - picture.positions.shape[-1] + 1, device=device)
            of_row = torch.cat([picture.positions, last + behind], -1)
            positions.append(F.pad(of_row, (0, width - len(row))))
        between = {layer: torch.zeros_like(hidden) for picture in pictures for layer in picture.between}
        for number, picture in enumerate(pictures):
            for layer, features in picture.between.items():
                between[layer][number, : len(features)] = features
        predicting = [
            (row, len(x) - len(ids) + k)
            for row, (x, ids) in enumerate(zip(embedded, answers, strict=True))
            for k in range(len(ids))
        ]
        at = torch.tensor(predicting, device=device)
        entry = DecoderInput(
            hidden,
            torch.stack(positions, -2),
            torch.ones(hidden.shape[:2], dtype=torch.bool, device=device),
            self.baseline.cache_of_rows(),
            between=between,
            embedded=True,
        )
        return self._run(entry, ReadPositions(at[:, 0], at[:, 1]))

    def _run(self, entry: DecoderInput, wanted: ReadPositions) -> Float[Tensor, "tokens d"]:
        hidden = self.baseline.decoder.run(entry, wanted=wanted, gradients=torch.is_grad_enabled())
        assert hidden is not None
        return wanted.of(hidden)


def worth_a_proof(parts: Sequence[range], rounds: int, proven: int) -> bool:
    """Whether there is enough to spare, by counting: half of the work with prefixes, little of it without.

    rounds: how often gradients will be asked for. proven: prompts that the proof takes, each twice.
    """
    count = sum(map(len, parts))
    if len(parts) < count:
        return rounds * count >= WORTH_SHARED * proven
    return rounds > 1 and rounds * count >= WORTH_ALONE * proven


def kept_bytes(vlm: VLM, rounds: int, most: int | None) -> int:
    """What the embeddings of a task's pictures may take; nothing where they are used once.

    most: bytes that may be taken, where not all that are free may be.
    """
    if rounds == 1:
        return 0
    free = free_memory(vlm.device)
    return int(SHARE_OF_MEMORY * (free if most is None else min(free, most)))


def first_few(asked: Sequence[Asked], rows: int) -> list[int]:
    """The prompts that a model is proven on: of pictures that share a prefix, if any do; of two if passes hold two."""
    parts = pieces(asked, range(len(asked)), rows)
    joined = any(len(a) + len(b) <= rows for a, b in pairwise(parts))
    several = [part for part in parts if len(part) > 1]
    return [n for part in (several or parts)[: PROVEN if joined else 1] for n in part[:PROVEN]]


def disproof(vlm: VLM, whole: Gated, fast: Gated) -> str | None:
    """Why prompts cannot be run so, None if they can: the gradients must be the whole model's, to the dtype's rounding.

    At gates of 1 +- 0.1: what misses a gate in some place has another gradient.
    """
    signs = np.random.default_rng(0).choice((-1, 1), importance_shape(vlm))
    gates = (1 + PROBE * signs).astype(np.float32)
    expected = whole.gradient(gates)
    try:
        found = fast.gradient(gates)
    except OTHER_FORM as error:
        return why_unserved(error)
    difference = float(np.linalg.norm(found - expected))
    norm = float(np.linalg.norm(expected))
    if not difference <= TOLERANCE[vlm.model.dtype] * norm:
        return f"a gradient differs by {difference / norm:.2g} of its norm from the whole model's"
    return None
