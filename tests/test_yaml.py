"""YAML as people type it: whatever is wrong with a configuration or a task is one line that says what to write."""

from pathlib import Path

import pytest

from hones import HonesError, make_task
from hones.runs.config import read_config

CONFIG = "model: tiny-llava\nout: r\ndata: {discovery: a, dev: b, test: c}\n"
TASK = "name: t\nprompt: Say it.\ntarget: a\nmetric: anls\n"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("limit: 8", "limit is 8; expected keys under it: discovery, dev, test, ood"),
        ("limt: 8", "no key limt, perhaps limit"),
        ("tasks: vqa", "tasks: Input should be a valid tuple, found 'vqa'; expected a list: [vqa]"),
        ("dtype: no", "dtype: Input should be a valid string, found False; expected a text: in quotes"),
        ("ratio: many", "unable to parse string as a number, found 'many'"),
        ("seed: 1\nseed: 2", "the key seed of line 4 stands again in line 5; expected each key once"),
        ("steering: {epochs: 1, epochs: 2}", "the key epochs of line 4 stands again"),
        ("steering:\n\tepochs: 2", "line 5, column 1: epochs: 2 ^); indent with spaces, not with tabs"),
        ("seed: [", "as YAML (while parsing a flow node"),
        ("seed: 2020-13-45", "as YAML (month must be in 1..12)"),
        ("seed: !!python/name:os.system", "could not determine a constructor"),
        ("---\nseed: 1", "expected a single document"),
    ],
)
def test_a_configuration_that_is_not_meant_so(more: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"{CONFIG}{more}\n")
    with pytest.raises(HonesError) as caught:
        read_config(tmp_path / "run.yaml")
    assert line in str(caught.value) and str(tmp_path / "run.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "is empty; expected keys: name, prompt, target, metric"),
        ("- name: t\n", "holds a list; expected keys"),
        ("just words\n", "holds a str; expected keys"),
        (f"{TASK}name: u\n", "the key name of line 1 stands again in line 5"),
        (TASK.replace("target: a", "target: on"), "found True; expected a text: in quotes"),
        (f"{TASK}prompts: x\n", "no key prompts, perhaps prompt"),
        ("name: " + "[" * 5000, "as YAML (nested too deeply)"),
    ],
)
def test_a_task_that_is_not_meant_so(content: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(HonesError) as caught:
        make_task(str(tmp_path / "t.yaml"))
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_merged_keys_are_no_repetition_and_any_mark_is_read(tmp_path: Path) -> None:
    more = "steering: {<<: {epochs: 1}, epochs: 2}\n"
    (tmp_path / "run.yaml").write_text(CONFIG + more, encoding="utf-16")
    assert read_config(tmp_path / "run.yaml").steering.training.epochs == 2


def test_a_file_that_never_ends_is_refused_at_once() -> None:
    with pytest.raises(HonesError, match="/dev/zero is a device, a pipe or a socket; expected a file"):
        read_config(Path("/dev/zero"))
