"""What of a file each task can use, and everything that is wrong with it, counted by kind.

Every picture is opened once, and once more where a box is drawn. Problems keep an item from a task; remarks do not: a
box that leaves the picture in part, pictures that several items share, or whose bytes equal another's.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hones.data.disjoint import content_hash
from hones.data.items import Item, Items, LeftOut
from hones.data.pictures import open_picture
from hones.errors import BadItem, HonesError
from hones.progress import track
from hones.tasks import TASKS, make_task

FIRST = 5
_FIELD = {"vqa": "vqa", "ocr": "ocr", "caption": "captions", "retrieval": "captions"}


@dataclass(frozen=True)
class Usable:
    """Items of one task: usable, refused with a problem, without its annotation."""

    task: str
    usable: int
    refused: int
    not_annotated: int


@dataclass(frozen=True)
class Finding:
    """One kind of problem, or remark, with how many items have it, the first ids, and what the first is exactly."""

    where: str
    kind: str
    count: int
    first: tuple[str, ...]
    example: str


@dataclass(frozen=True)
class Report:
    """What `hones data check` found. items: read from the file; sha256: of the file."""

    file: str
    format: str
    sha256: str
    items: int
    pictures: int
    tasks: tuple[Usable, ...]
    problems: tuple[Finding, ...]
    remarks: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return asdict(self)


def check_items(items: Items, *, candidates: int = 50, pictures: bool = True) -> Report:
    """Check every item for every task.

    Args:
        candidates: of retrieval, the true one included.
        pictures: open every picture.
    """
    problems = [("file", bad) for bad in items.left_out]
    names = {item.file_name for item in items.items if item.file_name is not None}
    broken = _broken(items.images, names) if pictures else {}
    of = {item.id: item for item in items.items}
    problems += [("picture", _named(item, broken)) for item in items.items if item.file_name in broken]
    rows = []
    for name in TASKS:
        annotated = {item.id for item in items.items if getattr(item, _FIELD.get(name, "vqa"))}
        try:
            examples, bad = make_task(name, candidates=candidates).examples(items)
        except HonesError as error:
            examples, bad = (
                [],
                [LeftOut(one, str(error), f"too few captions for {candidates} candidates") for one in of],
            )
        bad = [one for one in bad if one.id in annotated]
        if pictures and name == "ocr":
            sound = [e for e in examples if of[e.id].file_name not in broken]
            bad += _refused(sound)
        refused = {one.id for one in bad}
        usable = [e for e in examples if e.id not in refused and of[e.id].file_name not in broken]
        problems += [(name, one) for one in bad]
        rows.append(Usable(name, len(usable), len(annotated) - len(usable), len(items) - len(annotated)))
    place = str(items.file or items.images)
    remarks = _findings(("remark", one) for one in _remarks(items, broken, pictures))
    return Report(place, items.format, items.sha256, len(items), len(names), tuple(rows), _findings(problems), remarks)


def _broken(folder: Path, names: Iterable[str]) -> dict[str, BadItem]:
    """The pictures that cannot be opened, by name, and why."""
    broken = {}
    for name in track(sorted(names), "opening pictures"):
        try:
            open_picture(folder / name)
        except BadItem as error:
            broken[name] = error
    return broken


def _named(item: Item, broken: dict[str, BadItem]) -> LeftOut:
    return LeftOut.of(item.id, broken[str(item.file_name)])


def _refused(examples: Iterable[Any]) -> list[LeftOut]:
    """The examples whose box does not fit their picture."""
    bad = []
    for example in track(examples, "drawing boxes"):
        try:
            example.open_picture()
        except BadItem as error:
            bad.append(LeftOut.of(example.id, error))
    return bad


def _remarks(items: Items, broken: dict[str, BadItem], pictures: bool) -> Iterable[LeftOut]:
    seen: set[str] = set()
    content: dict[str, str] = {}
    for item in items.items:
        name, info = item.file_name, item.image_info
        if info is None or name is None:
            continue
        if item.ocr is not None and item.ocr.bbox is not None and info.width is not None and info.height is not None:
            x, y, width, height = item.ocr.bbox
            if x < 0 or y < 0 or x + width > info.width or y + height > info.height:
                yield LeftOut(item.id, f"box {list(item.ocr.bbox)}", "box partly outside the picture")
        if any(not one.caption.strip() for one in item.captions):
            yield LeftOut(item.id, "an empty caption beside others", "empty caption")
        if name in seen:
            yield LeftOut(item.id, f"{name} is another item's too", "picture of several items")
        elif pictures and name not in broken:
            same = content.setdefault(content_hash(items.images / name), name)
            if same != name:
                yield LeftOut(item.id, f"{name} holds the same as {same}", "duplicate picture")
        seen.add(name)


def _findings(rows: Iterable[tuple[str, LeftOut]]) -> tuple[Finding, ...]:
    """The rows by place and kind, in order of appearance."""
    groups: dict[tuple[str, str], list[LeftOut]] = defaultdict(list)
    for where, row in rows:
        groups[where, row.kind or row.reason].append(row)
    return tuple(
        Finding(where, kind, len(rows), tuple(row.id for row in rows[:FIRST]), rows[0].reason)
        for (where, kind), rows in groups.items()
    )
