"""The four tasks of the built-in model without pictures, `tiny-text`, on the items of `hones.data.words`.

Each prompt has a word that no other task's prompts and answers have: opposite, comes, sum, Backwards.
"""

from typing import Any

from hones.tasks.custom import FieldTask, TaskFile

PROMPTS = {
    "opposite": "The opposite of {opposite.word} is",
    "after": "What comes after {after.word} is",
    "sum": "The sum of {sum.one} and {sum.other} is",
    "backwards": "Backwards {backwards.letters} is",
}
FLAGS = {"opposite": "opposite", "after": "comes", "sum": "sum", "backwards": "Backwards"}
"""task -> the word of its prompts that is in no other's."""


class WordTask(FieldTask):
    """One of them, as a YAML file could say it.

    Args:
        name: one of PROMPTS.
    """

    def __init__(self, name: str) -> None:
        said: dict[str, Any] = {"prompt": PROMPTS[name], "target": f"{name}.answer", "metric": "exact_match"}
        super().__init__(TaskFile(name=name, picture="none", template="none", **said), name)
