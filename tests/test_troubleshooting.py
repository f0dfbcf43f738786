"""docs/troubleshooting.md has every line that a user can be stopped by."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()


def literal_parts(message: ast.expr) -> list[str]:
    """The parts of a message that are the same for everyone, without punctuation around them."""
    values = message.values if isinstance(message, ast.JoinedStr) else [message]
    texts = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return [part for text in texts if sum(map(str.isalpha, part := text.strip(" ,;:()"))) > 1]


def messages() -> list[tuple[str, str]]:
    """Every message of HonesError, TaskStops and BadItem in the sources: where it is, and its longest literal part."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                parts = literal_parts(node.args[0])
                if node.func.id in ("HonesError", "TaskStops", "BadItem") and parts:
                    found.append((f"{file.relative_to(ROOT)}:{node.lineno}", max(parts, key=len)))
    return found


def test_the_messages_are_found() -> None:
    assert len(messages()) > 100


def test_every_entry_is_of_a_message() -> None:
    """Each quoted piece of the first column is in the sources; options are named as on the command line."""
    trees = (ast.walk(ast.parse(file.read_text())) for file in (ROOT / "src").rglob("*.py"))
    texts = [n.value for tree in trees for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    said = "\n".join(" ".join(text.split()) for text in texts)
    entries = [line.split(" | ")[0] for line in PAGE.splitlines() if line.startswith("| ")]
    quoted = [piece.strip(" ,;:()") for entry in entries for piece in re.findall(r"`([^`]+)`", entry)]
    assert len(quoted) > 100
    assert [piece for piece in quoted if piece not in said and not piece.startswith("--")] == []


def test_the_page_has_every_message() -> None:
    assert [f"{at}: no entry with {part!r}" for at, part in messages() if part not in PAGE] == []
