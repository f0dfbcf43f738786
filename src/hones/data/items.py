"""Items in the unified format, and which of them were left out.

A file is `{"data": [item, ...]}`. An item has `image_info` {file_name, height, width} and, for each task it serves,
`vqa` {question, answer, all_answers}, `captions` [{caption}], `ocr` {text, bbox = [x, y, width, height]} or `retrieval`
{negatives}. Unknown fields are kept: published files carry many, and custom tasks read them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hones.errors import HonesError

MAX_LEFT_OUT = 0.05


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class ImageInfo(_Record):
    file_name: str = Field(min_length=1)
    height: int | None = None
    width: int | None = None


class VqaFields(_Record):
    question: str
    answer: str
    all_answers: list[str] = []


class Caption(_Record):
    caption: str


class OcrFields(_Record):
    text: str
    bbox: tuple[float, float, float, float]


class RetrievalFields(_Record):
    negatives: list[str]


class Item(_Record):
    """One picture with its annotations for up to four tasks."""

    image_id: int | str
    image_info: ImageInfo
    vqa: VqaFields | None = None
    captions: list[Caption] = []
    ocr: OcrFields | None = None
    retrieval: RetrievalFields | None = None

    @field_validator("retrieval", mode="before")
    @classmethod
    def _without_published_list(cls, value: Any) -> Any:
        """The published sample repeats a picture's own captions here as a list: there are no negatives in it."""
        return None if isinstance(value, list) else value

    @property
    def id(self) -> str:
        return str(self.image_id)


@dataclass(frozen=True)
class LeftOut:
    """An item that was not used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Items:
    """The items of one file in file order, what could not be read, and the file's hash.

    `captions_of` holds the captions of the whole file, also of items that a limit leaves aside: retrieval takes its
    negatives from there, so that a limit does not change an item's candidates.
    """

    items: tuple[Item, ...]
    images: Path
    sha256: str
    left_out: tuple[LeftOut, ...] = ()
    captions_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.items)


def load_items(
    file: str | Path, *, images: str | Path | None = None, ids: Iterable[str] | None = None, limit: int | None = None
) -> Items:
    """Read a unified JSON file.

    Args:
        file: the annotation file.
        images: folder of the pictures; default: `images/` beside the file if it exists, else the file's folder.
        ids: keep these image ids only.
        limit: keep the first `limit` of them.

    Raises:
        HonesError: no such file, not JSON, not the unified format, nothing left, duplicate or unknown ids.
    """
    file, images = Path(file), None if images is None else Path(images)
    raw = _read(file)
    rows = _parse(raw, file)
    captions_of = {row.id: tuple(c.caption for c in row.captions) for row in rows if isinstance(row, Item)}
    if ids is not None:
        rows = _select(rows, list(ids), file)
    if limit is not None:
        rows = _first_items(rows, limit)
    items = [row for row in rows if isinstance(row, Item)]
    bad = [row for row in rows if isinstance(row, LeftOut)]
    if not items:
        raise HonesError(f"{file}: no usable item", expected="at least one", do=_first(bad))
    folder = images if images is not None else _default_images(file)
    if not folder.is_dir():
        raise HonesError(f"no picture folder {folder}", expected="an existing folder", do="pass it as --images")
    return Items(tuple(items), folder, hashlib.sha256(raw).hexdigest(), tuple(bad), captions_of, file)


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise HonesError(f"no file {file}", expected="a unified JSON annotation file", do="check --data")
    try:
        return file.read_bytes()
    except OSError as error:
        raise HonesError(f"cannot read {file} ({error.strerror})", do="check --data") from error


def _parse(raw: bytes, file: Path) -> list[Item | LeftOut]:
    """Every row of the file, read or with the reason why not, in order."""
    try:
        content = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HonesError(f"{file} is not JSON ({error})", expected='{"data": [item, ...]}') from error
    found = content.get("data") if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise HonesError(f"{file} has no list under 'data'", expected='{"data": [item, ...]}')
    rows: list[Item | LeftOut] = []
    seen: set[str] = set()
    for position, row in enumerate(found):
        name = str(row.get("image_id", f"#{position}")) if isinstance(row, dict) else f"#{position}"
        try:
            item = Item.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            rows.append(LeftOut(name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
            continue
        rows.append(LeftOut(item.id, "duplicate image_id") if item.id in seen else item)
        seen.add(item.id)
    return rows


def _select(rows: Sequence[Item | LeftOut], ids: Sequence[str], file: Path) -> list[Item | LeftOut]:
    wanted = set(ids)
    missing = wanted - {row.id for row in rows}
    if missing:
        raise HonesError(
            f"{len(missing)} of {len(wanted)} ids are not in {file}, the first is {min(missing)}", do="check --ids"
        )
    return [row for row in rows if row.id in wanted]


def _first_items(rows: Sequence[Item | LeftOut], limit: int) -> list[Item | LeftOut]:
    """The rows up to the `limit`-th readable item."""
    readable = [position for position, row in enumerate(rows) if isinstance(row, Item)]
    return list(rows[: readable[limit - 1] + 1 if len(readable) >= limit else len(rows)])


def _default_images(file: Path) -> Path:
    folder = file.parent / "images"
    return folder if folder.is_dir() else file.parent


def _first(bad: Sequence[LeftOut]) -> str | None:
    return f"first problem: item {bad[0].id}: {bad[0].reason}" if bad else None


def check_left_out(left_out: Sequence[LeftOut], used: int, what: str, most: float = MAX_LEFT_OUT) -> None:
    """Stop when more than the share `most` of the items, by default 5 %, had to be left out, or none is left.

    Raises:
        HonesError: names the first bad items.
    """
    total = used + len(left_out)
    if used == 0 or not len(left_out) <= most * total:
        named = ", ".join(f"{b.id} ({b.reason})" for b in left_out[:3])
        raise HonesError(
            f"{what}: {len(left_out)} of {total} items cannot be used: {named}",
            expected=f"at most {most:.0%}",
            do="mend or remove them, select the good ones with --ids, or allow more with --max-left-out",
        )
