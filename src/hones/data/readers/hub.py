"""Hugging Face `datasets`: a saved folder, a parquet file, or a dataset of the hub (`hf:OWNER/NAME`).

Options: `split`, `config`, `revision`, and the columns of `hones.data.readers.table`. The pictures inside are neither
decoded nor read before items are chosen; those of the chosen items are then copied, as they are encoded, into
`~/.cache/hones` (or $HONES_CACHE), with the rows as a unified file beside them. That file's hash is the data's.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hones.data.content import DATASET_FILES, Content, check_there, is_hidden
from hones.data.readers.base import Reader, Reading
from hones.data.readers.table import COLUMNS, columns_of, unified_rows
from hones.data.sources import Source, is_dir
from hones.data.unified import Item, LeftOut, parse_rows
from hones.errors import HonesError, seam
from hones.files import cache_folder, digest, refuse_lfs_pointer, sha256_of, write_bytes, write_json
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
        file = cache_folder() / digest(chosen.encode()) / "items.json"
        write_json(file, {"data": good})

        def pictures(items: Sequence[Item]) -> Path:
            return _unpack(dataset, columns["image"], items, file.parent / "images")

        return Reading([*good, *bad], file=file, sha256=sha256_of(file), pictures=pictures)


def _text_alone(dataset: "Dataset", columns: Mapping[str, str], source: Source) -> Reading:
    """A dataset without pictures: items of text, each with all its columns."""
    pictures = [name for name, feature in dataset.features.items() if _holds_pictures(feature)]
    if pictures:
        raise HonesError(
            f"{source} holds pictures in {pictures[0]!r}, and no column 'image'", do=f"write ?image={pictures[0]}"
        )
    rows = _read(dataset)
    content = json.dumps([rows, sorted(columns.items())], default=str)
    return Reading(unified_rows(rows, columns), sha256=hashlib.sha256(content.encode()).hexdigest())


def _holds_pictures(feature: Any) -> bool:
    """Whether a column holds pictures, alone or in lists."""
    import datasets

    return isinstance(_inner(feature) or feature, datasets.Image)


def _inner(feature: Any) -> Any:
    """What a column of lists has in them; None: it is none of lists."""
    return getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)


def _open(content: Content, source: Source) -> "Dataset":
    """The one split that is asked for, or the only one there is."""
    try:
        import datasets
    except ImportError as error:
        raise HonesError(f"{source} is a dataset", do="pip install 'hones[datasets]'") from error
    if source.path.is_absolute() or not source.hub:
        check_there(source.path)
    if is_dir(source.path):
        _refuse_folder(source)
    config = source.options.get("config")
    revision = source.options.get("revision")
    split = source.options.get("split")
    with seam(f"load the dataset {source}", do="check its name and options"):
        if source.hub:
            loaded: Any = datasets.load_dataset(str(source.path), config, split=split, revision=revision)
        elif content.path.is_dir():
            loaded = datasets.load_from_disk(str(content.path))
        else:
            loaded = datasets.Dataset.from_parquet(str(content.path), cache_dir=str(cache_folder() / "parquet"))
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


def _refuse_folder(source: Source) -> None:
    """Raises HonesError for a folder whose data set is made by a script, or whose files were not fetched."""
    for file in sorted(source.path.rglob("*")):
        if not any(is_hidden(part) for part in file.relative_to(source.path).parts) and file.is_file():
            refuse_lfs_pointer(file)
    script = source.path / f"{source.path.resolve().name}.py"
    if script.is_file() and not any((source.path / name).is_file() for name in DATASET_FILES):
        raise HonesError(
            f"{source} is made by the script {script.name}, and no code of a data set is run",
            expected="parquet, CSV or JSON lines",
            do="on the hub, ?revision=refs/convert/parquet often has it as parquet",
        )


def _rows(dataset: "Dataset", columns: Mapping[str, str], inside: bool) -> Any:
    """The rows without their pictures, whose names are the rows' numbers."""
    picture = columns["image"]
    wanted = [column for column in dict.fromkeys(columns.values()) if not (inside and column == picture)]
    for number, row in enumerate(_read(dataset.select_columns(wanted))):
        yield {**row, picture: f"row-{number:08d}"} if inside else row


def _read(dataset: "Dataset") -> list[dict[str, Any]]:
    """All rows, the numbers of classes as their names."""
    named = {column: name for column, feature in dataset.features.items() if (name := _names_of(feature)) is not None}
    with seam("read the rows of the dataset"):
        rows: list[Any] = [*track(dataset, "reading rows", len(dataset))]
    return [row | {column: name(row[column]) for column, name in named.items()} for row in rows] if named else rows


def _names_of(feature: Any) -> Callable[[Any], Any] | None:
    """What makes the names of a column's classes, alone or in a list, of their numbers; None: it holds none."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return lambda value: feature.int2str(value) if isinstance(value, int) and value >= 0 else None
    inner = _inner(feature)
    name = None if inner is None else _names_of(inner)
    return None if name is None else lambda values: [name(value) for value in values or ()]


def _unpack(dataset: "Dataset", column: str, items: Sequence[Item], folder: Path) -> Path:
    """Copy the encoded pictures of these items into the folder, those that are not there yet."""
    pictures = dataset.select_columns([column]).with_format("arrow")  # as they are stored, not decoded
    folder.mkdir(parents=True, exist_ok=True)
    for item in track(items, "unpacking pictures"):
        file = folder / str(item.file_name)
        if not file.exists():
            with seam("read the pictures of the dataset"):
                content = _encoded(pictures[int(file.name.removeprefix("row-"))][column][0].as_py())
            write_bytes(file, content)
    return folder


def _encoded(value: Any) -> bytes:
    """The bytes of a picture as a dataset holds it, alone or in a list of one.

    None where it holds no picture, or several: the item is then named as such.
    """
    if isinstance(value, list) and len(value) == 1:
        return _encoded(value[0])
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        path = value.get("path")
        if isinstance(path, str) and Path(path).is_file():
            return Path(path).read_bytes()
    return b""
