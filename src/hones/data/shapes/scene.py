"""Scenes and their pictures: one to three coloured shapes above a short text label.

Six shapes in seven colours stand in a grid of two rows and three columns above a strip with a label of two to four
characters; one picture in five carries a second, boxed text that must *not* be read. The same seed gives the same scene
through `random.Random`. Pictures are 96 x 96 RGB; boxes are [x, y, width, height] in pixels.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 96
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (212, 32, 36),
    "orange": (244, 138, 28),
    "yellow": (240, 214, 40),
    "green": (36, 150, 64),
    "blue": (38, 82, 204),
    "purple": (138, 52, 166),
    "black": (28, 28, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
DISTRACTORS = ((200, 40, 40), (30, 140, 60), (150, 60, 170), (230, 140, 30))
CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"

_ROWS, _COLUMNS = 2, 3
_CELL = SIZE // _COLUMNS
_STRIP_TOP = 66
_ADVANCE, _FONT_SIZE = 19, 24


@dataclass(frozen=True)
class Thing:
    """One object: its look, its grid cell and its drawn circle (centre and radius in pixels)."""

    colour: str
    shape: str
    row: int
    column: int
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Text:
    """A drawn string and the top-left corner of its first character cell, in pixels."""

    string: str
    x: int
    y: int

    @property
    def box(self) -> list[int]:
        """[x, y, width, height] around the characters."""
        return [self.x - 1, self.y, _ADVANCE * len(self.string) + 1, _FONT_SIZE - 1]

    def glyphs(self) -> list[tuple[str, int, int, int, int]]:
        """One (character, left, top, right, bottom) per character."""
        return [
            (c, self.x + _ADVANCE * i, self.y, self.x + _ADVANCE * (i + 1), self.y + _FONT_SIZE - 1)
            for i, c in enumerate(self.string)
        ]


@dataclass(frozen=True)
class Content:
    """What is in a picture, however it looks. `things` are in reading order."""

    seed: str
    things: tuple[Thing, ...]
    label: Text
    distractor: Text | None
    distractor_colour: tuple[int, int, int]

    @property
    def place(self) -> str:
        """Where the things are, seen from the label."""
        return "above"


@dataclass(frozen=True)
class Scene(Content):
    """Everything of a picture of the first source; the label of one in four is faint (`ink`)."""

    background: int
    strip: int
    tints: tuple[tuple[int, int, int], ...]
    ink: int


def make_scene(seed: int | str) -> Scene:
    """The scene of one seed."""
    rng = random.Random(f"shapes/{seed}")
    cells = sorted(rng.sample([(r, c) for r in range(_ROWS) for c in range(_COLUMNS)], rng.choice((1, 2, 2, 3, 3))))
    things = []
    for row, column in cells:
        radius = rng.uniform(9.5, 13.5)
        slack = _CELL / 2 - radius - 1
        x = (column + 0.5) * _CELL + rng.uniform(-slack, slack)
        y = (row + 0.5) * _CELL + 1 + rng.uniform(-slack, slack)
        things.append(Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES), row, column, x, y, radius))
    label, distractor = place_texts(rng, _STRIP_TOP + rng.randint(1, 5))
    tints = tuple(tuple(rng.randint(-45, 45) for _ in range(3)) for _ in things)
    background = rng.randint(214, 252)
    strip = rng.randint(196, 252)
    distractor_colour = rng.choice(DISTRACTORS)
    ink = strip - rng.randint(8, 48) if rng.random() < 0.25 else 20
    return Scene(
        seed=str(seed),
        things=tuple(things),
        label=label,
        distractor=distractor,
        background=background,
        strip=strip,
        tints=tints,  # pyright: ignore[reportArgumentType]
        distractor_colour=distractor_colour,
        ink=ink,
    )


def place_texts(rng: random.Random, y: int) -> tuple[Text, Text | None]:
    """The label at height y, and one time in five a second text beside it."""

    def string(length: int) -> str:
        return "".join(rng.choice(CHARACTERS) for _ in range(length))

    if rng.random() < 0.2:
        left = Text(string(2), rng.randint(3, 6), y)
        right = Text(string(2), rng.randint(51, 54), y)
        return (left, right) if rng.random() < 0.5 else (right, left)
    length = rng.choice((2, 3, 3, 4))
    return Text(string(length), rng.randint(4, SIZE - 4 - _ADVANCE * length), y), None


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene, 96 x 96 RGB. Shapes are drawn at double size and averaged down."""
    canvas = Image.new("RGB", (2 * SIZE, 2 * SIZE), (scene.background,) * 3)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 2 * _STRIP_TOP, 2 * SIZE, 2 * SIZE), fill=(scene.strip,) * 3)
    for thing, tint in zip(scene.things, scene.tints, strict=True):
        colour = tuple(max(0, min(255, c + t)) for c, t in zip(COLOURS[thing.colour], tint, strict=True))
        draw_thing(pen, thing, colour, background=(scene.background,) * 3)
    picture = canvas.reduce(2)
    draw_texts(ImageDraw.Draw(picture), scene, (scene.ink, scene.ink, scene.ink), _font())
    return picture


def draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, colour: tuple[int, ...], background: tuple[int, ...]) -> None:
    """Draw one object at double size."""
    x = 2 * thing.x
    y = 2 * thing.y
    r = 2 * thing.radius

    def polygon(corners: int, start: float, radii: Sequence[float]) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * i / corners for i in range(corners)]
        return [
            (x + radii[i % len(radii)] * math.cos(a), y + radii[i % len(radii)] * math.sin(a))
            for i, a in enumerate(angles)
        ]

    match thing.shape:
        case "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        case "ring":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
            pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=background)
        case "square":
            side = 0.88 * r
            pen.rectangle((x - side, y - side, x + side, y + side), fill=colour)
        case "triangle":
            pen.polygon(polygon(3, -math.pi / 2, (1.1 * r,)), fill=colour)
        case "star":
            pen.polygon(polygon(10, -math.pi / 2, (1.1 * r, 0.45 * r)), fill=colour)
        case "cross":
            arm = 0.34 * r
            pen.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
            pen.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        case _:
            raise AssertionError(thing.shape)


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=_FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def draw_texts(
    pen: ImageDraw.ImageDraw, content: Content, ink: tuple[int, int, int], font: ImageFont.FreeTypeFont
) -> None:
    """Draw the label and, boxed, the text that is not to be read; each character in the middle of its cell."""
    for text in (content.label, content.distractor):
        for character, left, top, right, bottom in text.glyphs() if text is not None else ():
            pen.text(((left + right) / 2, (top + bottom) / 2), character, fill=ink, font=font, anchor="mm")
    if content.distractor is not None:
        x, y, width, height = content.distractor.box
        pen.rectangle((x, y, x + width, y + height), outline=content.distractor_colour)
