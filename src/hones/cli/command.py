"""How dataclasses of options become commands, what help shows of them, and how Ctrl-C ends them."""

import sys
from inspect import get_annotations, unwrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

from hones.cli.shown import fail
from hones.log import close_log

PANELS = ("Data", "Model", "Speed", "Cluster", "Run", "Training", "Evidence")


class DataclassCommand(TyperCommand):
    """A command whose callback is a dataclass of options: it is constructed from what was typed, then executed.

    In the help the needed options stand first, --out last of them, then the command's own, then those of its groups, in
    the panel of each group. `renamed` of the dataclass holds old spellings, which still work and are not shown.
    """

    kind: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind = unwrap(kwargs["callback"])  # typer wraps it
        group = {name: base for base in reversed(kind.__mro__) for name in get_annotations(base)}

        def place(param: Any) -> int:
            if param.required:
                return 1 if param.name == "out" else 0
            panel = getattr(group[param.name], "panel", None)
            return 2 if group[param.name] is kind or panel is None else 3 + PANELS.index(panel)

        options: list[Any] = self.params
        for param in options:
            if place(param) > 2:
                param.rich_help_panel = group[param.name].panel
        self.params.sort(key=place)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Old spellings are read as the new ones."""
        renamed: dict[str, str] = getattr(self.kind, "renamed", {})
        words = [word.partition("=") for word in args]
        return super().parse_args(ctx, [f"{renamed.get(name, name)}{sign}{value}" for name, sign, value in words])

    def invoke(self, ctx: Any) -> None:
        """The callback is the dataclass."""
        super().invoke(ctx).execute()


class Commands(TyperGroup):
    """All commands; Ctrl-C ends each with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Exit code 130 where it was interrupted."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            log = close_log()
            kept = "nothing was begun that could be gone on with"
            if log is not None:
                again = "the same command without --fresh" if "--fresh" in sys.argv else "the same command"
                kept = f"{log.parent} keeps what has been computed; {again} goes on from there"
            fail(f"interrupted: {kept}")
            sys.exit(130)
