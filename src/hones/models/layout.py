"""Where in the picture each of its tokens stands, proven on the model itself before it is believed.

How a family lays its tokens out is known in a few forms (`candidates`): one grid row by row, rows that end in a token
of their own, tiles with a view of the whole, a grid that the processor names. Nothing is taken from a form alone. A
form claims a cell of the picture for every token, and is proven by structured light, as a scanner finds places: bit k
of a cell's row, or column, splits the picture into stripes. With A the picture, B the picture with every pixel moved by
half its range, and M = B in the stripes and A elsewhere, M' the other way round, token t with embedding e_t has bit 1 if

    |e_t(M) - e_t(B)| + |e_t(M') - e_t(A)|  <  |e_t(M) - e_t(A)| + |e_t(M') - e_t(B)|

that is if it looks like B where the stripes do. A claim holds where at least `AGREEING` of the tokens have the claimed
bit, for every bit of rows and of columns: 2 ceil(log2 rows) + 2 ceil(log2 columns) + 2 pictures are encoded. Tokens in
random order agree in half of the cases, those of a transposed or mirrored grid in half or none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from hones.errors import HonesError
from hones.models.capture import before
from hones.models.layout_forms import View, candidates, picture_token
from hones.models.vlm import VLM

AGREEING = 0.8
FEWEST = 4  # of fewer tokens a layout agrees by chance
PROMPT = "What?"
AT_ONCE = 8  # pictures


class NoLayout(HonesError):
    """It is not known where in the picture its tokens stand."""


class _Entered(Exception):
    """What enters the first layer is known; the rest of the pass is not needed."""


@dataclass(frozen=True)
class Layout:
    """The places of a picture, rows by columns, and which of its tokens stand at each.

    views: one, or a view of the whole picture and its tiles; the places are the cells of the coarsest, and a token of
        another view belongs to the place that holds its centre.
    positions: of the picture's tokens in the prompt, first to last. agreeing: the smallest share over the bits.
    """

    views: tuple[View, ...]
    positions: Int[np.ndarray, " tokens"]
    agreeing: float

    @property
    def places(self) -> View:
        """The view whose cells are the places."""
        return min(self.views, key=lambda view: view.tokens.size)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all places, in shares of the picture's width and height."""
        return self.places.box

    @cached_property
    def place_of(self) -> Int[np.ndarray, " tokens"]:
        """The number of each token's place, row by row; -1 for one without, such as a line break's."""
        found = np.full(len(self.positions), -1)
        rows, columns = self.places.tokens.shape
        left, top, right, bottom = self.places.box
        for view in self.views:
            x, y = view.centres()
            row = np.floor((y - top) / (bottom - top) * rows).astype(int)
            column = np.floor((x - left) / (right - left) * columns).astype(int)
            within = view.in_picture() & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            found[view.tokens[within]] = (row * columns + column)[within]
        return found

    def tokens_at(self) -> list[list[int]]:
        """The positions in the prompt of the tokens of every place that has some, in the order of `numbers`."""
        return [self.positions[self.place_of == place].tolist() for place in self.numbers()]

    def numbers(self) -> list[int]:
        """The places that have a token."""
        return sorted({*self.place_of.tolist()} - {-1})

    def grid(self, of_place: Sequence[float]) -> Float[np.ndarray, "rows columns"]:
        """Values of the places that have a token as a map of all, NaN elsewhere."""
        values = np.full(self.places.tokens.size, np.nan)
        values[self.numbers()] = of_place
        return values.reshape(self.places.tokens.shape)


