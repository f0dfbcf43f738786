"""The README's Python example, and the page that goes on from it, run as they are written, on fewer pictures."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def examples(file: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_example_runs(tmp_path: Path) -> None:
    code = examples(README)
    assert len(code) == 1
    smaller = code[0].replace('"discovery": 64', '"discovery": 16').replace('"test": 200', '"test": 8')
    assert smaller != code[0]
    done = subprocess.run([sys.executable, "-c", smaller], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", done.stdout.strip())


def test_the_page_on_python_goes_on_from_it(tmp_path: Path) -> None:
    first, *more = examples(ROOT / "docs/python.md")
    assert [first] == examples(README) and more
    code = first + "".join(more)
    for long, short in (
        ('"discovery": 64', '"discovery": 16'),
        ('"test": 200', '"test": 8'),
        ('"dev": 64', '"dev": 4'),
    ):
        assert long in code
        code = code.replace(long, short)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
