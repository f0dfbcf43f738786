"""Items of any source as one unified JSON file."""

from pathlib import Path

from hones.data.items import Items
from hones.data.sources import Source, refuse_source
from hones.errors import HonesError
from hones.files import write_bytes, write_json
from hones.progress import track


def convert(items: Items, to: Path) -> Path:
    """Write the items to `to`; returns the folder of their pictures.

    Pictures that were unpacked from a dataset are copied to `images/` beside the file; others stay where they are.

    Raises:
        HonesError: the file cannot be written, or is one that is read, or a picture is missing.
    """
    if items.file is not None:
        refuse_source(Source.parse(items.file), to)
    write_json(to, {"data": [item.model_dump(mode="json", exclude_none=True) for item in items]})
    if items.format != "hf":
        return items.images
    folder = to.parent / "images"
    names = [item.file_name for item in items if item.file_name is not None]
    for name in track(names, "copying pictures"):
        try:
            content = (items.images / name).read_bytes()
        except OSError as error:
            raise HonesError(f"cannot read {items.images / name} ({error.strerror})", do="check --images") from error
        write_bytes(folder / name, content)
    return folder
