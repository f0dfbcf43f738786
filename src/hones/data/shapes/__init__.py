"""Built-in pictures: generated scenes of coloured shapes and a text label, annotated for all four tasks.

Two sources say the same things in other looks: `shapes`, and `signs` with other fonts, tones, backgrounds and layout,
for tests out of domain. Everything follows from a seed. The label is drawn without a box: the ocr task draws the blue
box from the annotation, as it does on photographs.
"""

from hones.data.shapes.files import SOURCES, annotate, corpus, write_shapes
from hones.data.shapes.language import (
    Statement,
    caption,
    captions,
    describe,
    false_statement,
    holds,
    perturb,
    questions,
    related,
)
from hones.data.shapes.scene import CHARACTERS, COLOURS, SHAPES, SIZE, Content, Scene, Text, Thing, draw, make_scene
from hones.data.shapes.signs import Sign, draw_sign, make_sign

__all__ = [
    "CHARACTERS",
    "COLOURS",
    "SHAPES",
    "SIZE",
    "SOURCES",
    "Content",
    "Scene",
    "Sign",
    "Statement",
    "Text",
    "Thing",
    "annotate",
    "caption",
    "captions",
    "corpus",
    "describe",
    "draw",
    "draw_sign",
    "false_statement",
    "holds",
    "make_scene",
    "make_sign",
    "perturb",
    "questions",
    "related",
    "write_shapes",
]
