"""Everything a run folder holds, read back for a report. What a stage has not written yet is None."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.method.analysis.results import Analysis
from hones.method.found import HeadResult, RankedNeuron
from hones.method.keeping import KeepingResult
from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Evidence
from hones.rivals.both_results import BothDirections
from hones.rivals.results import Comparison
from hones.runs.answer_table import Answers, chosen_answers
from hones.runs.answers import FILE as ANSWERS
from hones.runs.answers import AnsweredItem, read_answers
from hones.runs.artifacts import read_heads, read_neurons, read_result
from hones.runs.record import RunRecord, read_record
from hones.tasks import in_order

FILES = ("heads.json", "neurons.json", "masking.json", "comparison.json", "keep.json", "both.json")


@dataclass(frozen=True)
class TaskResults:
    """What the stages found for one task. steering: by method. evidence: of steering. answers: of all splits."""

    task: str
    heads: HeadResult | None
    neurons: list[RankedNeuron] | None
    masking: MaskingResult | None
    comparison: Comparison | None
    steering: dict[str, SteeringResult]
    evidence: Evidence | None = None
    answers: Sequence[AnsweredItem] = ()
    keeping: KeepingResult | None = None
    both: BothDirections | None = None

    @property
    def shown_answers(self) -> Answers | None:
        """What the model says about test items, or the others where there are none; None where nothing is kept."""
        return chosen_answers(self.task, self.answers) if self.answers else None


@dataclass(frozen=True)
class RunResults:
    """A whole run. record: run.json."""

    folder: Path
    record: RunRecord
    tasks: tuple[TaskResults, ...]
    analysis: Analysis | None

    @property
    def model(self) -> str:
        """The model's name, as far as the run says."""
        fingerprints = [stage.fingerprint for stage in self.record.stages.values()]
        models = {str(used["model"]): None for used in fingerprints if "model" in used}
        return ", ".join(models) or (self.analysis.model if self.analysis is not None else "unnamed model")

    @property
    def per_layer(self) -> dict[str, list[int]]:
        """Selected neurons per layer [L] of every task that has some."""
        depths = [1 + max(h.layer for h in t.heads.heads) for t in self.tasks if t.heads is not None]
        depths += [1 + max(n.layer for n in t.neurons) for t in self.tasks if t.neurons is not None]
        return {
            t.task: [sum(n.layer == layer for n in t.neurons) for layer in range(max(depths))]
            for t in self.tasks
            if t.neurons is not None
        }


def read_results(folder: Path) -> RunResults:
    """Read a run folder; nothing is created.

    Raises:
        HonesError: no such folder, nothing in it, or an artifact that is damaged.
    """
    if not folder.is_dir():
        raise HonesError(f"no run folder {folder}", expected="what `hones run` or the stages wrote")
    tasks = []
    for place in [folder / name for name in in_order(p.name for p in folder.iterdir() if p.is_dir())]:
        if any((place / name).is_file() for name in FILES) or any(place.glob("steering/*/result.json")):
            tasks.append(place)
    analysis = _read(folder / "analysis" / "analysis.json", Analysis)
    if not tasks and analysis is None:
        raise HonesError(f"{folder} holds no results", do="run `hones run`, or a stage such as `hones heads`, first")
    record = read_record(folder / "run.json") if (folder / "run.json").exists() else RunRecord(stages={})
    return RunResults(folder, record, tuple(_read_task(t) for t in tasks), analysis)


def _read_task(folder: Path) -> TaskResults:
    heads = folder / "heads.json"
    neurons = folder / "neurons.json"
    return TaskResults(
        folder.name,
        read_heads(heads) if heads.is_file() else None,
        read_neurons(neurons) if neurons.is_file() else None,
        _read(folder / "masking.json", MaskingResult),
        _read(folder / "comparison.json", Comparison),
        {f.parent.name: read_result(f, SteeringResult) for f in sorted(folder.glob("steering/*/result.json"))},
        _read(folder / "steering" / "evidence.json", Evidence),
        read_answers(folder / ANSWERS) if (folder / ANSWERS).is_file() else (),
        _read(folder / "keep.json", KeepingResult),
        _read(folder / "both.json", BothDirections),
    )


def _read(path: Path, kind: Any) -> Any:
    return read_result(path, kind) if path.is_file() else None
