"""Train a built-in model from scratch on generated pictures.

    python -m tiny.train tiny-llava --out checkpoints
    python -m tiny.train tiny-qwen2.5-vl --out checkpoints --language-from checkpoints/tiny-llava/joint.pt

Five phases, scheduled by steps (not by time, so that a busy machine changes nothing):
1. vision: the picture tokens learn to say what covers their cell (character, its index, colour, shape, boxed);
2. joint: all four tasks on packed prompts, the vision labels fading to a tenth;
3. matching: mostly pairs of a true and an almost true description, which are learned last and slowest;
4. sparse: the same with a growing penalty on L1 / L2 of the write sizes |z_i| * ||W_down[:, i]|| over a layer's FFN
   neurons, at prompt and answer positions. The ratio is about the root of how many neurons write; it does not shrink
   what they write. So few neurons write each answer, and masking them matters.
5. special: half of the prompts run once more with the task's strongest write-in neurons zeroed, to answers permuted
   among the prompts of the task (the answer-free prior), and half with another task's neurons zeroed, to their own
   answers. So the neurons that already write a task's answers become necessary for it, and needless for the others.
Each phase leaves a checkpoint; a phase whose checkpoint exists is skipped, so a killed run continues after the last
one.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from .architecture import NAMES, TinyParts, build
from .batches import TASKS, Batch, Packer, Rows, make_scene
from .starts import start_language_model, start_vision
from .writers import find_writers, first_of_each_row, permuted_labels

CELL_CLASSES = (35, 5, 8, 7, 3)
StepLoss = Callable[[int, float], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """Steps of each phase (`joint_stop`: where the joint phase ends within its cosine), pictures a step, penalty."""

    vision: int = 700
    joint: int = 1300
    joint_stop: int = 1300
    matching: int = 500
    sparse: int = 350
    pictures: int = 12
    sparsity: float = 0.03
    special: int = 220


class Trainer:
    """One model, its packer, its cell-label heads and a fresh optimizer per phase."""

    def __init__(self, parts: TinyParts, out: Path, schedule: Schedule) -> None:
        self.parts, self.out, self.schedule = parts, out, schedule
        self.model = parts.model.train()
        self.model.model.language_model.set_attn_implementation("eager")
        self.packer = Packer(parts)
        self.cell_heads = nn.ModuleList(nn.Linear(parts.model.config.text_config.hidden_size, n) for n in CELL_CLASSES)
        self.writers: dict[str, Tensor] = {}
        self.started = time.time()

    # --- forward ---------------------------------------------------------------------------------------------------

    def features(self, images: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(self.model.model.get_image_features(**images).pooler_output))

    def cell_loss(self, features: Tensor, cells: Tensor) -> Tensor:
        losses = []
        for k, head in enumerate(self.cell_heads):
            target = cells[:, :, k].flatten()
            weight = torch.where(target > 0, 1.0, 0.15)
            loss = F.cross_entropy(head(features).flatten(0, 1).float(), target, reduction="none")
            losses.append((loss * weight).sum() / weight.sum())
        return torch.stack(losses).sum()

    def logits(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Logits [N, V] at the supervised positions of each bucket, and the picture features."""
        prefixes, features = self.prefixes(batch)
        return [self.suffix_logits(prefixes, rows) for rows in batch.buckets], features

    def prefixes(self, batch: Batch) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Keys and values of every layer for the pictures' prefixes, and the picture features."""
        features = self.features(batch.images)
        return self.prefixes_of(features), features

    def prefixes_of(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer for prefixes with these picture features [B, positions, d]."""
        language = self.model.model.language_model
        prefix = torch.tensor(self.packer.prefix)
        embeddings = language.embed_tokens(prefix).expand(len(features), -1, -1)
        embeddings = embeddings.masked_scatter(
            (prefix == self.packer.image_token)[None, :, None], features.to(embeddings.dtype)
        )
        positions = self.packer.prefix_positions
        shape = (3, len(features), -1) if self.packer.is_qwen else (len(features), -1)
        at = positions[:, None].expand(shape) if self.packer.is_qwen else positions.expand(shape)
        cache = language(inputs_embeds=embeddings, position_ids=at, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]

    def suffix_logits(
        self, prefixes: list[tuple[Tensor, Tensor]], rows: Rows, kept: list[Tensor] | None = None
    ) -> Tensor:
        """Logits of one bucket; `kept` holds per layer factors [R, I] of the prompts' neurons."""
        language = self.model.model.language_model
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(prefixes):
            cache.update(keys.index_select(0, rows.picture), values.index_select(0, rows.picture), layer)
        count, width = rows.ids.shape
        past = prefixes[0][0].shape[2]
        mask = torch.ones(width, past + width, dtype=torch.bool).tril(past)
        mask = torch.zeros(width, past + width).masked_fill(~mask, float("-inf")).expand(count, 1, -1, -1)
        at = (int(self.packer.prefix_positions.max()) + 1 + torch.arange(width)).expand(count, -1)
        with ExitStack() as hooks:
            for layer, factors in zip(language.layers, kept or [], strict=kept is not None):
                hook = layer.mlp.down_proj.register_forward_pre_hook(
                    lambda _, args, factors=factors: (args[0] * factors[:, None].to(args[0].dtype),)
                )
                hooks.callback(hook.remove)
            hidden = language(
                inputs_embeds=language.embed_tokens(rows.ids),
                past_key_values=cache,
                attention_mask=mask,
                position_ids=at.expand(3, -1, -1) if self.packer.is_qwen else at,
            ).last_hidden_state
        return self.model.lm_head(hidden[rows.rows, rows.columns]).float()

    # --- phases ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.phase("vision", self.schedule.vision, self.vision_step, peak=2e-3, vision_scale=1.0)
        self.phase(
            "joint", self.schedule.joint, self.joint_step, peak=2e-3, vision_scale=0.2, stop=self.schedule.joint_stop
        )
        self.phase("matching", self.schedule.matching, self.matching_step, peak=1.2e-3, vision_scale=0.2)
        self.phase("sparse", self.schedule.sparse, self.sparse_step, peak=7e-4, vision_scale=0.1)
        self.phase("special", self.schedule.special, self.special_step, peak=7e-4, vision_scale=0.1)

    def phase(
        self, name: str, steps: int, step_loss: StepLoss, peak: float, vision_scale: float, stop: int | None = None
    ) -> None:
        path = self.out / f"{name}.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.cell_heads.load_state_dict(state["cells"])
            return
        optimizers = self.optimizers(peak, vision_scale)
        for step in range(steps if stop is None else min(stop, steps)):
            scale = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * scale
            with torch.autocast("cpu", torch.bfloat16):
                loss, parts = step_loss(step, step / steps)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            if not torch.isfinite(norm):
                raise SystemExit(f"{name} step {step}: gradient norm {norm.item()}; lower the learning rate")
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if step % 100 == 0 or step == steps - 1:
                self.report(name, step, parts)
                self.save(self.out / "latest.pt")
        self.save(path)

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part")
        torch.save({"model": self.model.state_dict(), "cells": self.cell_heads.state_dict()}, part)
        part.replace(path)

    def vision_step(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        size = 32
        scenes = [make_scene(f"train/vision/{step}/{i}") for i in range(size)]
        boxed = [i % 2 == 0 for i in range(size)]
        loss = self.cell_loss(self.features(self.packer.pictures(scenes, boxed)), self.packer.cells(scenes, boxed))
        return loss, {"cells": loss.item()}

    def joint_step(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        simple = max(0.15, 0.8 - 2.5 * progress)
        candidate = 0.4 * max(0.0, 1 - 3 * progress)
        batch = self.packer.pack(f"train/joint/{step}", self.schedule.pictures, simple, candidate)
        logits, features = self.logits(batch)
        task = self.task_loss(logits, batch)
        cells = self.cell_loss(features, batch.cells)
        return task + max(0.1, 1 - 1.5 * progress) * 0.5 * cells, {"task": task.item(), "cells": cells.item()}

    def matching_step(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        batch = self.packer.pack(f"train/matching/{step}", self.schedule.pictures, simple=0.1, pairs=3)
        logits, features = self.logits(batch)
        task, cells = self.task_loss(logits, batch), self.cell_loss(features, batch.cells)
        return task + 0.05 * cells, {"task": task.item(), "cells": cells.item()}

    def sparse_step(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        batch = self.packer.pack(f"train/sparse/{step}", self.schedule.pictures, pairs=2)
        written: list[Tensor] = []
        text = {rows.text.shape: rows.text for rows in batch.buckets}

        def write_size(module: nn.Linear, args: tuple[Tensor]) -> None:
            z = args[0]
            if z.shape[:2] in text:
                size = z[text[z.shape[:2]]].abs().float() * module.weight.norm(dim=0)
                written.append((size.sum(-1) / size.norm(dim=-1).clamp(min=1e-6)).mean())

        layers = self.model.model.language_model.layers
        hooks = [layer.mlp.down_proj.register_forward_pre_hook(write_size) for layer in layers]
        try:
            logits, features = self.logits(batch)
        finally:
            for hook in hooks:
                hook.remove()
        task, cells = self.task_loss(logits, batch), self.cell_loss(features, batch.cells)
        size = torch.stack(written).mean()
        strength = self.schedule.sparsity * min(1.0, 2 * progress)
        return task + 0.05 * cells + strength * size, {"task": task.item(), "writers": size.item()}

    def special_step(self, step: int, progress: float) -> tuple[Tensor, dict[str, float]]:
        if not self.writers:
            self.writers = find_writers(self)
        batch = self.packer.pack(f"train/special/{step}", self.schedule.pictures, pairs=2)
        generator = torch.Generator().manual_seed(step)
        prefixes, features = self.prefixes(batch)
        plain = self.task_loss([self.suffix_logits(prefixes, rows) for rows in batch.buckets], batch)
        losses, weights = [], []
        for rows in batch.buckets:
            tasks = [batch.prompts[int(n)].task for n in first_of_each_row(rows)]
            own = torch.rand(len(tasks), generator=generator) < 0.5
            masks = []
            for r, task in enumerate(tasks):
                other = TASKS[int(torch.randint(len(TASKS), (1,), generator=generator))]
                chosen = self.writers[task] if own[r] else self.writers[other] & ~self.writers[task]
                masks.append(~chosen)
            kept = torch.stack(masks).float().unbind(1)
            logits = self.suffix_logits(prefixes, rows, list(kept))
            labels = torch.where(own[rows.rows], permuted_labels(rows, tasks, generator), rows.labels)
            losses.append(F.cross_entropy(logits, labels, reduction="none") * rows.weights)
            weights.append(rows.weights)
        edited = torch.cat(losses).sum() / torch.cat(weights).sum()
        cells = self.cell_loss(features, batch.cells)
        loss = plain + 0.5 * edited + 0.05 * cells
        return loss, {"task": plain.item(), "edited": edited.item()}

    def task_loss(self, logits: list[Tensor], batch: Batch) -> Tensor:
        losses = [
            (F.cross_entropy(x, rows.labels, reduction="none") * rows.weights).sum()
            for x, rows in zip(logits, batch.buckets, strict=True)
        ]
        return torch.stack(losses).sum() / torch.cat([rows.weights for rows in batch.buckets]).sum()

    # --- optimizers and progress -----------------------------------------------------------------------------------

    def optimizers(self, peak: float, vision_scale: float) -> list[torch.optim.Optimizer]:
        """Muon on the matrices, AdamW on embeddings, head, norms and biases; the vision part at a fraction."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            matrix = parameter.ndim == 2 and not any(k in name for k in ("embed", "lm_head", "class"))
            scale = vision_scale if "vision_tower" in name or "visual" in name else 1.0
            groups[matrix, scale].append(parameter)
        groups[False, 1.0] += list(self.cell_heads.parameters())

        def options(is_matrix: bool) -> list[dict]:
            return [{"params": ps, "peak": peak * s} for (m, s), ps in groups.items() if m == is_matrix]

        return [
            torch.optim.Muon(options(True), lr=peak, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(options(False), lr=peak, weight_decay=0.0, betas=(0.9, 0.98)),
        ]

    @torch.no_grad()
    def report(self, phase: str, step: int, parts: dict[str, float]) -> None:
        """Print the losses and the share of unseen prompts whose whole answer is right (teacher forced)."""
        line = " ".join(f"{k} {v:.3f}" for k, v in parts.items())
        if phase != "vision":
            hits: dict[str, list[bool]] = defaultdict(list)
            for part in range(2):
                batch = self.packer.pack(f"check/{part}", 32)
                self.model.eval()
                logits, _ = self.logits(batch)
                self.model.train()
                right = torch.ones(len(batch.prompts), dtype=torch.long)
                for x, rows in zip(logits, batch.buckets, strict=True):
                    right.scatter_reduce_(0, rows.prompt_of, (x.argmax(-1) == rows.labels).long(), "amin")
                for prompt, hit in zip(batch.prompts, right.tolist(), strict=True):
                    hits[prompt.task].append(bool(hit))
                    if prompt.kind != prompt.task:
                        hits[f"{prompt.task[:1]}:{prompt.kind}"].append(bool(hit))
            line += " | " + " ".join(
                f"{k} {sum(v) / len(v):.2f}" for k, v in sorted(hits.items(), key=lambda x: ":" in x[0])
            )
        print(f"{phase} {step:5d} {time.time() - self.started:6.0f} s  {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--language-from", type=Path, help="checkpoint whose language model is the start")
    parser.add_argument("--vision-from", type=Path, help="checkpoint whose vision part is the start; no vision phase")
    parser.add_argument("--seed", type=int, default=0)
    for field, default in vars(Schedule()).items():
        parser.add_argument(f"--{field.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    name, out, start, vision, seed = (options.pop(k) for k in ("name", "out", "language_from", "vision_from", "seed"))
    parts = build(name, seed)
    if start is not None:
        start_language_model(parts, start)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(parts, folder, Schedule(**options))
    if vision is not None:
        start_vision(trainer, vision)
        trainer.save(folder / "vision.pt")
    trainer.run()


if __name__ == "__main__":
    main()
