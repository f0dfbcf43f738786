"""What methods are given to rank a task's neurons: examples, critical heads, the other tasks on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.errors import BadItem, HonesError, NothingGuides
from hones.files import digest_of
from hones.method.found import HeadScore
from hones.models.vlm import VLM
from hones.rivals.auto import AtHand
from hones.rivals.base import Context, Method
from hones.rivals.hones_plus import contrasted
from hones.rivals.selective import told_apart
from hones.runs.artifacts import read_heads
from hones.runs.found_on import check_found_on
from hones.runs.stage import Workspace
from hones.tasks import TASKS, make_task, names_beside
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class CriticalHeads:
    """Critical heads, and the digest of the file that they were read from; none for methods without heads."""

    critical: tuple[HeadScore, ...] = ()
    digest: str | None = None


@dataclass(frozen=True)
class MethodInputs:
    """What methods are given, and what identifies it: digests of the heads file and of the other tasks' questions.

    elsewhere: of those on other pictures; None where there are none.
    """

    context: Context
    heads: str | None
    others: str
    elsewhere: str | None = None

    def fingerprint_of(self, method: Method) -> dict[str, Any]:
        """What the method's numbers depend on beside model, items, ratio and seed."""
        heads = {"heads": self.heads} if method.needs_heads else {}
        others = {"others": self.others} if _uses_others(method) else {}
        elsewhere = {"elsewhere": self.elsewhere} if self.elsewhere and method.takes_other_tasks else {}
        options = {"options": method.options} if method.options else {}
        return {"method": method.name, **heads, **others, **elsewhere, **options}


def critical_heads(vlm: VLM, task: Task, file: Path | None, methods: Sequence[Method]) -> CriticalHeads:
    """The critical heads of a heads file, read where one of the methods needs them.

    Raises:
        HonesError: they are needed and there is no file, or not one, or of another task or model.
    """
    needing = [method.name for method in methods if method.needs_heads]
    if not needing:
        return CriticalHeads()
    if file is None:
        raise HonesError(f"the method {needing[0]} needs critical heads", do="give --heads, which `hones heads` writes")
    heads = read_heads(file, task.name)
    check_found_on(vlm, file)
    others = {other.metric_name for name, other in TASKS.items() if name != task.name}
    if heads.metric_name in others - {task.metric_name}:
        raise HonesError(f"{file} scores heads by {heads.metric_name}", expected=task.metric_name)
    if not heads.critical:
        raise NothingGuides(
            f"{task.name} has no critical heads, which the method {needing[0]} needs: no head's replacement lowers "
            f"{heads.metric_name} ({heads.baseline.value:.3f} as the model is)",
            do="look at the answers with `hones answers`, or score heads with --utility logprob",
        )
    for head in heads.critical:
        vlm.anatomy.check_head(head.layer, head.head)
    return CriticalHeads(heads.critical, digest_of(file))


def method_inputs(
    study: Workspace,
    task: Task,
    discovery: Items,
    examples: Sequence[Example],
    heads: CriticalHeads,
    methods: Sequence[Method],
    shared: dict[Any, Any] | None = None,
) -> MethodInputs:
    """What the methods use on a task's examples.

    Args:
        discovery: where the other tasks' examples come from.
        shared: what methods keep for other tasks on the same discovery items.

    Raises:
        HonesError: a method lacks something it needs.
    """
    needs_others = any(map(_uses_others, methods))
    others = other_tasks(study.vlm, task, discovery, examples) if needs_others else []
    missing = [other for other, of_task in others if not of_task]
    elsewhere = on_other_pictures(study.vlm, missing, discovery, len(examples))
    context = Context(
        vlm=study.vlm,
        task=task,
        examples=examples,
        heads=heads.critical,
        others=others,
        elsewhere=elsewhere,
        seed=study.seed,
        sweep=study.sweep,
        shared={} if shared is None else shared,
    )
    for method in methods:
        method.check(context)
    return MethodInputs(context, heads.digest, _digest_of(others), _digest_of(elsewhere) if elsewhere else None)


def _digest_of(asked: Sequence[tuple[Task, Sequence[Example]]]) -> str:
    said = repr([(task.name, e.id, e.prompts[0], e.target) for task, of_task in asked for e in of_task])
    return sha256(said.encode()).hexdigest()[:16]


def _uses_others(method: Method) -> bool:
    return method.needs_other_tasks or method.takes_other_tasks


def other_tasks(
    vlm: VLM, task: Task, items: Items, examples: Sequence[Example]
) -> list[tuple[Task, Sequence[Example]]]:
    """The other tasks' examples on the pictures of `examples`, or on its items of text; what they are annotated for.

    Only the first prompt is asked, so retrieval needs no more than one negative.
    """
    about = {example.about for example in examples}
    others = []
    for name in names_beside(task):
        if name != task.name:
            other = make_task(name, candidates=2)
            usable, _ = other.examples(items)
            others.append((other, [e for e in usable if e.about in about and _can_be_asked(vlm, e)]))
    return others


def on_other_pictures(
    vlm: VLM, missing: Sequence[Task], items: Items, most: int
) -> list[tuple[Task, Sequence[Example]]]:
    """The first `most` examples of each task, whatever picture they are about; tasks without any are left out.

    For files whose pictures serve one task each, as photographs that were annotated for captions or for their text.
    """
    found = []
    for task in missing:
        usable, _ = task.examples(items)
        asked = list(islice((e for e in usable if _can_be_asked(vlm, e)), most))
        if asked:
            found.append((task, asked))
    return found


def at_hand(
    vlm: VLM, task: Task, items: Items, examples: Sequence[Example], heads_named: bool = False, times: float = 1
) -> AtHand:
    """What auto looks at, of a task and its examples.

    Args:
        items: where the other tasks' examples come from.
        times: items for each of the examples, where they are a sample.
    """
    others = {t.name: contrasted(t, e) for t, e in other_tasks(vlm, task, items, examples) if told_apart(t, e)}
    return AtHand(
        task=task.name,
        prompts=round(times * contrasted(task, examples)),
        others={name: round(times * prompts) for name, prompts in others.items()},
        told_apart=told_apart(task, examples),
        heads_named=heads_named,
        pictures=round(times * len({example.about for example in examples})),
    )


def _can_be_asked(vlm: VLM, example: Example) -> bool:
    try:
        vlm.wrap(example.prompts[0])
    except BadItem:
        return False
    return True
