"""A pattern that picks the answer out of what a model says.

A regular expression may take forever on some text; Python's `re` cannot be interrupted, so `regex` runs it, against a
bound of seconds that no answer of some hundred characters comes near to.
"""

from functools import lru_cache
from typing import Any

import regex

from hones.errors import TaskStops

SECONDS = 5.0


def check_pattern(pattern: str) -> str:
    """The pattern, if it is one with one group.

    Raises:
        ValueError: it is no regular expression, or has no group, or several.
    """
    try:
        groups = _compiled(pattern).groups
    except Exception as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
    if groups != 1:
        raise ValueError(f"{pattern!r} has {groups} groups, one picks the answer: (...); (?:...) for those that do not")
    return pattern


def picked(pattern: str, answer: str) -> str:
    """What the pattern's group holds where it is first found; "" where it is not.

    Raises:
        TaskStops: it takes more than `SECONDS`.
    """
    try:
        found = _compiled(pattern).search(answer, timeout=SECONDS)
    except TimeoutError as error:
        raise TaskStops(
            f"the pattern {pattern!r} takes more than {SECONDS:g} s on the answer {answer[:60]!r}",
            expected="one without repetitions inside repetitions",
        ) from error
    return "" if found is None or found[1] is None else found[1]


@lru_cache
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)
