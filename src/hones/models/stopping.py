"""Where a written answer ends, beside its end token: before the first of some texts.

The tokens of an answer are read one after the other, t_k being the text of the first k. The answer ends with the first
k whose t_k holds one of the texts, not counting what lies within the space before its first word, and is what t_k has
before it. So no later token changes it, and decoding may end there: an engine that does gives what one that goes on to
the limit gives.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from unicodedata import normalize

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
    return bool(stop) and _first(_read(tokenizer, ids, stop), stop) is not None


def until_stop(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> list[int]:
    """The tokens up to the one with which the answer is at an end; all where it is not."""
    ends = (k for k in range(1, len(ids)) if stopped(tokenizer, ids[:k], stop)) if stop else ()
    return list(ids[: next(iter(ends), len(ids))])


def text_of(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> str:
    """The answer that tokens make, without outer space and what it is ended by."""
    text = _read(tokenizer, until_stop(tokenizer, ids, stop), stop)
    text = text[: _first(text, stop)]
    for special in _special_within(tokenizer, tuple(stop)):
        text = text.replace(special, "")
    return text.strip()


def _read(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> str:
    """The text of tokens; of special ones too where one of the texts names them, which otherwise have none."""
    return tokenizer.decode(list(ids), skip_special_tokens=not _special_within(tokenizer, tuple(stop)))


@lru_cache(maxsize=64)
def _special_within(tokenizer: Any, stop: tuple[str, ...]) -> tuple[str, ...]:
    """The special tokens' texts, if `stop` has one of them; none otherwise."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = tuple(str(token) for token in added if token.special)
    return texts if any(special in text for text in stop for special in texts) else ()


def _first(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the texts begins that reaches beyond the space before the first word."""
    space = len(text) - len(text.lstrip())
    found = (text.find(form, max(0, space + 1 - len(form))) for form in _spelled(tuple(stop)))
    return min((at for at in found if at >= 0), default=None)


@lru_cache(maxsize=64)
def _spelled(stop: tuple[str, ...]) -> tuple[str, ...]:
    """The texts as given, composed and decomposed: a model may write either."""
    return tuple(
        dict.fromkeys(form for text in stop for form in (text, normalize("NFC", text), normalize("NFD", text)))
    )
