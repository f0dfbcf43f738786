"""A run as found.json (`hones.runs.published`): gathered from its folder, without model, data or paths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import read_npy, write_json
from hones.method.found import HeadResult, RankedNeuron
from hones.method.masking import MaskingResult
from hones.runs.artifacts import read_neurons, read_scales
from hones.runs.published import (
    FoundHead,
    FoundHeads,
    FoundItems,
    FoundMasking,
    FoundNeuron,
    FoundNeurons,
    FoundScale,
    FoundTask,
    Level,
    Published,
)
from hones.runs.record import StageRecord
from hones.runs.results import RunResults, TaskResults, read_results
from hones.runs.stale import stale

SETTINGS = ("image_backend", "max_new_tokens", "template")


def publish(run: str | Path, to: str | Path | None = None) -> Path:
    """Write what a run found, by default to RUN/found.json; returns its path.

    Raises:
        HonesError: as `gather`; the file cannot be written.
    """
    run = Path(run)
    to = run / "found.json" if to is None else Path(to)
    write_json(to, gather(run).model_dump(mode="json"))
    return to


def gather(run: Path) -> Published:
    """What a run found.

    Raises:
        HonesError: not a run folder, nothing in it, results that do not belong together or are of several models.
    """
    results = read_results(run)
    if not results.record.stages:
        raise HonesError(f"{run} has no run.json", expected="a run that says what it was found with")
    if lines := stale(results):
        raise HonesError(f"{run} holds results that do not belong together: {lines[0]}", do="run these stages again")
    tasks = {t.task: _task(results, t) for t in results.tasks}
    tasks = {name: found for name, found in tasks.items() if found.heads is not None or found.neurons is not None}
    if not tasks:
        raise HonesError(f"{run} holds neither heads nor neurons", do="run `hones heads` first")
    stages = [s for s in results.record.stages.values() if "model" in s.fingerprint]
    revision = str(_same(run, "revision", stages))
    names = {public_name(str(s.fingerprint["model"]), revision): None for s in stages}
    shape = _shape(run, list(tasks))
    return Published(
        model=next(iter(names)),  # a folder that has moved has two; the revision is what tells models apart
        revision=revision,
        dtype=_same(run, "dtype", stages),
        layers=shape.get("layers"),
        heads_per_layer=shape.get("heads_per_layer"),
        neurons_per_layer=shape.get("neurons_per_layer"),
        settings={key: value for key in SETTINGS if (value := _plain(stages[-1].fingerprint.get(key))) is not None},
        versions={name: x for s in stages for name, x in s.versions.items() if name != "platform"},
        tasks=tasks,
    )


def public_name(name: str, revision: str) -> str:
    """A model's name without the folders before it: of local files, whose revision is a digest, its last part."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    local = revision.startswith("sha256:") or len(parts) > 2 or name.startswith((".", "/", "~"))
    return parts[-1] if local and parts else name


def _same(run: Path, key: str, stages: list[StageRecord]) -> Any:
    """What all stages have in common."""
    values = list(dict.fromkeys(s.fingerprint.get(key) for s in stages))
    if len(values) != 1:
        raise HonesError(f"{run} holds stages of several: {key} is {' and '.join(map(str, values)) or 'not said'}")
    return values[0]


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else None


def _shape(run: Path, tasks: list[str]) -> dict[str, int]:
    """(L, H) and (L, I), from the arrays that the stages left."""
    shape: dict[str, int] = {}
    for task in tasks:
        for file, width in (("head_scores.npy", "heads_per_layer"), ("neuron_importance.npy", "neurons_per_layer")):
            if (run / task / file).is_file():
                layers, across = read_npy(run / task / file).shape
                shape |= {"layers": layers, width: across}
    return shape


def _task(results: RunResults, t: TaskResults) -> FoundTask:
    folder, stages = results.folder / t.task, results.record.stages
    own = {name: stages.get(f"{t.task}/{name}") for name in ("heads", "neurons", "mask", "steer")}
    found_by = {} if own["neurons"] is None else own["neurons"].fingerprint
    methods = {}
    for file in sorted(folder.glob("methods/*/neurons.json")):
        record = stages.get(f"{t.task}/methods/{file.parent.name}")
        if record is not None:
            methods[file.parent.name] = _neurons(file.parent.name, record.fingerprint.get("ratio"), read_neurons(file))
    scales = {}
    for file in sorted(folder.glob("steering/*/scales.json")):
        rows = sorted(read_scales(file).values.items())
        scales[file.parent.name] = tuple(FoundScale(layer=layer, neuron=i, scale=s) for (layer, i), s in rows)
    seeds = [s.fingerprint.get("seed") for s in own.values() if s is not None]
    return FoundTask(
        heads=None if t.heads is None else _heads(t.heads),
        neurons=None
        if not t.neurons
        else _neurons(str(found_by.get("method", "unknown")), results.record.ratio_of(t.task), t.neurons),
        methods=methods,
        scales=scales,
        masking=None if t.masking is None else _masking(t.masking),
        data=_data(own),
        seed=next((seed for seed in seeds if isinstance(seed, int)), None),
    )


def _heads(found: HeadResult) -> FoundHeads:
    critical = {(h.layer, h.head) for h in found.critical}
    rows = tuple(
        FoundHead(
            layer=h.layer,
            head=h.head,
            score=Level.of(h.score),
            intervened=h.intervened,
            items=h.items,
            critical=(h.layer, h.head) in critical,
        )
        for h in found.heads
    )
    baseline = Level.of(found.baseline)
    return FoundHeads(
        metric=found.metric_name,
        baseline=baseline,
        items=found.items,
        top_k=max(1, found.top_k),
        by=None if found.found_by is None else found.found_by.way,
        scored=rows,
    )


def _neurons(method: str, ratio: float | None, ranked: list[RankedNeuron]) -> FoundNeurons:
    selected = tuple(FoundNeuron(layer=n.layer, neuron=n.neuron, score=n.score) for n in ranked)
    return FoundNeurons(method=method, ratio=ratio, selected=selected)


def _masking(found: MaskingResult) -> FoundMasking:
    return FoundMasking(
        metric=found.metric_name,
        items=found.items,
        neurons=found.neurons,
        baseline=Level.of(found.baseline),
        masked=Level.of(found.masked),
        random=Level.of(found.control),
        drop=Level.of(found.absolute_drop),
        advantage=Level.of(found.advantage),
    )


def _data(stages: Mapping[str, StageRecord | None]) -> dict[str, FoundItems]:
    """The items of every split, as the first stage that used them says."""
    data: dict[str, FoundItems] = {}
    of_stage = {"heads": "discovery", "neurons": "discovery", "mask": "test", "steer": "test"}
    for name, stage in stages.items():
        if stage is None:
            continue
        for split, used in stage.splits.items():
            # a stage's own digests are those of the split that it works on; of others they are under the split's name
            said = stage.fingerprint if of_stage[name] == split else stage.fingerprint.get(split, {})
            if split in data or "data" not in said:
                continue
            file = None if used.file is None else used.file.split("?")[0].replace("\\", "/").rsplit("/", 1)[-1]
            data[split] = FoundItems(items=len(used.items), file=file, data=said["data"], asked=said.get("asked"))
    return data
