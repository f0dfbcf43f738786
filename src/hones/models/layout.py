"""Where in the picture each of its tokens stands, proven on the model itself before it is believed.

How families lay their tokens out is known in a few forms (`layout_forms`): one grid row by row, rows that end in a
token of their own, tiles with a view of the whole, a grid that the processor names. A form claims a cell of the picture
for every token. Nothing is taken from a form alone: it is proven by group testing. In each of K copies of the picture
some cells are changed, every pixel by half of its range; each cell in about as many copies as any other. With

    code[k, c]  whether cell c is changed in copy k;   response[k, t] = |e_t(copy k) - e_t(picture)|

of the tokens' embeddings e as they enter the language model, a token answers to the cell whose code its response
correlates with most, over the copies. A claim holds where more than half of the tokens answer to just the cell that is
claimed for them, of all cells; at random one token does, and of a transposed grid those of the diagonal. Vision parts
that look at the whole picture do not disturb this much, as what a token hears of other cells is less than of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from hones.errors import HonesError
from hones.models.capture import before
from hones.models.layout_forms import candidates, picture_token
from hones.models.view import Box, View, cells_of
from hones.models.vlm import VLM

AGREEING = 0.5
CERTAIN = 0.9  # then other forms need not be tried
FEWEST = 4  # of fewer tokens a layout agrees by chance
COPIES = 96  # at most; so many cells or fewer are changed one in a copy
CHANGES = 6  # of each cell, where several are changed in a copy
AT_ONCE = 8  # copies
PROMPT = "What?"


class NoLayout(HonesError):
    """It is not known where in the picture its tokens stand."""


class _Entered(Exception):
    """What enters the first layer is known; the rest of the pass is not needed."""


@dataclass(frozen=True)
class Layout:
    """The places of a picture, rows by columns, and which of its tokens stand at each.

    views: one, or a view of the whole picture and its tiles; the places are the cells of the coarsest, and a token of
        another view belongs to the place that holds its centre.
    positions: of the picture's tokens in the prompt, first to last.
    agreeing: the share of its tokens that answer to their place, the smallest over the views.
    """

    views: tuple[View, ...]
    positions: Int[np.ndarray, " tokens"]
    agreeing: float

    @property
    def places(self) -> View:
        """The view whose cells are the places."""
        return min(self.views, key=lambda view: view.tokens.size)

    @property
    def box(self) -> Box:
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

    def __str__(self) -> str:
        return " and ".join(f"{rows} x {columns}" for rows, columns in (view.tokens.shape for view in self.views))

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
            f"{vlm.name}: picture tokens in its prompt: {len(positions)}",
            expected=f"{FEWEST} or more, each for a patch of the picture",
        )
    probe = _Probe(vlm, picture)
    found: list[Layout] = []
    for views in candidates(vlm, probe.inputs, positions, picture.size):
        found.append(Layout(views, positions, min(probe.agreement(view) for view in views)))
        if found[-1].agreeing >= CERTAIN:
            break
    best = max(found, key=lambda layout: layout.agreeing, default=None)
    if best is not None and best.agreeing > AGREEING:
        return best
    tried = ", ".join(f"{layout}: {layout.agreeing:.0%}" for layout in found)
    raise NoLayout(
        f"{vlm.name}: it is not known where in the picture its {len(positions)} tokens stand",
        expected=f"more than {AGREEING:.0%} that answer to their place in a known layout "
        f"({f'found {tried}' if tried else 'none has so many tokens'})",
    )


class _Probe:
    """A picture, copies of it in which cells are changed, and what the model makes of them."""

    def __init__(self, vlm: VLM, picture: Image.Image) -> None:
        self.vlm = vlm
        self.plain = np.asarray(picture.convert("RGB"))
        self.changed = (self.plain.astype(np.int16) + 128).astype(np.uint8)  # modulo 256: by half of the range
        self.inputs = vlm.encode([picture], [PROMPT]).inputs
        self.tokens = (self.inputs["input_ids"][0] == picture_token(vlm)).nonzero()[:, 0]
        self.of_plain = self.embeddings([self.plain])

    def agreement(self, view: View) -> float:
        """The share of the view's tokens that answer to their own cell, of those whose cell is in the picture."""
        cells = np.flatnonzero(view.in_picture())
        code = np.zeros((min(COPIES, len(cells)), view.tokens.size), dtype=bool)
        code[:, cells] = codes(len(code), len(cells))
        number = self.cell_numbers(view)
        response = np.concatenate([self.response(part, number) for part in _parts(code)])
        best = _most_correlated(response[:, view.tokens.ravel()[cells]], code[:, cells])
        return float((best == np.arange(len(cells))).mean())

    def response(
        self, code: Bool[np.ndarray, "copies cells"], number: Int[np.ndarray, "height width"]
    ) -> Float[np.ndarray, "copies tokens"]:
        """How far every token moves when some cells are changed; number: of each pixel's cell, -1 outside."""
        changed = code[:, number] & (number >= 0)
        embeddings = self.embeddings([np.where(x[..., None], self.changed, self.plain) for x in changed])
        return (embeddings - self.of_plain).norm(dim=-1).cpu().numpy()

    def cell_numbers(self, view: View) -> Int[np.ndarray, "height width"]:
        """The number of the cell that each pixel lies in, row by row; -1 outside of the view."""
        height, width = self.plain.shape[:2]
        left, top, right, bottom = view.box
        rows, columns = view.tokens.shape
        row = cells_of(height, top, bottom, rows)
        column = cells_of(width, left, right, columns)
        return np.where((row >= 0)[:, None] & (column >= 0), row[:, None] * columns + column, -1)

    @torch.no_grad()
    def embeddings(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "pictures tokens d"]:
        """The pictures' tokens as they enter the first layer of the language model."""
        found: list[Tensor] = []

        def see(x: Tensor) -> None:
            found.append(x[:, self.tokens.to(x.device)].float())
            raise _Entered

        encoded = self.vlm.encode([Image.fromarray(pixels) for pixels in pictures], [PROMPT] * len(pictures))
        with before(self.vlm.anatomy.layers[0].block, see):
            try:
                self.vlm.logits(encoded, keep=1)
            except _Entered:
                return found[0]
        raise HonesError(f"{self.vlm.name}: its first layer does not run", expected="a pass through all layers")


def codes(copies: int, cells: int) -> Bool[np.ndarray, "copies cells"]:
    """Which cells are changed in which copies, each about equally often: dealt from one shuffled deck after another."""
    rng = np.random.default_rng(0)
    dealt = 1 if copies >= cells else -(-CHANGES * cells // copies)
    decks = np.concatenate([rng.permutation(cells) for _ in range(-(-copies * dealt // cells))])
    found = np.zeros((copies, cells), dtype=bool)
    for copy in range(copies):
        found[copy, decks[copy * dealt : (copy + 1) * dealt]] = True
    return found


def _parts(code: np.ndarray) -> list[np.ndarray]:
    return [code[start : start + AT_ONCE] for start in range(0, len(code), AT_ONCE)]


def _most_correlated(
    response: Float[np.ndarray, "copies tokens"], code: Bool[np.ndarray, "copies cells"]
) -> Int[np.ndarray, " tokens"]:
    """The cell whose code each token's response correlates with most."""
    centred = response - response.mean(0)  # its scale is the same for all cells
    of_cell = code - code.mean(0)
    of_cell = of_cell / np.maximum(np.linalg.norm(of_cell, axis=0), 1e-12)
    parts = [centred[:, start : start + 1024] for start in range(0, centred.shape[1], 1024)]
    return np.concatenate([(part.T @ of_cell).argmax(1) for part in parts])
