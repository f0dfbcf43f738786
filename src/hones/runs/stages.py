"""What every stage of a run folder does around its computation: check items, skip what is finished, record.

A stage's inputs are all that its result depends on, in one dictionary. run.json holds those of finished stages, and a
journal or checkpoint those of an unfinished one; either is refused for others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hones.data.items import MAX_LEFT_OUT, Items, LeftOut, check_left_out
from hones.files import versions
from hones.log import LOG
from hones.models.vlm import VLM
from hones.runs.artifacts import read_neurons
from hones.runs.prepared import Prepared, prepare, provenance, state_of
from hones.runs.record import RunFolder
from hones.sweep.journal import Journal
from hones.sweep.run import SweepSettings
from hones.sweep.running_sum import RunningSum
from hones.tasks.base import Task

DEFAULT_SEED = 3407


@dataclass
class Stages:
    """One model's results in one run folder.

    sweep: how sweeps run. fresh: compute finished stages again. max_left_out: share of unusable items beyond which a
    stage stops.
    """

    vlm: VLM
    run: RunFolder
    sweep: SweepSettings = field(default_factory=SweepSettings)
    seed: int = DEFAULT_SEED
    fresh: bool = False
    max_left_out: float = MAX_LEFT_OUT
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    _checked: dict[Any, tuple[Task, Items, Prepared]] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: Task, items: Items, split: str) -> Prepared:
        """The examples that can be used; checked once for all stages, as long as no picture changes."""
        key = id(task), id(items), split, state_of(items)
        if key not in self._checked:
            found = prepare(self.vlm, task, items, split)
            self._checked[key] = task, items, found
        found = self._checked[key][-1]
        self.left_out[f"{task.name}, {split}"] = found.left_out
        check_left_out(found.left_out, len(found.examples), f"{task.name}, {split} items", self.max_left_out)
        return found

    def sites(self, neurons_file: Path) -> list[tuple[int, int]]:
        """The neurons of a neurons file, which the model must have."""
        sites = [(n.layer, n.neuron) for n in read_neurons(neurons_file)]
        for site in sites:
            self.vlm.anatomy.check_neuron(*site)
        return sites

    def fingerprint(self, items: Prepared, **more: Any) -> dict[str, Any]:
        answers = self.vlm.answer_tokens
        return {
            "model": self.vlm.name,
            "revision": self.vlm.revision,
            "dtype": self.vlm.dtype,
            "image_backend": self.vlm.image_backend,
            "yes_no_ids": [answers.yes, answers.no],
            "seed": self.seed,
            **items.fingerprint,
            **more,
        }

    def swept(self) -> dict[str, Any]:
        return {"max_new_tokens": self.sweep.max_new_tokens, "engine": self.sweep.engine}

    def journalled(self, file: Path, inputs: dict[str, Any]) -> SweepSettings:
        """The sweep settings with a journal for these inputs; begun again where `fresh`."""
        if self.fresh:
            file.unlink(missing_ok=True)
        return replace(self.sweep, journal=lambda plan: Journal(file, {**inputs, **self._machine()}, plan))

    def summed(self, file: Path, inputs: dict[str, Any]) -> SweepSettings:
        """The sweep settings with a running sum for these inputs."""
        depends = {**inputs, **self._machine()}
        return replace(self.sweep, running_sum=lambda shape, plan: RunningSum(shape, plan, file, depends))

    def _machine(self) -> dict[str, Any]:
        return {"device": self.vlm.device.type, "versions": versions()}

    def checkpoint_file(self, name: str) -> Path:
        """Where a training or a sum keeps its state; begun again where `fresh`."""
        file = self.run.path / "journal" / f"{name}.safetensors"
        if self.fresh:
            file.unlink(missing_ok=True)
        return file

    def remove_journal(self, journal: Path) -> None:
        journal.unlink(missing_ok=True)
        journal.with_suffix(".lock").unlink(missing_ok=True)

    def journal_file(self, name: str) -> Path:
        return self.run.path / "journal" / f"{name}.jsonl"

    def is_finished(self, stage: str, inputs: dict[str, Any]) -> bool:
        if not self.fresh and self.run.is_finished(stage, inputs):
            LOG.info("%s is finished already", stage)
            return True
        LOG.info("%s starts (%s on %s)", stage, self.vlm.name, self.vlm.device)
        self.run.forget(stage)
        return False

    def finish(self, stage: str, inputs: dict[str, Any], started: float, files: Sequence[Path], **more: Any) -> None:
        details: dict[str, Any] = {"seconds": round(time.monotonic() - started, 1), "device": str(self.vlm.device)}
        details |= {"attention": self.vlm.attention, **self.sweep.workers.record()}
        for name, value in more.items():
            if isinstance(value, Prepared):
                value = provenance(self.run.path, value)
            details[name] = value
        self.run.finish(stage, inputs, details, files)
        LOG.info("%s has finished in %s s", stage, details["seconds"])
