"""The items of a file in any known format, which of them were left out, and why.

A file's rows become unified rows (`hones.data.readers`), these become items (`hones.data.unified`); ids and a limit
select among them. Pictures are opened when a stage needs them, not here; a name that leads out of the picture folder,
by itself or through a symbolic link, is left out.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hones.data.readers import read_source
from hones.data.sources import Source, default_images
from hones.data.unified import OUTSIDE, Caption, ImageInfo, Item, LeftOut, OcrFields, RetrievalFields, VqaFields
from hones.errors import NOT_ANNOTATED, HonesError, TaskStops

__all__ = [
    "MAX_LEFT_OUT",
    "Caption",
    "ImageInfo",
    "Item",
    "Items",
    "LeftOut",
    "OcrFields",
    "RetrievalFields",
    "VqaFields",
    "check_left_out",
    "load_items",
]

MAX_LEFT_OUT = 0.05


@dataclass(frozen=True)
class Items:
    """The items of one file in file order, what could not be read, and the file's hash.

    `captions_of` holds the captions of the whole file, also of items that a limit leaves aside: retrieval takes its
    negatives from there, so that a limit does not change an item's candidates. `file` is what `load_items` reads again;
    `format` the name of its reader.
    """

    items: tuple[Item, ...]
    images: Path
    sha256: str
    left_out: tuple[LeftOut, ...] = ()
    captions_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path | None = None
    format: str = "unified"

    def __len__(self) -> int:
        return len(self.items)


def load_items(
    file: str | Path,
    *,
    images: str | Path | None = None,
    ids: Iterable[str] | None = None,
    limit: int | None = None,
    format: str = "auto",
) -> Items:
    """Read annotated pictures: the unified JSON, or any format that `hones.data.readers` knows.

    Args:
        file: the annotation file, a folder, or `hf:` and a dataset; `?option=value&...` after it are options of the
            format (`hones.data.sources`).
        images: folder of the pictures; default: `images/` beside the file if it exists, else the file's folder.
        ids: keep these item ids only.
        limit: keep the first `limit` of them.
        format: the name of a reader; `auto` tells by the content.

    Raises:
        HonesError: no such file, no known format or several, nothing left, unknown ids, a limit below 1.
    """
    source = Source.parse(file, format)
    if limit is not None and limit < 1:
        raise HonesError(f"limit {limit} of {source}", expected="at least 1")
    found = read_source(source)
    rows = found.rows
    captions_of = {row.id: tuple(c.caption for c in row.captions) for row in rows if isinstance(row, Item)}
    if ids is not None:
        rows = _select(rows, list(ids), source)
    if limit is not None:
        rows = _first_items(rows, limit)
    chosen = [row for row in rows if isinstance(row, Item)]
    folder = found.pictures(chosen) if found.pictures is not None and images is None else None
    folder = folder or (default_images(source.path) if images is None else Path(images))
    if any(item.file_name for item in chosen) and not folder.is_dir():
        raise HonesError(f"no picture folder {folder}", expected="an existing folder", do="pass it as --images")
    rows = _inside(rows, folder)
    items = [row for row in rows if isinstance(row, Item)]
    bad = [row for row in rows if isinstance(row, LeftOut)]
    if not items:
        raise HonesError(f"{source}: no usable item", expected="at least one", do=_first(bad))
    return Items(tuple(items), folder, found.sha256, tuple(bad), captions_of, found.file, found.format)


def _select(rows: Sequence[Item | LeftOut], ids: Sequence[str], source: Source) -> list[Item | LeftOut]:
    wanted = set(ids)
    missing = wanted - {row.id for row in rows}
    if missing:
        raise HonesError(
            f"{len(missing)} of {len(wanted)} ids are not in {source}, the first is {min(missing)}", do="check --ids"
        )
    return [row for row in rows if row.id in wanted]


def _first_items(rows: Sequence[Item | LeftOut], limit: int) -> list[Item | LeftOut]:
    """The rows up to the `limit`-th readable item."""
    readable = [position for position, row in enumerate(rows) if isinstance(row, Item)]
    return list(rows[: readable[limit - 1] + 1 if len(readable) >= limit else len(rows)])


def _inside(rows: Sequence[Item | LeftOut], folder: Path) -> list[Item | LeftOut]:
    """The rows, those left out whose picture is reached through a symbolic link out of the folder."""
    root = os.path.realpath(folder)

    @cache
    def leaves(name: str) -> bool:
        path = folder / name
        with suppress(OSError):  # a name that is too long; whoever opens the picture will say so
            if path.is_symlink():
                return not Path(os.path.realpath(path)).is_relative_to(root)
        return parent_leaves(path.parent)

    @cache
    def parent_leaves(parent: Path) -> bool:
        return not Path(os.path.realpath(parent)).is_relative_to(root)

    def checked(row: Item | LeftOut) -> Item | LeftOut:
        if isinstance(row, LeftOut) or row.file_name is None or not leaves(row.file_name):
            return row
        reason = f"{row.file_name} is a symbolic link out of the picture folder {folder}"
        return LeftOut(row.id, reason, OUTSIDE)

    return [checked(row) for row in rows]


def _first(bad: Sequence[LeftOut]) -> str | None:
    return f"first problem: item {bad[0].id}: {bad[0].reason}" if bad else None


def check_left_out(left_out: Sequence[LeftOut], used: int, what: str, most: float = MAX_LEFT_OUT) -> None:
    """Stop when more than the share `most` of the items, by default 5 %, had to be left out, or none is left.

    Items that are not annotated for the task count neither as left out nor among the items.

    Raises:
        HonesError: names the first bad items. TaskStops: no item is annotated for the task.
    """
    bad = [item for item in left_out if item.kind != NOT_ANNOTATED]
    total = used + len(bad)
    if used == 0 or not len(bad) <= most * total:
        named = ", ".join(f"{b.id} ({b.reason})" for b in (bad or left_out)[:3])
        kind = HonesError if bad else TaskStops
        raise kind(
            f"{what}: {len(bad)} of {total} items cannot be used: {named}",
            expected=f"at most {most:.0%}",
            do="mend or remove them, select the good ones with --ids, or allow more with --max-left-out",
        )
