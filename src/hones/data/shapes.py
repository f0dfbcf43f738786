"""Built-in pictures: scenes of coloured shapes above a short text label, annotated for all four tasks.

A scene holds one to three objects (six shapes, seven colours) in a grid of two rows and three columns above a strip
with a label of two to four characters; one picture in five carries a second, boxed text that must *not* be read.
Everything follows from a seed through `random.Random`, so the same seed gives the same picture and annotations.
Pictures are 96 x 96 RGB; boxes are [x, y, width, height] in pixels. The label is drawn without a box: the ocr task
draws the blue box from the annotation, as it does on photographs.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_ROWS, _COLUMNS = 2, 3
_CELL = SIZE // _COLUMNS
_STRIP_TOP = 66
_ADVANCE, _FONT_SIZE = 19, 24
_RETRIEVAL_NEGATIVES, _HARD_NEGATIVES = 49, 12  # the hard ones drawn with repetition


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
class Scene:
    """Everything that is in a picture. `things` are in reading order; the label of three in ten is faint (`ink`)."""

    seed: str
    things: tuple[Thing, ...]
    label: Text
    distractor: Text | None
    background: int
    strip: int
    tints: tuple[tuple[int, int, int], ...]
    distractor_colour: tuple[int, int, int]
    ink: int


@dataclass(frozen=True)
class Statement:
    """What a caption claims: some objects (colour, shape) and perhaps a relation between the first two."""

    things: tuple[tuple[str, str], ...]
    relation: str | None = None


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
    label, distractor = _place_texts(rng)
    tints = tuple(tuple(rng.randint(-14, 14) for _ in range(3)) for _ in things)
    background, strip = rng.randint(214, 252), rng.randint(196, 252)
    distractor_colour = rng.choice(((200, 40, 40), (30, 140, 60), (150, 60, 170), (230, 140, 30)))
    ink = strip - rng.randint(6, 40) if rng.random() < 0.3 else 20
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


def _place_texts(rng: random.Random) -> tuple[Text, Text | None]:
    def string(length: int) -> str:
        return "".join(rng.choice(CHARACTERS) for _ in range(length))

    y = _STRIP_TOP + rng.randint(1, 5)
    if rng.random() < 0.2:
        left, right = Text(string(2), rng.randint(3, 6), y), Text(string(2), rng.randint(51, 54), y)
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
        _draw_thing(pen, thing, colour, background=(scene.background,) * 3)
    picture = canvas.reduce(2)
    pen = ImageDraw.Draw(picture)
    _draw_text(pen, scene.label, scene.ink)
    if scene.distractor is not None:
        _draw_text(pen, scene.distractor, scene.ink)
        x, y, width, height = scene.distractor.box
        pen.rectangle((x, y, x + width, y + height), outline=scene.distractor_colour)
    return picture


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, colour: tuple[int, ...], background: tuple[int, ...]) -> None:
    x, y, r = 2 * thing.x, 2 * thing.y, 2 * thing.radius

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


def _draw_text(pen: ImageDraw.ImageDraw, text: Text, ink: int) -> None:
    for character, left, top, right, bottom in text.glyphs():
        centre = ((left + right) / 2, (top + bottom) / 2)
        pen.text(centre, character, fill=(ink,) * 3, font=_font(), anchor="mm")


# --- what can be said of a scene -------------------------------------------------------------------------------------


def holds(statement: Statement, scene: Scene) -> bool:
    """Whether the statement is true of the scene: distinct objects of those looks exist, in that relation."""

    def match(chosen: tuple[Thing, ...]) -> bool:
        if len(chosen) == len(statement.things):
            return statement.relation is None or related(chosen[0], statement.relation, chosen[1])
        colour, shape = statement.things[len(chosen)]
        rest = (t for t in scene.things if t not in chosen and (t.colour, t.shape) == (colour, shape))
        return any(match((*chosen, thing)) for thing in rest)

    return match(())


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether a is `relation` b, by grid cells: "left of" compares columns, "above" compares rows."""
    return {
        "left of": a.column < b.column,
        "right of": a.column > b.column,
        "above": a.row < b.row,
        "below": a.row > b.row,
    }[relation]


def describe(scene: Scene, rng: random.Random) -> Statement:
    """A true statement that names every object; two objects are put in relation."""
    things = tuple((t.colour, t.shape) for t in scene.things)
    if len(things) != 2:
        return Statement(things)
    true = [r for r in RELATIONS if related(scene.things[0], r, scene.things[1])]
    return Statement(things, rng.choice(true))


def captions(statement: Statement) -> list[str]:
    """Five paraphrases of a statement; the first two carry the relation if there is one."""
    names = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}" for colour, shape in statement.things]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    first = f"{names[0]} {statement.relation} {names[1]}" if statement.relation else listed
    return [
        f"{first}",
        f"the image shows {first}",
        f"a picture of {listed}",
        f"there is {listed}",
        f"{listed} above a sign",
    ]


def caption(statement: Statement, rng: random.Random) -> str:
    """One paraphrase; the plain one half of the time."""
    return captions(statement)[rng.choice((0, 0, 0, 0, 1, 2, 3, 4))]


