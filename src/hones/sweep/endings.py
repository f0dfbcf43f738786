"""When an answer that is being decoded is at its end: an end token, a text that ends it, or the limit."""

from collections.abc import Sequence

from hones.models.stopping import stopped
from hones.models.vlm import VLM
from hones.tasks.base import Example, Task


class Endings:
    """Of the answers of a group's members.

    max_new_tokens: the longest answer.
    """

    def __init__(self, vlm: VLM, max_new_tokens: int, members: Sequence[tuple[Task, Example]]) -> None:
        self.vlm = vlm
        self.max_new_tokens = max_new_tokens
        self.stops = [vlm.stop_of(task.stop, example.prompts[0]) for task, example in members]
        self._ends = frozenset(vlm.eos_ids)

    def goes_on(self, member: int, tokens: Sequence[int]) -> bool:
        """Whether a member's answer of these tokens has a next one."""
        if tokens[-1] in self._ends or len(tokens) >= self.max_new_tokens:
            return False
        return not stopped(self.vlm.tokenizer, tokens, self.stops[member])
