"""Where annotations come from. A source is written as one text, so that every command that takes a file takes every
format:

    FILE                                     FOLDER
    FILE?option=value&option=value           hf:OWNER/NAME?split=validation&question=query

The options `format` (a reader's name) and `annotations`, `split`, `subtype`, `config`, `revision`, and columns of
tables (`image=file`, `question=query`) belong to readers; an option that the reader does not know is an error. A file
named in an option is looked for beside the source.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from hones.errors import HonesError, shortened

HUB = "hf:"
_ADDRESS = re.compile(r"(?i)data:|(?!hf:/?[^/])[a-z][a-z0-9+.-]+:/")  # a path has lost the second slash
_PICTURE_IN_BASE64 = re.compile(r"(iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3])[A-Za-z0-9+/=\s]{64}")


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
            HonesError: it is an address, `?` is not followed by option=value, or an option is given twice.
        """
        refuse_address(text, f"name the file here, or {HUB}OWNER/NAME for a dataset of the hub")
        name, mark, query = str(text).partition("?")
        if exists(Path(text)):
            name, mark = str(text), ""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if mark and query else []
        except ValueError as error:
            raise HonesError(f"cannot read the options of {text}", expected="FILE?option=value&option=value") from error
        options = dict(pairs)
        if len(options) < len(pairs):
            raise HonesError(f"an option of {text} is given twice", expected="each once")
        chosen = options.pop("format", format)
        return cls(Path(name.removeprefix(HUB)), options, chosen if format == "auto" else format, name.startswith(HUB))

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


def is_address(name: str) -> bool:
    """Whether a name is that of something elsewhere (https://, s3://, data:), not of a file here."""
    return _ADDRESS.match(name) is not None


def is_picture_in_base64(name: str) -> bool:
    """Whether this is a picture itself, as text."""
    return _PICTURE_IN_BASE64.match(name) is not None


def refuse_address(name: str | Path, do: str) -> None:
    """Raises HonesError for a place that is not on this machine; nothing is downloaded unasked."""
    if is_address(str(name)) and not exists(Path(name)):
        typed = re.sub(r"^([^/]+:)/(?=[^/])", r"\1//", str(name))  # a path has lost the second slash
        raise HonesError(f"{shortened(typed)} is an address, and nothing is downloaded", do=f"download it, and {do}")


def source_in(base: Path, place: Path) -> Path:
    """A source as a configuration in the folder `base` names it."""
    return place if str(place).startswith(HUB) or is_address(str(place)) else base / place


def refuse_source(source: Source, to: Path) -> None:
    """Raises HonesError if writing `to` would overwrite a file that the source is read from."""
    if source.hub or not exists(to):
        return
    read = [source.path.resolve()]
    if "annotations" in source.options:
        read.append(source.beside("annotations").resolve())
    written = to.resolve()
    if written in read or (is_dir(source.path) and written.parent == source.path.resolve()):
        raise HonesError(f"{to} is read by {source}", expected="another file to write")


def default_images(file: Path) -> Path:
    """`images/` beside the file, or in the folder, if it exists; else the file's folder."""
    base = file if is_dir(file) else file.parent
    return base / "images" if (base / "images").is_dir() else base


def exists(file: Path) -> bool:
    """Whether there is such a file or folder; a name that the file system cannot have is none."""
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def is_dir(file: Path) -> bool:
    return exists(file) and file.is_dir()
