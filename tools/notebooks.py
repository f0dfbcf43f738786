"""Notebooks: written as Markdown in docs/notebooks, run and kept as .ipynb for Colab and Jupyter, shown on the site.

    python notebooks.py ../docs/notebooks              run all, write NAME.ipynb beside NAME.md
    python notebooks.py ../docs/notebooks 01           those whose names begin so

Each cell is one ```python fence; what is between them is text. Cells run in this process, in one namespace, as in a
notebook: what is printed, the last expression and open figures are the outputs. A cell that raises ends the run.
"""

import ast
import base64
import contextlib
import io
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IMAGE_DOTS = 80
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass
class Cell:
    """Text, or code with what it put out, as nbformat 4 has outputs."""

    source: str
    is_code: bool
    outputs: list[dict[str, Any]] = field(default_factory=list)


def cells_of(page: str) -> list[Cell]:
    """The cells of a notebook that is written as Markdown."""
    cells = []
    for n, part in enumerate(CODE.split(page)):
        if part.strip():
            cells.append(Cell(part.strip("\n"), n % 2 == 1))
    return cells


def run(cells: Sequence[Cell]) -> None:
    """Execute the code, in the present folder; the cells get their outputs.

    Raises:
        RuntimeError: a cell raised; the message has its code.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if not cell.is_code:
            continue
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                value = _run_cell(cell.source, names)
        except Exception as error:
            raise RuntimeError(f"a cell raised {traceback.format_exc()}\nof\n{cell.source}") from error
        cell.outputs = [*_text(printed.getvalue()), *_value(value), *_figures()]


def _run_cell(source: str, names: dict[str, Any]) -> Any:
    """The value of the last line, where it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def _text(printed: str) -> Iterator[dict[str, Any]]:
    if printed:
        yield {"output_type": "stream", "name": "stdout", "text": printed}


def _value(value: Any) -> Iterator[dict[str, Any]]:
    if value is None:
        return
    if hasattr(value, "_repr_html_"):
        data = {"text/plain": type(value).__name__, "text/html": value._repr_html_()}
    else:
        data = {"text/plain": repr(value)}
    yield {"output_type": "display_data", "metadata": {}, "data": data}


def _figures() -> Iterator[dict[str, Any]]:
    """Every open figure, closed afterwards."""
    if "matplotlib.pyplot" not in sys.modules:
        return
    from matplotlib import pyplot

    for number in pyplot.get_fignums():
        buffer = io.BytesIO()
        pyplot.figure(number).savefig(
            buffer, format="png", dpi=IMAGE_DOTS, bbox_inches="tight", metadata={"Software": None}
        )
        image = base64.b64encode(buffer.getvalue()).decode()
        yield {"output_type": "display_data", "metadata": {}, "data": {"image/png": image, "text/plain": "a figure"}}
    pyplot.close("all")


def notebook(cells: Sequence[Cell]) -> dict[str, Any]:
    """As nbformat 4.5 has it."""
    made = []
    for number, cell in enumerate(cells):
        kind: dict[str, Any] = {
            "cell_type": "code" if cell.is_code else "markdown",
            "id": f"cell-{number}",
            "metadata": {},
        }
        if cell.is_code:
            kind |= {"execution_count": None, "outputs": cell.outputs}
        made.append({**kind, "source": cell.source.splitlines(keepends=True)})
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def with_outputs(page: str, made: dict[str, Any]) -> str:
    """A page with the outputs that its notebook has, each below its code."""
    outputs = iter([cell["outputs"] for cell in made["cells"] if cell["cell_type"] == "code"])
    return CODE.sub(lambda code: "\n\n".join([code[0], *map(_shown, next(outputs, []))]), page)


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'```{{raw}} html\n<img alt="figure" src="data:image/png;base64,{data["image/png"]}">\n```'
    if "text/html" in data:
        return f"```{{raw}} html\n{data['text/html']}\n```"
    return f"```text\n{output.get('text', data.get('text/plain', '')).rstrip()}\n```"


def main() -> None:
    """Run and write."""
    folder, *wanted = [sys.argv[1], *(sys.argv[2:] or [""])]
    for page in sorted(Path(folder).resolve().glob("*.md")):
        if not page.name.startswith(tuple(wanted)):
            continue
        cells = cells_of(page.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            run(cells)
        text = json.dumps(notebook(cells), indent=1, ensure_ascii=False)
        page.with_suffix(".ipynb").write_text(text + "\n", encoding="utf-8")
        print(f"written: {page.with_suffix('.ipynb').name}", file=sys.stderr)


if __name__ == "__main__":
    main()
