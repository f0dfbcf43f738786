"""Splits share no picture: nothing is tested on what it was found or learned on.

Two pictures are the same if their files are the same, or hold the same bytes under other names. Bytes are compared by
size first, so that only files of a size that occurs in two splits are read. A picture that was encoded anew has other
bytes and is not recognised. An item without a picture is another's equal if all its fields but the ids are.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hones.data.items import Items
from hones.errors import HonesError
from hones.files import sha256_of
from hones.progress import track


def check_disjoint(splits: Mapping[str, Items]) -> None:
    """Raises HonesError if two splits share a picture, by file or by content, or a text; names both and the splits."""
    split_of: dict[Path, str] = {}
    split_of_text: dict[str, str] = {}
    for name, items in splits.items():
        for item in items:
            if item.file_name is None:
                text = json.dumps(item.model_dump(mode="json", exclude={"item_id", "image_id"}))
                if split_of_text.setdefault(text, name) != name:
                    raise HonesError(
                        f"the text item {item.id} of {name} is in {split_of_text[text]} too",
                        expected="splits without common items",
                    )
                continue
            picture = (items.images / item.file_name).resolve()
            if split_of.setdefault(picture, name) != name:
                raise _shared(item.file_name, split_of[picture], name)
    by_size: dict[int, list[Path]] = defaultdict(list)
    for picture in split_of:
        with suppress(OSError):  # a name that is too long; whoever opens the picture will say so
            if picture.is_file():
                by_size[picture.stat().st_size].append(picture)
    alike = [same for same in by_size.values() if len({split_of[picture] for picture in same}) > 1]
    seen: dict[str, Path] = {}
    for picture in track([picture for same in alike for picture in same], "comparing pictures of the splits"):
        first = seen.setdefault(content_hash(picture), picture)
        if split_of[first] != split_of[picture]:
            raise _shared(picture.name, split_of[first], split_of[picture], f" as {first.name}")


def content_hash(file: Path) -> str:
    """SHA-256 of a file's bytes; of a file that has not changed it is computed once."""
    state = file.stat()
    return _hash(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2**16)
def _hash(file: Path, changed: int, size: int) -> str:
    return sha256_of(file)


def _shared(picture: str, first: str, second: str, other_name: str = "") -> HonesError:
    return HonesError(
        f"the picture {picture} is in both {first}{other_name} and {second}", expected="splits without common pictures"
    )
