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

from hones.errors import HonesError
from hones.models.vlm import VLM, Encoded
from hones.progress import progress_bar
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
    if not examples:
        return statistics
    size = batch_size or DEFAULT_BATCH_SIZE
    per_group = max(1, size // len(examples[0].prompts))
    with progress_bar(progress, total=len(edits) * len(examples)) as bar:
        for start in range(0, len(examples), per_group):
            members = examples[start : start + per_group]
            part, size = _sweep_group(vlm, task, members, edits, size, max_new_tokens)
            statistics[:, start : start + len(members)] = part
            bar.update(part.shape[0] * part.shape[1])
    return statistics


def _sweep_group(
    vlm: VLM, task: Task, members: Sequence[Example], edits: Sequence[Edit], size: int, max_new_tokens: int
) -> tuple[Float[np.ndarray, "edits members k"], int]:
    """All edits of a few examples with one batch size for every arm; halved for all of them when memory runs out."""
    try:
        encoded = _encode(vlm, members, size)
        rows = []
        for edit in edits:
            with edit():
                answers = _answers(vlm, task, encoded, max_new_tokens)
            pairs = zip(members, _regroup(answers, members, task), strict=True)
            rows.append([task.statistics(example, answer) for example, answer in pairs])
        return np.array(rows, dtype=np.float32), size
    except torch.OutOfMemoryError as error:
        if size == 1:
            raise HonesError("out of device memory with one prompt at a time", do="use a smaller dtype") from error
        torch.cuda.empty_cache()
    return _sweep_group(vlm, task, members, edits, size // 2, max_new_tokens)


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
