"""`hones analyze`: what the sets of a run's tasks share and do, from what the run left.

1. Sets: neurons per layer, overlaps of heads and of neurons, exclusive groups.
2. Cross-ablation of the groups on the test items, one sweep with a journal.
3. Delta logit lens of the test items that change most, for the groups with their task.
4. Cards of each task's first neurons, on the discovery items.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import digest_of, write_bytes
from hones.method.analysis.ablation import measure_groups, most_changed, score_ablations
from hones.method.analysis.cards import contributions_of, drivers, head_shares
from hones.method.analysis.groups import Tasks, describe_groups, exclusive_groups, overlaps, per_layer
from hones.method.analysis.lens import delta_lens
from hones.method.analysis.results import Ablation, Analysis, Driver, HeadRef, LensRow, NeuronCard, TaskSets
from hones.method.analysis.tokens import written_tokens
from hones.method.neurons import head_importance
from hones.models.sites import Site
from hones.rivals.hones import Hones
from hones.runs.analysis_settings import AnalysisSettings
from hones.runs.artifacts import read_result, write_result
from hones.runs.former import check_words, is_revision
from hones.runs.locks import alone
from hones.runs.prepared import Prepared
from hones.runs.source import FinishedRun, Source, Split
from hones.runs.stage import Stage
from hones.runs.study import Study
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example

THUMBNAIL = 160
DRIVERS = 4


@dataclass(frozen=True)
class _Job:
    """A task's source with its usable examples."""

    source: Source
    discovery: Prepared
    test: Prepared


