"""Built-in pictures: generated scenes of coloured shapes and a text label, annotated for all four tasks.

Everything follows from a seed. The label is drawn without a box: the ocr task draws the blue box from the annotation,
as it does on photographs.
"""

from hones.data.shapes.files import annotate, corpus, write_shapes
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
from hones.data.shapes.scene import CHARACTERS, COLOURS, SHAPES, SIZE, Scene, Text, Thing, draw, make_scene

__all__ = [
    "CHARACTERS",
    "COLOURS",
    "SHAPES",
    "SIZE",
    "Scene",
    "Statement",
    "Text",
    "Thing",
    "annotate",
    "caption",
    "captions",
    "corpus",
    "describe",
    "draw",
    "false_statement",
    "holds",
    "make_scene",
    "perturb",
    "questions",
    "related",
    "write_shapes",
]
