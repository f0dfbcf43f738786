"""From the names in an annotation file to the pictures in a folder.

A picture may have its name in another Unicode form (composed on one system, decomposed on another), in another case or
with the backslashes of Windows, or lie in the folder itself where the file names it with folders before it
(`documents/x.png`, `coco/train2017/x.jpg`). What is found so is used, and remarked where it is no matter of form alone;
where two files fit, the item is left out with both named. A name that leads out of the folder through a
symbolic link is left out too. A word picture is its own box, so its size is read from its first bytes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from hones.data.pictures import stored_size
from hones.data.sources import refuse_address
from hones.data.unified import OUTSIDE, Item, LeftOut
from hones.errors import BadItem, joined

Rows = list[Item | LeftOut]
AMBIGUOUS, SHORTENED, WHOLE = "picture that could be either of two", "picture without its folder", "box: whole picture"
RESPELLED = "picture under its name in another spelling"


def found_pictures(rows: Sequence[Item | LeftOut], folder: Path) -> tuple[Rows, list[LeftOut]]:
    """The rows with the names that their pictures have in the folder, and what is remarked about them."""
    forms = Forms()
    found = _without_folders([_in_its_form(row, folder, forms) for row in rows], folder)
    found = [_boxed(row, folder) for row in _inside(found, folder)]
    return found, [*_remarks(rows, found)]


class Forms:
    """Files by their names in any Unicode form and case; what lies in a folder is looked up once."""

    def __init__(self) -> None:
        self._in: dict[Path, dict[str, list[str]]] = {}
        self._found: dict[tuple[Path, str], list[str]] = {}

    def of(self, folder: Path, name: str) -> list[str]:
        """The files of a folder that have this name: itself where it is there, else all that have it in another form.

        Composed and decomposed letters come before compatible ones (a ligature, a letter of full width), and these
        before other case; a name with backslashes is a path of Windows where it is no file's.
        """
        if (folder, name) not in self._found:
            self._found[folder, name] = self._look_up(folder, name)
        return self._found[folder, name]

    def _look_up(self, folder: Path, name: str) -> list[str]:
        if os.path.lexists(f"{folder}/{name}"):
            return [name]
        found = [PurePosixPath()]
        for part in PurePosixPath(name).parts:
            found = [base / other for base in found for other in self._alike(folder / base, part)]
        if not found and "\\" in name:
            return self.of(folder, name.replace("\\", "/"))
        return [str(path) for path in found]

    def _alike(self, folder: Path, name: str) -> list[str]:
        if os.path.lexists(folder / name):
            return [name]
        there = self._listed(folder).get(_general(name), [])
        for form in ("NFC", "NFKC"):
            alike = [other for other in there if normalize(form, other) == normalize(form, name)]
            if alike:
                return alike
        return there

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by their most general form."""
        if folder not in self._in:
            names = self._in[folder] = {}
            with suppress(OSError):
                for name in sorted(path.name for path in folder.iterdir()):
                    names.setdefault(_general(name), []).append(name)
        return self._in[folder]


def _general(name: str) -> str:
    """What all spellings of a name have in common."""
    return normalize("NFKC", normalize("NFKC", name).casefold())


def place_of(given: str | Path) -> Path:
    """The picture or folder of pictures that someone names, in whatever Unicode form its name is on this machine.

    The path itself is returned where there is no such file, or more than one.

    Raises:
        HonesError: it is an address.
    """
    refuse_address(given, "name it where it is here")
    path = Path(given)
    found = [] if os.path.lexists(path) else Forms().of(Path(path.anchor), str(path.relative_to(path.anchor)))
    return Path(path.anchor, found[0]) if len(found) == 1 else path


def _in_its_form(row: Item | LeftOut, folder: Path, forms: Forms) -> Item | LeftOut:
    if isinstance(row, LeftOut) or row.file_name is None:
        return row
    found = forms.of(folder, row.file_name)
    if len(found) > 1:
        reason = f"{row.file_name} could be {joined(map(ascii, found))} in {folder}: rename one"
        return LeftOut(row.id, reason, AMBIGUOUS)
    return _called(row, found[0]) if found else row


def _called(item: Item, name: str) -> Item:
    """The item with another name of its picture."""
    if item.image_info is None or item.file_name == name:
        return item
    return item.model_copy(update={"image_info": item.image_info.model_copy(update={"file_name": name})})


def _without_folders(rows: Rows, folder: Path) -> Rows:
    """The rows; where no picture is where its name says, but some are by the last parts of the names, with these.

    Only if no two names have the same last part: else one picture would be taken for another.
    """
    items = [row for row in rows if isinstance(row, Item)]
    last = {name: _last_part(name) for item in items if (name := item.file_name) is not None}
    if any(os.path.lexists(f"{folder}/{name}") for name in last) or len({*last.values()}) < len(last):
        return rows
    if not any(os.path.lexists(f"{folder}/{short}") for short in last.values()):
        return rows
    return [_called(r, last[r.file_name]) if isinstance(r, Item) and r.file_name is not None else r for r in rows]


def _last_part(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _inside(rows: Rows, folder: Path) -> Rows:
    """The rows, those left out whose picture is reached through a symbolic link out of the folder."""
    root = os.path.realpath(folder)

    @cache  # pictures lie in few folders, and every look at the file system takes its time
    def is_inside(path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(root)

    @cache
    def leaves(name: str) -> bool:
        path = folder / name
        with suppress(OSError):  # a name that is too long; whoever opens the picture will say so
            if path.is_symlink():
                return not is_inside(path)
        return not is_inside(path.parent)

    checked: Rows = []
    for row in rows:
        if isinstance(row, Item) and row.file_name is not None and leaves(row.file_name):
            reason = f"{row.file_name} is a symbolic link out of the picture folder {folder}"
            row = LeftOut(row.id, reason, OUTSIDE)
        checked.append(row)
    return checked


def _boxed(row: Item | LeftOut, folder: Path) -> Item | LeftOut:
    """A word picture with its box, which is all of it."""
    if isinstance(row, LeftOut) or row.ocr is None or not row.ocr.unboxed or row.file_name is None:
        return row
    try:
        width, height = stored_size(folder / row.file_name)
    except BadItem as error:
        return LeftOut.of(row.id, error)
    return row.model_copy(update={"ocr": row.ocr.model_copy(update={"bbox": (0.0, 0.0, float(width), float(height))})})


def _remarks(rows: Sequence[Item | LeftOut], found: Rows) -> Iterator[LeftOut]:
    for before, after in zip(rows, found, strict=True):
        if isinstance(before, LeftOut) or isinstance(after, LeftOut):
            continue
        given, used = str(before.file_name), str(after.file_name)
        parts = given.replace("\\", "/") if used != given else given
        if parts.count("/") != used.count("/"):
            yield LeftOut(after.id, f"{given} is read as {used}", SHORTENED)
        elif parts != given or normalize("NFKC", given) != normalize("NFKC", used):
            yield LeftOut(after.id, f"{given} is read as {used}", RESPELLED)
        if before.ocr is not None and before.ocr.unboxed:
            yield LeftOut(after.id, "text without bbox, as of a picture of one word (a caption? ?caption=text)", WHOLE)
