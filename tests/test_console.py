"""Consoles that are not UTF-8, closed or full: what they cannot show is replaced, nothing ends by a traceback."""

import errno
import io
import json
import logging
import sys
from pathlib import Path

import pytest

from hones.cli import main
from hones.log import FILE, LOG, VARIABLE, close_log, log_to

ITEM = {"split": "test", "prompt": "What is \u014csaka?", "target": "\u65e5\u672c", "references": ["\u65e5\u672c"]}


class Full(io.BytesIO):
    """A device without space."""

    def write(self, *_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def hones(
    monkeypatch: pytest.MonkeyPatch, *words: object, encoding: str = "utf-8", out: io.BytesIO | None = None
) -> tuple[int | str | None, str, str]:
    """Exit code and what both streams of that encoding hold."""
    streams = {"stdout": out or io.BytesIO(), "stderr": io.BytesIO()}
    monkeypatch.setattr(sys, "argv", ["hones", *map(str, words)])
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, write_through=True))
    with pytest.raises(SystemExit) as ended:
        main()
    said, wrong = (stream.getvalue().decode(encoding) for stream in streams.values())
    return ended.value.code, said, wrong


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with answers in many scripts, one of them half a character."""
    said = {"unedited": {"answer": "\U0001f600 caf\xe9", "score": 0}, "steered": {"answer": "\ud83d", "score": 1}}
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa/answers.jsonl").write_text(json.dumps(ITEM | {"id": "n\xe9\u2714", "answers": said}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("cp1252", "caf\xe9"), ("ascii", "caf?"), ("cp437", "caf\xe9"), ("utf-8", "\U0001f600 caf\xe9")],
)
def test_what_a_console_cannot_show_is_replaced(
    encoding: str, shown: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, wrong = hones(monkeypatch, "answers", run, encoding=encoding)
    assert (code, wrong) == (0, "") and shown in said and "?" in said
    code, said, wrong = hones(monkeypatch, "answers", run / "\u65e5\u672c", encoding=encoding)
    assert code == 2 and "no run folder" in wrong and "Traceback" not in wrong
    code, said, _ = hones(monkeypatch, "answers", "--help", encoding=encoding)
    assert code == 0 and "Run folder with answers.jsonl" in said


def test_a_full_device_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, wrong = hones(monkeypatch, "answers", run, out=Full())
    assert code == 2 and wrong == "hones: cannot write to standard output (No space left on device)\n"


def test_the_log_takes_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOG, "propagate", False)  # else pytest sends the half character between its processes
    log_to(tmp_path)
    LOG.log(logging.INFO, "half \ud83d of a character, and \u65e5")
    close_log()
    assert "half \\ud83d of a character, and \u65e5" in (tmp_path / FILE).read_text(encoding="utf-8")


def test_a_mistake_of_ours_is_one_line_that_says_where_its_traceback_is(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("hones.cli.see.Answers.execute", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    code, said, wrong = hones(monkeypatch, "answers", run)
    (kept,) = tmp_path.glob("hones-*.log")
    assert (code, said, wrong) == (1, "", f"hones: unexpected ZeroDivisionError: a bug; details in {kept}\n")
    assert "Traceback" in kept.read_text() and "of two lines" in kept.read_text()
    kept.unlink()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.log"))
    code, _, wrong = hones(monkeypatch, "answers", run)
    assert (code, wrong) == (1, f"hones: unexpected ZeroDivisionError: a bug; details in {tmp_path / 'mine.log'}\n")
    assert "of two lines" in (tmp_path / "mine.log").read_text() and not [*tmp_path.glob("hones-*.log")]


def test_the_traceback_of_any_error_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine.log"))
    code, _, wrong = hones(monkeypatch, "data", "check", tmp_path / "x.json")
    assert code == 2 and len(wrong.splitlines()) == 1
    assert "hones data check" in (text := (tmp_path / "mine.log").read_text()) and "Traceback" in text
    monkeypatch.setenv(VARIABLE, str(tmp_path / "x.json" / "nowhere"))
    code, _, wrong = hones(monkeypatch, "data", "check", tmp_path / "x.json")
    assert code == 2 and "hones: cannot write" in wrong and "Traceback" not in wrong
