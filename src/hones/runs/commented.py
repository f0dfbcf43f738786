"""The file of `hones init`: every key of a configuration, explained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hones.errors import keys_inside
from hones.runs.config_file import placeholder

HEAD = """\
# A configuration of `hones run`: fill in model, out and data, and it runs.
# Keys behind a # have the value shown unless you change it. Relative paths start at this file's folder.
"""


def commented_config(kind: type[BaseModel]) -> str:
    """YAML of every key with what it means: needed ones to be filled in, the others as comments with their default."""
    return HEAD + "".join(f"{line}\n" for line in _lines(kind, ""))


def _lines(kind: type[BaseModel], indent: str) -> Iterator[str]:
    """indent: what stands before each key; it begins with a # inside a key that is a comment."""
    for name, field in kind.model_fields.items():
        section = keys_inside(field)
        behind = indent if field.is_required() or indent.startswith("#") else f"# {indent}"
        if section is not None and not indent:
            yield ""
        if section is None:
            yield f"{behind}{name}: {_shown(name, field)}{f'  # {field.description}' if field.description else ''}"
        else:
            yield f"{behind}{name}:{f'  # {field.description}' if field.description else ''}"
            yield from _lines(section, f"{behind}  ")


def _shown(name: str, field: FieldInfo) -> str:
    """The default, or an example where one is needed, as YAML on one line."""
    value: Any = field.default
    if field.is_required():
        value = field.examples[0] if field.examples else placeholder(name, field)
    plain = str(value) if isinstance(value, Path) else [*value] if isinstance(value, tuple) else value
    flow = isinstance(plain, Sequence)
    return yaml.safe_dump(plain, default_flow_style=flow).removesuffix("\n").removesuffix("\n...")
