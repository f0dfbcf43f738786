"""The pictures that smol-llava is trained on, as pixels and with what is known of them."""

import random
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from torch import Tensor

from hones.data.pictures import draw_box
from hones.data.shapes.scene import SIZE, Content, Text, draw, make_scene
from hones.data.shapes.signs import Sign, draw_sign, make_sign

from .photographs import SIDE, Photograph, Word

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
)
CELL = 12  # the side of the tower's patches, in pixels
TALLEST, LOWEST = 36, 12  # of a pasted word, in pixels
MARGIN = 3
SIGN_SHARE = 0.2


@dataclass(frozen=True)
class Lettering:
    """The text inside the blue box: the text, its box [x, y, width, height] and each character's (character, x, y)."""

    text: str
    box: tuple[int, int, int, int]
    middles: tuple[tuple[str, float, float], ...]


def lettering_of(text: Text) -> Lettering:
    """Of a text that a scene draws."""
    middles = tuple((c, (left + right) / 2, (top + bottom) / 2) for c, left, top, right, bottom in text.glyphs())
    x, y, width, height = text.box
    return Lettering(text.string, (x, y, width, height), middles)


@dataclass(frozen=True)
class Drawing:
    """A scene or sign, its picture, the rows of cells of its objects and the text in the blue box, if one is drawn."""

    scene: Content
    picture: Image.Image
    rows: tuple[int, ...]
    lettering: Lettering | None


def make_drawing(seed: str, boxed: bool, signs: float = SIGN_SHARE) -> Drawing:
    """A built-in picture; one in five is a sign, of the second source."""
    if random.Random(f"source/{seed}").random() < signs:
        scene: Content = make_sign(seed)
        assert isinstance(scene, Sign)
        picture = draw_sign(scene)
        middles = (16.5, 49.5)
        down = 30 if scene.strip_above else 0
    else:
        scene = make_scene(seed)
        picture = draw(scene)
        middles, down = (17.0, 49.0), 0
    rows = tuple(int((middles[thing.row] + down) // (SIZE / 8)) for thing in scene.things)
    lettering = lettering_of(scene.label) if boxed else None
    return Drawing(scene, with_box(picture, lettering) if lettering else picture, rows, lettering)


def cropped(photograph: Photograph, rng: random.Random | None) -> Image.Image:
    """A photograph at the tower's size; with `rng` a part of it in other light, half of the time mirrored."""
    picture = Image.fromarray(photograph.pixels)
    if rng is None:
        return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    edge = rng.uniform(0.78, 1.0) * SIDE
    left, top = rng.uniform(0, SIDE - edge), rng.uniform(0, SIDE - edge)
    part = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
    for property_ in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        part = property_(part).enhance(rng.uniform(0.7, 1.3))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


@dataclass(frozen=True)
class Inscription:
    """A picture of a word, the word, and the middle of each character as a share of the picture's width."""

    picture: Image.Image
    text: str
    middles: tuple[float, ...]


def photographed(word: Word) -> Inscription:
    """A photographed word, of which it is not known where its characters are: as if each were as wide."""
    step = 1 / len(word.text)
    return Inscription(word.picture, word.text, tuple((n + 0.5) * step for n in range(len(word.text))))


def with_word(picture: Image.Image, word: Inscription, rng: random.Random) -> tuple[Image.Image, Lettering]:
    """A picture of the tower's size with a word pasted into it, and where; the box is not drawn.

    As wide as its number of characters asks for, as high as fits, and where the tower's patches are: from a cell's edge
    on, the middle of its height in a cell's. So each of up to seven characters has about a cell of its own. That is
    easier than a word anywhere, in training and in what is measured.
    """
    text = word.text
    room = SIZE - 2 * MARGIN
    scale = min(room, CELL * len(text)) / word.picture.width
    scale = min(scale, TALLEST / word.picture.height)
    scale = max(scale, min(LOWEST / word.picture.height, room / word.picture.width))
    width, height = max(4, round(word.picture.width * scale)), max(4, round(word.picture.height * scale))
    x = max(MARGIN, CELL * rng.randint(0, (SIZE - MARGIN - width) // CELL))
    rows = [CELL * n + (CELL - height) // 2 for n in range(SIZE // CELL)]
    y = rng.choice([y for y in rows if MARGIN <= y <= SIZE - MARGIN - height] or [(SIZE - height) // 2])
    pasted = picture.copy()
    pasted.paste(word.picture.resize((width, height), Image.Resampling.BICUBIC), (x, y))
    box = (x - 1, y - 1, width + 1, height + 1)
    found = zip(text, word.middles, strict=True)
    middles = tuple((c, x + share * width, y + height / 2) for c, share in found if not c.isspace())
    return pasted, Lettering(text, box, middles)


def with_box(picture: Image.Image, lettering: Lettering) -> Image.Image:
    """The picture with the text's box in blue, as the product draws it."""
    return draw_box(picture, lettering.box)


def written(text: str, rng: random.Random) -> Inscription:
    """A word written in a font, in ink that differs from its ground."""
    font = _font(rng.choice(FONTS), rng.randint(22, 34))
    left, top, right, bottom = font.getbbox(text)
    ground, ink = rng.randint(0, 255), 0
    while abs(ground - (ink := rng.randint(0, 255))) < 80:
        pass

    def colour(grey: int) -> tuple[int, ...]:
        return tuple(max(0, min(255, grey + rng.randint(-40, 40))) for _ in range(3))

    pad = rng.randint(1, 4)
    size = (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad)
    picture = Image.new("RGB", size, colour(ground))
    ImageDraw.Draw(picture).text((pad - left, pad - top), text, fill=colour(ink), font=font)
    ends = [pad - left + font.getlength(text[:n]) for n in range(len(text) + 1)]
    middles = tuple((start + end) / 2 / size[0] for start, end in pairwise(ends))
    return Inscription(picture, text, middles)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def make_text(words: list[Word], rng: random.Random, share: float) -> Inscription:
    """A word to paste: a share of them photographed, the others written: one of `words` in any case, or characters."""
    word = rng.choice(words)
    if rng.random() < share:
        return photographed(word)
    text = word.text
    if rng.random() < 0.3:
        text = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(rng.randint(2, 6)))
    elif rng.random() < 0.5:
        text = rng.choice((text.upper(), text.lower(), text.capitalize()))
    return written(text, rng)


def pixels(pictures: list[Image.Image], processor: object) -> Tensor:
    """[B, 3, 96, 96], scaled and centred as the model's own image processor does with pictures of that size."""
    bytes_ = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / 255
    mean, deviation = (np.array(getattr(processor, name), dtype=np.float32) for name in ("image_mean", "image_std"))
    return torch.from_numpy((bytes_ - mean) / deviation).permute(0, 3, 1, 2).contiguous()
