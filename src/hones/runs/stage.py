"""The life of a stage of a run folder: finished? -> resume -> compute -> write -> record.

A stage has a name in run.json ("vqa/mask") and inputs: all that its result depends on, in one dictionary. run.json
holds those of finished stages, and RUN/journal/NAME.jsonl or NAME.safetensors those of an unfinished one, with what it
has computed so far; either is refused for others.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hones.data.items import MAX_LEFT_OUT, Items, LeftOut, check_left_out
from hones.files import versions
from hones.log import LOG
from hones.method.budget import DEFAULT_SEED
from hones.models.vlm import VLM
from hones.runs.answers import keep_answers
from hones.runs.artifacts import read_neurons, read_result, write_result
from hones.runs.evaluation import Evaluation, evaluate
from hones.runs.former import as_recorded, check_words
from hones.runs.found_on import check_found_on
from hones.runs.locks import alone
from hones.runs.prepared import Prepared, prepare, provenance, state_of
from hones.runs.record import RunFolder
from hones.sweep.answer_log import AnswerLog
from hones.sweep.journal import Journal
from hones.sweep.run import SweepSettings
from hones.sweep.running_sum import RunningSum
from hones.tasks.base import Task

FIRST_LOOK = 32
"""Items whose answers are looked at before a sweep."""
ENDS = (".jsonl", ".safetensors", ".lock")
"""Of a journal's files."""
LONG_LOOK = 256
"""As many where the first are all right or all wrong, which by itself says little of the others."""


@dataclass
class Workspace:
    """One model at work in one run folder: what all stages share.

    sweep: how sweeps run. fresh: compute finished stages again. max_left_out: share of unusable items beyond which a
    stage stops. look: hears of what the unedited model says before a stage, and may raise TaskStops.
    """

    vlm: VLM
    run: RunFolder
    sweep: SweepSettings = field(default_factory=SweepSettings)
    seed: int = DEFAULT_SEED
    fresh: bool = False
    max_left_out: float = MAX_LEFT_OUT
    look: Callable[[Evaluation, str], None] | None = None
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    remarks: dict[str, Sequence[LeftOut]] = field(default_factory=dict)
    _checked: dict[Any, tuple[Task, Items, Prepared]] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: Task, items: Items, split: str) -> Prepared:
        """The examples that can be used; checked once for all stages, as long as no picture changes."""
        key = id(task), id(items), split, state_of(items)
        if key not in self._checked:
            # task and items are kept too: a freed object's id may be given to another
            self._checked[key] = task, items, prepare(self.vlm, task, items, split, self.sweep.max_new_tokens)
        prepared = self._checked[key][-1]
        self.left_out[f"{task.name}, {split}"] = prepared.left_out
        self.remarks[f"{task.name}, {split}"] = prepared.remarks
        check_left_out(prepared.left_out, len(prepared.examples), f"{task.name}, {split} items", self.max_left_out)
        return prepared

    @property
    def asked(self) -> dict[str, list[str]]:
        """The ids of all items prepared so far, by the digest that stands for them in fingerprints."""
        prepared = [prepared for _, _, prepared in self._checked.values()]
        return {x.fingerprint["asked"]: [example.id for example in x.examples] for x in prepared}

    def look_first(self, task: Task, items: Items, split: str, stage: str) -> None:
        """Let `look` hear what the unedited model says about the first items, unless the stage has been begun.

        Raises:
            TaskStops: it is not worth going on.
        """
        if self.look is None or (not self.fresh and self._is_begun(task.name, stage)):
            return
        examples = self.prepare(task, items, split).examples
        if examples:
            options = {"sweep": self.sweep, "seed": self.seed, "split": split, "of": len(examples)}
            with alone(self.run.path, [task.name]):
                found = evaluate(self.vlm, task, examples[:FIRST_LOOK], **options)
                if found.stuck is not None and len(examples) > FIRST_LOOK:
                    found = evaluate(self.vlm, task, examples[:LONG_LOOK], **options)
                self.look(found, stage)

    def _is_begun(self, task: str, stage: str) -> bool:
        """Whether a stage of the task has finished, or has a journal, alone or together with other tasks."""
        journals = (self.run.path / "journal").glob(f"*.{stage}.*")
        together = [file.name.split(".")[0].split("+") for file in journals]
        return f"{task}/{stage}" in self.run.record.stages or any(task in names for names in together)

    def sites(self, neurons_file: Path, task: str | None = None) -> list[tuple[int, int]]:
        """The neurons of a neurons file or, of that task, of a published run, which must be of this model, or at least
        its own.
        """
        sites = [(n.layer, n.neuron) for n in read_neurons(neurons_file, task)]
        check_found_on(self.vlm, neurons_file)
        for site in sites:
            self.vlm.anatomy.check_neuron(*site)
        return sites

    def fingerprint(self, items: Prepared, **more: Any) -> dict[str, Any]:
        """What a stage on these items depends on: the model, the seed, the items, and more."""
        answers = self.vlm.answer_tokens
        return {
            "model": self.vlm.name,
            "revision": self.vlm.revision,
            "dtype": self.vlm.dtype,
            "image_backend": self.vlm.image_backend,
            "yes_no_ids": None if answers.ids is None else [*answers.ids],
            **self.vlm.conventions.decides(),
            "seed": self.seed,
            **items.fingerprint,
            **({"stop": [*items.stop]} if items.stop else {}),
            **more,
        }

    def swept(self) -> dict[str, Any]:
        """What answers depend on beside that."""
        return {"max_new_tokens": self.sweep.max_new_tokens, "engine": self.sweep.engine}

    def keep_answers(self, task: Task, split: str, log: AnswerLog, owned: Callable[[str], bool]) -> None:
        """Write what the model said in a sweep (`hones.runs.answers.keep_answers`)."""
        keep_answers(self.run.path / task.name, split, log.of.get(task.name, []), owned)

    def stage(self, name: str, items: Prepared, **inputs: Any) -> "Stage":
        """A stage on these items, which depends on the inputs too."""
        return Stage(self, name, self.fingerprint(items, **inputs))


