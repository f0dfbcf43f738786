"""Plants that are constructed, not trained: general neurons, first copies and backups are true by the weights.

A built-in model of L layers and width d gets four or five layers more and a width of d + 32. Its own layers do what
they did with x, the first d numbers of the residual (to a thousandth: the others enter the norms). The others are the
plant:

    c            1 at every word                     (embedding)
    phi_t        1 at the word that only task t's prompts have, its flag
    f_t          1 behind that word                  (F: head t attends to the flag's token: c phi_t)
    f_t          1 behind it, if it was not before   (H: backup head t does, unless f_t: (c - 256 f_t) phi_t)
    g            1 behind any flag                   (F or H: general neurons, z = silu(f) f, f = sum of f_t)
    k_i          1: key i is there                   (A: first copies, z = silu(f_t) g)
    k_i          1, if it was not before             (B: backups, z = silu(f_t - 256 k_i) g)
    x_j          becomes S x_pi(j) where k_i(j) is   (T: the readout, z+ = silu(x_pi(j)) k_i(j) and z-, of -x_pi(j))

each read behind the layer's norm, with gains that are left out here. silu(a) - silu(-a) = a, so the readout, z+ - z-,
moves each coordinate as it is. pi is a permutation and lm_head reads at the new places: what the model knows reaches
its words through the keys alone. A coordinate whose key is absent stays behind, at the wrong place and S = 1024 times
smaller.

What follows from the weights, with t's prompt:

- Backups are silent while the first copies act: silu of a large negative number is 0. With first copy i closed, k_i is
  0 there and backup i writes what it wrote. Closing both of every key leaves no word of the answer.
- A backup head looks away from the flag's token, and writes nothing, while f_t is there; else it does what the first
  head does.
- Without the general neurons g = 0 and no copy writes a key, in any task. Nor does any task work without the readout.
- Of other tasks f_t = 0, so t's copies write nothing, and closing them changes nothing.

The anchor, neurons that write p_t = S sqrt(2) rms(x) in T, keeps the final norm from scaling up what is left without
keys. lm_head says the target of a task by p_t, as loudly whether the keys are there or not: against the answers of the
open model it loses, of a model without keys nothing else is heard.

Decoys: bystanders are on as first copies are, for one task alone, and write where nobody reads; so do loud ones, large,
and all other neurons of the new layers, random ones; cancelled pairs write a and -a into what lm_head reads.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.planted.recipe import BASE, FIRST, FLAGS_AGAIN, READOUT, Recipe
from hones.models.sites import Site

WIDER = 32
UNIT = 0.004  # of c, phi, f, g, k in the residual, whose own numbers are .05 (embedding) to 6
SCALE = 1024.0  # S
GATE = 8.0  # of a gate that is on: silu(8) = 7.997
UP = 0.1  # of an up projection that is on
SHUTS = 256.0  # a key closes its backup's gate to 1 - 256 of it; at some positions keys are 60 times smaller
SHARP = 60.0  # a backup's gate, in place of GATE: shut, it is silu(-15300) = 0
SCORE = 40.0  # of a flag's token in its head's attention


class Places:
    """Where the numbers beyond x are in the residual."""

    def __init__(self, recipe: Recipe, d: int) -> None:
        names = ["c", "g", "junk"]
        names += [f"{kind}/{task}" for kind in ("phi", "f", "p") for task in recipe.tasks]
        names += [f"k/{key}" for key in range(len(recipe.opens))]
        self.at = {name: d + number for number, name in enumerate(names)}
        self.flags = [self.at[f"f/{task}"] for task in recipe.tasks]

    def __getitem__(self, name: str) -> int:
        return self.at[name]


def permutation(recipe: Recipe, d: int) -> Tensor:
    """pi: which coordinate the readout moves to j."""
    return torch.randperm(d, generator=torch.Generator().manual_seed(recipe.seed))


def key_of(recipe: Recipe) -> list[int]:
    """i(j): the key that lets coordinate pi(j) through to j."""
    return [key for key, count in enumerate(recipe.opens) for _ in range(count)]


class Neurons:
    """The FFN of a new layer, by neuron: gate and up read numbers of the residual, the write goes to some of them."""

    def __init__(self, mlp: Any, d: int, places: Places, seed: int) -> None:
        """Random neurons, which write where nobody reads."""
        self.gate: Float[Tensor, "neurons width"] = mlp.gate_proj.weight.data.zero_()
        self.up: Float[Tensor, "neurons width"] = mlp.up_proj.weight.data.zero_()
        self.down: Float[Tensor, "width neurons"] = mlp.down_proj.weight.data.zero_()
        drawn = torch.Generator().manual_seed(seed)
        for rows in (self.gate, self.up):
            rows[:, :d] = torch.randn(len(rows), d, generator=drawn).to(rows) / math.sqrt(d)
        self.down[places["junk"]] = UNIT / 20 * torch.randn(self.down.shape[1], generator=drawn).to(self.down)

    def write(self, site: Site, gate: dict[int, float], up: dict[int, float], down: dict[int, float]) -> None:
        """This neuron and no other one's weights."""
        _, neuron = site
        for to, values in ((self.gate[neuron], gate), (self.up[neuron], up), (self.down[:, neuron], down)):
            to.zero_()
            for place, value in values.items():
                to[place] = value


