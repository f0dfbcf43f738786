"""Integrated gradients from the tail of a prompt alone, equal to `integrated_gradients`.

z changes at the last prompt position only, so by causality only that position and the answer's tokens after it change,
and only from that layer's FFN on:

1. one pass without gradients over what a picture's prompts begin with, and one over each prompt with its gold answer;
   keys and values of all positions before the last prompt position are the past P;
2. rows (layer l, alpha) of the T tail positions enter layer `start`, the first of theirs, with the unedited residual
   and attention; z[l] at the first tail position is alpha z[l]; keys and values of the past are the same for all rows.

Gradients run through the tail alone: R rows of T positions. A model is served so only where the gradients are the
definition's on its first item.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from hones.models.capture import Z, capture
from hones.models.vlm import VLM
from hones.rivals.integrated_gradients import at_least_float32, gradients_along, path, z_at_last_prompt_position
from hones.rivals.reading import ask_with_gold
from hones.sweep.baseline import Baseline
from hones.sweep.decoder import Decoder, DecoderInput
from hones.sweep.engines import TOLERANCE
from hones.sweep.layer_rows import SharedPast
from hones.sweep.memory import bytes_per_position, free_memory
from hones.sweep.prompts import OTHER_FORM, encode_pictures, why_unserved
from hones.tasks.base import Example, Task

POSITIONS = {"cpu": 512, "cuda": 4096}
SHARE_OF_MEMORY = 0.15
COPIES = 3  # of keys and values: joined with the past, repeated for query heads, gradients


@dataclass(frozen=True)
class Tail:
    """The last prompt position and the answer's tokens but the last, T positions, as the unedited model has them.

    residual: entering each layer. attention: what each layer's gives. z: at the first position. keys, values: of the
    past, by layer. labels: the gold answer, predicted at the T positions.
    """

    vlm: VLM
    decoder: Decoder
    residual: list[Float[Tensor, "1 t d"]]
    attention: list[Float[Tensor, "1 t d"]]
    z: list[Float[Tensor, " neurons"]]
    keys: list[Float[Tensor, "1 heads p d_h"]]
    values: list[Float[Tensor, "1 heads p d_h"]]
    positions: Real[Tensor, "*axes 1 t"]
    labels: Int[Tensor, " t"]

    def rows_at_once(self) -> int:
        """How many rows fit into a share of the free memory, and are not slower than fewer."""
        vlm = self.vlm
        anatomy = vlm.anatomy
        past = self.keys[0].shape[2]
        width = len(self.labels)
        in_layer = COPIES * (past + width) * bytes_per_position(vlm)
        in_layer += width * (16 * anatomy.width + 4 * anatomy.neurons) * vlm.model.dtype.itemsize
        row = len(self.z) * in_layer + 4 * width * anatomy.lm_head.out_features * self.z[0].itemsize
        fitting = int(SHARE_OF_MEMORY * free_memory(vlm.device)) // row
        return max(1, min(POSITIONS["cpu" if vlm.device.type == "cpu" else "cuda"] // width, fitting))

    def gradients(
        self, layers: Sequence[int], alphas: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows neurons"]]:
        """log p(answer) of every row and its gradient at alpha z of the row's layer. The model must be frozen."""
        rows = len(layers)
        start = min(layers)
        past = self.keys[0].shape[2]
        width = len(self.labels)
        of = torch.tensor(layers, device=alphas.device)
        scaled = (alphas[:, None] * torch.stack([self.z[layer] for layer in layers])).to(self.z[0].dtype)
        scaled.requires_grad_()

        def put(layer: int, x: Tensor) -> Tensor:
            first = torch.where((of == layer)[:, None], scaled, x[:, 0])
            return torch.cat([first[:, None], x[:, 1:]], 1)

        entry = DecoderInput(
            hidden=self.residual[start].expand(rows, -1, -1),
            positions=self.positions.expand(*self.positions.shape[:-2], rows, width),
            valid=torch.ones(rows, past + width, dtype=torch.bool, device=alphas.device),
            cache=[SharedPast(past, k, v, [rows]) for k, v in zip(self.keys, self.values, strict=True)],
            start=start,
            attention=self.attention[start].expand(rows, -1, -1),
        )
        with capture(self.vlm.anatomy, Z, put, sorted({*layers})):
            hidden = self.decoder.run(entry, gradients=True)
        assert hidden is not None
        with torch.enable_grad():
            of_token = self.vlm.token_log_probabilities(hidden.flatten(0, 1), self.labels.repeat(rows))
            log_p = of_token.view(rows, width).sum(1)
            (gradient,) = torch.autograd.grad(log_p.sum(), scaled)
        return log_p.detach(), at_least_float32(gradient)


