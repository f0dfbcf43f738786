"""The definition of a sweep: for every (edit, item) cell, one full greedy answer of the edited model.

The result is statistics [edits, items, k], float32, from which every score, drop and interval follows. Items are the
outer loop, so that all arms see the same encoded pictures and a cell's neighbours in its batch are the same under
every edit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from hones.models.vlm import VLM, Encoded
from hones.progress import track
from hones.tasks.base import Answer, Example, Task

Edit = Callable[[], AbstractContextManager[None]]
MAX_NEW_TOKENS = 24
DEFAULT_BATCH_SIZE = 32


def sweep(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    edits: Sequence[Edit],
    *,
    batch_size: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: str = "sweep",
) -> Float[np.ndarray, "edits items k"]:
    """Answer every example under every edit.

    Args:
        edits: what makes the edited model, as a context manager; `contextlib.nullcontext` is the baseline.
        batch_size: prompts per forward pass; default 32, halved when the device runs out of memory.

    Returns:
        The task's statistics of each cell.

    Raises:
        HonesError: logits that are not finite.
    """
    statistics = np.zeros((len(edits), len(examples), len(task.statistic_names)), dtype=np.float32)
    per_group = max(1, (batch_size or DEFAULT_BATCH_SIZE) // len(examples[0].prompts)) if examples else 1
    groups = [range(i, min(i + per_group, len(examples))) for i in range(0, len(examples), per_group)]
    cells = track(_cells(groups, len(edits)), progress, total=len(groups) * len(edits))
    encoded: list[Encoded] = []
    size = batch_size or DEFAULT_BATCH_SIZE
    for group, e in cells:
        members = [examples[i] for i in group]
        if e == 0:
            encoded = _encode(vlm, members, size)
        while True:
            try:
                with edits[e]():
                    answers = _answers(vlm, task, encoded, max_new_tokens)
                break
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                torch.cuda.empty_cache()
                encoded = _encode(vlm, members, size)
        for i, example, answer in zip(group, members, _regroup(answers, members, task), strict=True):
            statistics[e, i] = task.statistics(example, answer)
    return statistics


def _cells(groups: Sequence[range], edits: int) -> Iterator[tuple[range, int]]:
    for group in groups:
        for e in range(edits):
            yield group, e


def _encode(vlm: VLM, members: Sequence[Example], size: int) -> list[Encoded]:
    """All prompts of the examples in batches of at most `size`."""
    rows: list[tuple[Image.Image, str]] = []
    for example in members:
        picture = example.open_picture()
        rows += [(picture, prompt) for prompt in example.prompts]
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [vlm.encode([picture for picture, _ in part], [prompt for _, prompt in part]) for part in parts]


def _answers(vlm: VLM, task: Task, encoded: Sequence[Encoded], max_new_tokens: int) -> list[str] | list[float]:
    """One answer per row: a text, or the margin of Yes over No."""
    if task.answers == "text":
        return [text for part in encoded for text in vlm.generate(part, max_new_tokens)]
    return [margin for part in encoded for margin in vlm.yes_margins(part).tolist()]


def _regroup(answers: list[str] | list[float], members: Sequence[Example], task: Task) -> Iterator[Answer]:
    """One answer per example: its text, or its candidates' margins."""
    at = 0
    for example in members:
        part = answers[at : at + len(example.prompts)]
        at += len(example.prompts)
        yield str(part[0]) if task.answers == "text" else np.array(part, dtype=np.float64)
