"""The items of a stage: which can be used, which are left out, what identifies them, and where they are.

Every picture is opened and every prompt wrapped before a stage computes anything, so that all arms of a comparison
have the same items.
"""

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hones.data.items import Items, LeftOut
from hones.data.pictures import remarks_of
from hones.errors import BadItem, TaskStops
from hones.files import place_from
from hones.log import LOG
from hones.models.context import check_prompts
from hones.models.vlm import VLM, default_stop_of
from hones.progress import track
from hones.tasks.base import Definition, Example, Task
from hones.tasks.retrieval import Retrieval


@dataclass(frozen=True)
class Prepared:
    """The examples of one task that can be used, the items left out, what identifies them, and where they are from.

    candidates: of retrieval, else None. definition: of a custom task, else None. stop: where answers end by the model's
    default (`hones.models.stopping`). remarks: pictures that are shown otherwise than their file looks, once each.
    """

    examples: list[Example]
    left_out: list[LeftOut]
    fingerprint: dict[str, str]
    file: Path | None
    images: Path
    candidates: int | None
    definition: Definition | None = None
    stop: tuple[str, ...] = ()
    remarks: tuple[LeftOut, ...] = ()

    @property
    def label(self) -> str:
        """The file with its folder, which often says where it is from."""
        return "" if self.file is None else "/".join(self.file.absolute().parts[-2:])


def prepare(vlm: VLM, task: Task, items: Items, split: str, room: int = 1) -> Prepared:
    """The examples whose picture opens and whose prompt and answers the model takes; others are named.

    Args:
        room: tokens of a written answer, which the model's context must have room for too.

    Raises:
        TaskStops: the task shows pictures and the model takes none, or only some examples have one; or it reads Yes and
            No, for which the model has no two tokens.
    """
    examples, left_out = task.examples(items)
    shown = sum(example.image is not None for example in examples)
    if 0 < shown < len(examples):
        raise TaskStops(
            f"{task.name}: {shown} of {len(examples)} examples have a picture", expected="all of them, or none"
        )
    if shown and not vlm.shows_pictures:
        raise TaskStops(
            f"{vlm.name} is a text-only model, the task {task.name} shows pictures",
            expected="a task without pictures",
            do="`picture: none` in a task's YAML (docs/tasks.md)",
        )
    left_out = [*items.left_out, *left_out]
    if task.answers == "yes_no":
        vlm.answer_tokens.both()
    follows = split in ("discovery", "dev") or task.answers == "log_probability"  # they are learned from or scored
    good, digest = [], sha256(task.answers.encode())
    remarks: dict[tuple[Path, str], LeftOut] = {}
    for example in track(examples, f"checking {split} items"):
        try:
            _check_text(example)
            picture = example.open_picture()
            check_prompts(vlm, picture, example.prompts, room if task.answers == "text" else 1)
            if follows:
                for answer in {example.target, *task.answers_to_learn(example), *example.references[:1]}:
                    vlm.answer_ids(example.prompts[0], answer)
        except BadItem as error:
            name = example.id.encode(errors="backslashreplace").decode()
            left_out.append(LeftOut(name, " ".join(str(error).split()), error.kind))
            continue
        good.append(example)
        if picture is not None and example.image is not None:
            for kind, reason in remarks_of(picture):
                remarks[example.image, kind] = LeftOut(example.image.name, reason, kind)
        asked = (example.id, example.prompts, example.target, example.references, example.box)
        digest.update(repr(asked).encode())
        digest.update(b"" if picture is None else picture.tobytes())
    for item in left_out:
        LOG.warning("left out (%s, %s): item %s: %s", task.name, split, item.id, item.reason)
    for remark in remarks.values():
        LOG.info("remark on the picture %s: %s: %s", remark.id, remark.kind, remark.reason)
    fingerprint = {"data": items.sha256, "asked": digest.hexdigest()[:16]}
    if task.definition is not None:
        fingerprint["task"] = task.definition.digest
    candidates = task.candidates if isinstance(task, Retrieval) else None
    stop = default_stop_of(vlm, task, good)
    return Prepared(
        good,
        left_out,
        fingerprint,
        items.file,
        items.images,
        candidates,
        task.definition,
        stop,
        tuple(remarks.values()),
    )


def _check_text(example: Example) -> None:
    """Raises BadItem where a text is none that can be written: half of a pair of surrogates, as cut JSON has it."""
    for text in (example.id, *example.prompts, example.target, *example.references):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise BadItem(f"its text has half a character, {half}", kind="half a character") from error


def state_of(items: Items) -> int:
    """A number that changes when a picture's file does: its time or its size."""
    states: list[tuple[int, int] | None] = []
    for item in items.items:
        try:
            found = None if item.file_name is None else (items.images / item.file_name).stat()
        except OSError:
            found = None
        states.append(None if found is None else (found.st_mtime_ns, found.st_size))
    return hash(tuple(states))


def provenance(run: Path, used: Prepared) -> dict[str, Any]:
    """Which items were used and where they are; places from the run folder, so that both can move together."""
    definition = {} if used.definition is None else {"task": asdict(used.definition)}
    return {
        "items": [e.id for e in used.examples],
        "left_out": [asdict(x) for x in used.left_out],
        "file": None if used.file is None else place_from(run, used.file),
        "images": place_from(run, used.images),
        "candidates": used.candidates,
        **definition,
    }
