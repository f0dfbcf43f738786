"""How commands show what a stage found."""

from rich.console import Console

_out = Console(markup=False)
_err = Console(stderr=True, markup=False)


def show(study, task: str | None, *parts) -> None:
    """The items left out of a task (None: of all), to standard error; the tables, and last the file written."""
    from hones.runs.study import all_left_out
    from hones.views.terminal import left_out_list

    *tables, file = parts
    _err.print(left_out_list([x for x in all_left_out(study) if task is None or x[0].startswith(f"{task},")]))
    _out.print(*tables)
    _out.print(f"written: {file}", soft_wrap=True)
