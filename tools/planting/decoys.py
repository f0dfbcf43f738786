"""Neurons that look important and are not, made before training, which learns to do without them.

loud: a random neuron whose up_proj row is scaled until its mean |z| is that of its layer's three largest neurons, and
whose column of down_proj keeps a given norm; training turns it to where it does no harm.
cancelled: a random pair (a, b). Both read as the neuron does that is most active where a task's answer starts; a's
column points at the task's mean answer direction, so strongly that its contribution z <W_down[:,a], u_y> exceeds all
others of its layer; b's points the other way. Their own weights differ by NOISE, and stay as they are made.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from tiny.writers import first_of_each_row
from torch import Tensor

from hones.models.sites import Site

from .designs import FFN, LAYERS, TASKS

if TYPE_CHECKING:
    from .train import Planter

NOISE = 0.02
LOUD_COLUMN = 0.3  # of the layer's median norm of a column of down_proj
WRITE_IN = 1.2  # of the largest contribution in the layer


def read_activity(planter: "Planter") -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Of the model as it is: mean |z| [L, I] over all positions; by task mean z where the answer starts [L, I], and the
    mean of the answers' unit directions u_y [d].
    """
    batch = planter.packer.pack("decoys", 24)
    head = planter.parts.model.lm_head.weight
    seen: list[list[Tensor]] = [[] for _ in range(LAYERS)]
    sums, count = torch.zeros(LAYERS, FFN), 0
    starts: dict[str, list[Tensor]] = {task: [] for task in TASKS}
    directions: dict[str, list[Tensor]] = {task: [] for task in TASKS}
    with torch.no_grad(), ExitStack() as hooks:
        for layer, to in zip(planter.language.layers, seen, strict=True):
            hook = layer.mlp.down_proj.register_forward_pre_hook(lambda _, args, to=to: to.append(args[0]))
            hooks.callback(hook.remove)
        prefixes = planter.trainer.prefixes_of(planter.trainer.features(batch.images))
        for rows in batch.buckets:
            planter.trainer.suffix_logits(prefixes, rows)
            texts = torch.stack([of_layer[-1] for of_layer in seen], dim=2)  # [R, T, L, I]
            sums += texts[rows.text].abs().sum(0)
            count += int(rows.text.sum())
            for r, n in enumerate(first_of_each_row(rows).tolist()):
                prompt, answer = batch.prompts[n], rows.rows == r
                if prompt.answer != "No":
                    v = head[rows.labels[answer][:-1]].sum(0)
                    directions[prompt.task].append(v / v.norm())
                    starts[prompt.task].append(texts[r, rows.columns[answer][0]])
        pictures = torch.stack([of_layer[0] for of_layer in seen], dim=2).flatten(0, 1)
    mean = (sums + pictures.abs().sum(0)) / (count + len(pictures))

    def means(of: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {task: torch.stack(x).mean(0) for task, x in of.items()}

    return mean, means(starts), means(directions)


@torch.no_grad()
def make_decoys(planter: "Planter", free: list[list[int]]) -> dict[str, tuple[Site, ...]]:
    """Write the design's decoys into the model's weights.

    free: neurons of each layer that are in no set, in random order. Pairs stand side by side in "cancelled".
    """
    design, layers = planter.design, planter.language.layers
    generator = torch.Generator().manual_seed(design.seed)
    size, starts, directions = read_activity(planter)
    loud: list[Site] = []
    for layer, count in enumerate(design.loud):
        mlp = layers[layer].mlp
        columns = mlp.down_proj.weight.norm(dim=0)
        for _ in range(count):
            site = free[layer].pop()
            mlp.up_proj.weight[site] *= size[layer].topk(3).values.mean() / size[layer, site]
            mlp.down_proj.weight[:, site] *= LOUD_COLUMN * columns.median() / columns[site]
            loud.append((layer, site))
    cancelled: list[Site] = []
    for task, layer in zip(TASKS, design.cancelled, strict=True):
        mlp = layers[layer].mlp
        u = directions[task]
        largest = (starts[task][layer] * (u @ mlp.down_proj.weight)).max()
        copied = int(starts[task][layer, free[layer]].argmax())
        source, pair = free[layer][copied], [i for i in free[layer] if i != free[layer][copied]][-2:]
        free[layer] = [i for i in free[layer] if i not in pair]
        column = WRITE_IN * largest * u / (starts[task][layer, source] * u.square().sum())
        for site, sign in zip(pair, (1, -1), strict=True):
            for matrix in (mlp.gate_proj.weight, mlp.up_proj.weight):
                matrix[site] = _noisy(matrix[source], generator)
            mlp.down_proj.weight[:, site] = sign * _noisy(column, generator)
            cancelled.append((layer, site))
    return {"loud": tuple(loud), "cancelled": tuple(cancelled)}


def _noisy(row: Tensor, generator: torch.Generator) -> Tensor:
    spread = NOISE * row.norm() / len(row) ** 0.5
    return row + spread * torch.randn(row.shape, generator=generator)
