"""Progress where there is no terminal: whole lines with time left, none for what is soon done."""

import re

import pytest

from hones import progress


def test_a_line_now_and_then_where_no_bar_can_be_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "SECONDS", 60.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bar("ocr: heads", total=40, unit=" cells") as bar:
        for _ in range(40):
            now[0] += 10
            bar.update(0.5)
            bar.update(0.5)
            bar.set_postfix(workers="2/2")
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert said.endswith("\n") and "\r" not in said
    assert [re.findall(r"(\d+)/40", line) for line in lines] == [[str(n)] for n in range(6, 40, 6)]
    assert all(line.startswith("ocr: heads:") and "<" in line and len(line) <= 100 for line in lines)


def test_what_is_done_within_a_minute_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("vqa: neurons", total=3) as bar:
        bar.update(3)
    assert [*progress.track(iter("ab"), "files")] == ["a", "b"]
    assert capsys.readouterr().err == ""
