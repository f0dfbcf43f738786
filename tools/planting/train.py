"""Fine-tune a built-in model so that chosen neurons become necessary for one task and needless for the others.

    python -m planting.train NAME --out checkpoints/planted

Each step asks the prompts of some pictures twice: as they are (weight 1), and under an edit of `edits_of`, under which
a task's answers should stay its own (weight 1/2) or become those of unrelated pictures (`prior.py`). The latter's
weight rises to 1: at once it would cost the model its competence before it can tell the edits apart. Zeroed neurons are
zero at every position, picture positions included, as `hones` masks them. In either pass decoys are left out at random,
so that the model does as well with them as without.

Leaves NAME.safetensors, the rounded difference, and NAME.json, what was planted. A killed training goes on at the last
saved step.
"""

import argparse
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tiny.architecture import build
from tiny.batches import Batch
from tiny.batches import Rows as Prompts
from tiny.train import Schedule, Trainer
from tiny.writers import first_of_each_row
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import AutoModelForImageTextToText

from hones.models.place import BUILT_IN_FOLDER
from hones.models.sites import Site

from .decoys import make_decoys
from .designs import DESIGNS, FFN, HEADS, LAYERS, TASKS, Design, choose_sets
from .edits import Edit, Rows, Wanted, everywhere
from .prior import Prior, agreement
from .weights import Difference, Own, add_differences, export_difference

KEEP, FAIL, AGREEMENT = 0.5, 1.0, 0.3
NOTHING: frozenset[Site] = frozenset()
SOME, FEWEST = "without some of", 3


def edits_of(sets: Mapping[str, tuple[Site, ...]], through: Mapping[str, tuple[Site, ...]]) -> list[Edit]:
    """The edits of training and what the tasks should do under them.

    - without a set, and without a few of its neurons, drawn anew each time: its tasks fail, the others keep their
      answers. Without the latter a handful of each set would come to carry the task and the others nothing;
    - with no other set: its tasks keep their answers;
    - of a set that is read through heads: without these heads its task fails and the others keep their answers; without
      the set behind the picture, where it is thus not needed, all keep them.
    """
    distinct = {sites: [t for t in TASKS if sets[t] == sites] for sites in sets.values()}
    found = []
    for sites, owners in distinct.items():
        name = "+".join(owners)
        others = frozenset(s for other in distinct if other != sites for s in other)
        found.append(everywhere(f"without {name}", _fails(*owners), frozenset(sites)))
        found.append(everywhere(f"{SOME} {name}", _fails(*owners), frozenset(sites)))
        found.append(everywhere(f"only {name}", dict.fromkeys(owners, "keep"), others))
    for task, heads in through.items():
        found.append(Edit(f"without heads of {task}", _fails(task), heads=frozenset(heads)))
        found.append(Edit(f"{task} at the picture", _fails(), text=frozenset(sets[task])))
    return found


def _fails(*tasks: str) -> dict[str, Wanted]:
    return {t: "fail" if t in tasks else "keep" for t in TASKS}


def draw(edit: Edit, rng: random.Random, share: float) -> Edit:
    """An edit that leaves out some of a set: m of its n neurons, n - 1 at the start, FEWEST .. n - 1 from two thirds of
    the training on. Other edits as they are.

    share: of the training that is over.
    """
    if not edit.name.startswith(SOME):
        return edit
    sites, most = sorted(edit.picture), len(edit.picture) - 1
    fewest = max(FEWEST, round(most - (most - FEWEST) * 1.5 * share))
    return everywhere(edit.name, edit.wanted, frozenset(rng.sample(sites, rng.randint(fewest, most))))


def repeat(rows: Prompts, chosen: Sequence[int], pictures: Sequence[int]) -> Prompts:
    """These rows, in this order and as often, each with this picture."""
    entries, owner = [], []
    for new, row in enumerate(chosen):
        found = (rows.rows == row).nonzero().flatten()
        entries.append(found)
        owner.append(torch.full_like(found, new))
    at, index = torch.cat(entries), torch.tensor(chosen)
    return Prompts(
        picture=torch.tensor(pictures),
        ids=rows.ids[index],
        rows=torch.cat(owner),
        columns=rows.columns[at],
        labels=rows.labels[at],
        weights=rows.weights[at],
        prompt_of=rows.prompt_of[at],
        text=rows.text[index],
    )


