"""What a picture costs: its positions in a prompt, and the work of the vision part that reads it."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor, nn

from hones.errors import HonesError, seam
from hones.models.vlm import VLM
from hones.runs.plan.shapes import Shapes, Work, linears_of

PROJECTORS = ("projector", "merger", "connector", "aligner")


def tails_of(vlm: VLM, prompts: Sequence[str], picture: bool = True) -> tuple[tuple[int, ...], ...]:
    """The tokens of each prompt after its picture; of a template without a single picture token, all but the first.

    picture: False for prompts without one, all of whose tokens count.
    """
    rows = vlm.tokenizer([vlm.wrap(prompt, picture) for prompt in prompts])["input_ids"]
    if not picture:
        return tuple(map(tuple, rows))
    token = picture_token(vlm)
    return tuple(tuple(ids[(ids.index(token) if token in ids else 0) + 1 :]) for ids in rows)


def picture_token(vlm: VLM) -> int:
    """The id of what stands for a part of a picture; some processors have it as an AddedToken."""
    return vlm.tokenizer.convert_tokens_to_ids(str(vlm.processor.image_token))  # pyright: ignore


def picture_work(vlm: VLM, shapes: Shapes, width: int, height: int) -> tuple[Work, int]:
    """The vision part's work, and the positions, of what the processor makes of a blank picture of that size.

    Raises:
        HonesError: the family describes its vision part or its pictures in another way.
    """
    prepare: Any = vlm.processor
    # all of it asks for what families call one thing or another
    with seam(f"count what {vlm.name} makes of a picture", do="`hones plan` does not know this family"):
        encoded = prepare(images=[[Image.new("RGB", (width, height))]], text=[vlm.wrap("?")], return_tensors="pt")
        pixels = encoded["pixel_values"]
        axes = 3 if pixels.ndim > 3 else 2  # of a tile: colours, rows, columns; or its patches, cut already
        tiles = 1 if "image_grid_thw" in encoded else pixels.numel() // pixels.shape[-axes:].numel()
        tokens = int((encoded["input_ids"] == picture_token(vlm)).sum())
        positions = encoded["input_ids"].shape[1] - len(tails_of(vlm, ["?"])[0])
        return vision_work(vlm, shapes, pixels, tiles, tokens), positions


def vision_work(vlm: VLM, shapes: Shapes, pixels: Tensor, tiles: int, tokens: int) -> Work:
    """The vision part, which is neither decoder nor lm_head, on one picture.

    Two operations per weight and patch, and in each layer 4 n (seen) A: a patch sees those of its tile or window.

    Args:
        pixels: what the processor makes of the picture, in so many tiles. tokens: that show it to the decoder.

    Raises:
        HonesError: no vision_config, or no layer that reads patches.
    """
    model, anatomy = vlm.model, vlm.anatomy
    config: Any = getattr(model.config, "vision_config", None)
    if config is None:
        raise HonesError(f"{type(model).__name__}: no vision_config", do="`hones plan` cannot count its vision part")
    of_decoder = {id(m) for m in (*anatomy.decoder.modules(), anatomy.lm_head)}
    others = {name: m for name, m in model.named_modules() if id(m) not in of_decoder}
    projector = {name: m for name, m in others.items() if any(word in name for word in PROJECTORS)}
    encoder = [m for name, m in others.items() if name not in projector]
    convolved = [m.weight[0].numel() for m in encoder if isinstance(m, nn.Conv2d | nn.Conv3d)]
    cut = [m.in_features for m in encoder if isinstance(m, nn.Linear) and m.in_features == pixels.shape[-1]]
    if not convolved and not cut:
        raise HonesError(
            f"{type(model).__name__}: no layer of its vision part reads patches",
            do="`hones plan` cannot count its vision part",
        )
    patch = (convolved or cut)[0]
    of_class = tiles if any("class_embedding" in name for name, _ in model.named_parameters()) else 0
    patches = pixels.numel() // patch + of_class
    depth = int(getattr(config, "num_hidden_layers", None) or config.depth)
    tile, window = patches / tiles, getattr(config, "window_size", None)
    seen = depth * tile
    if window is not None:
        side = config.patch_size[0] if isinstance(config.patch_size, list | tuple) else config.patch_size
        full = len(config.fullatt_block_indexes)
        seen = full * tile + (depth - full) * min((window // side) ** 2, tile)
    work = shapes.linear(patches, linears_of(encoder)) + shapes.linear(tokens, linears_of(projector.values()))
    return work + Work(4.0 * patches * seen * config.hidden_size)
