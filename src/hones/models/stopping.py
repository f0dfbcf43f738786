"""Where a written answer ends, beside its end token: before the first of some texts.

The tokens of an answer are read one after the other, t_k being the text of the first k without the space before its
first word. The answer ends with the first k whose t_k holds one of the texts, and is what t_k has before it. So no
later token changes it, and decoding may end there: an engine that does gives what one that goes on to the limit gives.
"""

from collections.abc import Sequence
from typing import Any

from hones.models.template import Template
from hones.models.wordings import NONE
from hones.tasks.base import BarePrompt

LINE_END = ("\n",)
"""Where an answer ends that nothing else ends: the model was handed a text to go on with, and no conversation."""


def default_stop(template: Template, prompt: str) -> tuple[str, ...]:
    """Where answers to a prompt end unless their task says: a line's end where no template is around it."""
    return LINE_END if template.source == NONE or isinstance(prompt, BarePrompt) else ()


def stopped(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether an answer of these tokens is at an end: one of the texts is in it."""
    return bool(stop) and _first(tokenizer.decode(list(ids), skip_special_tokens=True).lstrip(), stop) is not None


def until_stop(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> list[int]:
    """The tokens up to the one with which the answer is at an end; all where it is not."""
    ends = (k for k in range(1, len(ids)) if stopped(tokenizer, ids[:k], stop)) if stop else ()
    return list(ids[: next(iter(ends), len(ids))])


def text_of(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> str:
    """The answer that tokens make, without outer space and what it is ended by."""
    text = tokenizer.decode(until_stop(tokenizer, ids, stop), skip_special_tokens=True).strip()
    return text[: _first(text, stop)].strip()


def _first(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the texts begins."""
    return min((at for at in map(text.find, stop) if at >= 0), default=None)
