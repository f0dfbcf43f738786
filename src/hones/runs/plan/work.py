"""What one pass of the decoder costs, from its shapes: floating-point operations, and bytes read and written.

A pass takes R rows of T new positions that see P others, n = R T, through the layers s .. L - 1. With W the weights of
a layer's linears (qkv, out and ffn) and A = H d_h the width of all heads together, one layer costs

    2 n W              the linears: two per weight and position
    4 n (P + T) A      scores and mixing; all of the rectangle, as kernels that take a padding mask compute it

and moves its weights once, what enters and leaves each linear, and the keys and values that the rows see. A layer
whose attention is given runs its FFN alone; the last layer may stop at its keys and values, or run its FFN at the
wanted positions only. Backwards costs as much as forwards, its attention 2.5 times as much: the backbone is frozen.
"""

from dataclasses import dataclass

from hones.runs.plan.lengths import Seen
from hones.runs.plan.shapes import Linears, Number, Shapes

BACKWARDS_OF_ATTENTION = 2.5


@dataclass(frozen=True)
class Work:
    """flop: floating-point operations. moved: bytes read and written."""

    flop: Number = 0.0
    moved: Number = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flop + other.flop, self.moved + other.moved)

    def __mul__(self, times: Number) -> "Work":
        return Work(self.flop * times, self.moved * times)


def passing(
    shapes: Shapes,
    rows: Number,
    new: Number,
    past: Number,
    *,
    start: int = 0,
    given: bool = False,
    keys_only: bool = False,
    wanted: Number | None = None,
) -> Work:
    """One pass through the layers from `start` on.

    Args:
        rows, new, past: R, T and P of the module's formulas.
        given: the attention of layer `start` is known.
        keys_only: the last layer stops at its keys and values.
        wanted: positions at which the last layer's FFN runs; None: all.
    """
    n, depth = rows * new, shapes.layers - start
    if depth <= 0 or (keys_only and given and depth == 1):
        return Work()
    attended = depth - given - keys_only
    last = 0.0 if keys_only else n if wanted is None else wanted
    work = linear(shapes, n, shapes.qkv, depth - given) + linear(shapes, n, shapes.out, attended)
    work += linear(shapes, n, shapes.ffn, depth - 1) + linear(shapes, last, shapes.ffn)
    seen = past + new
    kept = rows * seen * shapes.keys * shapes.itemsize
    return work + Work(4.0 * n * seen * shapes.inner * attended, kept * attended)


def there_and_back(shapes: Shapes, rows: Number, length: Number, start: int, wanted: Number | None = None) -> Work:
    """One pass over whole rows, forwards and backwards."""
    attention = 4.0 * rows * length * length * shapes.inner * (shapes.layers - start)
    forwards = passing(shapes, rows, length, 0, start=start, wanted=wanted)
    return forwards * 2 + Work(attention * (BACKWARDS_OF_ATTENTION - 1))


def linear(shapes: Shapes, positions: Number, linears: Linears, layers: Number = 1) -> Work:
    """Linears at some positions, in some layers."""
    if positions <= 0 or layers <= 0:
        return Work()
    moved = (linears.weights + positions * linears.numbers) * shapes.itemsize
    return Work(2.0 * positions * linears.weights, moved) * layers


def unembedding(shapes: Shapes, positions: Number) -> Work:
    """Logits at some positions: 2 V d each."""
    return linear(shapes, positions, Linears.between(shapes.width, shapes.vocabulary))


def whole(shapes: Shapes, seen: Seen, length: int) -> Work:
    """The whole model on one prompt of `length` positions, nothing spared but logits: vision part, decoder, one row."""
    return vision(shapes, seen) + passing(shapes, 1, length, 0) + unembedding(shapes, 1)


def vision(shapes: Shapes, seen: Seen) -> Work:
    """The vision part on one picture of n patches: two per weight and position, and its attention

    4 n (seen) A    in each layer: a patch sees those of its tile, or of its window
    """
    if seen.patches == 0:
        return Work()
    part, n = shapes.vision, seen.patches + seen.tiles * shapes.vision.extra
    tile = n / seen.tiles
    window = tile if part.window is None else min(part.window, tile)
    sees = part.full_layers * tile + (part.depth - part.full_layers) * window
    work = linear(shapes, n, part.encoder) + linear(shapes, seen.tokens, part.projector)
    return work + Work(4.0 * n * sees * part.width)