def perturb(statement: Statement, rng: random.Random) -> Statement:
    """Change one attribute, a binding or the relation. The result may by chance still be true: check with `holds`."""
    things = [list(t) for t in statement.things]
    kinds = (
        ["colour", "shape"]
        + (["binding"] if len(things) > 1 else [])
        + (["relation"] * 2 if statement.relation else [])
    )
    kind, i = rng.choice(kinds), rng.randrange(len(things))
    relation = statement.relation
    if kind == "colour":
        things[i][0] = rng.choice([c for c in COLOURS if c != things[i][0]])
    elif kind == "shape":
        things[i][1] = rng.choice([s for s in SHAPES if s != things[i][1]])
    elif kind == "binding":
        j = rng.choice([j for j in range(len(things)) if j != i])
        things[i][0], things[j][0] = things[j][0], things[i][0]
    elif relation is not None:
        relation = RELATIONS[relation]
    return Statement(tuple((c, s) for c, s in things), relation)


def false_statement(scene: Scene, rng: random.Random, *, hard: bool) -> Statement:
    """A statement that is false of the scene: a perturbed description (hard) or the description of another scene."""
    while True:
        if hard:
            statement = perturb(describe(scene, rng), rng)
        else:
            statement = describe(make_scene(f"other/{rng.getrandbits(48)}"), rng)
        if not holds(statement, scene):
            return statement


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str, str]]:
    """One (kind, question, answer) for each kind that the scene allows: its answer is unambiguous."""
    things, made = scene.things, []
    shapes = [t for t in things if sum(o.shape == t.shape for o in things) == 1]
    colours = [t for t in things if sum(o.colour == t.colour for o in things) == 1]
    if shapes:
        thing = rng.choice(shapes)
        made.append(("colour", f"What colour is the {thing.shape}?", thing.colour))
    if colours:
        thing = rng.choice(colours)
        made.append(("shape", f"What shape is the {thing.colour} object?", thing.shape))
    if rng.random() < 0.5:
        made.append(("count", "How many objects are there?", str(len(things))))
    else:
        colour = rng.choice([t.colour for t in things] + [rng.choice(list(COLOURS))])
        made.append(("count", f"How many {colour} objects are there?", str(sum(t.colour == colour for t in things))))
    if rng.random() < 0.5:
        made.append(("existence", f"Is there a {rng.choice(things).name}?", "yes"))
    else:
        (colour, shape) = false_statement(scene, rng, hard=rng.random() < 0.7).things[0]
        present = any((t.colour, t.shape) == (colour, shape) for t in things)
        made.append(("existence", f"Is there a {colour} {shape}?", "yes" if present else "no"))
    relations = [
        (a, relation, b)
        for b in shapes
        for relation in RELATIONS
        for a in things
        if a is not b and related(a, relation, b) and sum(related(o, relation, b) for o in things if o is not b) == 1
    ]
    if relations:
        a, relation, b = rng.choice(relations)
        made.append(("relation", f"Which shape is {relation} the {b.shape}?", a.shape))
    return made


# --- items and files -------------------------------------------------------------------------------------------------


def annotate(scene: Scene, image_id: int, file_name: str) -> dict[str, Any]:
    """The scene's item in the unified format, with 49 retrieval negatives that are verified to be false."""
    rng = random.Random(f"annotate/{scene.seed}")
    kind, question, answer = rng.choice(questions(scene, rng))
    description = describe(scene, rng)
    references = captions(description)
    negatives: dict[str, None] = {}
    for _ in range(_HARD_NEGATIVES):
        negatives[captions(false_statement(scene, rng, hard=True))[0]] = None
    while len(negatives) < _RETRIEVAL_NEGATIVES:
        negatives[captions(false_statement(scene, rng, hard=False))[0]] = None
    return {
        "image_id": image_id,
        "image_info": {"file_name": file_name, "height": SIZE, "width": SIZE},
        "vqa": {"question": question, "answer": answer, "all_answers": [answer], "question_type": kind},
        "captions": [{"caption_id": 5 * image_id + i, "caption": text} for i, text in enumerate(references)],
        "ocr": {"text": scene.label.string, "bbox": scene.label.box},
        "retrieval": {"negatives": list(negatives)},
    }


def write_shapes(folder: Path, splits: dict[str, int], seed: int = 0) -> dict[str, Path]:
    """Write pictures and one unified annotation file per split; returns the files by split name.

    Splits are picture-disjoint: every picture has a seed of its own.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files, image_id = {}, 0
    for split, size in splits.items():
        items = []
        for i in range(size):
            image_id += 1
            scene = make_scene(f"{seed}/{split}/{i}")
            name = f"{split}_{i:05d}.png"
            draw(scene).save(folder / "images" / name)
            items.append(annotate(scene, image_id, name))
        files[split] = folder / f"{split}.json"
        files[split].write_text(json.dumps({"data": items}, indent=1))
    return files


def corpus(scenes: Iterable[Scene]) -> list[str]:
    """Every sentence that the generator says about some scenes: what a tokenizer is trained on."""
    sentences = []
    for scene in scenes:
        rng = random.Random(f"corpus/{scene.seed}")
        sentences += captions(describe(scene, rng))
        for _, question, answer in questions(scene, rng):
            sentences += [question, answer]
    return sentences
