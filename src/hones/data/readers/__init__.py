"""Readers of published formats: one file each behind one interface (`base.py`), told apart by what a file holds.

    unified     vqav2     gqa     textvqa     flickr30k     table     hf

A source that no reader or more than one recognises is refused with the candidates named; nothing is guessed.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from hones.data.content import Content, read_content
from hones.data.readers.base import Pictures, Reader
from hones.data.readers.flickr30k import Flickr30k
from hones.data.readers.gqa import Gqa
from hones.data.readers.hub import HuggingFace
from hones.data.readers.table import Table
from hones.data.readers.textvqa import TextVqa
from hones.data.readers.unified_json import Unified
from hones.data.readers.vqav2 import VqaV2
from hones.data.sources import Source
from hones.data.unified import Item, LeftOut, parse_rows
from hones.errors import HonesError

READERS: dict[str, Reader] = {
    reader.name: reader for reader in (Unified(), VqaV2(), Gqa(), TextVqa(), Flickr30k(), Table(), HuggingFace())
}


@dataclass(frozen=True)
class Found:
    """What a source holds: rows in file order. sha256: of everything that was read and the options.

    file: what `load_items` reads again. pictures: puts pictures into a folder where the source itself holds them.
    """

    rows: list[Item | LeftOut]
    sha256: str
    file: Path
    format: str
    pictures: Pictures | None = field(default=None, repr=False)


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
    return Found(parse_rows(reading.rows), sha256, reading.file or source.place, reader.name, reading.pictures)


def detect(content: Content, source: Source) -> Reader:
    """The one reader that recognises the content.

    Raises:
        HonesError: none does, or several.
    """
    claiming = [reader for reader in READERS.values() if reader.claims(content, source)]
    fitting = [reader for reader in claiming if set(source.options) <= set(reader.options)] or claiming
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(reader.name for reader in fitting)
        raise HonesError(f"{content.path} can be read as {names}", do=f"choose: add ?format={fitting[0].name}, say")
    seen = f"its columns are {', '.join(content.columns)}" if content.columns else "it has no list under 'data'"
    raise HonesError(
        f"{content.path} is in no known format: {seen}", expected=f"one of {', '.join(READERS)} (docs/data.md)"
    )


def source_sha256(place: Path) -> str | None:
    """The hash that `load_items` gives for this source now; None if it is not there."""
    source = Source.parse(place)
    return read_source(source).sha256 if source.hub or source.path.exists() else None
