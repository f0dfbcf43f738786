"""The known forms in which families lay a picture's tokens out; which one a model has is proven in `layout`."""

from collections.abc import Iterator
from math import ceil, isqrt, log
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from hones.models.view import WHOLE, Box, View
from hones.models.vlm import VLM

MOST_SHAPES = 4  # of a number of tokens that several shapes have, those nearest to the picture's own


def picture_token(vlm: VLM) -> int | None:
    """The id at which a prompt holds a picture's features; None where no file names one."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(vlm.model.config, name, None), int):
            return token
    text = getattr(vlm.processor, "image_token", None)
    return None if text is None else int(vlm.tokenizer.convert_tokens_to_ids(text))


def candidates(
    vlm: VLM, inputs: dict[str, Tensor], positions: Int[np.ndarray, " tokens"], size: tuple[int, int]
) -> Iterator[tuple[View, ...]]:
    """The layouts that a picture of this size (width, height) may have, likelier ones first.

    Args:
        inputs: of one prompt. positions: of the picture's tokens in a prompt; others may stand between them.
    """
    count = len(positions)
    runs = [len(run) for run in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)]
    side = _side(vlm)
    if "image_grid_thw" in inputs:  # Qwen's: patches before some are merged into a token
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        merged = int(_processor(vlm, "merge_size", 1))
        if (rows // merged) * (columns // merged) == count:
            yield (_grid(0, rows // merged, columns // merged),)
        return
    if "image_grids" in inputs:  # Molmo 2's: of the whole, and of its crops together
        rows, columns, fine_rows, fine_columns = inputs["image_grids"][0].tolist()
        if rows * columns + fine_rows * fine_columns == count:
            yield (_grid(0, rows, columns), _grid(rows * columns, fine_rows, fine_columns))
        return
    if len(runs) > 1 and len({*runs}) == 1:
        yield (_grid(0, len(runs), runs[0]),)  # a token between two rows
        yield from _tiled(vlm, runs[0], len(runs), size)
        return
    if isqrt(count) ** 2 == count:
        for box in _boxes(vlm, size):
            yield (_grid(0, isqrt(count), isqrt(count), box),)
    of_tile = next((n for n in _tile_tokens(vlm) if count % n == 0 and count > n), None)
    if of_tile is not None:
        yield from _tiled(vlm, of_tile, count // of_tile, size)
    if side is None:
        return
    base = _grid(0, side, side)
    if count == side * side + 1:  # the whole picture alone, and a line break
        yield (base,)
    for rows, width in _shapes(count - side * side, size, line_break=True):  # the whole, then rows with line breaks
        yield (base, _grid(side * side, rows, width - 1, line_break=True))
    half = side // 2
    rest = count - half * (half + 1) - 1  # rows with line breaks, a separator, then the whole with line breaks
    for rows, width in _shapes(rest, size, line_break=True):
        fine = _grid(0, rows, width - 1, line_break=True)
        yield (_grid(rest + 1, half, half, _padded(rows, width - 1, half), line_break=True), fine)


def _grid(first: int, rows: int, columns: int, box: Box = WHOLE, line_break: bool = False) -> View:
    """Tokens row by row from the first on; line_break: each row ends with a token that has no place."""
    width = columns + line_break
    return View(first + np.arange(rows * width).reshape(rows, width)[:, :columns], box)


def _padded(rows: int, columns: int, side: int) -> Box:
    """What the whole of Phi-4 covers: the picture and, right and below, what fills its last crops up."""
    return (0.0, 0.0, ceil(columns / side) * side / columns, ceil(rows / side) * side / rows)


def _tiled(vlm: VLM, of_tile: int, count: int, size: tuple[int, int]) -> Iterator[tuple[View, ...]]:
    """So many square tiles of so many tokens each, the whole picture last, or first, or not at all."""
    side = isqrt(of_tile)
    if side * side != of_tile:
        return
    for rows, columns in _shapes(count - 1, size):
        tiles = np.arange(rows * columns * of_tile).reshape(rows, columns, side, side)
        fine = tiles.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
        for box in dict.fromkeys((WHOLE, _unstretched(vlm, rows, columns, size))):
            yield (_grid((count - 1) * of_tile, side, side), View(fine, box))
            yield (_grid(0, side, side), View(fine + of_tile, box))


def _unstretched(vlm: VLM, rows: int, columns: int, size: tuple[int, int]) -> Box:
    """What tiles cover where the picture keeps its shape, and its size if it fits, padded right and below (Llama 4)."""
    tile = getattr(getattr(vlm.model.config, "vision_config", None), "image_size", None)
    if not isinstance(tile, int):
        return WHOLE
    width, height = size
    across, down = columns * tile, rows * tile
    scale = min(min(max(width, tile), across) / width, min(max(height, tile), down) / height)
    return (0.0, 0.0, across / (width * scale), down / (height * scale))


def _shapes(count: int, size: tuple[int, int], line_break: bool = False) -> list[tuple[int, int]]:
    """Rows and columns of so many tokens, the few nearest to the picture's shape."""
    if count < 1:
        return []
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    shapes = [(rows, columns) for rows, columns in shapes if columns > line_break]

    def apart(shape: tuple[int, int]) -> float:
        return abs(log((shape[1] - line_break) / shape[0]) - log(size[0] / size[1]))

    return sorted(shapes, key=apart)[:MOST_SHAPES]


def _boxes(vlm: VLM, size: tuple[int, int]) -> list[Box]:
    """What a square of tokens may cover: the middle where the processor crops, the whole, or that with borders."""
    width, height = size
    x = (1 - min(size) / width) / 2
    y = (1 - min(size) / height) / 2
    middle = (x, y, 1 - x, 1 - y)
    x = (1 - max(size) / width) / 2
    y = (1 - max(size) / height) / 2
    bordered = (x, y, 1 - x, 1 - y)
    boxes = [middle, WHOLE, bordered] if _processor(vlm, "do_center_crop", False) else [WHOLE, bordered, middle]
    return [*dict.fromkeys(boxes)]


def _side(vlm: VLM) -> int | None:
    """How many patches a side of the vision part's own square has."""
    vision = getattr(vlm.model.config, "vision_config", None)
    pixels = getattr(vision, "image_size", None)
    patch = getattr(vision, "patch_size", None)
    return pixels // patch if isinstance(pixels, int) and isinstance(patch, int) else None


def _tile_tokens(vlm: VLM) -> Iterator[int]:
    """How many tokens a tile has, as the processor or the configuration says."""
    for owner in (vlm.processor, vlm.model.config):
        for name in ("image_seq_length", "image_seq_len", "num_image_tokens"):
            if isinstance(number := getattr(owner, name, None), int) and number > 1:
                yield number


def _processor(vlm: VLM, name: str, default: Any) -> Any:
    """A setting of the image processor."""
    value = getattr(getattr(vlm.processor, "image_processor", None), name, None)
    return default if value is None else value