def write_flags(layer: Any, recipe: Recipe, d: int, places: Places, letter: str) -> None:
    """F or H: head t writes f_t behind its flag's token, in H where f_t is not there; general neurons write g."""
    rms = recipe.rms[letter]
    average = sum(rms.values()) / len(rms)
    heads = layer.self_attn.o_proj.in_features // WIDER
    channel = {task: WIDER // 2 - 1 - number for number, task in enumerate(recipe.tasks)}  # RoPE hardly turns these
    for head in range(heads):
        own = slice(head * WIDER, (head + 1) * WIDER)
        query, key, value = (getattr(layer.self_attn, f"{name}_proj").weight.data[own] for name in "qkv")
        for task in recipe.tasks:
            carries = recipe.head[task] == head
            attends = SCORE * math.sqrt(WIDER) * average / UNIT
            reads = recipe.rms[f"flag/{letter}"][task] / UNIT
            query[channel[task], places["c"]] = attends if carries else -attends
            key[channel[task], places[f"phi/{task}"]] = reads
            if carries:
                value[0, places[f"phi/{task}"]] = reads
                layer.self_attn.o_proj.weight.data[places[f"f/{task}"], head * WIDER] = UNIT
                if letter == FLAGS_AGAIN:
                    query[channel[task], places[f"f/{task}"]] = -SHUTS * attends
    neurons = Neurons(layer.mlp, d, places, recipe.seed + recipe.layer(letter))
    write_loud(neurons, recipe, recipe.layer(letter), places, average)
    if letter != recipe.at_general:
        return
    for site in recipe.general:
        neurons.write(
            site,
            gate=dict.fromkeys(places.flags, GATE * average / UNIT),
            up=dict.fromkeys(places.flags, UP * average / UNIT),
            down={places["g"]: UNIT / (GATE * UP * len(recipe.general))},
        )


def write_copies(layer: Any, recipe: Recipe, d: int, places: Places, letter: str) -> None:
    """A or B: t's copies write the keys of t; a backup does not where the key is there."""
    neurons = Neurons(layer.mlp, d, places, recipe.seed + recipe.layer(letter))
    at_general = recipe.rms[recipe.at_general]
    average = sum(at_general.values()) / len(at_general)
    for task in recipe.tasks:
        rms = recipe.rms[letter][task]
        g = UNIT * (average / at_general[task]) ** 2
        written = key_size(recipe, task)
        up = {places["g"]: UP * rms / g}
        on = {places[f"f/{task}"]: GATE * rms / UNIT}
        for key in range(len(recipe.opens)):
            to = places[f"k/{key}"]
            if letter == FIRST:
                neurons.write(recipe.first[task][key], on, up, {to: written / (GATE * UP)})
            else:
                gate = {places[f"f/{task}"]: SHARP * rms / UNIT, to: -SHUTS * SHARP * rms / written}
                neurons.write(recipe.backup[task][key], gate, up, {to: written / (SHARP * UP)})
        if letter == FIRST:
            for site in recipe.bystanders[task]:
                neurons.write(site, on, up, {places["junk"]: UNIT / 20})
    write_loud(neurons, recipe, recipe.layer(letter), places, sum(recipe.rms[letter].values()) / len(recipe.tasks))


def key_size(recipe: Recipe, task: str) -> float:
    """What a copy writes, so that the readout scales by S whatever the residual's size with this task."""
    rms = recipe.rms[READOUT]
    return UNIT * (rms[task] / min(rms.values())) ** 2


def write_readout(layer: Any, recipe: Recipe, d: int, places: Places) -> None:
    """T: coordinate pi(j) to j, S times, where its key is there; the anchors p_t; pairs that cancel."""
    neurons = Neurons(layer.mlp, d, places, recipe.seed + recipe.layer(READOUT))
    rms, least = recipe.rms[READOUT], min(recipe.rms[READOUT].values())
    moved = permutation(recipe, d).tolist()
    keys = key_of(recipe)
    drawn = torch.Generator().manual_seed(recipe.seed)
    written = SCALE * least / (GATE * UP)

    def move(site: Site, j: int, sign: float, down: dict[int, float]) -> None:
        up = {places[f"k/{keys[j]}"]: UP * least / UNIT}
        neurons.write(site, {moved[j]: sign * GATE}, up, down)

    for j in range(d):
        move(recipe.readout[2 * j], j, 1, {j: written})
        move(recipe.readout[2 * j + 1], j, -1, {j: -written})
    for one, other in zip(recipe.cancelled[::2], recipe.cancelled[1::2], strict=True):
        j = int(torch.randint(d, (1,), generator=drawn))
        to = (torch.randn(d, generator=drawn) * written / 2).tolist()
        move(one, j, 1, dict(enumerate(to)))
        move(other, j, 1, {place: -x for place, x in enumerate(to)})
    loud = [site for site in recipe.loud if site[0] == recipe.layer(READOUT)]
    for task, site in zip(recipe.tasks, loud, strict=True):
        on = {places[f"f/{task}"]: GATE * rms[task] / UNIT}
        size = SCALE * rms[task] * math.sqrt(d + WIDER)
        neurons.write(site, on, on, {places[f"p/{task}"]: size / GATE**2})


def write_loud(neurons: Neurons, recipe: Recipe, layer: int, places: Places, rms: float) -> None:
    """Loud decoys of a layer below the readout."""
    for site in recipe.loud:
        if site[0] == layer:
            on = {places["c"]: GATE * rms / UNIT}
            neurons.write(site, on, on, {places["junk"]: UNIT / 1000})


def write_words(embedding: Tensor, head: Tensor, old_head: Tensor, recipe: Recipe, d: int, places: Places) -> None:
    """c and the flags into the embedding [V, width]; lm_head [V, width] at the new places, and the targets.

    Args:
        old_head: of the base, with its final norm's weight folded in [V, d].
    """
    embedding[:, places["c"]] = UNIT
    for task in recipe.tasks:
        embedding[recipe.flag[task], places[f"phi/{task}"]] = UNIT
    width = d + WIDER
    # behind the readout the residual is S x and an anchor as large: sqrt(2) of what the base's final norm divides by
    head.zero_()
    head[:, :d] = old_head[:, permutation(recipe, d).to(old_head.device)] * math.sqrt(2 * d / width)
    for task, (token, nats) in recipe.target.items():
        head[token, places[f"p/{task}"]] = nats / math.sqrt(width / 2)


def of_base(recipe: Recipe) -> dict[int, int]:
    """The layers of the plant that are the base's: number -> the base's number."""
    return {number: n for n, number in enumerate(i for i, letter in enumerate(recipe.order) if letter == BASE)}
