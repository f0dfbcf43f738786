"""The unified format: one picture with its annotations for up to four tasks.

A file is `{"data": [item, ...]}`. An item has `image_info` {file_name, height, width} and, for each task it serves,
`vqa` {question, answer, all_answers}, `captions` [{caption}], `ocr` {text, bbox = [x, y, width, height]} (without a
box: {text, question, all_texts}, or {text, whole_picture: true}, a picture of one word) or `retrieval` {negatives}.
Where several items ask about one picture, `item_id` tells them apart. An item of text alone, for custom tasks, has an
`item_id` and neither `image_id` nor `image_info`. Unknown fields are kept: published files carry many, and custom tasks
read them.

bbox is in pixels of the picture as it is stored, before any EXIF rotation (`hones.data.pictures`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hones.data.sources import is_address, is_picture_in_base64
from hones.errors import BadItem, first_invalid, shortened

OUTSIDE = "picture outside the folder"
UNREADABLE = "row that cannot be read"
DUPLICATE = "duplicate id"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class ImageInfo(_Record):
    """file_name: relative to the picture folder, which it may not leave. height, width: pixels as stored."""

    file_name: str = Field(min_length=1)
    height: int | None = Field(default=None, gt=0)
    width: int | None = Field(default=None, gt=0)

    @field_validator("file_name")
    @classmethod
    def _inside(cls, name: str) -> str:
        if is_picture_in_base64(name):
            raise ValueError("is a picture itself, in base64: write it to a file, and the file's name here")
        if is_address(name):
            raise ValueError(f"{shortened(name)!r} is an address: download the picture, and write its file's name here")
        if name.startswith("/") or any(mark in name for mark in ("..", "\\", ":")):  # else no path leads anywhere
            for path in (PurePosixPath(name), PureWindowsPath(name)):
                if path.anchor or ".." in path.parts:
                    raise ValueError(f"{name!r} leaves the picture folder")
        if not name.isprintable():
            raise ValueError(f"{name!r} is no file name")
        return name


class VqaFields(_Record):
    question: str
    answer: str
    all_answers: list[str] = []


class Caption(_Record):
    caption: str


class OcrFields(_Record):
    """A text in a box; or, where there is no box, the answer to a question about it (TextVQA).

    whole_picture: it is a picture of one word; its box, if none is given, is the whole picture.
    """

    text: str
    bbox: tuple[float, float, float, float] | None = None
    question: str | None = None
    all_texts: list[str] = []
    whole_picture: bool = False

    @property
    def unboxed(self) -> bool:
        """Whether it is a picture of one word whose size is not known yet."""
        return self.whole_picture and self.bbox is None

    @model_validator(mode="after")
    def _asks_something(self) -> "OcrFields":
        if self.bbox is None and self.question is None and not self.whole_picture:
            raise ValueError("neither bbox nor question")
        return self


class RetrievalFields(_Record):
    negatives: list[str]


class Item(_Record):
    """One picture with its annotations for up to four tasks; or, with item_id alone, an item of text."""

    image_id: int | str | None = None
    item_id: int | str | None = None
    image_info: ImageInfo | None = None
    vqa: VqaFields | None = None
    captions: list[Caption] = []
    ocr: OcrFields | None = None
    retrieval: RetrievalFields | None = None

    @field_validator("retrieval", mode="before")
    @classmethod
    def _without_published_list(cls, value: Any) -> Any:
        """The published sample repeats a picture's own captions here as a list: there are no negatives in it."""
        return None if isinstance(value, list) else value

    @model_validator(mode="after")
    def _has_a_name(self) -> "Item":
        if (self.image_id is None) is not (self.image_info is None):
            raise ValueError(f"{'image_info' if self.image_info is None else 'image_id'}: missing beside the other")
        if self.image_id is None and self.item_id is None:
            raise ValueError("it has neither image_id and image_info nor, as text alone, item_id")
        return self

    @property
    def file_name(self) -> str | None:
        """The picture's file in the picture folder; None for an item of text alone."""
        return None if self.image_info is None else self.image_info.file_name

    @property
    def picture(self) -> str:
        """What the items about one picture have in common; of an item of text, its id."""
        return str(self.item_id if self.image_id is None else self.image_id)

    @property
    def id(self) -> str:
        return str(self.image_id if self.item_id is None else self.item_id)


@dataclass(frozen=True)
class LeftOut:
    """An item that was not used, and why. kind: the reason without what is particular to this item."""

    id: str
    reason: str
    kind: str = ""

    @classmethod
    def of(cls, name: str, error: BadItem) -> "LeftOut":
        """The item of that name that a task or a picture refused."""
        return cls(name, str(error), error.kind)


Row = dict[str, Any] | LeftOut  # what readers give


def parse_rows(rows: Iterable[Any]) -> list[Item | LeftOut]:
    """Every row as an item, or with the reason why it is none, in order."""
    parsed: list[Item | LeftOut] = []
    seen: set[str] = set()
    for position, row in enumerate(rows):
        if isinstance(row, LeftOut):
            parsed.append(row)
            continue
        try:
            item = Item.model_validate(row)
        except ValidationError as error:
            invalid = first_invalid(error)
            kind = OUTSIDE if invalid.problem.endswith("leaves the picture folder") else UNREADABLE
            names = (row[key] for key in ("item_id", "image_id") if key in row) if isinstance(row, dict) else ()
            name = next(iter(names), None)
            called = f"#{position}" if name is None else shortened(str(name))
            parsed.append(LeftOut(called, str(invalid), kind))
            continue
        key = "image_id" if item.item_id is None else "item_id"
        parsed.append(LeftOut(item.id, f"duplicate {key}", DUPLICATE) if item.id in seen else item)
        seen.add(item.id)
    return parsed
