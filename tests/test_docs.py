"""`hones docs`: the pages in the terminal, from a checkout and from a wheel."""

import re
from pathlib import Path

import pytest
from rich.console import Console
from test_cli import call

import hones
from hones.cli import docs as shown

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"


def test_pages_are_listed_with_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("docs") == 0
    listed = capsys.readouterr().out
    pages = shown.pages_of(PAGES)
    assert {"start", "data", "troubleshooting", "01-find-prove-steer"} <= {*pages} and "index" not in pages
    assert [name for name in pages if not re.search(rf"^{re.escape(name)} ", listed, re.MULTILINE)] == []
    assert "Your own data" in listed and "hones docs PAGE shows one" in listed


@pytest.mark.parametrize("name", ["data", "docs/data.md", "data.md", "docs/data.md#splits", "DATA"])
def test_a_page_is_shown_by_the_names_that_messages_use(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("docs", name) == 0
    said = capsys.readouterr().out
    assert said.startswith("# Your own data\n") and "## Splits" in said


def test_a_page_is_laid_out_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shown, "OUT", Console(force_terminal=True, width=80, markup=False))
    for name in shown.pages_of(PAGES):
        assert call("docs", name) == 0
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "\n## " not in said and "<!--" not in said and "Your own data" in said


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("taks", r"no page 'taks' in the documentation; expected perhaps tasks or .*; `hones docs` lists them"),
        ("docs/trouble-shooting.md", "perhaps troubleshooting;"),
        ("qqqq", r"no page 'qqqq' in the documentation; `hones docs` lists them"),
    ],
)
def test_an_unknown_page_is_one_line(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("docs", name) == 2
    said = capsys.readouterr()
    assert said.out == "" and re.search(line, said.err) and len(said.err.splitlines()) == 1


def test_pages_in_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wheel leaves them; where there are none, the line says so."""
    package = tmp_path / "lib/python/hones"
    package.mkdir(parents=True)
    monkeypatch.setattr(hones, "__file__", str(package / "__init__.py"))
    with pytest.raises(hones.HonesError, match=r"pages of the documentation are not beside .*; install hones again"):
        shown.pages_folder()
    (package / "docs").mkdir()
    (package / "docs/start.md").write_text("# Start here\n")
    assert shown.pages_folder() == package / "docs"


def test_pages_that_messages_name_are_there() -> None:
    """Wherever a message or a help says docs/NAME.md."""
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    named = {name for name in re.findall(r"docs/([\w-]+)\.md", sources) if name != "PAGE"}
    assert {"data", "tasks"} <= named <= {*shown.pages_of(PAGES)}


def test_the_wheel_has_the_pages() -> None:
    """And nothing of the site's own."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    files = {file.distribution_path for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    pages = {name for name in files if name.startswith("hones/docs/")}
    assert {f"hones/docs/{file.relative_to(PAGES)}" for file in shown.pages_of(PAGES).values()} <= pages
    assert "hones/docs/examples/capitals/task.yaml" in pages and "hones/cli/docs.py" in files
    assert {Path(name).suffix for name in pages} <= {".md", ".yaml", ".csv", ".jsonl"}
    assert not any("/results/" in name or "/project/" in name for name in pages)
