"""The items of a file in any known format, which of them were left out, and why.

A file's rows become unified rows (`hones.data.readers`), these become items (`hones.data.unified`); ids and a limit
select among them. Pictures are opened when a stage needs them, not here; where they are in the picture folder, and that
no name leads out of it, is found here (`hones.data.names`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from hones.data.names import found_pictures, place_of
from hones.data.readers import read_source
from hones.data.sources import Source, default_images
from hones.data.unified import Item, LeftOut
from hones.errors import NOT_ANNOTATED, HonesError, TaskStops
from hones.log import LOG

MAX_LEFT_OUT = 0.05


@dataclass(frozen=True)
class Items:
    """The items of one file in file order, what could not be read, and the file's hash.

    `items[3]` is one of them, `items[:100]` are the first hundred as Items.

    `captions_of` holds the captions of the whole file by picture (`Item.picture`), also of items that a limit leaves
    aside: retrieval takes its negatives from there, so that a limit does not change an item's candidates. `file` is
    what `load_items` reads again; `format` the name of its reader; `remarks` what was read otherwise than it looks, and
    keeps no item from a task.
    """

    items: tuple[Item, ...]
    images: Path
    sha256: str
    left_out: tuple[LeftOut, ...] = ()
    captions_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file: Path | None = None
    format: str = "unified"
    remarks: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> "Items": ...

    def __getitem__(self, index: int | slice) -> "Item | Items":
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __repr__(self) -> str:
        left_out = f", {len(self.left_out)} left out" if self.left_out else ""
        return f"Items({len(self)} of {self.file or 'memory'}, {self.format}{left_out}, pictures in {self.images})"


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
    captions_of: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if isinstance(row, Item) and row.captions:
            picture = row.picture
            captions_of[picture] = (*captions_of.get(picture, ()), *(c.caption for c in row.captions))
    if ids is not None:
        wanted = set(ids)
        missing = wanted - {row.id for row in rows}
        if missing:
            raise HonesError(
                f"{len(missing)} of {len(wanted)} ids are not in {source}, the first is {min(missing)}",
                do="check --ids",
            )
        rows = [row for row in rows if row.id in wanted]
    if limit is not None:
        readable = [position for position, row in enumerate(rows) if isinstance(row, Item)]
        rows = rows[: readable[limit - 1] + 1] if len(readable) >= limit else rows
    chosen = [row for row in rows if isinstance(row, Item)]
    if images is not None:
        folder = place_of(images)
    else:
        folder = found.pictures(chosen) if found.pictures is not None else default_images(source.path)
    if any(item.file_name for item in chosen) and not folder.is_dir():
        raise HonesError(f"no picture folder {folder}", expected="an existing folder", do="pass it as --images")
    rows, remarks = found_pictures(rows, folder)
    remarks = (*found.remarks, *remarks)
    for remark in remarks:
        LOG.info("remark on %s: %s: %s", source, remark.id, remark.reason)
    items = [row for row in rows if isinstance(row, Item)]
    bad = [row for row in rows if isinstance(row, LeftOut)]
    if not items:
        first = f"first problem: item {bad[0].id}: {bad[0].reason}" if bad else None
        raise HonesError(f"{source}: no usable item", expected="at least one", do=first)
    return Items(tuple(items), folder, found.sha256, tuple(bad), captions_of, found.file, found.format, remarks)


def check_pictures(items: Items) -> None:
    """Raises HonesError where the items name pictures and not one of them is in their folder."""
    named = [item.file_name for item in items if item.file_name is not None]
    if named and not any((items.images / name).exists() for name in named):
        raise HonesError(
            f"none of the {len(named)} pictures of {items.file} is in {items.images} (no {items.images / named[0]})",
            expected="the folder that holds them",
            do="name it with --images (images under data in a configuration)",
        )


def check_left_out(left_out: Sequence[LeftOut], used: int, what: str, most: float = MAX_LEFT_OUT) -> None:
    """Stop when more than the share `most` of the items, by default 5 %, had to be left out, or none is left.

    Items that are not annotated for the task count neither as left out nor among the items.

    Raises:
        HonesError: names the first bad items. TaskStops: no item is annotated for the task.
    """
    bad = [item for item in left_out if item.kind != NOT_ANNOTATED]
    total = used + len(bad)
    if total == 0:
        named = ", ".join(f"{item.id} ({item.reason})" for item in left_out[:3])
        raise TaskStops(
            f"{what}: none of {len(left_out)} items can be used" + (f": {named}" if named else ""),
            expected="items that are annotated for the task",
            do="a limit counts the items of every task: raise it, or select items with --ids",
        )
    if used == 0 or not len(bad) <= most * total:
        named = ", ".join(f"{b.id} ({b.reason})" for b in bad[:3])
        raise HonesError(
            f"{what}: {len(bad)} of {total} items cannot be used: {named}",
            expected=f"at most {most:.0%}",
            do="mend or remove them, select the good ones with --ids, or allow more with --max-left-out",
        )
