"""Signs: a second source for the built-in models. The same objects and words as `scene`, in another look.

The label stands in a strip, in every other picture above the objects, in serif, monospaced or Times-like letters of
coloured ink; backgrounds are tinted, shaded from one side to the other, striped or dotted; every colour has two other
tones that keep its name; the objects vary more in size. No tiny model was trained on them;
`smol-llava` was, on one picture in five.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hones.data.shapes.scene import DISTRACTORS, SHAPES, SIZE, Content, Thing, draw_texts, draw_thing, place_texts
from hones.errors import HonesError

Colour = tuple[int, int, int]

TONES: dict[str, tuple[Colour, Colour]] = {
    "red": ((176, 20, 44), (236, 66, 58)),
    "orange": ((222, 112, 12), (255, 150, 70)),
    "yellow": ((250, 228, 92), (222, 190, 20)),
    "green": ((20, 112, 52), (92, 182, 70)),
    "blue": ((28, 60, 150), (70, 130, 230)),
    "purple": ((104, 36, 134), (170, 90, 200)),
    "black": ((10, 10, 14), (52, 50, 54)),
}
FONTS = (
    ("DejaVuSerif.ttf", 19),
    ("DejaVuSansMono.ttf", 25),
    ("DejaVuSansMono-Bold.ttf", 25),
    ("STIXGeneral.ttf", 24),
)
TINTS = ((250, 236, 214), (222, 238, 250), (228, 246, 226), (248, 228, 236), (236, 232, 248), (244, 244, 220))
INKS = ((20, 20, 24), (24, 38, 96), (96, 22, 26), (16, 70, 44))
PATTERNS = ("plain", "shaded", "stripes", "dots")

_STRIP = 30
_ROWS, _COLUMNS = 2, 3
_WIDTH, _HEIGHT = SIZE / _COLUMNS, (SIZE - _STRIP) / _ROWS
_DARKER = 18
_SPACING = 8


@dataclass(frozen=True)
class Sign(Content):
    """Everything of a picture of the second source.

    strip_above: the label stands above the things. tones: of the things. font: its file and size in pixels.
    """

    strip_above: bool
    tones: tuple[Colour, ...]
    background: Colour
    pattern: str
    strip: Colour
    ink: Colour
    font: tuple[str, int]

    @property
    def place(self) -> str:
        """Where the things are, seen from the label."""
        return "below" if self.strip_above else "above"


def make_sign(seed: int | str) -> Sign:
    """The sign of one seed."""
    rng = random.Random(f"signs/{seed}")
    cells = sorted(rng.sample([(r, c) for r in range(_ROWS) for c in range(_COLUMNS)], rng.choice((1, 2, 2, 3, 3))))
    strip_above = rng.random() < 0.5
    top = _STRIP if strip_above else 0
    things: list[Thing] = []
    tones: list[Colour] = []
    for row, column in cells:
        colour = rng.choice(list(TONES))
        radius = rng.uniform(8.0, 14.0)
        slack = min(_WIDTH, _HEIGHT) / 2 - radius - 1
        x = (column + 0.5) * _WIDTH + rng.uniform(-slack, slack)
        y = top + (row + 0.5) * _HEIGHT + 0.5 + rng.uniform(-slack, slack)
        things.append(Thing(colour, rng.choice(SHAPES), row, column, x, y, radius))
        tones.append(rng.choice(TONES[colour]))
    label, distractor = place_texts(rng, (0 if strip_above else SIZE - _STRIP) + rng.randint(2, 5))
    background, strip = rng.sample(TINTS, 2)
    return Sign(
        seed=f"signs/{seed}",
        things=tuple(things),
        label=label,
        distractor=distractor,
        strip_above=strip_above,
        tones=tuple(tones),
        background=background,
        pattern=rng.choice(PATTERNS),
        strip=strip,
        ink=rng.choice(INKS),
        font=rng.choice(FONTS),
        distractor_colour=rng.choice(DISTRACTORS),
    )


def draw_sign(sign: Sign) -> Image.Image:
    """The picture of a sign, 96 x 96 RGB. Objects are drawn at double size and averaged down.

    Raises:
        HonesError: matplotlib, which brings the fonts, lacks one.
    """
    canvas = _background(sign)
    for thing, tone in zip(sign.things, sign.tones, strict=True):
        mask = Image.new("L", canvas.size)
        draw_thing(ImageDraw.Draw(mask), thing, (255,), background=(0,))
        canvas.paste(tone, mask=mask)
    picture = canvas.reduce(2)
    pen = ImageDraw.Draw(picture)
    top = 0 if sign.strip_above else SIZE - _STRIP
    pen.rectangle((0, top, SIZE, top + _STRIP - 1), fill=sign.strip)
    draw_texts(pen, sign, sign.ink, _font(*sign.font))
    return picture


def _background(sign: Sign) -> Image.Image:
    """The tint, and its pattern in a little darker, at double size."""
    size = 2 * SIZE
    dark = tuple(c - _DARKER for c in sign.background)
    canvas = Image.new("RGB", (size, size), sign.background)
    pen = ImageDraw.Draw(canvas)
    match sign.pattern:
        case "shaded":
            for x in range(size):
                shade = tuple(round(c - 2 * _DARKER * x / size) for c in sign.background)
                pen.line((x, 0, x, size), fill=shade)
        case "stripes":
            for x in range(-size, size, 2 * _SPACING):
                pen.line((x, 0, x + size, size), fill=dark, width=3)
        case "dots":
            for x in range(_SPACING, size, 2 * _SPACING):
                for y in range(_SPACING, size, 2 * _SPACING):
                    pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=dark)
        case _:
            assert sign.pattern == "plain"
    return canvas


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / file
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise HonesError(
            f"no font {path}", expected="the fonts that matplotlib brings", do="install it again"
        ) from error
