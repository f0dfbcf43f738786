"""What `hones verify` finds of a model: its claims, what is used of its own settings, and which engine serves it."""

from dataclasses import asdict, dataclass

from hones.errors import HonesError
from hones.models.conventions import GENERATION, Conventions
from hones.models.stopping import default_stop
from hones.tabular import Column, Table, Tabular


@dataclass(frozen=True)
class Claim:
    """One measured claim. allowed None: the deviation must be above 0, an edit must show. note: what else was found.

    needed: no edit can be relied on without it.
    """

    name: str
    deviation: float
    allowed: float | None
    note: str = ""
    needed: bool = True

    @property
    def ok(self) -> bool:
        if self.allowed is None:
            return self.deviation > 0
        return self.deviation <= self.allowed


@dataclass(frozen=True)
class Verification(Tabular):
    """The claims of one model, and which engine serves its sweeps.

    model: as named by the user. family: the model's class. engine: replay, forward or naive. yes_no: the ids of Yes and
    No, None where the vocabulary has no two tokens for them.
    """

    model: str
    family: str
    revision: str
    dtype: str
    engine: str
    savings: str
    claims: tuple[Claim, ...]
    conventions: Conventions
    yes_no: tuple[int, int] | None

    @property
    def failed(self) -> list[Claim]:
        """The claims that do not hold and are needed."""
        return [claim for claim in self.claims if claim.needed and not claim.ok]

    def check(self) -> None:
        """Raises HonesError naming the first claim that fails."""
        for claim in self.failed:
            bound = "more than 0" if claim.allowed is None else f"at most {claim.allowed:.2g}"
            raise HonesError(
                f"{self.model} ({self.family}): {claim.name}: {claim.deviation:.2g}",
                expected=bound,
                do=claim.note or None,
            )

    def tables(self) -> list[Table]:
        """The claims; what is used of the model's own settings."""
        columns = (
            Column("name", "claim", "text"),
            Column("deviation", "measured", "number", form=".2g"),
            Column("allowed", "allowed", "number", form=".2g", missing="above 0"),
            Column("note"),
            Column("ok", "ok"),
        )
        rows = [asdict(claim) | {"ok": claim.ok} for claim in self.claims]
        title = f"{self.model}: {self.family}, {self.dtype}"
        settings = (
            Column("setting", "setting"),
            Column("used", "what is used", "text"),
            Column("source", "from", "text"),
        )
        return [
            Table("claims", title, columns, rows, f"sweeps: {self.engine} ({self.savings})"),
            Table("settings", "How it is asked and when it has answered", settings, self._settings()),
        ]

    def _settings(self) -> list[dict[str, str]]:
        """One row for each of the model's own settings that is used, and for those that are not."""
        used = self.conventions
        record = used.record()
        rows = [("template", repr(used.prompt), used.template.source)]
        for place, end in zip(
            ("an answer's end", *["also ends it"] * len(used.ends)), record["end_tokens"], strict=False
        ):
            rows.append((place, f"{end['text']!r} (id {end['id']})", ", ".join(end["from"])))
        if not used.ends:
            rows.append(("an answer's end", "none", "no source names one"))
        rows += [
            ("also ends it", repr(text), "a task's stop: says otherwise") for text in default_stop(used.template, "")
        ]
        rows.append(("padding", str(used.padding), used.padding_from))
        yes_no = "none" if self.yes_no is None else f"ids {self.yes_no[0]} and {self.yes_no[1]}"
        rows.append(("Yes and No", yes_no, "the vocabulary"))
        rows += [("not used", f"{key} {value}", GENERATION) for key, value in used.unused.items()]
        rows += [("remark", line, "") for line in record["remarks"]]
        return [dict(zip(("setting", "used", "source"), row, strict=True)) for row in rows]
