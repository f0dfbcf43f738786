"""The next command after a stage, ready to paste."""

import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hones.cli.shown import say


def say_next(done: Any, following: type, **given: Any) -> None:
    """One line: the command `following`, with the options that it shares with the one that is done.

    Args:
        done, following: dataclasses of options; what has a default is named only where it is another.
        given: other options; placeholders such as TEST.json for what is not known, None for what is not shared.
    """
    words = ["hones", following.__name__.lower()]
    for field in sorted(fields(following), key=lambda field: field.default is not MISSING):
        value = given[field.name] if field.name in given else getattr(done, field.name, field.default)
        if value == field.default or field.name in ("fresh", "anyway"):
            continue
        option = f"--{field.name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    say(f"next: {shlex.join(words)}")


def say_results(run: Path) -> None:
    """What there is to look at."""
    say(f"next: {shlex.join(['hones', 'answers', str(run), '--changed'])}")
    say(f"next: {shlex.join(['hones', 'report', str(run)])}")
