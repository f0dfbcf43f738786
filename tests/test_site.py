"""The README and the pages: short, linked to what is there, all on the site, which builds without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md")])
README = ROOT / "README.md"
LINK = re.compile(r"(?<!`)\[[^\]`]*(?:`[^`]*`[^\]`]*)*\]\(([^)\s]+)\)")


def prose(file: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "", text)


def anchors(file: Path) -> set[str]:
    """Those of a page's headings, as GitHub and the site make them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


def broken(file: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    lost = []
    for target in LINK.findall(prose(file)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        there = file if not place else file.parent / place
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            lost.append(f"{file.name}: {target}")
    return lost


def test_the_readme_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    assert len(text.split()) < 1300


def test_links_lead_somewhere() -> None:
    read = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES, *(ROOT / "bench/results").glob("*.md")]
    assert [lost for file in read for lost in broken(file)] == []
    assert sum(len(LINK.findall(prose(file))) for file in read) > 100, "links are found"


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# A page\n\n[a](#a-page) [b](page.md#nowhere) [c](absent.md) [d](https://x.org/y)\n")
    assert broken(file) == ["page.md: page.md#nowhere", "page.md: absent.md"]


def test_every_page_is_on_the_site() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = [line for tree in re.findall(r"```{toctree}(.*?)```", index, re.DOTALL) for line in tree.split()]
    named = [file.relative_to(DOCS).with_suffix("").as_posix() for file in PAGES]
    assert sorted({*named} - {*listed}) == ["index"]


def test_the_readme_links_every_page() -> None:
    linked = set(LINK.findall(README.read_text(encoding="utf-8")))
    top = [f"docs/{file.name}" for file in DOCS.glob("*.md") if file.name != "index.md"]
    assert sorted({*top} - linked) == []


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """With the commands and the public names in it."""
    import hones

    call = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "trees", DOCS]
    done = subprocess.run([*call, tmp_path / "html"], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr[-3000:]
    commands = (tmp_path / "html/commands.html").read_text(encoding="utf-8")
    assert "hones benchmark planted" in commands and "--racing-margin" in commands
    names = (tmp_path / "html/api.html").read_text(encoding="utf-8")
    assert [name for name in vars(hones)["__all__"] if f"hones.{name}" not in names and name != "METHODS"] == []
    assert (tmp_path / "html/results/rounds-cpu.html").is_file(), "what was measured"
