"""What of a file each task can use, and everything that is wrong with it, counted by kind.

Every picture is opened once, and once more where a box is drawn. Problems keep an item from a task; remarks do not: a
box that leaves the picture in part, pictures that several items share, or whose bytes equal another's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from hones.data.disjoint import content_hash
from hones.data.items import Items
from hones.data.pictures import open_picture, remarks_of
from hones.data.unified import LeftOut
from hones.errors import NOT_ANNOTATED, BadItem, HonesError
from hones.progress import track
from hones.tasks import TASKS, make_task
from hones.tasks.base import Example, Task, examples_of
from hones.tasks.custom import FieldTask
from hones.tasks.retrieval import Retrieval

FIRST = 5


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


def check_items(
    items: Items, *, candidates: int = 50, pictures: bool = True, tasks: Sequence[Task] | None = None
) -> Report:
    """Check every item for every task.

    Args:
        candidates: of retrieval, the true one included.
        pictures: open every picture, unless no task shows one.
        tasks: which; None: the four that are built in. Of tasks that are named, items that are not annotated for them
            are a remark with the reason.
    """
    named = tasks is not None
    tasks = [make_task(name, candidates=candidates) for name in TASKS] if tasks is None else tasks
    asked = [_asked(task, items) for task in tasks]
    if named:
        pictures = pictures and any(example.image is not None for examples, _ in asked for example in examples)
    names = {item.file_name for item in items if item.file_name is not None}
    files = {name: partial(open_picture, items.images / name) for name in sorted(names)}
    of_pictures: list[LeftOut] = []
    broken: Mapping[str | None, BadItem] = _broken(files, "opening pictures", of_pictures) if pictures else {}
    gone = {items.images / name for name in broken if name is not None}
    problems = [("file", bad) for bad in items.left_out]
    problems += [("picture", LeftOut.of(item.id, broken[item.file_name])) for item in items if item.file_name in broken]
    remarks = [("remark", remark) for remark in (*items.remarks, *of_pictures, *_remarks(items, broken, pictures))]
    rows = []
    for task, (found, left_out) in zip(tasks, asked, strict=True):
        examples = [example for example in found if example.image not in gone]
        unseen = len(found) - len(examples)
        bad = [one for one in left_out if one.kind != NOT_ANNOTATED]
        not_annotated = [one for one in left_out if one.kind == NOT_ANNOTATED]
        if pictures:
            opened = {items.images / name for name in names}
            drawn = {e.id: e.open_picture for e in examples if e.box is not None or e.image not in opened}
            undrawn = _broken(drawn, f"drawing what {task.name} shows") if drawn else {}
            bad += [LeftOut.of(name, error) for name, error in undrawn.items()]
            examples = [example for example in examples if example.id not in undrawn]
        problems += [(task.name, one) for one in bad]
        if named:
            remarks += [(task.name, one) for one in not_annotated]
        most = task.file.max_items if isinstance(task, FieldTask) else None
        if most is not None:
            reason = f"max_items: {most}, of {len(examples)} that could be asked"
            remarks += [(task.name, LeftOut(e.id, reason, "usable, beyond max_items")) for e in examples[most:]]
        rows.append(Usable(task.name, len(examples[:most]), len(bad) + unseen, len(not_annotated)))
    return Report(
        file=str(items.file or items.images),
        format=items.format,
        sha256=items.sha256,
        items=len(items),
        pictures=len(names),
        tasks=tuple(rows),
        problems=_findings(problems),
        remarks=_findings(remarks),
    )


def _asked(task: Task, items: Items) -> tuple[list[Example], list[LeftOut]]:
    """Every item that the task can use, and those that it cannot, with the reason."""
    if isinstance(task, FieldTask):  # all, also beyond max_items
        return examples_of(items, lambda item: task.example(item, items.images))
    try:
        return task.examples(items)
    except HonesError as error:
        if not isinstance(task, Retrieval):
            raise
        few = f"too few captions for {task.candidates} candidates"
        return [], [LeftOut(item.id, str(error), few if item.captions else NOT_ANNOTATED) for item in items]


def _broken(
    pictures: Mapping[str, Callable[[], Any]], doing: str, remarks: list[LeftOut] | None = None
) -> dict[Any, BadItem]:
    """Of pictures by name, each with what opens it, those that cannot be opened, and why.

    Args:
        remarks: is filled with what of the others is shown otherwise than it looks.
    """
    broken: dict[Any, BadItem] = {}
    for name, opens in track(pictures.items(), doing):
        try:
            opened = opens()
        except BadItem as error:
            broken[name] = error
            continue
        if remarks is not None:
            remarks += [LeftOut(name, reason, kind) for kind, reason in remarks_of(opened)]
    return broken


def _remarks(items: Items, broken: Mapping[str | None, BadItem], pictures: bool) -> Iterable[LeftOut]:
    seen: set[str] = set()
    content: dict[str, str] = {}
    for item in items:
        name = item.file_name
        info = item.image_info
        if info is None or name is None:
            continue
        if item.ocr is not None and item.ocr.bbox is not None and info.width is not None and info.height is not None:
            x, y, width, height = item.ocr.bbox
            if x < 0 or y < 0 or x + width > info.width or y + height > info.height:
                yield LeftOut(item.id, f"box {list(item.ocr.bbox)}", "box partly outside the picture")
        if any(not caption.caption.strip() for caption in item.captions):
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