def integrated_gradients_of(tail: Tail, steps: int, rows: int | None) -> Float[Tensor, "layers neurons"]:
    """`integrated_gradients` of the tail's item, `rows` (layer, step) pairs at once; None: as many as are fast."""
    alphas = path(steps, tail.labels.device)
    layers = torch.arange(len(tail.z), device=tail.labels.device)
    z = at_least_float32(torch.stack(tail.z))
    total = torch.zeros_like(z)
    at_once = rows or tail.rows_at_once()
    of_pair = layers.repeat_interleave(steps).split(at_once)
    alpha_of_pair = alphas.repeat(len(layers)).split(at_once)
    for of, alpha in zip(of_pair, alpha_of_pair, strict=True):
        log_p, gradient = tail.gradients(of.tolist(), alpha)
        total.index_add_(0, of, (log_p.exp()[:, None] * gradient).to(total))
    return z * total / steps


def disproof(vlm: VLM, task: Task, example: Example) -> str | None:
    """Why tails cannot be used, None if they can: their gradients must be the definition's on this example.

    The gradients of log p(answer) halfway along z of the first, a middle and the last layer, to the dtype's rounding.
    """
    try:
        (tail,) = tails(vlm, [(task, example)])
        layers = sorted({0, len(tail.z) // 2, len(tail.z) - 1})
        _, gradients = tail.gradients(layers, path(2, vlm.device)[:1].repeat(len(layers)))
    except OTHER_FORM as error:
        return why_unserved(error)
    encoded = ask_with_gold(vlm, task, [example])
    position, z = z_at_last_prompt_position(vlm, encoded)
    for layer, gradient in zip(layers, gradients, strict=True):
        _, expected = gradients_along(vlm, encoded, layer, position, z[layer], path(2, vlm.device)[:1])
        difference = (expected[0].to(gradient) - gradient).norm()
        norm = expected.norm()
        if not difference <= TOLERANCE[vlm.model.dtype] * norm:
            return f"a gradient at layer {layer} differs by {difference / norm:.2g} of its norm from the whole model's"
    return None


@torch.no_grad()
def tails(vlm: VLM, asked: Sequence[tuple[Task, Example]]) -> list[Tail]:
    """The tail of each example's first prompt and gold answer; the examples are about one picture, encoded once.

    Raises:
        Unserved: the family's decoder is given more than embeddings, positions and a padding mask.
    """
    baseline = Baseline(vlm)
    decoder = baseline.decoder
    pictures = encode_pictures(vlm, [replace(e, prompts=e.prompts[:1]) for _, e in asked], batch_size=1)
    of_owner: dict[int, Tail] = {}
    for picture in pictures:
        prefixes = baseline.prefixes([picture])
        for prompt in picture.prompts:
            task, example = asked[prompt.owner]
            gold = vlm.gold_ids(example.prompts[0], task.answers_to_learn(example)[0])
            suffixes = baseline.suffixes([picture], prefixes, [(0, prompt)], [gold], read=True)
            assert suffixes.activations is not None
            first = int(suffixes.asked[0]) - 1
            past = prefixes.valid.shape[1] + first
            of_owner[prompt.owner] = Tail(
                vlm,
                decoder,
                residual=[x[:, first:] for x in suffixes.trace.residual],
                attention=[x.o_proj(suffixes.trace.heads[n][:, first:]) for n, x in enumerate(decoder.layers)],
                z=[suffixes.activations.z[n][0] for n in range(len(decoder.layers))],
                keys=[layer.keys[:, :, :past] for layer in suffixes.cache if layer.keys is not None],
                values=[layer.values[:, :, :past] for layer in suffixes.cache if layer.values is not None],
                positions=suffixes.positions[..., first:],
                labels=suffixes.labels,
            )
    return [of_owner[owner] for owner in range(len(asked))]
