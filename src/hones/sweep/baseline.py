"""The unedited model on a group of pictures, kept so that interventions can start from it.

Two passes, each with a trace of what enters every layer and every o_proj: the prefixes [B, P] (left-padded), whose last
layer stops at its keys and values, and the suffixes [J, T] (right-padded) with their drafts: a text answer's draft is
the unedited model's own greedy answer, so one teacher-forced pass tells where an edited model would leave it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from hones.models.vlm import VLM
from hones.sweep.decoder import Activations, Decoder, DecoderInput, ReadPositions, Trace
from hones.sweep.layer_rows import LayerRows, with_room
from hones.sweep.prompts import Picture, Prompt


@dataclass
class Prefixes:
    """B pictures' common beginnings, P positions, and the baseline's trace and keys and values.

    between: what the family adds behind a layer, at the layers where it does.
    """

    valid: Bool[Tensor, "b p"]
    positions: Real[Tensor, "*axes b p"]
    trace: Trace
    cache: list[LayerRows]
    between: dict[int, Float[Tensor, "b p d"]] = field(default_factory=dict)


@dataclass
class Suffixes:
    """J prompts' own tokens followed by their drafts, T positions.

    of: the picture of each; asked: how many tokens each has before its answer; first: where its positions start.
    hidden: their embeddings. labels: the draft's token at each wanted position; none where the last prompt position is
    read (`drafts` empty). one_per_picture: prompt j is picture j's, for all pictures, so its rows can use the room of
    the prefixes' own.
    """

    prompts: list[Prompt]
    of: Int[Tensor, " j"]
    asked: Int[Tensor, " j"]
    first: Real[Tensor, "*axes j"]
    drafts: Sequence[list[int]]
    hidden: Float[Tensor, "j t d"]
    positions: Real[Tensor, "*axes j t"]
    valid: Bool[Tensor, "j p_and_t"]
    wanted: ReadPositions
    labels: Int[Tensor, " n"]
    one_per_picture: bool
    trace: Trace = field(default_factory=Trace)
    cache: list[LayerRows] = field(default_factory=list)
    output: Float[Tensor, "n d"] | None = None
    activations: Activations | None = None


@dataclass(frozen=True)
class Forced:
    """J prompts' own tokens followed by their drafts, T positions, as they enter the decoder: fields of `Suffixes`."""

    of: Int[Tensor, " j"]
    asked: Int[Tensor, " j"]
    hidden: Float[Tensor, "j t d"]
    positions: Real[Tensor, "*axes j t"]
    valid: Bool[Tensor, "j p_and_t"]
    wanted: ReadPositions
    labels: Int[Tensor, " n"]