@dataclass
class Stage:
    """One stage. name: as in run.json, TASK/STAGE. inputs: what its result depends on. parts: its further journals."""

    workspace: Workspace
    name: str
    inputs: dict[str, Any]
    parts: list[str] = field(default_factory=list)

    def once(self, file: Path, kind: Any, compute: Callable[[], Any], **details: Any) -> Any:
        """The result that a JSON file holds: read if the stage has finished, else computed, written and recorded.

        Args:
            kind: the type of the result.
            details: what run.json keeps beside, items as `Prepared`.
        """
        if self.is_finished():
            return read_result(file, kind)
        with self.writing(file, **details):
            result = compute()
            write_result(file, result)
        return result

    def is_finished(self) -> bool:
        """Whether there is nothing to do; if not, a record of other artifacts is forgotten.

        Raises:
            HonesError: it has finished with other inputs, or another stage of its task asked in other words.
        """
        vlm, run = self.workspace.vlm, self.workspace.run
        done = run.record.stages.get(self.name)
        if done is not None and not self.workspace.fresh:
            inputs = as_recorded(vlm, self.inputs, done.fingerprint)
            if run.is_finished(self.name, inputs, self.workspace.asked):
                LOG.info("%s is finished already", self.name)
                return True
        if not self.workspace.fresh:
            self._check_words()
        LOG.info("%s starts (%s on %s)", self.name, vlm.name, vlm.device)
        run.forget(self.name)
        return False

    def _check_words(self) -> None:
        """Raises HonesError where another stage of the task has asked in other words: what it found is of those."""
        task = self.name.partition("/")[0]
        for name, done in self.workspace.run.record.stages.items():
            if name.startswith(f"{task}/") and name != self.name and "template" in done.fingerprint:
                check_words(self.workspace.vlm, done.fingerprint, f"{self.workspace.run.path}: {name}")

    @contextmanager
    def writing(self, *files: Path, **details: Any) -> Iterator[list[Path]]:
        """Compute and write the files of the list in this context; at its end they are recorded."""
        started = time.monotonic()
        artifacts = [*files]
        yield artifacts
        self.finish(artifacts, time.monotonic() - started, **details)

    def finish(self, files: Sequence[Path], seconds: float, **details: Any) -> None:
        """Record the stage with its files, which have been written, and remove what it could have gone on from."""
        run = self.workspace.run
        about = {name: provenance(run.path, x) if isinstance(x, Prepared) else x for name, x in details.items()}
        taken: dict[str, Any] = {"seconds": round(seconds, 1), "device": str(self.workspace.vlm.device)}
        taken["model_settings"] = self.workspace.vlm.conventions.record()
        taken |= {"attention": self.workspace.vlm.attention, **self.workspace.sweep.workers.record()}
        run.finish(self.name, self.inputs, {**taken, **about}, files)
        LOG.info("%s has finished in %s s", self.name, taken["seconds"])
        self.clean_up()

    def journalled(
        self, inputs: dict[str, Any] | None = None, part: str = "", answers: AnswerLog | None = None
    ) -> SweepSettings:
        """The sweep settings with this stage's journal; begun again where `fresh`.

        Args:
            inputs: what the sweep depends on, if not what the stage does.
            part: of a stage with several sweeps.
            answers: keeps what the model says.
        """
        self.parts.append(part)
        file = self.resume_file(f"{part}.jsonl")
        depends = {**(self.inputs if inputs is None else inputs), **self._machine()}
        return replace(self.workspace.sweep, journal=lambda plan: Journal(file, depends, plan), answers=answers)

    def summed(self, inputs: dict[str, Any]) -> SweepSettings:
        """The sweep settings with a running sum that depends on these inputs, and one for each part that is asked."""
        depends = {**inputs, **self.workspace.swept(), **self._machine()}

        def opened(shape: Sequence[int], plan: Mapping[str, Any], part: str = "") -> RunningSum:
            suffix = f".{part}" if part else ""
            self.parts.append(suffix)
            return RunningSum(shape, plan, self.resume_file(f"{suffix}.safetensors"), depends)

        return replace(self.workspace.sweep, running_sum=opened)

    def resume_file(self, suffix: str) -> Path:
        """What it goes on from: of a sweep .jsonl, of a sum or training .safetensors; begun again where `fresh`."""
        file = self.place(suffix)
        if self.workspace.fresh:
            file.unlink(missing_ok=True)
        return file

    def place(self, suffix: str) -> Path:
        """Where its resume file of that kind is."""
        return self.workspace.run.path / "journal" / f"{self.name.replace('/', '.')}{suffix}"

    def clean_up(self) -> None:
        """Remove what an unfinished stage goes on from."""
        for suffix in (f"{part}{end}" for part in ("", *self.parts) for end in ENDS):
            self.place(suffix).unlink(missing_ok=True)

    def _machine(self) -> dict[str, Any]:
        """What numbers depend on in their last bits: half of a sweep is not gone on with elsewhere."""
        return {"device": self.workspace.vlm.device.type, "versions": versions()}