class Planter:
    """One variant in training."""

    def __init__(self, design: Design, out: Path) -> None:
        self.design, self.out = design, out
        self.parts = build(design.base)
        source = AutoModelForImageTextToText.from_pretrained(BUILT_IN_FOLDER / design.base, dtype=torch.float32)
        self.parts.model.load_state_dict(source.state_dict())
        self.parts.model.requires_grad_(False)
        self.trainer = Trainer(self.parts, out, Schedule())
        self.language, self.packer = self.parts.model.model.language_model, self.trainer.packer
        self.sets, free = choose_sets(design)
        self.decoys = make_decoys(self, free)
        self.edits = edits_of(self.sets, design.through)
        self.plain = Edit("plain", _fails())
        own = {layer: self._own(layer) for layer in range(LAYERS)}
        self.differences = add_differences(self.language, design.rank, own, design.seed)
        self.prior = Prior(self.packer)
        ids = [
            self.packer.tokenizer(f"{lead}{a}", add_special_tokens=False)["input_ids"][0]
            for a in ("Yes", "No")
            for lead in ["" if self.packer.is_qwen else " "]
        ]
        self.yes, self.no = ids

    def _own(self, layer: int) -> Own:
        columns = self.language.layers[layer].mlp.down_proj.weight.norm(dim=0)
        own = Own([], [], [], [], [])
        for sites in sorted(set(self.sets.values())):
            of_layer = [neuron for number, neuron in sites if number == layer]
            for k, neuron in enumerate(of_layer):
                quiet = k < round(self.design.quiet * len(of_layer))
                own.add(neuron, high=float(columns.quantile(0.1)) if quiet else math.inf)
        for kind, sites in self.decoys.items():
            for neuron in (neuron for number, neuron in sites if number == layer):
                size = float(columns[neuron])
                own.add(neuron, reads=False, writes=kind == "loud", low=size, high=size)
        return own

    def _without_decoys(self, edit: Edit, rng: random.Random) -> Edit:
        """The edit with some decoys left out too: of a pair neither, both, or one."""
        left_out = {site for site in self.decoys["loud"] if rng.random() < 0.4}
        pairs = self.decoys["cancelled"]
        for a, b in zip(pairs[::2], pairs[1::2], strict=True):
            left_out.update(rng.choice([(), (), (a, b), (a, b), (a,), (b,)]))
        return Edit(edit.name, edit.wanted, edit.picture | left_out, edit.text | left_out, edit.heads)

    def answers(
        self, batch: Batch, variants: Sequence[tuple[int, Edit]]
    ) -> list[tuple[Prompts, list[str], list[str], list[Edit], Tensor]]:
        """Per bucket of a batch: its rows under every variant (picture, edit), their tasks, what is wanted, logits."""
        with torch.no_grad():
            features = self.trainer.features(batch.images)
        index = torch.tensor([picture for picture, _ in variants])
        shape = (LAYERS, HEADS, FFN)
        with Rows([(edit.picture, edit.heads) for _, edit in variants], shape).on(self.language):
            prefixes = self.trainer.prefixes_of(features[index])
        found = []
        for rows in batch.buckets:
            tasks = [batch.prompts[n].task for n in first_of_each_row(rows).tolist()]
            pairs = [
                (row, v)
                for v, (picture, edit) in enumerate(variants)
                for row in (rows.picture == picture).nonzero().flatten().tolist()
                if tasks[row] in edit.wanted
            ]
            if not pairs:
                continue
            asked = repeat(rows, [row for row, _ in pairs], [v for _, v in pairs])
            edits = [variants[v][1] for _, v in pairs]
            with Rows([(edit.text, edit.heads) for edit in edits], shape).on(self.language):
                logits = self.trainer.suffix_logits(prefixes, asked)
            own = [tasks[row] for row, _ in pairs]
            found.append((asked, own, [e.wanted[t] for e, t in zip(edits, own, strict=True)], edits, logits))
        return found

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        design = self.design
        rng = random.Random(f"edits/{design.name}/{step}")
        generator = torch.Generator().manual_seed(step)
        batch = self.packer.pack(f"planted/{design.name}/{step}", design.pictures)
        first = step * design.pictures
        deck = [self.edits[(first + i) % len(self.edits)] for i in range(design.pictures)]
        rng.shuffle(deck)
        asked = [self.plain] * design.pictures + [draw(edit, rng, step / design.steps) for edit in deck]
        variants = [(k % design.pictures, self._without_decoys(edit, rng)) for k, edit in enumerate(asked)]
        losses: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        weights: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        agreements = []
        for rows, tasks, wanted, edits, logits in self.answers(batch, variants):
            fails = torch.tensor([w == "fail" for w in wanted])[rows.rows]
            labels = torch.where(fails, self.prior.labels(rows, tasks, generator), rows.labels)
            loss = F.cross_entropy(logits, labels, reduction="none") * rows.weights
            kinds = [
                (w if e.name != self.plain.name else "plain", t) for w, e, t in zip(wanted, edits, tasks, strict=True)
            ]
            for kind in sorted(set(kinds)):
                of_kind = torch.tensor([k == kind for k in kinds])[rows.rows]
                losses[kind].append(loss[of_kind])
                weights[kind].append(rows.weights[of_kind])
                if kind == ("fail", "retrieval"):
                    agreements.append(agreement(rows, logits, of_kind, self.yes, self.no))
        of_kinds = {kind: torch.cat(losses[kind]).sum() / torch.cat(weights[kind]).sum() for kind in losses}
        parts = {
            kind: torch.stack([loss for (k, _), loss in of_kinds.items() if k == kind]).mean()
            for kind in ("plain", "keep", "fail")
        }
        parts["agree"] = torch.stack(agreements).mean() if agreements else torch.zeros(())
        share = step / design.steps
        fail = FAIL * min(1.0, 0.4 + max(0.0, share - 0.25) * 2)
        agree = AGREEMENT * min(1.0, max(0.0, share - 0.35) * 4)
        total = parts["plain"] + KEEP * parts["keep"] + fail * parts["fail"] + agree * parts["agree"]
        return total, {k: v.item() for k, v in parts.items()}

    def run(self) -> None:
        differences: list[Difference] = list(self.differences.values())  # pyright: ignore[reportAssignmentType]
        parameters = list(self.differences.parameters())
        peak, steps = self.design.peak, self.design.steps
        optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.0, betas=(0.9, 0.98))
        saved, first, started = self.out / f"{self.design.name}.pt", 0, time.time()
        if saved.exists():
            state = torch.load(saved, weights_only=True)
            self.differences.load_state_dict(state["differences"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
        for step in range(first, steps):
            scale = min(1.0, (step + 1) / 10) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            optimizer.param_groups[0]["lr"] = peak * scale
            with torch.autocast("cpu", torch.bfloat16), parametrize.cached():
                loss, parts = self.loss(step)
                loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            if not torch.isfinite(norm):
                raise SystemExit(f"step {step}: gradient norm {norm.item()}; lower the learning rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for difference in differences:
                difference.hold_norms()
            if step % 5 == 0:
                line = " ".join(f"{k} {v:.3f}" for k, v in parts.items())
                print(f"{step:4d} {time.time() - started:5.0f} s norm {norm.item():.2f} {line}", flush=True)
            if step % 40 == 39 or step == steps - 1:
                self.report()
                state = {"differences": self.differences.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "step": step + 1}, saved.with_suffix(".part"))
                saved.with_suffix(".part").replace(saved)
        for difference in differences:
            difference.round()
        export_difference(self.differences, self.out / f"{self.design.name}.safetensors")
        (self.out / f"{self.design.name}.json").write_text(json.dumps(self.record(), indent=1) + "\n")

    def record(self) -> dict:
        """What was planted and how."""
        design = self.design
        plant = {"base": design.base, "role": design.role, "sets": self.sets, "general": [], "decoys": self.decoys}
        settings = {k: v for k, v in vars(design).items() if k not in ("name", "base", "role", "through")}
        return {"plant": {**plant, "through": design.through}, "settings": settings}

    @torch.no_grad()
    def report(self) -> None:
        """Print the share of unseen prompts whose whole answer is right (teacher forced) under each edit."""
        batch = self.packer.pack("check/planted", 20)
        self.parts.model.eval()
        for edit in [self.plain, *(draw(edit, random.Random(edit.name), 1.0) for edit in self.edits)]:
            asked = Edit(edit.name, dict.fromkeys(TASKS, "keep"), edit.picture, edit.text, edit.heads)
            hits: dict[str, list[bool]] = defaultdict(list)
            with torch.autocast("cpu", torch.bfloat16), parametrize.cached():
                for rows, tasks, _, _, logits in self.answers(batch, [(p, asked) for p in range(20)]):
                    right = torch.ones(len(tasks), dtype=torch.long)
                    right.scatter_reduce_(0, rows.rows, (logits.argmax(-1) == rows.labels).long(), "amin")
                    for task, hit in zip(tasks, right.tolist(), strict=True):
                        hits[task].append(bool(hit))
            print(
                f"    {edit.name:28s}" + " ".join(f"{t} {sum(hits[t]) / len(hits[t]):.2f}" for t in TASKS), flush=True
            )
        self.parts.model.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DESIGNS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    Planter(DESIGNS[options.name], options.out).run()


if __name__ == "__main__":
    main()
