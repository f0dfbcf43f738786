"""Where annotations come from, and what a file holds.

A source is written as one text, so that every command that takes a file takes every format:

    FILE                                     FOLDER
    FILE?option=value&option=value           hf:OWNER/NAME?split=validation&question=query

The options `format` (a reader's name) and `annotations`, `split`, `subtype`, `config`, `revision`, and columns of
tables (`image=file`, `question=query`) belong to readers; an option that the reader does not know is an error. A file
named in an option is looked for beside the source.

A file is read once. What it holds is told by its content, never by its name: JSON, JSON lines, CSV, or parquet.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError

HUB = "hf:"
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))
TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json"))


@dataclass(frozen=True)
class Source:
    """A file, folder or dataset with the options of its format. format: a reader's name, or `auto`."""

    path: Path
    options: Mapping[str, str]
    format: str = "auto"
    hub: bool = False

    @classmethod
    def parse(cls, text: str | Path, format: str = "auto") -> "Source":
        """The source that `text` names; a file whose name contains a question mark is that file.

        Raises:
            HonesError: `?` is not followed by option=value, or an option is given twice.
        """
        name, mark, query = str(text).partition("?")
        if not mark or _exists(Path(text)):
            name, query = str(text), ""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if mark and query else []
        except ValueError as error:
            raise HonesError(f"cannot read the options of {text}", expected="FILE?option=value&option=value") from error
        options = dict(pairs)
        if len(options) < len(pairs):
            raise HonesError(f"an option of {text} is given twice", expected="each once")
        format = options.pop("format", format) if format == "auto" else format
        options.pop("format", None)
        return cls(Path(name.removeprefix(HUB)), options, format, name.startswith(HUB))

    def __str__(self) -> str:
        return f"{HUB}{self.path}" if self.hub else str(self.path)

    @property
    def place(self) -> Path:
        """What `load_items` takes to read this again; slashes in options are quoted, so that it can be moved."""
        options = {**self.options, **({} if self.format == "auto" else {"format": self.format})}
        return Path(f"{self}?{urlencode(sorted(options.items()))}" if options else str(self))

    def beside(self, option: str) -> Path:
        """The file named by an option, relative to the source's folder."""
        return self.path.parent / self.options[option]


def source_in(base: Path, place: Path) -> Path:
    """A source as a configuration in the folder `base` names it."""
    return place if str(place).startswith(HUB) else base / place


@dataclass(frozen=True)
class Content:
    """What a source holds. value: the parsed JSON, or the rows as dicts; columns: of a CSV file, in order.

    path: the file that was read: the source's, or the one annotation file of a folder.
    """

    kind: Literal["json", "lines", "csv", "dataset"]
    value: Any
    sha256: str
    path: Path
    columns: tuple[str, ...] = ()


def read_content(source: Source) -> Content:
    """Read a file, or the one annotation file of a folder of pictures, once.

    Raises:
        HonesError: it does not exist, cannot be read, or is no JSON, JSON lines, CSV or parquet.
    """
    if source.hub:
        return Content("dataset", None, "", source.path)
    if _is_dir(source.path):
        if any((source.path / name).is_file() for name in ("dataset_dict.json", "state.json", "dataset_info.json")):
            return Content("dataset", None, "", source.path)
        return read_content(Source(_only_table(source.path), source.options, source.format))
    raw = read_raw(source.path)
    sha = hashlib.sha256(raw).hexdigest()
    if raw.startswith(b"PAR1"):
        return Content("dataset", None, sha, source.path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(source.path, error) from error
    if text.lstrip()[:1] in ("{", "["):
        kind, value = _json_or_lines(text, source.path)
        return Content(kind, value, sha, source.path)
    columns, rows = _csv(text, source.path)
    return Content("csv", rows, sha, source.path, columns)


def read_raw(file: Path) -> bytes:
    """The bytes of a file.

    Raises:
        HonesError: it does not exist or cannot be read.
    """
    if not _exists(file):
        hint = f"check --data, or write {HUB}{file} for a dataset of the hub" if _like_hub_id(file) else "check --data"
        raise HonesError(f"no file {file}", expected="an annotation file", do=hint)
    try:
        return file.read_bytes()
    except OSError as error:
        raise HonesError(f"cannot read {file} ({error.strerror})", do="check --data") from error


def read_json_file(file: Path) -> tuple[Any, str]:
    """A JSON file's content and its SHA-256.

    Raises:
        HonesError: it does not exist or is not JSON.
    """
    raw = read_raw(file)
    try:
        return json.loads(raw), hashlib.sha256(raw).hexdigest()
    except (ValueError, RecursionError) as error:
        raise HonesError(f"{file} is not JSON ({error})") from error


def refuse_source(source: Source, to: Path) -> None:
    """Raises HonesError if writing `to` would overwrite a file that the source is read from."""
    folders = [source.path.resolve()] if _is_dir(source.path) else []
    read = [source.path, *(source.beside(name) for name in ("annotations",) if name in source.options)]
    written = to.resolve()
    if _exists(to) and not source.hub and (written.parent in folders or written in [file.resolve() for file in read]):
        raise HonesError(f"{to} is read by {source}", expected="another file to write")


def default_images(file: Path) -> Path:
    """`images/` beside the file, or in the folder, if it exists; else the file's folder."""
    base = file if _is_dir(file) else file.parent
    return base / "images" if (base / "images").is_dir() else base


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _is_dir(file: Path) -> bool:
    return _exists(file) and file.is_dir()


def _like_hub_id(file: Path) -> bool:
    return len(file.parts) == 2 and not file.suffix and not file.is_absolute()


def _only_table(folder: Path) -> Path:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in TABLE_SUFFIXES and f.is_file())
    if len(files) != 1:
        named = ": " + ", ".join(f.name for f in files[:5]) if files else ""
        raise HonesError(
            f"the folder {folder} has {len(files)} annotation files{named}",
            expected="one CSV, JSON or JSON lines file",
            do="name the file itself, with --images for the folder",
        )
    return files[0]


def _json_or_lines(text: str, file: Path) -> tuple[Literal["json", "lines"], Any]:
    try:
        return "json", json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not _is_object(lines[0]):
            raise _no_text(file, error) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not _is_object(line):
            raise HonesError(f"{file} is not JSON lines: line {number} is no object", expected="one object per line")
        rows.append(json.loads(line))
    return "lines", rows


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _csv(text: str, file: Path) -> tuple[tuple[str, ...], list[Row]]:
    """The columns and rows of a table; its separator is the one of `|`, tab, `;` and `,` that its first line has."""
    header = text.split("\n", 1)[0]
    separator = next((mark for mark in "|\t;" if mark in header), ",")
    quoting = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    try:
        columns = tuple(name.strip() for name in next(lines, []))
        rows = [_table_row(columns, cells, lines.line_num) for cells in lines if any(cells)]
    except csv.Error as error:
        raise _no_text(file, error) from error
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise HonesError(f"{file} has two columns {twice!r}", expected="each once")
    return columns, rows


def _table_row(columns: Sequence[str], cells: Sequence[str], line: int) -> Row:
    if len(cells) != len(columns):
        return LeftOut(f"line {line}", f"has {len(cells)} cells, the header {len(columns)}", UNREADABLE)
    return dict(zip(columns, cells, strict=True))


def _no_text(file: Path, error: Exception) -> HonesError:
    problem = " ".join(str(error).split())
    return HonesError(f"{file} is not JSON, JSON lines, CSV or parquet ({problem})", expected="one of them")
