"""Items of any source as one unified JSON file."""

import json
from pathlib import Path

from hones.data.items import Items
from hones.errors import HonesError
from hones.progress import track
from hones.store import write_bytes, write_json


def convert(items: Items, to: Path) -> Path:
    """Write the items to `to`; returns the folder of their pictures.

    Pictures that were unpacked from a dataset are copied to `images/` beside the file; others stay where they are.

    Raises:
        HonesError: the file cannot be written, or is the one that is read.
    """
    if items.file is not None and to.exists() and items.file.resolve() == to.resolve():
        raise HonesError(f"{to} is the source itself", expected="another --to")
    write_json(to, {"data": [json.loads(item.model_dump_json(exclude_none=True)) for item in items.items]})
    if items.format != "hf":
        return items.images
    folder = to.parent / "images"
    for item in track(items.items, "copying pictures"):
        name = item.image_info.file_name
        write_bytes(folder / name, (items.images / name).read_bytes())
    return folder
