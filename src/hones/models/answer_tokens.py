"""How a model begins its answers, and which tokens are its Yes and No."""

from dataclasses import dataclass

from hones.errors import TaskStops


@dataclass(frozen=True)
class AnswerTokens:
    """How a model begins its answers behind its template, and the ids of "Yes" and "No" so begun.

    ids: of Yes and No; None where `problem` says why there are none. lead: the text put before an answer, " " where
    the model starts with a space, else "". mass: the probability that it gives to these two forms on the probe.
    """

    ids: tuple[int, int] | None
    lead: str
    mass: float
    problem: str = ""

    @property
    def yes(self) -> int:
        """The id of Yes."""
        return self.both()[0]

    @property
    def no(self) -> int:
        """The id of No."""
        return self.both()[1]

    def of(self, answer: str) -> int:
        """The id of the answer "Yes" or "No"."""
        return {"Yes": self.yes, "No": self.no}[answer]

    def both(self) -> tuple[int, int]:
        """The ids of Yes and No.

        Raises:
            TaskStops: there are none, so tasks that read them cannot be asked; others can.
        """
        if self.ids is None:
            raise TaskStops(self.problem, expected="two different tokens", do="ask tasks with other answers of it")
        return self.ids
