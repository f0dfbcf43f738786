"""The notebooks: what is kept is what is written, and the first runs, on fewer pictures."""

import contextlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/notebooks").glob("*.md"))
sys.path.insert(0, str(ROOT / "tools"))

from notebooks import Cell, cells_of, notebook, run, with_outputs  # noqa: E402


def test_four_are_there() -> None:
    assert [page.stem for page in PAGES] == [
        "01-find-prove-steer",
        "02-your-own-model-and-data",
        "03-your-own-method-against-the-truth",
        "04-why-this-answer",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem[:2])
def test_what_is_kept_is_what_is_written(page: Path) -> None:
    """`make notebooks` has been run since; the first code installs the wheel where hones is not there."""
    kept = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))
    cells = cells_of(page.read_text(encoding="utf-8"))
    written = notebook(cells)
    for cell in (*kept["cells"], *written["cells"]):
        cell.pop("outputs", None)
    assert written == kept
    assert "pip" in next(cell.source for cell in cells if cell.is_code)
    assert str(Path.home()) not in page.with_suffix(".ipynb").read_text(encoding="utf-8")


def test_the_first_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = PAGES[0].read_text(encoding="utf-8")
    sizes = {
        '{"discovery": 48, "test": 200}': '{"discovery": 4, "test": 4}',
        '{"discovery": 48, "dev": 300, "test": 400}': '{"discovery": 4, "dev": 4, "test": 2}',
        "epochs=3": "epochs=1",
    }
    for long, short in sizes.items():
        assert long in page
        page = page.replace(long, short)
    cells = cells_of(page)
    with contextlib.chdir(tmp_path):
        run(cells)
    kinds = [kind for cell in cells for output in cell.outputs for kind in output.get("data", ())]
    assert kinds.count("image/png") == 3 and kinds.count("text/html") == 4
    shown = with_outputs(page, notebook(cells))
    assert shown.count("data:image/png;base64,") == 3 and "random - masked: " in shown


def test_cells_and_outputs() -> None:
    page = "# A\n\ntext\n\n```python\nprint(1)\nx = 2\nx\n```\n\n```python\nNone\n```\nmore\n"
    cells = cells_of(page)
    assert [(cell.source, cell.is_code) for cell in cells] == [
        ("# A\n\ntext", False),
        ("print(1)\nx = 2\nx", True),
        ("None", True),
        ("more", False),
    ]
    run(cells)
    assert [output.get("text", output.get("data")) for output in cells[1].outputs] == ["1\n", {"text/plain": "2"}]
    assert cells[2].outputs == []
    assert "x\n```\n\n```text\n1\n```\n\n```text\n2\n```\n\n```python\nNone\n```\nmore" in with_outputs(
        page, notebook(cells)
    )


def test_a_cell_that_raises_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ZeroDivisionError.*of\n1 / 0"):
        run([Cell("1 / 0", True)])
