"""What a source holds: a file is read once, and what it is is told by its content, never by its name.

A file's text is read by its own format's rule in one place, `_parsed`: JSON, JSON lines, or a table with its separator
and quoting. Every line of a table becomes a row or is named as left out.
"""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hones.data.sources import HUB, Source, exists, is_dir
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError

TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json"))
DATASET_FILES = ("dataset_dict.json", "state.json", "dataset_info.json")


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
    file = source.path
    if source.hub or (is_dir(file) and any((file / name).is_file() for name in DATASET_FILES)):
        return Content("dataset", None, "", file)
    if is_dir(file):
        file = _only_table(file)
    raw = read_raw(file)
    sha256 = hashlib.sha256(raw).hexdigest()
    if raw.startswith(b"PAR1"):
        return Content("dataset", None, sha256, file)
    try:
        return _parsed(raw.decode("utf-8-sig"), sha256, file)
    except (ValueError, RecursionError, csv.Error) as error:
        problem = " ".join(str(error).split())
        raise HonesError(
            f"{file} is not JSON, JSON lines, CSV or parquet ({problem})", expected="one of them"
        ) from error


def read_raw(file: Path) -> bytes:
    """The bytes of a file.

    Raises:
        HonesError: it does not exist or cannot be read.
    """
    check_there(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise HonesError(f"cannot read {file} ({error.strerror})", do="check --data") from error


def check_there(file: Path) -> None:
    """Raises HonesError where there is no such file or folder."""
    if not exists(file):
        like_hub_id = len(file.parts) == 2 and not file.suffix and not file.is_absolute()
        hint = f", or write {HUB}{file} for a dataset of the hub" if like_hub_id else ""
        raise HonesError(f"no file {file}", expected="an annotation file", do=f"check --data{hint}")


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


def _parsed(text: str, sha256: str, file: Path) -> Content:
    """JSON and JSON lines begin with a bracket; anything else is a table.

    Raises:
        ValueError, RecursionError, csv.Error: it is none of them.
    """
    if text.lstrip()[:1] not in ("{", "["):
        columns, rows = _table(text, file)
        return Content("csv", rows, sha256, file, columns)
    try:
        return Content("json", json.loads(text), sha256, file)
    except (ValueError, RecursionError):
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or _object(lines[0]) is None:
            raise
    rows = [_object(line) for line in lines]
    if None in rows:
        number = rows.index(None) + 1
        raise HonesError(f"{file} is not JSON lines: line {number} is no object", expected="one object per line")
    return Content("lines", rows, sha256, file)


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _table(text: str, file: Path) -> tuple[tuple[str, ...], list[Row]]:
    """The columns and rows of a table; its separator is the one of `|`, tab, `;` and `,` that its first line has."""
    header = text.split("\n", 1)[0]
    separator = next((mark for mark in "|\t;" if mark in header), ",")
    quoting = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    columns = tuple(name.strip() for name in next(lines, []))
    rows: list[Row] = []
    for cells in lines:
        if len(cells) == len(columns) and any(cells):
            rows.append(dict(zip(columns, cells, strict=True)))
        elif any(cells):
            reason = f"has {len(cells)} cells, the header {len(columns)}"
            rows.append(LeftOut(f"line {lines.line_num}", reason, UNREADABLE))
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise HonesError(f"{file} has two columns {twice!r}", expected="each once")
    return columns, rows
