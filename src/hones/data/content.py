"""What a source holds: a file is read once, and what it is is told by its content, never by its name.

A file's text is read by its own format's rule in one place, `_parsed`: JSON, JSON lines, or a table
(`hones.data.delimited`). Every line of a table or of JSON lines becomes a row or is named as left out.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hones.data.delimited import read_delimited
from hones.data.sources import HUB, Source, exists, is_dir
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError, cause, seam
from hones.files import decoded, read_bytes

TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".json"))
DATASET_FILES = ("dataset_dict.json", "state.json", "dataset_info.json")
_BESIDE = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))  # what systems leave in folders, beside hidden files
_NO_TEXT = {  # files of other kinds by how they begin, and what to do with them
    b"PK\x03\x04": ("an Excel workbook or a zip archive", "save the sheet as CSV UTF-8, or unpack the archive"),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save the sheet as CSV UTF-8"),
    b"\x1f\x8b": ("compressed (gzip)", "unpack it: gunzip"),
    b"BZh": ("compressed (bzip2)", "unpack it: bunzip2"),
    b"\xfd7zXZ": ("compressed (xz)", "unpack it: unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "unpack it: unzstd"),
    b"ARROW1": ("an Arrow file", "write parquet, or name the data set's folder"),
    b"SQLite": ("a database", "export its table as CSV"),
    b"%PDF": ("a PDF", "name the annotation file"),
    b"\x89PNG": ("a picture", "name the annotation file, and the pictures' folder as --images"),
    b"\xff\xd8\xff": ("a picture", "name the annotation file, and the pictures' folder as --images"),
    b"\x93NUMPY": ("a numpy array", "write CSV or JSON"),
    b"\x80\x04\x95": ("a pickle, which is never read", "write CSV, JSON or parquet"),
}


@dataclass(frozen=True)
class Content:
    """What a source holds. value: the parsed JSON, or the rows as dicts; columns: of a CSV file, in order.

    path: the file that was read: the source's, or the one annotation file of a folder. remarks: what was read otherwise
    than it looks.
    """

    kind: Literal["json", "lines", "csv", "dataset"]
    value: Any
    sha256: str
    path: Path
    columns: tuple[str, ...] = ()
    remarks: tuple[LeftOut, ...] = ()


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
    for beginning, (what, do) in _NO_TEXT.items():
        if raw.startswith(beginning):
            raise HonesError(f"{file} is {what}", expected="JSON, JSON lines, CSV or parquet", do=do)
    try:
        text = decoded(raw)
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise ValueError(f"NUL bytes, the first in line {line}; write the text in UTF-8")
        return _parsed(text, sha256, file)
    except (ValueError, RecursionError) as error:
        raise HonesError(
            f"{file} is not JSON, JSON lines, CSV or parquet ({cause(error)})", expected="one of them"
        ) from error


def read_raw(file: Path, do: str = "check --data") -> bytes:
    """The bytes of a file.

    Raises:
        HonesError: it does not exist, is no regular file, cannot be read, or is a git-lfs pointer.
    """
    check_there(file, do)
    return read_bytes(file, do)


def check_there(file: Path, do: str = "check --data") -> None:
    """Raises HonesError where there is no such file or folder."""
    if not exists(file):
        like_hub_id = len(file.parts) == 2 and not file.suffix and not file.is_absolute()
        hint = f", or write {HUB}{file} for a dataset of the hub" if like_hub_id else ""
        raise HonesError(f"no file {file}", expected="an annotation file", do=f"{do}{hint}")


def read_json_file(file: Path) -> tuple[Any, str]:
    """A JSON file's content and its SHA-256.

    Raises:
        HonesError: it does not exist or is not JSON.
    """
    raw = read_raw(file)
    try:
        return json.loads(decoded(raw)), hashlib.sha256(raw).hexdigest()
    except (ValueError, RecursionError) as error:
        raise HonesError(f"{file} is not JSON ({cause(error)})") from error


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: hidden, or left there by the system."""
    return name.startswith((".", "~$")) or name in _BESIDE  # ~$: a document that Office has open


def _only_table(folder: Path) -> Path:
    with seam(f"list the folder {folder}"):
        there = sorted(file for file in folder.iterdir() if not is_hidden(file.name))
    files = [file for file in there if file.suffix.lower() in TABLE_SUFFIXES and file.is_file()]
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
        ValueError, RecursionError: it is none of them.
    """
    if text.lstrip()[:1] not in ("{", "["):
        table = read_delimited(text)
        twice = next((name for name in table.columns if table.columns.count(name) > 1), None)
        if twice is not None:
            raise HonesError(f"{file} has two columns {twice!r}", expected="each once")
        return Content("csv", table.rows, sha256, file, table.columns, tuple(table.remarks))
    try:
        return Content("json", json.loads(text), sha256, file)
    except (ValueError, RecursionError) as error:
        rows = _json_lines(text)
        if rows is None and _holds_several(text):
            raise HonesError(
                f"{file} holds several JSON values one after another",
                expected="one object with names a line, or one list of them",
                do="write objects over several lines anew: jq -c . FILE > FILE.jsonl",
            ) from error
        if rows is None:
            raise ValueError(f"{cause(error)}{_mistake_in(text)}") from None
    return Content("lines", rows, sha256, file)


def _json_lines(text: str) -> list[Row] | None:
    """The objects of JSON lines, lines that are none as left out; None where the first and most are none."""
    lines = [(number, line) for number, line in enumerate(re.split(r"\r\n?|\n", text), 1) if line.strip()]
    objects = [(number, _object(line)) for number, line in lines]
    rows = [LeftOut(f"line {n}", "is no JSON object", UNREADABLE) if row is None else row for n, row in objects]
    good = sum(row is not None for _, row in objects)
    return rows if objects[0][1] is not None or 2 * good > len(rows) else None


def _holds_several(text: str) -> bool:
    decoder = json.JSONDecoder()
    try:
        _, end = decoder.raw_decode(text.lstrip())
        decoder.raw_decode(text.lstrip()[end:].lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def _mistake_in(text: str) -> str:
    """What is often written in place of JSON, where it is that."""
    first = text.strip().splitlines()[0].strip()
    if _object(first.rstrip(",")) is not None:
        return ": its lines end with commas; write them without, or one list [...]"
    if re.match(r"[\[{\s]*'", text):
        return ": names in single quotes are Python's; write it with json.dumps"
    if re.search(r",\s*[\]}]\s*\Z", text):
        return ": no comma belongs before the last bracket"
    return ""


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line.lstrip("\ufeff"))  # files with marks may have been put together
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
