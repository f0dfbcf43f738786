"""The second phase: the language model's updates learn all tasks on all pictures, as the tower goes on with soft words.

    python -m smol.joint BASE PHOTOGRAPHS --out checkpoints/smol --minutes 45
    python -m smol.joint BASE PHOTOGRAPHS --again --parts drawings photographs   # the updates, from those shipped

A step is some small parts, computed in threads: pictures with their prompts, from which the updates learn, and parts
of the first phase, from which the tower and the projector do. (Learning these from the prompts too was tried: with
so few pictures a step the soft words get worse.) Rates and checkpoints are as in `smol.soft`, whose checkpoint this
starts from. Without parts of soft words the tower and the projector stay as they are.

Allocate with jemalloc (LD_PRELOAD): with the C library's own a step takes two to three times as long.
"""

import argparse
import random
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .architecture import Parts, build
from .clock import Clock, Log, descend, load, save, threads
from .difference import load_shipped
from .photographs import Photographs, read_photographs
from .pictures import cropped, make_drawing, make_text, pixels, with_box, with_word
from .prompts import Sequencer, Sequences, captions_of, of_drawing, of_photograph
from .soft import SoftPhase, optimizers_of
from .updates import add_updates

RANK = 16
PEAK = {"updates": 2e-3, "projector": 1.2e-3, "tower": 1.2e-3, "words": 3e-3}
AGAIN = 0.5  # of the updates' rate, where they have been trained before
SOFT_WORDS = "soft words"
PARTS = ("drawings", "drawings", "photographs", "rooms", SOFT_WORDS, SOFT_WORDS, SOFT_WORDS)  # of a step
PICTURES = 2  # of a part


