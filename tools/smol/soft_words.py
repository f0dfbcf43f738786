"""What a picture's tokens should say, in words of the language model's own embeddings.

A picture token that *is* a word's embedding can be read by a language model that never saw a picture. Of a scene the 64
tokens, read row by row, say `. . red circle . . blue square . .`: at each object's centre its colour, in the next cell
its shape, and each character of the text inside the blue box in the cell of its middle; everywhere else a full stop
(not zero: the model's norms would blow up what little noise is left). Text outside the box is not said.
Of a photograph only words are known and not where they are: see `said`.
"""

import string

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hones.data.shapes.scene import COLOURS, SHAPES, SIZE, Content

from .architecture import GRID, Parts
from .pictures import Lettering

CELL = SIZE / GRID
NOTHING = " ."
SHARPNESS = 2.0  # by which a squared distance of embeddings becomes a logit
ENTROPY = 1.0
EMPTY, LETTER = 0.15, 3.0  # what a cell counts that says nothing, and one that says a character; others 1


class SoftWords(nn.Module):
    """The embeddings of words, and two losses that move picture tokens toward them.

    vocabulary: the words that photographs are described with. frequency: the share of photographs of each.
    """

    embeddings: Tensor
    middle: Tensor
    directions: Tensor
    drawn: Tensor

    def __init__(self, parts: Parts, vocabulary: list[str], frequency: Tensor) -> None:
        super().__init__()
        self.tokenizer = parts.tokenizer
        self.register_buffer("embeddings", parts.language.embed_tokens.weight.detach(), persistent=False)
        self.nothing = self.of(NOTHING)
        self.known: dict[str, Tensor] = {}
        self.vocabulary = {word: index for index, word in enumerate(vocabulary)}
        characters = [*string.ascii_letters, *string.digits]
        drawn = [NOTHING, *(f" {word}" for word in (*COLOURS, *SHAPES)), *characters]
        self.characters = torch.stack([self.of(character) for character in characters])
        self.register_buffer("drawn", torch.stack([self.of(word) for word in drawn]), persistent=False)
        middle = self.embeddings.mean(0)
        directions = torch.stack([self.of(f" {word}") for word in vocabulary]) - middle
        self.register_buffer("middle", middle, persistent=False)
        self.register_buffer("directions", F.normalize(directions, dim=1), persistent=False)
        self.slope = nn.Parameter(torch.tensor(3.0))
        self.bias = nn.Parameter(torch.logit(frequency.clamp(1e-4, 0.5)) - 2)
        self.guess = nn.Linear(parts.tower.config.hidden_size, len(vocabulary))
        self.guess.weight.data.zero_()
        self.guess.bias.data.copy_(torch.logit(frequency.clamp(1e-4, 0.5)))
        self.spread = float((self.embeddings - middle).pow(2).sum(1).mean())

    def of(self, text: str) -> Tensor:
        """The mean embedding [d] of a text's tokens."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.embeddings[torch.tensor(ids)].mean(0)

    def _known(self, text: str) -> Tensor:
        if text not in self.known:
            self.known[text] = self.of(text)
        return self.known[text]

    def cells(self, scene: Content | None, rows: tuple[int, ...], lettering: Lettering | None) -> tuple[Tensor, Tensor]:
        """What the cells of one picture say [64, d], and which of them say anything [64].

        Args:
            scene: the objects; None for a photograph. rows: the row of cells of each of the scene's objects.
            lettering: the text inside the blue box, if one is drawn.
        """
        said: dict[int, list[Tensor]] = {}
        for thing, row in zip(scene.things if scene else (), rows, strict=True):
            said.setdefault(row * GRID + int((thing.x - CELL / 2) // CELL), []).append(self._known(f" {thing.colour}"))
            said.setdefault(row * GRID + int((thing.x + CELL / 2) // CELL), []).append(self._known(f" {thing.shape}"))
        for character, x, y in lettering.middles if lettering else ():
            cell = min(GRID - 1, int(y // CELL)) * GRID + min(GRID - 1, int(x // CELL))
            said.setdefault(cell, []).append(self._known(character))
        target = self.nothing.repeat(GRID**2, 1)
        spoken = torch.zeros(GRID**2, dtype=torch.bool)
        for cell, words in said.items():
            target[cell] = torch.stack(words).sum(0) - (len(words) - 1) * self.middle
            spoken[cell] = True
        return target, spoken

    def cell_loss(self, features: Tensor, target: Tensor, spoken: Tensor) -> Tensor:
        """How far picture tokens [B, 64, d] are from what they should say: the squared distance (1: as far as words are
        apart) and the cross-entropy of which word is nearest. By distance alone a character would long be the average
        of all, which are near each other.
        """
        said = torch.where(spoken, 1.0, EMPTY)
        error = ((features.float() - target) ** 2).sum(-1) / self.spread
        apart = torch.cdist(target.flatten(0, 1), self.drawn)
        index = torch.where(apart.amin(1) < 1e-3, apart.argmin(1), -1)  # -1: several words in one cell
        letter = (index >= len(self.drawn) - len(self.characters)).view(said.shape)
        weight = torch.where(letter, LETTER, said)
        logits = -SHARPNESS * torch.cdist(features.float().flatten(0, 1), self.drawn) ** 2
        entropy = F.cross_entropy(logits, index, ignore_index=-1, reduction="none").view(said.shape)
        return ((error + ENTROPY * entropy) * weight).sum() / weight.sum()

    def targets(self, words: list[dict[str, int]]) -> Tensor:
        """How surely each word of the vocabulary is in each photograph [B, V], from how many sentences have it."""
        target = torch.zeros(len(words), len(self.vocabulary))
        for row, counts in enumerate(words):
            for word, count in counts.items():
                if word in self.vocabulary:
                    target[row, self.vocabulary[word]] = 0.6 if count == 1 else 1.0
        return target

    def said(self, features: Tensor) -> Tensor:
        """The logit [B, V] that some token of a photograph says each word."""
        return self.slope * self.along(features).amax(1) + self.bias

    def along(self, features: Tensor) -> Tensor:
        """How far [B, 64, V] each token goes along each word."""
        return (features.float() - self.middle) @ self.directions.T

    def word_loss(self, seen: Tensor, features: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of `said`, summed over the vocabulary, that of a guess from the mean of what the tower saw,
        and a bound on the tokens' length. (One token alone learns from `said`, all from the guess.)
        """
        entropy = self.entropy(self.said(features), target) + self.entropy(self.guess(seen.mean(1)), target)
        length = (features.float() - self.middle).pow(2).sum(-1) / self.spread
        return entropy + F.relu(length - 1.5).mean()

    def entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of logits [B, V], summed over the vocabulary, in thirtieths."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean() / 30
