"""What depth brings: attention sinks, massive activations, and how much of a head its replacement by the others leaves.

    python bench/depth.py [--models tiny-llava smol-llava] [--items 24] [--out FILE.md]

On the prompts of built-in pictures (vqa). Per layer: the share of heads that look mostly at the first position from the
last one; the largest component of the residual beside the median one, and where it stands; and of z, the heads' outputs
at the last position, the norm of the mean of a layer's other heads beside the replaced head's own (of H - 1 outputs of
the same norm, at right angles, it is 1 / sqrt(H - 1)), their cosine, and how far the replacement moves what the
attention adds, as a share of it.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hones import VLM, load_items, load_vlm, make_task, write_shapes
from hones.models.capture import HEADS, LEAVING, collect

SINK = 0.5  # of the attention


@torch.no_grad()
def measured(vlm: VLM, picture: Any, prompt: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Per layer each figure [L], and the position of the residual's largest component [L]."""
    encoded: Any = vlm.encode([picture], [prompt]).inputs
    layers, heads, width = vlm.anatomy.shape[0], vlm.anatomy.heads, 0
    with collect(vlm.anatomy, HEADS, lambda x: x[0, -1]) as z, collect(vlm.anatomy, LEAVING, first_of) as residual:
        attentions = vlm.model(**encoded, output_attentions=True).attentions
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    places = []
    for layer in range(layers):
        note("sinks", (attentions[layer][0, :, -1, 0] > SINK).float().mean().item())
        size = residual[layer].float().abs()
        note("largest / median", (size.max() / size.median()).item())
        places.append(int(size.amax(1).argmax()))
        own = z[layer].float().view(heads, -1)
        width = own.shape[1]
        others = (own.sum(0) - own) / (heads - 1)
        note("norm of others / own", (others.norm(dim=1) / own.norm(dim=1)).median().item())
        note("cosine", torch.nn.functional.cosine_similarity(others, own).median().item())
        write = vlm.anatomy.layers[layer].o_proj.weight.float().view(-1, heads, width)
        moved = torch.einsum("dhw,hw->hd", write, others - own).norm(dim=1)
        note("moved", (moved / torch.einsum("dhw,hw->d", write, own).norm()).median().item())
    return {name: np.array(values) for name, values in figures.items()}, np.array(places)


def first_of(x: Tensor) -> Tensor:
    return x[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "smol-llava"])
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=110)
    with tempfile.TemporaryDirectory() as folder:
        file = write_shapes(Path(folder), {"bench": options.items}, seed=3)["bench"]
        examples = make_task("vqa").examples(load_items(file))[0]
        for name in options.models:
            vlm = load_vlm(name, attn_implementation="eager")
            found = [measured(vlm, example.open_picture(), example.prompts[0]) for example in examples]
            mean = {key: np.mean([figures[key] for figures, _ in found], axis=0) for key in found[0][0]}
            positions = [Counter(int(places[layer]) for _, places in found) for layer in range(len(found[0][1]))]
            orthogonal = 1 / (vlm.anatomy.heads - 1) ** 0.5
            title = f"{name}: {vlm.anatomy.heads} heads a layer, at right angles others / own would be {orthogonal:.2f}"
            table = Table("layer", *mean, "largest stands at", title=title)
            for layer, of_layer in enumerate(positions):
                at, count = of_layer.most_common(1)[0]
                values = [f"{mean[key][layer]:.2f}" for key in mean]
                table.add_row(str(layer), *values, f"position {at} in {count} of {len(found)}")
            console.print(table)
    if options.out is not None:
        command = f"python bench/depth.py --models {' '.join(options.models)} --items {options.items}"
        options.out.write_text(f"# What depth brings\n\n`{command}`\n\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