class JointPhase:
    """The parts of a step and their gradients."""

    def __init__(self, parts: Parts, soft: SoftPhase, autocast: bool = True) -> None:
        self.parts, self.soft, self.autocast = parts, soft, autocast
        self.sequencer = Sequencer(parts.tokenizer)

    def part(self, kind: str, seed: str, size: int, photographs: Photographs) -> tuple[Tensor, Sequences]:
        """The supervised predictions' logits [N, V], and what they were asked.

        kind: drawings; photographs: with captions, half of them with a word pasted in; captions: of photographs, alone;
        rooms: one with a word and a caption for every one with questions.
        """
        rng = random.Random(f"{kind}/{seed}")
        pictures, asked = [], []
        for i in range(size):
            if kind == "drawings":
                drawing = make_drawing(f"smol/joint/{seed}/{i}", rng.random() < 0.75)
                pictures.append(drawing.picture)
                asked.append(of_drawing(drawing.scene, drawing.lettering and drawing.lettering.text, rng))
                continue
            room = kind == "rooms" and i % 2 == 1
            photograph = rng.choice(photographs.asked if room else photographs.captioned)
            picture, text = cropped(photograph, None if room else rng), None
            if kind == "captions":
                pictures.append(picture)
                asked.append(captions_of(photograph))
                continue
            if not room and (kind == "rooms" or rng.random() < 0.5):
                picture, lettering = with_word(picture, make_text(photographs.words, rng, 0.6), rng)
                picture, text = with_box(picture, lettering), lettering.text
            pictures.append(picture)
            asked.append(of_photograph(photograph, text, photographs.captioned, rng, most=6))
        sequences = self.sequencer.sequences(asked)
        with torch.no_grad():
            features = self.parts.features(pixels(pictures, self.parts.image_processor))
        return self.logits(features, sequences), sequences

    def logits(self, features: Tensor, sequences: Sequences) -> Tensor:
        """[N, V] where an answer's tokens are predicted."""
        language = self.parts.language
        hidden = language.embed_tokens(sequences.ids)
        shown = (sequences.ids == self.sequencer.picture)[..., None]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            final = language(
                inputs_embeds=hidden.masked_scatter(shown, features),
                attention_mask=sequences.mask,
                position_ids=sequences.positions,
                use_cache=False,
            ).last_hidden_state
        return F.linear(final[sequences.rows, sequences.columns].float(), language.embed_tokens.weight)

    def gradients(self, kind: str, seed: str, trained: list[Tensor]) -> tuple[list[Tensor], float, dict[str, float]]:
        """Of the weighted sum of a part's losses, the sum of its weights, and its losses."""
        if kind == SOFT_WORDS:
            loss, figures = self.soft.loss(f"joint/{seed}")
            weight = 1.0
        else:
            logits, sequences = self.part(kind, seed, PICTURES, self.soft.photographs)
            losses = F.cross_entropy(logits, sequences.labels, reduction="none")
            loss, weight = (losses * sequences.weights).sum(), float(sequences.weights.sum())
            figures = {kind: loss.item() / weight}
        return [*torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)], weight, figures

    @torch.no_grad()
    def report(self, kept: Photographs) -> dict[str, float]:
        """The share of unseen prompts whose whole answer is right, the true tokens before it given."""
        hits: dict[str, list[bool]] = defaultdict(list)
        for kind, count in (("drawings", 4), ("photographs", 1), ("rooms", 1)):
            for n in range(count):
                logits, sequences = self.part(kind, f"check/{n}", 4, kept)
                right = torch.ones(len(sequences.prompts), dtype=torch.long)
                right.scatter_reduce_(0, sequences.owners, (logits.argmax(-1) == sequences.labels).long(), "amin")
                for prompt, hit in zip(sequences.prompts, right.tolist(), strict=True):
                    name = f"{prompt.task} {'drawn' if kind == 'drawings' else 'photo'}"
                    hits[name].append(bool(hit))
        return {name: sum(found) / len(found) for name, found in sorted(hits.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the language model's folder")
    parser.add_argument("photographs", type=Path, help="folder with flickr8k, daquar and words")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/smol"))
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="the updates begin as those that are shipped")
    parser.add_argument(
        "--parts", nargs="+", choices=(*dict.fromkeys(PARTS), "captions"), default=PARTS, help="of a step"
    )
    parser.add_argument("--float32", action="store_true", help="where the CPU has no matrix units for bfloat16")
    options = parser.parse_args()
    parts = build(options.base, options.seed)
    add_updates(parts.language, RANK)
    parts.model.train()
    soft = SoftPhase(parts, read_photographs(options.photographs, test=False))
    kept = read_photographs(options.photographs, test=True)
    phase = JointPhase(parts, soft, autocast=not options.float32)
    modules = {"tower": parts.tower, "projector": parts.projector, "words": soft.words, "updates": parts.language}
    own = [p for p in parts.language.parameters() if p.requires_grad]
    before = {name: module for name, module in modules.items() if name != "updates"}
    peak = PEAK["updates"] * (AGAIN if options.again else 1)
    of_updates = torch.optim.AdamW([{"params": own, "peak": peak}], betas=(0.9, 0.98), weight_decay=0.0)
    optimizers = [of_updates, *(optimizers_of(before, PEAK) if SOFT_WORDS in options.parts else ())]
    clock = Clock(options.minutes)
    checkpoint, log = options.out / "joint.pt", Log(options.out / "joint.log")
    if not load(checkpoint, modules, optimizers, clock):
        if options.again:
            load_shipped(parts)
        if not load(options.out / "soft.pt", before) and not (options.again and SOFT_WORDS not in options.parts):
            raise SystemExit(f"no {options.out / 'soft.pt'}: run smol.soft first")
    saved = 0
    with threads(options.threads) as pool:
        while not clock.over:
            clock.set_rates(optimizers, warm=6)
            log.write(
                "joint",
                clock,
                descend(pool, phase.gradients, options.parts, f"{options.seed}/{clock.step}", optimizers),
            )
            clock.tick()
            if clock.due(180):
                save(checkpoint, modules, optimizers, clock)
                saved += 1
                if saved % 4 == 0:
                    log.write("check", clock, phase.report(kept))
    save(checkpoint, modules, optimizers, clock)
    log.write("check", clock, phase.report(kept))


if __name__ == "__main__":
    main()
