"""Readers of published formats: one file each behind one interface (`base.py`), told apart by what a file holds.

    unified    vqav2    gqa    textvqa    docvqa    coco    flickr30k    llava    table    hf

A source that no reader or more than one recognises is refused with the candidates named, or the keys that were seen;
nothing is guessed. Only the table is what is left where no published format fits.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hones.data.content import Content, read_content
from hones.data.readers.base import Pictures, Reader
from hones.data.readers.coco_captions import CocoCaptions
from hones.data.readers.docvqa import DocVqa
from hones.data.readers.flickr30k import Flickr30k
from hones.data.readers.gqa import Gqa
from hones.data.readers.hub import HuggingFace
from hones.data.readers.llava import Llava
from hones.data.readers.table import COLUMNS, Table, keys_of, missing_column
from hones.data.readers.textvqa import TextVqa
from hones.data.readers.unified_json import Unified
from hones.data.readers.vqav2 import VqaV2
from hones.data.sources import Source
from hones.data.unified import Item, LeftOut, parse_rows
from hones.errors import HonesError, shortened

_ALL = (
    Unified(),
    VqaV2(),
    Gqa(),
    TextVqa(),
    DocVqa(),
    CocoCaptions(),
    Flickr30k(),
    Llava(),
    Table(),
    HuggingFace(),
)
READERS: dict[str, Reader] = {reader.name: reader for reader in _ALL}
_MOST_NAMES = 12


@dataclass(frozen=True)
class Found:
    """What a source holds: rows in file order. sha256: of everything that was read and the options.

    file: what `load_items` reads again. pictures: puts pictures into a folder where the source itself holds them.
    remarks: what was read otherwise than it looks.
    """

    rows: list[Item | LeftOut]
    sha256: str
    file: Path
    format: str
    pictures: Pictures | None = field(default=None, repr=False)
    remarks: tuple[LeftOut, ...] = ()


def read_source(source: Source) -> Found:
    """Read a source with the reader that its content or its `format` asks for.

    Raises:
        HonesError: no or several readers recognise it, an option is unknown, or the reader refuses it.
    """
    if source.format not in ("auto", *READERS):
        raise HonesError(f"no format {source.format!r}", expected=f"auto, {', '.join(READERS)}")
    content = read_content(source)
    reader = detect(content, source) if source.format == "auto" else READERS[source.format]
    unknown = [name for name in source.options if name not in reader.options]
    if unknown:
        known = ", ".join(reader.options) or "none"
        raise HonesError(f"{source}: {reader.name} has no option {unknown[0]!r}", expected=f"one of {known}")
    reading = reader.read(content, source)
    sha256 = reading.sha256 or content.sha256
    if reading.sha256 is None and (reading.also or source.options):
        options = sorted((name, value) for name, value in source.options.items() if name != "annotations")
        parts = [content.sha256, *reading.also, json.dumps(options)]
        sha256 = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    rows = parse_rows(reading.rows)
    remarks = (*content.remarks, *reading.remarks)
    return Found(rows, sha256, reading.file or source.place, reader.name, reading.pictures, remarks)


def detect(content: Content, source: Source) -> Reader:
    """The one reader that recognises the content.

    Raises:
        HonesError: none does, or several.
    """
    claiming = [reader for reader in READERS.values() if reader.claims(content, source)]
    fitting = [reader for reader in claiming if set(source.options) <= set(reader.options)] or claiming
    if len(fitting) > 1:
        fitting = [reader for reader in fitting if not isinstance(reader, Table)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(reader.name for reader in fitting)
        raise HonesError(f"{content.path} can be read as {names}", do=f"choose: add ?format={fitting[0].name}, say")
    if content.kind != "dataset" and (missing := missing_column(source.options, keys_of(content))):
        raise HonesError(
            f"{content.path} has no column {source.options[missing]!r}",
            expected=f"a column for {missing}",
            do=_seen(content),
        )
    raise HonesError(
        f"{content.path} is in no known format: {_seen(content)}",
        expected=f"one of {', '.join(READERS)} (docs/data.md)",
        do=_remedy(content),
    )


def _seen(content: Content) -> str:
    """What a file holds, by the names in it."""
    if content.kind == "csv":
        return f"its columns are {_listed(content.columns)}" if content.columns else "it is empty"
    value = content.value
    if isinstance(value, dict):
        inside = {key: rows for key, rows in value.items() if isinstance(rows, list) and _keys(rows)}
        under = [f"the objects under {key!r} have {_listed(_keys(rows))}" for key, rows in inside.items()]
        return "; ".join([f"it has the keys {_listed(value)}" if value else "it is an empty object", *under[:3]])
    keys = keys_of(content)
    return f"its objects have the keys {_listed(keys)}" if keys else "it holds no objects with keys"


def _remedy(content: Content) -> str | None:
    """What to write in its place, where that can be told."""
    value = content.value
    orient = _orient(value)
    if orient is not None:
        laid_out = f"this is laid out as orient={orient!r} of pandas"
        return f"write rows, not columns ({laid_out}): to_json(FILE, orient='records', lines=True)"
    if isinstance(value, dict) and any(isinstance(rows, list) and _keys(rows) for rows in value.values()):
        return "write the list of objects alone, as a table"
    if not keys_of(content):
        return None
    if content.kind == "csv" and len(content.columns) == 1:
        return "the first line names the columns, with one of , ; | and tab between them"
    return "name the columns, ?image=COLUMN&question=COLUMN&answer=COLUMN, say; image holds file names"


def _orient(value: Any) -> str | None:
    """In which of pandas' forms other than rows a data frame was written; None: in none."""
    if isinstance(value, list):
        return "values" if value and all(isinstance(row, list) for row in value) else None
    if not isinstance(value, dict) or not value:
        return None
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return "split"
    columns = [*value.values()]
    if all(isinstance(column, list) for column in columns) and _has_annotations(value):
        return "list"  # of to_dict
    if not all(isinstance(column, dict) and column for column in columns):
        return None
    rows = [str(number) for number in range(len(value))]
    if [*value] == rows or _has_annotations(columns[0]):
        return "index"
    return "columns" if _has_annotations(value) else None


def _has_annotations(names: Iterable[str]) -> bool:
    return bool({name.strip().lower() for name in names} & {*COLUMNS})


def _keys(rows: list[Any]) -> list[str]:
    return [*dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)]


def _listed(names: Iterable[str]) -> str:
    """The first of the names, each short."""
    shown = [shortened(name) for name in names]
    return ", ".join(shown[:_MOST_NAMES]) + (
        f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
    )


def source_sha256(place: Path) -> str | None:
    """The hash that `load_items` gives for this source now; None if it is not there."""
    source = Source.parse(place)
    return read_source(source).sha256 if source.hub or source.path.exists() else None
