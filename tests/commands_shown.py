"""What the command line offers: every command with its parameters, as its help describes them.

Found by introspection, not from rendered text: parameters are keyed by their option names, so their order is free.
"""

from pathlib import Path
from typing import Any

import typer

from hones.cli.commands import app


def application() -> typer.Typer:
    """The one place that knows where the application is."""
    return app


def commands_shown() -> dict[str, dict[str, Any]]:
    """Every group and command by the words that call it; the application itself is "hones"."""
    found: dict[str, dict[str, Any]] = {}
    _visit("hones", typer.main.get_command(application()), found)
    return found


def _visit(words: str, command: Any, found: dict[str, dict[str, Any]]) -> None:
    inner: dict[str, Any] = getattr(command, "commands", {})
    about = ("help", "short_help", "epilog", "hidden", "deprecated", "no_args_is_help", "rich_help_panel")
    found[words] = {
        **{key: _plain(getattr(command, key)) for key in about},
        "commands": sorted(inner),
        "parameters": {_name(p): _parameter(p) for p in command.params},
    }
    for name, child in inner.items():
        _visit(f"{words} {name}", child, found)


def _name(parameter: Any) -> str:
    """The option names as they are declared, `--fresh/--resume`; an argument's in brackets."""
    if parameter.param_type_name == "argument":
        return f"[{parameter.name}]"
    return "/".join([*parameter.opts, *parameter.secondary_opts])


def _parameter(parameter: Any) -> dict[str, Any]:
    """Its type, bounds, default and help."""
    about = ("help", "required", "default", "show_default", "multiple", "nargs", "hidden", "envvar", "metavar")
    flags = ("is_flag", "count", "min", "max", "rich_help_panel", "is_eager")
    return {
        "kind": parameter.param_type_name,
        "type": _type(parameter),
        **{key: _plain(getattr(parameter, key, None)) for key in (*about, *flags)},
    }


def _type(parameter: Any) -> str:
    """The annotation that the value is converted to."""
    annotation = parameter.type_descriptor.annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    inner = getattr(value, "value", None)  # of typer's placeholder for "not given"
    return inner if inner is None or isinstance(inner, str) else repr(inner)
