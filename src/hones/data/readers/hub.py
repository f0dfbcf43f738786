"""Hugging Face `datasets`: a saved folder, a parquet file, or a dataset of the hub (`hf:OWNER/NAME`).

Options: `split`, `config`, `revision`, and the columns of `hones.data.readers.table`. The pictures inside are neither
decoded nor read before items are chosen; those of the chosen items are then copied, as they are encoded, into
`~/.cache/hones` (or $HONES_CACHE), with the rows as a unified file beside them. That file's hash is the data's.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading
from hones.data.readers.table import COLUMNS, columns_of, unified_rows
from hones.data.sources import Source
from hones.data.unified import Item, LeftOut, parse_rows
from hones.errors import HonesError
from hones.files import digest, sha256_of, write_bytes, write_json
from hones.progress import track

if TYPE_CHECKING:
    from datasets import Dataset


class HuggingFace(Reader):
    """Needs the `datasets` extra."""

    name: ClassVar[str] = "hf"
    about: ClassVar[str] = "Hugging Face datasets: hf:OWNER/NAME?split=S, a saved folder, or a parquet file"
    options: ClassVar[tuple[str, ...]] = ("split", "config", "revision", *COLUMNS)

    def claims(self, content: Content, source: Source) -> bool:
        return content.kind == "dataset"

    def read(self, content: Content, source: Source) -> Reading:
        if content.kind != "dataset":
            raise HonesError(f"{content.path} is no dataset", expected=self.about)
        dataset = _open(content, source)
        columns = columns_of(source.options, dataset.column_names, str(source))
        if "image" not in columns:
            return _text_alone(dataset, columns, source)
        inside = getattr(dataset.features[columns["image"]], "dtype", None) not in ("string", "large_string")
        rows = parse_rows(unified_rows(_rows(dataset, columns, inside), columns))
        good = [row.model_dump(exclude_none=True) for row in rows if isinstance(row, Item)]
        bad = [row for row in rows if isinstance(row, LeftOut)]
        if not inside:
            return Reading([*good, *bad])
        chosen = json.dumps([str(source), dataset._fingerprint, sorted(columns.items())])
        file = _cache() / digest(chosen.encode()) / "items.json"
        write_json(file, {"data": good})

        def pictures(items: Sequence[Item]) -> Path:
            return _unpack(dataset, columns["image"], items, file.parent / "images")

        return Reading([*good, *bad], file=file, sha256=sha256_of(file), pictures=pictures)


def _text_alone(dataset: "Dataset", columns: Mapping[str, str], source: Source) -> Reading:
    """A dataset without pictures: items of text, each with all its columns."""
    import datasets

    pictures = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if pictures:
        raise HonesError(
            f"{source} holds pictures in {pictures[0]!r}, and no column 'image'", do=f"write ?image={pictures[0]}"
        )
    rows = [*track(dataset, "reading rows", len(dataset))]
    content = json.dumps([rows, sorted(columns.items())], default=str)
    return Reading(unified_rows(rows, columns), sha256=hashlib.sha256(content.encode()).hexdigest())


def _open(content: Content, source: Source) -> "Dataset":
    """The one split that is asked for, or the only one there is."""
    try:
        import datasets
        from datasets.exceptions import DatasetsError
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise HonesError(f"{source} is a dataset", do="pip install 'hones[datasets]'") from error
    config = source.options.get("config")
    revision = source.options.get("revision")
    split = source.options.get("split")
    try:
        if source.hub:
            loaded: Any = datasets.load_dataset(str(source.path), config, split=split, revision=revision)
        elif content.path.is_dir():
            loaded = datasets.load_from_disk(str(content.path))
        else:
            loaded = datasets.Dataset.from_parquet(str(content.path), cache_dir=str(_cache() / "parquet"))
    except (OSError, ValueError, TypeError, KeyError, ArrowException, DatasetsError) as error:
        problem = " ".join(str(error).split())[:300]
        raise HonesError(f"cannot load the dataset {source} ({problem})", do="check its name and options") from error
    if not isinstance(loaded, Mapping):
        if split is not None and not source.hub:
            raise HonesError(f"split={split} of {source}", expected="no split: it has one only")
        return loaded
    names = ", ".join(map(str, loaded))
    if split is None and len(loaded) != 1:
        raise HonesError(f"{source} has the splits {names}", expected="one of them", do="add ?split=NAME")
    if split is not None and split not in loaded:
        raise HonesError(f"{source} has no split {split!r}", expected=f"one of {names}")
    return next(iter(loaded.values())) if split is None else loaded[split]


def _rows(dataset: "Dataset", columns: Mapping[str, str], inside: bool) -> Any:
    """The rows without their pictures, whose names are the rows' numbers."""
    picture = columns["image"]
    wanted = [column for column in dict.fromkeys(columns.values()) if not (inside and column == picture)]
    rows: Any = dataset.select_columns(wanted)
    for number, row in enumerate(track(rows, "reading rows", len(dataset))):
        yield {**row, picture: f"row-{number:08d}"} if inside else row


def _unpack(dataset: "Dataset", column: str, items: Sequence[Item], folder: Path) -> Path:
    """Copy the encoded pictures of these items into the folder, those that are not there yet."""
    import datasets

    if isinstance(dataset.features[column], datasets.Image):
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    pictures = dataset.select_columns([column])
    folder.mkdir(parents=True, exist_ok=True)
    for item in track(items, "unpacking pictures"):
        file = folder / str(item.file_name)
        if not file.exists():
            write_bytes(file, _encoded(pictures[int(file.name.removeprefix("row-"))][column]))
    return folder


def _encoded(value: Any) -> bytes:
    """The bytes of a picture as a dataset holds it; none where it holds no picture: the item is then named as such."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        path = value.get("path")
        if isinstance(path, str) and Path(path).is_file():
            return Path(path).read_bytes()
    return b""


def _cache() -> Path:
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HONES_CACHE") or of_user / "hones")
