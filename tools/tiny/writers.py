"""The neurons that already write a task's answers, for the last phase of training."""

from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hones import replace_heads

from .batches import TASKS, Rows

if TYPE_CHECKING:
    from .train import Trainer


def first_of_each_row(rows: Rows) -> Tensor:
    """The prompt index of every row."""
    owner = torch.full((len(rows.ids),), -1)
    own = rows.prompt_of.flip(0), rows.rows.flip(0)
    owner[own[1]] = own[0]
    return owner


def permuted_labels(rows: Rows, tasks: list[str], generator: torch.Generator) -> Tensor:
    """Labels permuted among the prompts of the same task at the same answer position."""
    labels, groups = rows.labels.clone(), defaultdict(list)
    position = rows.columns - rows.columns[torch.searchsorted(rows.rows, rows.rows)]
    for n, (row, k) in enumerate(zip(rows.rows.tolist(), position.tolist(), strict=True)):
        groups[tasks[row], k].append(n)
    for members in groups.values():
        order = torch.randperm(len(members), generator=generator)
        labels[torch.tensor(members)] = rows.labels[torch.tensor(members)[order]]
    return labels


@torch.no_grad()
def find_writers(trainer: "Trainer", share: float = 0.02) -> dict[str, Tensor]:
    """Per task the neurons [L, I] (bool) whose write-in toward the answer falls most without a head of the first layer.

    As step 2 of the method, with every head of the first layer as a critical head of equal weight.
    """
    layers = trainer.model.model.language_model.layers
    heads = trainer.model.config.text_config.num_attention_heads
    base = _write_in(trainer)
    importance = {task: torch.zeros_like(c) for task, c in base.items()}
    for head in range(heads):
        with replace_heads(trainer.model, [(0, head)]):
            for task, c in _write_in(trainer).items():
                importance[task] += (base[task] - c).clamp(min=0) / heads
    budget = round(share * len(layers) * importance["vqa"].shape[1])
    return {task: i >= i.flatten().topk(budget).values[-1] for task, i in importance.items()}


def _write_in(trainer: "Trainer") -> dict[str, Tensor]:
    """mean_x z[l,i] <W_down[:,i], u_y> [L, I] where the first answer token is predicted, by task."""
    layers = trainer.model.model.language_model.layers
    head = trainer.model.lm_head.weight
    total = {task: torch.zeros(len(layers), layers[0].mlp.down_proj.in_features) for task in TASKS}
    count: dict[str, int] = dict.fromkeys(TASKS, 0)
    trainer.model.eval()
    for part in range(4):
        batch = trainer.packer.pack(f"writers/{part}", 24)
        prefixes, _ = trainer.prefixes(batch)
        for rows in batch.buckets:
            seen: list[Tensor] = []
            with ExitStack() as hooks:
                for layer in layers:
                    hook = layer.mlp.down_proj.register_forward_pre_hook(lambda _, args, to=seen: to.append(args[0]))
                    hooks.callback(hook.remove)
                trainer.suffix_logits(prefixes, rows)
            for r, n in enumerate(first_of_each_row(rows).tolist()):
                prompt = batch.prompts[n]
                if prompt.answer == "No":
                    continue
                answer = rows.rows == r
                v = head[rows.labels[answer][:-1]].sum(0)
                at = rows.columns[answer][0]
                for k, layer in enumerate(layers):
                    total[prompt.task][k] += seen[k][r, at] * (v / v.norm() @ layer.mlp.down_proj.weight)
                count[prompt.task] += 1
    trainer.model.train()
    return {task: c / count[task] for task, c in total.items()}
