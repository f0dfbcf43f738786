"""The examples without pictures: their tables are those of tools/text_tasks.py, their tasks what they say."""

import runpy
from pathlib import Path

import pytest

from hones import load_items, make_task, read_config
from hones.data.disjoint import check_disjoint
from hones.tasks.base import BarePrompt

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs/examples"
SPLITS = {"discovery": 24, "dev": 56, "test": 80}
TABLES = {"agreement": "jsonl", "indirect-object": "csv", "greater-than": "jsonl"}


def test_the_tables_are_those_of_the_tool(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "tools/text_tasks.py"))["main"](tmp_path)
    written = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.*"))
    assert len(written) == 9
    for file in written:
        assert (tmp_path / file).read_bytes() == (EXAMPLES / file).read_bytes(), file


@pytest.mark.parametrize("name", TABLES)
def test_a_task_reads_its_tables(name: str) -> None:
    task = make_task(str(EXAMPLES / name / "task.yaml"))
    files = {split: load_items(EXAMPLES / name / f"{split}.{TABLES[name]}") for split in SPLITS}
    check_disjoint(files)
    for split, items in files.items():
        examples, left_out = task.examples(items)
        assert len(examples) == SPLITS[split] and not left_out
        for example in examples:
            (prompt,) = example.prompts
            assert isinstance(prompt, BarePrompt) and prompt.lead == ("" if name == "greater-than" else " ")
            assert task.statistics(example, f"{example.target}, and so on")[0] == 1
            assert task.statistics(example, f"not {example.target}")[0] == 0


def right(name: str, question: str, answer: str) -> float:
    """The score of an answer to a question of the test table that begins so."""
    task = make_task(str(EXAMPLES / name / "task.yaml"))
    examples, _ = task.examples(load_items(EXAMPLES / name / f"test.{TABLES[name]}"))
    return float(task.statistics(next(e for e in examples if question in e.prompts[0]), answer)[0])


@pytest.mark.parametrize(
    ("name", "question", "answer", "score"),
    [
        ("agreement", "the farmers", "were all", 1),
        ("agreement", "the farmers", "was", 0),
        ("agreement", "the farmers", "area", 0),
        ("agreement", "the bicycle ", "has been", 1),
        ("indirect-object", "Sarah and Paul", "Paul. He", 1),
        ("indirect-object", "Sarah and Paul", "Sarah", 0),
        ("indirect-object", "Sarah and Paul", "Pauline", 0),
        ("greater-than", "from 1153 to 11", "54. The", 1),
        ("greater-than", "from 1153 to 11", "99,", 1),
        ("greater-than", "from 1153 to 11", "53", 0),
        ("greater-than", "from 1153 to 11", "5", 0),
        ("greater-than", "from 1153 to 11", "1154", 0),
    ],
)
def test_what_is_right(name: str, question: str, answer: str, score: float) -> None:
    assert right(name, question, answer) == score


@pytest.mark.parametrize("name", TABLES)
def test_a_configuration_is_one(name: str) -> None:
    config = read_config(EXAMPLES / name / "run.yaml", ["model=tiny-llava"])
    assert config.data.test.is_file() and Path(config.tasks[0]).is_file() and config.max_new_tokens == 3
