"""The first phase: the tower and the projector learn to say soft words; the language model is not run.

    python -m smol.soft BASE PHOTOGRAPHS --out checkpoints/smol --minutes 14
    python -m smol.soft BASE PHOTOGRAPHS --again --mixture 40 16 8   # go on from what is shipped, with more drawn texts

A step has drawings, photographs with a word pasted in (their cells are known) and photographs (their words are known).
The rate falls as a cosine over the minutes given, whatever number of steps fits in. A run that was killed goes on at
its last checkpoint, which is some three minutes old at most.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import Parts, build
from .clock import Clock, Log, descend, load, save, threads
from .difference import load_shipped
from .muon import Muon
from .photographs import Photographs, read_photographs, vocabulary
from .pictures import cropped, make_drawing, make_text, pixels, with_box, with_word
from .soft_words import SoftWords

MIXTURE = (12, 24, 8)  # drawings, photographs with a word pasted in, photographs: of a part
BOXED = 0.75  # of drawings, have the text's box drawn
PARTS = ("pictures", "pictures")  # of a step
PEAK = {"projector": 2e-3, "tower": 2e-3, "words": 3e-3}


def soft_words_for(parts: Parts, photographs: Photographs) -> SoftWords:
    """The losses for these photographs."""
    pictured = [*photographs.captioned, *photographs.asked]
    words = vocabulary(pictured)
    counts = dict.fromkeys(words, 0)
    for photograph in pictured:
        for word in photograph.words:
            if word in counts:
                counts[word] += 1
    return SoftWords(parts, words, torch.tensor([counts[word] / len(pictured) for word in words]))


class SoftPhase:
    """Batches of pictures with what their tokens should say."""

    def __init__(self, parts: Parts, photographs: Photographs, mixture: tuple[int, int, int] = MIXTURE) -> None:
        self.parts, self.photographs, self.mixture = parts, photographs, mixture
        self.words = soft_words_for(parts, photographs)

    def cells(self, seed: str, drawings: int, pasted: int) -> tuple[list[Any], Tensor, Tensor]:
        """Pictures whose cells are known, what these say and which of them do."""
        rng = random.Random(f"cells/{seed}")
        pictures, said = [], []
        for i in range(drawings):
            drawing = make_drawing(f"smol/{seed}/{i}", rng.random() < BOXED)
            pictures.append(drawing.picture)
            said.append(self.words.cells(drawing.scene, drawing.rows, drawing.lettering))
        for _ in range(pasted):
            ground = cropped(rng.choice(self.photographs.captioned), rng)
            picture, lettering = with_word(ground, make_text(self.photographs.words, rng, 0.4), rng)
            pictures.append(with_box(picture, lettering))
            said.append(self.words.cells(None, (), lettering))
        target, spoken = zip(*said, strict=True)
        return pictures, torch.stack(target), torch.stack(spoken)

    def loss(self, seed: str) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step."""
        rng = random.Random(f"photographs/{seed}")
        drawings, pasted, photographs = self.mixture
        pictures, target, spoken = self.cells(seed, drawings, pasted)
        chosen = rng.choices(self.photographs.captioned, k=photographs * 3 // 4)
        chosen += rng.choices(self.photographs.asked, k=photographs - len(chosen))
        pictures += [cropped(photograph, rng) for photograph in chosen]
        seen = self.parts.seen(pixels(pictures, self.parts.image_processor))
        features = self.parts.projector(seen)
        cells = self.words.cell_loss(features[: len(target)], target, spoken)
        wanted = self.words.targets([photograph.words for photograph in chosen])
        words = self.words.word_loss(seen[len(target) :], features[len(target) :], wanted)
        return cells + words, {"cells": cells.item(), "words": words.item()}

    def gradients(self, kind: str, seed: str, trained: list[Tensor]) -> tuple[list[Tensor], float, dict[str, float]]:
        """Of the loss of one part, as `descend` asks for them."""
        loss, figures = self.loss(seed)
        found = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
        return [*found], 1.0, figures

    @torch.no_grad()
    def report(self, kept: Photographs) -> dict[str, float]:
        """On unseen pictures: the share of speaking cells whose nearest word is right (letters: of those of the drawn
        texts), and how well photographs' words are told apart: the mean rank in [0, 1] of a photograph's true words
        among all, by logit above their mean.
        """
        pictures, target, spoken = self.cells("check", 48, 0)
        right = self._nearest(pictures, target, spoken)
        letters = spoken & (torch.cdist(target, self.words.characters).amin(-1) < 1e-3)
        letters_right = self._nearest(pictures, target, letters)
        own = self.photographs
        self.photographs = kept
        pictures, target, spoken = self.cells("check", 0, 48)
        self.photographs = own
        pasted = self._nearest(pictures, target, spoken)
        shown = kept.captioned[:192]
        features = self.parts.features(pixels([cropped(p, None) for p in shown], self.parts.image_processor))
        wanted = self.words.targets([p.words for p in shown])
        above = self.words.said(features)
        word = self.words.entropy(above, wanted)
        above = above - above.mean(0)
        rank = (above.argsort(1).argsort(1).float() / (above.shape[1] - 1))[wanted > 0].mean()
        return {
            "drawn": right,
            "letters": letters_right,
            "pasted": pasted,
            "unseen words": word.item(),
            "rank": rank.item(),
        }

    def _nearest(self, pictures: list[Any], target: Tensor, spoken: Tensor) -> float:
        said = self.parts.features(pixels(pictures, self.parts.image_processor))[spoken]
        wanted = target[spoken]
        choices = wanted.unique(dim=0)
        near = torch.cdist(said, choices).argmin(1)
        return (choices[near] == wanted).all(1).float().mean().item()


def optimizers_of(modules: dict[str, nn.Module], peak: dict[str, float]) -> list[torch.optim.Optimizer]:
    """Muon on the matrices of the tower and the projector, AdamW on all else, and on what begins at zero."""
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for name, module in modules.items():
        for path, parameter in module.named_parameters():
            is_matrix = parameter.ndim == 2 and "embedding" not in path and "guess" not in path
            (matrices if is_matrix else others).append({"params": [parameter], "peak": peak[name]})
    return [
        Muon(matrices),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the language model's folder")
    parser.add_argument("photographs", type=Path, help="folder with flickr8k, daquar and words")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/smol"))
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="go on from the difference that is shipped")
    parser.add_argument("--mixture", type=int, nargs=3, default=MIXTURE, help="drawings, words, photographs of a part")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = build(options.base, options.seed)
    parts.model.train()
    phase = SoftPhase(parts, read_photographs(options.photographs, test=False), tuple(options.mixture))
    kept = read_photographs(options.photographs, test=True)
    modules = {"tower": parts.tower, "projector": parts.projector, "words": phase.words}
    optimizers = optimizers_of(modules, PEAK)
    clock = Clock(options.minutes)
    checkpoint, log = options.out / "soft.pt", Log(options.out / "soft.log")
    if not load(checkpoint, modules, optimizers, clock) and options.again:
        load_shipped(parts)
    with threads(options.threads) as pool:
        while not clock.over:
            clock.set_rates(optimizers, warm=30)
            figures = descend(pool, phase.gradients, PARTS, f"{options.seed}/{clock.step}", optimizers)
            clock.tick()
            if clock.step % 10 == 0:
                log.write("soft", clock, figures)
            if clock.due(150):
                log.write("soft", clock, figures | phase.report(kept))
                save(checkpoint, modules, optimizers, clock)
    log.write("soft", clock, phase.report(kept))
    save(checkpoint, modules, optimizers, clock)


if __name__ == "__main__":
    main()