def find_layout(vlm: VLM, picture: Image.Image, prompt: str = PROMPT) -> Layout:
    """The proven layout of a picture's tokens in a prompt.

    Raises:
        NoLayout: no known form of layout is this model's; the line says what was tried.
    """
    ids = vlm.encode([picture], [prompt]).inputs["input_ids"][0].cpu()
    token = picture_token(vlm)
    positions = (ids == token).nonzero()[:, 0].numpy() if token is not None else np.zeros(0, dtype=int)
    if len(positions) < FEWEST:
        raise NoLayout(
            f"{vlm.name}: its language model is given the picture as {len(positions)} token{'s'[: len(positions) != 1]} of the prompt",
            expected=f"a family whose picture stands in the prompt as {FEWEST} or more",
        )
    light = _Light(vlm, picture)
    tried = []
    for views in candidates(vlm, light.inputs, positions, picture.size):
        agreeing = min(light.agreement(view, light.tokens) for view in views)
        if agreeing >= AGREEING:
            return Layout(views, positions, agreeing)
        shapes = " and ".join(f"{view.tokens.shape[0]} x {view.tokens.shape[1]}" for view in views)
        tried.append(f"{shapes}: {agreeing:.0%}")
    raise NoLayout(
        f"{vlm.name}: it is not known where in the picture its {len(positions)} tokens stand",
        expected=f"{AGREEING:.0%} that answer to changes at the places of a known layout (tried: "
        f"{', '.join(tried) or 'none has so many'})",
    )


class _Light:
    """A picture under stripes, and what the model makes of it."""

    def __init__(self, vlm: VLM, picture: Image.Image) -> None:
        self.vlm = vlm
        self.plain = np.asarray(picture.convert("RGB"))
        self.moved = (self.plain.astype(np.int16) + 128).astype(np.uint8)  # modulo 256: moved by half of the range
        self.inputs = vlm.encode([picture], [PROMPT]).inputs
        self.tokens = (self.inputs["input_ids"][0] == picture_token(vlm)).nonzero()[:, 0]
        self.of_plain, self.of_moved = self.embeddings([self.plain, self.moved])

    @torch.no_grad()
    def embeddings(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "pictures tokens d"]:
        """The pictures' tokens as they enter the first layer of the language model."""
        found: list[Tensor] = []

        def see(x: Tensor) -> None:
            found.append(x[:, self.tokens.to(x.device)].float())
            raise _Entered

        for start in range(0, len(pictures), AT_ONCE):
            part = [Image.fromarray(pixels) for pixels in pictures[start : start + AT_ONCE]]
            encoded = self.vlm.encode(part, [PROMPT] * len(part))
            with before(self.vlm.anatomy.layers[0].block, see):
                try:
                    self.vlm.logits(encoded, keep=1)
                except _Entered:
                    continue
            raise HonesError(f"{self.vlm.name}: its first layer does not run", expected="a pass through all layers")
        return torch.cat(found)

    def agreement(self, view: View, tokens: Tensor) -> float:
        """The smallest share, over the bits of rows and columns, of the view's tokens that have the claimed bit.

        The first bit below `AGREEING` is the last that is looked at.
        """
        inside = view.in_picture()
        smallest = 1.0
        for stripes, claimed in self.bits(view):
            on_stripes, beside = self.embeddings(
                [
                    np.where(stripes[..., None], self.moved, self.plain),
                    np.where(stripes[..., None], self.plain, self.moved),
                ]
            )
            like = (on_stripes - self.of_moved).norm(dim=-1) + (beside - self.of_plain).norm(dim=-1)
            unlike = (on_stripes - self.of_plain).norm(dim=-1) + (beside - self.of_moved).norm(dim=-1)
            bit = (like < unlike).cpu().numpy()[view.tokens]
            smallest = min(smallest, float((bit == claimed)[inside].mean()))
            if smallest < AGREEING:
                break
        return smallest

    def bits(self, view: View) -> Iterator[tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "rows columns"]]]:
        """Stripes over the picture, and in which cells of a view they lie, for every bit of rows and columns."""
        height, width = self.plain.shape[:2]
        left, top, right, bottom = view.box
        rows, columns = view.tokens.shape
        row = np.floor(((np.arange(height) + 0.5) / height - top) / (bottom - top) * rows).astype(int)
        column = np.floor(((np.arange(width) + 0.5) / width - left) / (right - left) * columns).astype(int)
        for k in reversed(range((rows - 1).bit_length())):  # broad stripes first: they tell wrong claims soonest
            of_row = np.arange(rows) >> k & 1 == 1
            yield (
                np.broadcast_to((row >> k & 1 == 1)[:, None], (height, width)),
                np.broadcast_to(of_row[:, None], (rows, columns)),
            )
        for k in reversed(range((columns - 1).bit_length())):
            of_column = np.arange(columns) >> k & 1 == 1
            yield (
                np.broadcast_to(column >> k & 1 == 1, (height, width)),
                np.broadcast_to(of_column, (rows, columns)),
            )