@dataclass
class RunStudy(Study):
    """A study that goes on from a finished run."""

    def analyze(self, run: FinishedRun, settings: AnalysisSettings | None = None) -> Analysis:
        """Everything of the module's list; writes analysis/analysis.json and analysis/pictures/.

        Raises:
            HonesError: the model, an item or a picture is not what the run used; the line names the difference.
        """
        settings = settings or AnalysisSettings()
        self.sweep = replace(self.sweep, max_new_tokens=run.max_new_tokens)
        if not is_revision(self.vlm, run.revision):
            raise HonesError(
                f"{self.vlm.name} has revision {self.vlm.revision}, the run {run.folder.path} used {run.revision}",
                do="pass the model as it was with --model",
            )
        for name, depends in run.depends.items():
            check_words(self.vlm, depends, f"{run.folder.path}: {name}/neurons")
        jobs = [
            _Job(s, self._as_used(s.name, s.discovery, "discovery"), self._as_used(s.name, s.test, "test"))
            for s in run.tasks
        ]
        folder = run.folder.path / "analysis"
        with alone(self.run.path, ["analysis"]):
            stage = Stage(self, "analysis", self._inputs(jobs, settings))
            if stage.is_finished():
                return read_result(folder / "analysis.json", Analysis)
            neurons = {s.name: [(n.layer, n.neuron) for n in s.neurons] for s in run.tasks}
            heads = {s.name: [(h.layer, h.head) for h in s.heads.critical] for s in run.tasks}
            groups = exclusive_groups(neurons)
            sizes = {"+".join(tasks): len(sites) for tasks, sites in groups.items()}
            layers, width, per_layer_neurons = self.vlm.anatomy.shape
            with stage.writing(folder / "analysis.json", groups=sizes) as artifacts:
                ablations, lens = self._ablate(jobs, groups, settings, stage.journalled(), folder)
                result = Analysis(
                    model=run.model,
                    layers=layers,
                    heads=width,
                    neurons=per_layer_neurons,
                    tasks=tuple(
                        TaskSets(
                            s.name,
                            s.discovery.task.metric_name,
                            tuple(HeadRef(h.layer, h.head, h.score.value) for h in s.heads.critical),
                            per_layer(neurons[s.name], layers),
                        )
                        for s in run.tasks
                    ),
                    heads_overlap=overlaps(heads),
                    neurons_overlap=overlaps(neurons),
                    groups=describe_groups(groups, layers),
                    ablations=tuple(ablations),
                    lens=tuple(lens),
                    cards=tuple(card for job in jobs for card in self._cards(job, groups, settings.cards, folder)),
                )
                write_result(folder / "analysis.json", result)
                pictures = {row.picture for row in lens} | {d.picture for card in result.cards for d in card.drivers}
                artifacts += [folder / picture for picture in sorted(pictures - {""})]
            return result

    def _as_used(self, name: str, split: Split, which: str) -> Prepared:
        """The split's examples, which must be those that the run used."""
        prepared = self.prepare(split.task, split.items, which)
        if split.used is not None and prepared.fingerprint != split.used:
            lost = "".join(f"; item {x.id}: {x.reason}" for x in prepared.left_out[:1])
            raise HonesError(
                f"the {which} items of {name} are not those of the run (asked = {split.used['asked']}, "
                f"now {prepared.fingerprint['asked']}{lost})",
                expected="the same pictures and annotations",
                do="pass them with --images, --data and --discovery",
            )
        return prepared

    def _inputs(self, jobs: Sequence[_Job], settings: AnalysisSettings) -> dict[str, Any]:
        used = {
            job.source.name: {
                "discovery": job.discovery.fingerprint,
                "test": job.test.fingerprint,
                "heads": digest_of(self.run.path / job.source.name / "heads.json"),
                "neurons": digest_of(self.run.path / job.source.name / "neurons.json"),
            }
            for job in jobs
        }
        common = self.fingerprint(jobs[0].test, **self.swept(), **settings.model_dump(), tasks=used)
        return {key: value for key, value in common.items() if key not in jobs[0].test.fingerprint}

    def _ablate(
        self,
        jobs: Sequence[_Job],
        groups: dict[Tasks, list[Site]],
        settings: AnalysisSettings,
        sweep: SweepSettings,
        folder: Path,
    ) -> tuple[list[Ablation], list[LensRow]]:
        """The cross-ablation, and the lens of the items that change most."""
        asked = [(job.source.test.task, job.test.examples[: settings.limit]) for job in jobs]
        swept = measure_groups(self.vlm, asked, groups, draws=settings.draws, sweep=sweep, seed=self.seed)
        ablations, lens = [], []
        for (task, examples), measured in zip(asked, swept, strict=True):
            ablations += score_ablations(task, measured, groups)
            rows = most_changed(task, measured, groups, settings.lens_items)
            chosen = [examples[row] for row in rows]
            of_task = {tasks: sites for tasks, sites in groups.items() if task.name in tasks}
            lens += delta_lens(self.vlm, task, chosen, of_task, [_thumbnail(e, folder) for e in chosen])
        return ablations, lens

    def _cards(self, job: _Job, groups: dict[Tasks, list[Site]], count: int, folder: Path) -> list[NeuronCard]:
        source = job.source
        task = source.discovery.task
        examples = job.discovery.examples
        neurons = source.neurons[:count]
        if not neurons:
            return []
        sites = [(n.layer, n.neuron) for n in neurons]
        parts = None
        if isinstance(source.method, Hones):
            reading: dict[str, Any] = {"positive_part": source.method.positive_part, "reading": source.method.reading}
            parts = head_importance(self.vlm, task, examples, source.heads.critical, sweep=self.sweep, **reading)
        contributions = contributions_of(self.vlm, task, examples, sites, self.sweep.batch_size)
        tokens = written_tokens(self.vlm, sites)
        group_of = {site: tasks for tasks, members in groups.items() for site in members}
        cards = []
        for number, (neuron, site) in enumerate(zip(neurons, sites, strict=True)):
            of_items = contributions[:, number]
            promotes, suppresses = tokens[number]
            driving = []
            for i in drivers(of_items, DRIVERS):
                x = examples[i]
                picture = _thumbnail(x, folder)
                driving.append(Driver(x.id, task.name, float(of_items[i]), x.prompts[0], x.target, picture))
            cards.append(
                NeuronCard(
                    task=task.name,
                    rank=neuron.rank,
                    layer=neuron.layer,
                    neuron=neuron.neuron,
                    expert=neuron.expert,
                    importance=neuron.score,
                    group=group_of[site],
                    promotes=promotes,
                    suppresses=suppresses,
                    heads=head_shares(source.heads.critical, parts, site) if parts is not None else (),
                    drivers=tuple(driving),
                )
            )
        return cards


def _thumbnail(example: Example, folder: Path) -> str:
    """Write the picture, at most 160 pixels a side, named by its content; returns its path from the folder.

    An example without a picture has the path "".
    """
    picture = example.open_picture()
    if picture is None:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    name = f"pictures/{sha256(buffer.getvalue()).hexdigest()[:16]}.jpg"
    write_bytes(folder / name, buffer.getvalue())
    return name
