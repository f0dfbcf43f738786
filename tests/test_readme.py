"""The README's Python example runs as it is written, on fewer pictures."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    smaller = code[0].replace('"discovery": 64', '"discovery": 16').replace('"test": 200', '"test": 8')
    assert smaller != code[0]
    done = subprocess.run([sys.executable, "-c", smaller], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", done.stdout.strip())
