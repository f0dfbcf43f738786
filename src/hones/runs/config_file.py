"""The file of a configuration: its content with what `--set` changes, and whether it is filled in."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hones.errors import HonesError, keys_inside, seam
from hones.files import read_text, read_yaml


def config_content(file: Path, kind: type[BaseModel], changes: Sequence[str]) -> dict[str, Any]:
    """The keys of a configuration's file.

    Args:
        kind: what the content is to be read as.
        changes: what stands in place of the file's own, `key=value` or `section.key=value`, the value as YAML.

    Raises:
        HonesError: no such file, not YAML, a change that is none, or a value that `hones init` left to be filled in.
    """
    content = read_yaml(file, "keys such as model, out and data", "`hones init` writes a configuration")
    for change in changes:
        _set(content, change)
    _check_filled_in(file, kind, content)
    return content


def placeholder(name: str, field: FieldInfo) -> str:
    """What `hones init` writes for a needed value that no example can give."""
    return f"{name.upper()}.json" if field.annotation is Path else name.upper()


def _check_filled_in(file: Path, kind: type[BaseModel], content: Mapping[str, Any]) -> None:
    """Raises:
    HonesError: values are placeholders; names the line of each, and what to put there.
    """
    unfilled = [*_unfilled(file.parent, kind, content)]
    if not unfilled:
        return
    lines = dict(_lines(yaml.compose(read_text(file), Loader=yaml.SafeLoader)))
    said = [f"line {lines[key]}, {key}: {value} (expected {what})" for key, value, what in unfilled if key in lines]
    if said:  # not what --set has put there
        found = f"{file} is not filled in: {'; '.join(said)}"
        raise HonesError(found, do="`hones data shapes --to data` writes three annotation files to try")


def _unfilled(
    base: Path, kind: type[BaseModel], content: Mapping[str, Any], sections: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Each placeholder: its key with its sections, itself, what is expected. What exists by such a name is none."""
    for name, field in kind.model_fields.items():
        value = content.get(name)
        section = keys_inside(field)
        if section is not None and isinstance(value, Mapping):
            yield from _unfilled(base, section, value, f"{sections}{name}.")
        left = placeholder(name, field)
        if not field.is_required() or field.examples or value != left or (base / left).exists() or Path(left).exists():
            continue
        what = "an annotation file, " if field.annotation is Path else ""
        yield f"{sections}{name}", left, f"{what}{field.description}"


def _lines(node: yaml.Node | None, sections: str = "") -> Iterator[tuple[str, int]]:
    """Each key with its sections, and the line of its value, from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{sections}{key.value}", value.start_mark.line + 1
            yield from _lines(value, f"{sections}{key.value}.")


def _set(content: dict[str, Any], change: str) -> None:
    """Put one `section.key=value` into a configuration's content.

    Raises:
        HonesError: it is not of that form, its value is not YAML, or what stands before a dot has no keys.
    """
    path, sign, text = change.partition("=")
    *sections, key = path.strip().split(".")
    if not sign or not all((*sections, key)):
        raise HonesError(f"--set {change}", expected="KEY=VALUE or SECTION.KEY=VALUE, such as limit.test=100")
    with seam(f"read the value of --set {change} as YAML"):
        value = yaml.safe_load(text)
    inside = content
    for section in sections:
        if inside.get(section) is None:
            inside[section] = {}
        inside = inside[section]
        if not isinstance(inside, dict):
            raise HonesError(f"--set {change}: {section} is {inside!r}", expected="a section with keys")
    inside[key] = value