class Baseline:
    """Builds prefixes and suffixes of one model.

    wanted_only: stop the prefix at the last layer's keys and values, and run its FFN at the wanted positions only.
    """

    def __init__(self, vlm: VLM, wanted_only: bool = True) -> None:
        self.vlm = vlm
        self.decoder = Decoder(vlm.anatomy)
        self.embed = vlm.model.get_input_embeddings()
        self.wanted_only = wanted_only

    def prefixes(self, pictures: Sequence[Picture]) -> Prefixes:
        """One pass over what each picture's prompts begin with."""
        entry = prefix_input(pictures, self.empty_cache())
        prefixes = Prefixes(entry.valid, entry.positions, Trace(), [*entry.cache], {**entry.between})
        self.decoder.run(entry, trace=prefixes.trace)
        return prefixes

    def empty_cache(self, room: int = 0) -> list[LayerRows]:
        """A cache for a prefix pass, with room for its suffixes."""
        last = len(self.decoder.layers) - 1
        return [LayerRows(0, room=room, last=self.wanted_only and layer == last) for layer in range(last + 1)]

    def cache_of_rows(self) -> list[LayerRows]:
        """An empty cache of rows that run whole."""
        return [LayerRows(0) for _ in self.decoder.layers]

    def suffixes(
        self,
        pictures: Sequence[Picture],
        prefixes: Prefixes,
        asked: Sequence[tuple[int, Prompt]],
        drafts: Sequence[list[int]],
        *,
        read: bool = False,
        keep_cache: bool = True,
    ) -> Suffixes:
        """One teacher-forced pass over some prompts, each given with its picture's row, and their drafts.

        A draft [a_1 .. a_n] is wanted at the n positions that predict it; an empty one at the last prompt position.
        Its last token a_n predicts nothing that is read, so the rows end with a_(n-1).
        read: keep the FFN's activations at the wanted positions. keep_cache: for rows that go on from here.
        """
        forced = self.forced(pictures, prefixes.valid, asked, drafts)
        suffixes = Suffixes(
            prompts=[p for _, p in asked],
            of=forced.of,
            asked=forced.asked,
            first=forced.positions[..., 0],
            drafts=drafts,
            hidden=forced.hidden,
            positions=forced.positions,
            valid=forced.valid,
            wanted=forced.wanted,
            one_per_picture=[b for b, _ in asked] == [*range(len(pictures))],
            activations=Activations(forced.wanted) if read else None,
            labels=forced.labels,
        )

        for layer in prefixes.cache:
            # the pictures' keys and values for every prompt, with room for its own
            keys, values = (
                None if states is None else with_room(states[forced.of.to(states.device)], forced.hidden.shape[1])
                for states in (layer.keys, layer.values)
            )
            suffixes.cache.append(LayerRows(prefixes.valid.shape[1], keys, values))
        hidden = self.decoder.run(
            DecoderInput(suffixes.hidden, suffixes.positions, suffixes.valid, suffixes.cache, embedded=True),
            wanted=suffixes.wanted if self.wanted_only else None,
            trace=suffixes.trace,
            activations=suffixes.activations,
        )
        assert hidden is not None
        suffixes.output = suffixes.wanted.of(hidden)
        if not keep_cache:
            suffixes.cache = []
        return suffixes

    def forced(
        self,
        pictures: Sequence[Picture],
        past: Bool[Tensor, "b p"],
        asked: Sequence[tuple[int, Prompt]],
        drafts: Sequence[list[int]],
    ) -> Forced:
        """Some prompts, each with its picture's row, and their drafts, as rows behind the pictures' prefixes.

        past: which positions of the prefixes are not padding. drafts: as `suffixes` has them.
        """
        tokens = [p.ids[pictures[b].shared :] for b, p in asked]
        rows = [of_prompt + draft[:-1] for of_prompt, draft in zip(tokens, drafts, strict=True)]
        width = max(map(len, rows))
        # Padded on the right, where causal attention keeps what is read from seeing it: the mask need not know.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=past.device)
        of = torch.tensor([b for b, _ in asked], device=past.device)
        following = torch.arange(width, device=past.device)
        positions = [pictures[b].positions[..., pictures[b].shared, None] + following for b, _ in asked]
        predicting = [
            (j, len(of_prompt) - 1 + k)
            for j, (of_prompt, draft) in enumerate(zip(tokens, drafts, strict=True))
            for k in range(max(1, len(draft)))
        ]
        at = torch.tensor(predicting, device=past.device)
        return Forced(
            of=of,
            asked=torch.tensor([len(of_prompt) for of_prompt in tokens], device=past.device),
            hidden=self.embed(ids),
            positions=torch.stack(positions, -2),
            valid=torch.cat([past[of], torch.ones_like(ids, dtype=torch.bool)], 1),
            wanted=ReadPositions(at[:, 0], at[:, 1]),
            labels=torch.tensor([token for draft in drafts for token in draft], dtype=torch.long, device=past.device),
        )

    def choose(self, hidden: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Greedy tokens.

        Raises:
            HonesError: logits that are not finite.
        """
        chosen = []
        for part in hidden.split(1024):  # a row of logits has the whole vocabulary
            logits = self.vlm.head(part)
            self.vlm.check_finite(logits)
            chosen.append(logits.argmax(-1).to(hidden.device))
        return torch.cat(chosen)


def prefix_input(pictures: Sequence[Picture], cache: Sequence[LayerRows]) -> DecoderInput:
    """What each picture's prompts begin with, padded on the left, as it enters the decoder."""
    longest = max(1, *(p.shared for p in pictures))  # texts may have nothing in common: then padding alone
    device = pictures[0].embeddings.device
    valid = torch.stack([torch.arange(longest, device=device) >= longest - p.shared for p in pictures])
    hidden = pictures[0].embeddings.new_zeros(len(pictures), longest, pictures[0].embeddings.shape[-1])
    positions = pictures[0].positions.new_zeros(*pictures[0].positions.shape[:-1], len(pictures), longest)
    for row, picture in enumerate(pictures):
        hidden[row, longest - picture.shared :] = picture.embeddings[: picture.shared]
        positions[..., row, longest - picture.shared :] = picture.positions[..., : picture.shared]
    between = {layer: torch.zeros_like(hidden) for picture in pictures for layer in picture.between}
    for row, picture in enumerate(pictures):
        for layer, features in picture.between.items():
            between[layer][row, longest - picture.shared :] = features[: picture.shared]
    return DecoderInput(hidden, positions, valid, cache, between=between, embedded=True)
