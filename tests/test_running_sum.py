"""An attribution that is killed goes on after the last shard it added, on any number of workers, to the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_neurons import HEADS

from hones import HonesError, RunFolder, Study, load_items, make_task
from hones.method.drops import DropsWork
from hones.method.found import HeadResult
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.runs.artifacts import write_heads
from hones.runs.comparing import rank as rank_methods
from hones.runs.method_inputs import critical_heads, method_inputs
from hones.stats import Interval
from hones.sweep.memory import MemoryPlan
from hones.sweep.run import SweepSettings
from hones.sweep.running_sum import RunningSum
from hones.sweep.shards import ThisProcess, Workers


class Killed(BaseException):
    pass


class Several(ThisProcess):
    """Workers that end in another order: of each round of `count` shards the last one first. Dies after `last` shards.

    Their memory, and with it the plan that they would choose, is another one each time.
    """

    def __init__(self, count: int, last: int | None = None) -> None:
        self.count, self.last, self.computed = count, last, list[range]()

    def plan(self, vlm: VLM, positions_per_picture: int, batch_size: int | None, most: int | None = None) -> MemoryPlan:
        return MemoryPlan(batch_size or self.count, 4096, 2**20 * self.count)

    def begin(self, vlm: VLM, work: Any) -> Any:
        one = work.begin(vlm)

        def compute(shards: Any, bar: Any) -> Iterator[tuple[int, Any]]:
            for start in range(0, len(shards), self.count):
                numbers = range(start, min(start + self.count, len(shards)))
                found = {number: self._once(one, shards[number]) for number in numbers}
                yield from ((number, found[number]) for number in reversed(numbers))

        return compute

    def _once(self, one: Any, shard: range) -> Any:
        if len(self.computed) == self.last:
            raise Killed
        self.computed.append(shard)
        return one(shard, lambda amount: None)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """A heads file for vqa; its fourth head has a negative score."""
    zero = Interval(0.5, 0.5, 0.5)
    write_heads(tmp_path, HeadResult(make_task("vqa").metric_name, zero, 6, tuple(HEADS), 4), 3, 4)
    return tmp_path / "heads.json"


def rank(
    vlm: VLM, run: Path, shapes: dict[str, Path], heads: Path, workers: Workers | None = None, **more: Any
) -> bytes:
    """`hones neurons`; the bytes of every neuron's importance."""
    batch_size, fresh = more.get("batch_size", 1), more.get("fresh", False)
    settings = SweepSettings(more.get("engine", "replay"), batch_size, workers=workers or ThisProcess())
    study = Study(vlm, RunFolder(run), settings, fresh=fresh)
    study.neurons(make_task("vqa"), load_items(shapes["discovery"]), heads, more.get("ratio", 0.1))
    return (run / "vqa" / "neuron_importance.npy").read_bytes()


def kept(run: Path) -> Path:
    return run / "journal" / "vqa.neurons.safetensors"


@pytest.mark.parametrize("engine", ["replay", "naive"])
def test_a_killed_attribution_goes_on_with_another_number_of_workers(
    vlms: dict[str, VLM], shapes: dict[str, Path], heads: Path, engine: str, tmp_path: Path
) -> None:
    vlm, run, options = vlms["qwen"], tmp_path / "run", dict[str, Any](engine=engine)
    whole = rank(vlm, tmp_path / "whole", shapes, heads, **options)
    computed = []
    for workers in (Several(1, last=2), Several(2, last=3)):
        with pytest.raises(Killed):
            rank(vlm, run, shapes, heads, workers, **options)
        computed += workers.computed
    (kept(run).parent / f".{kept(run).name}.1.part").write_bytes(b"cut off while writing")
    last = Several(3)
    assert rank(vlm, run, shapes, heads, last, batch_size=None, ratio=0.2, **options) == whole
    assert computed == [range(n, n + 1) for n in range(5)], "the third of the second's was in a round not ended"
    assert last.computed == [range(4, 5), range(5, 6)] and not [*kept(run).parent.iterdir()]


def test_one_process_goes_on_where_workers_were(
    vlms: dict[str, VLM], shapes: dict[str, Path], heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, run, settings = vlms["qwen"], tmp_path / "run", dict[str, Any](batch_size=2)
    whole = rank(vlm, tmp_path / "whole", shapes, heads, **settings)
    with pytest.raises(Killed):
        rank(vlm, run, shapes, heads, Several(2, last=2), **settings)
    began: list[range] = []
    begin = DropsWork.begin

    def counted(self: DropsWork, vlm: VLM) -> Any:
        one = begin(self, vlm)
        return lambda shard, advance: (began.append(shard), one(shard, advance))[1]

    monkeypatch.setattr(DropsWork, "begin", counted)
    assert rank(vlm, run, shapes, heads, **settings) == whole and began == [range(4, 6)]
    assert rank(vlm, run, shapes, heads, **settings) == whole and len(began) == 1, "finished"
    assert rank(vlm, run, shapes, heads, **settings, fresh=True) == whole and len(began) == 4


def test_methods_of_a_comparison_that_are_cut_by_items_go_on_too(
    vlms: dict[str, VLM], shapes: dict[str, Path], heads: Path, tmp_path: Path
) -> None:
    task, items = make_task("vqa"), load_items(shapes["discovery"])
    methods = [METHODS["hones"], METHODS["hones-per-item"]]

    def ranked(run: Path, workers: Workers) -> list[bytes]:
        study = Study(vlms["qwen"], RunFolder(run), SweepSettings(batch_size=2, workers=workers))
        examples = study.prepare(task, items, "discovery")
        critical = critical_heads(study.vlm, task, heads, methods)
        given = method_inputs(study, task, items, examples.examples, critical, methods)
        found = rank_methods(study, methods, given, examples, lambda method: run / "vqa/methods" / method.name, 0.1)
        return [ranking.importances[0].tobytes() for ranking in found.values()]

    whole, journal = ranked(tmp_path / "whole", ThisProcess()), tmp_path / "run/journal"
    with pytest.raises(Killed):
        ranked(tmp_path / "run", Several(1, last=5))
    assert [file.name for file in journal.iterdir()] == ["vqa.methods.hones-per-item.safetensors"], "hones is done"
    last = Several(1)
    assert ranked(tmp_path / "run", last) == whole and last.computed == [range(4, 6)] and not [*journal.iterdir()]


def test_a_sum_of_other_inputs_is_refused(
    vlms: dict[str, VLM], shapes: dict[str, Path], heads: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        rank(vlms["qwen"], run, shapes, heads, Several(1, last=2))
    before = kept(run).read_bytes()
    with pytest.raises(HonesError, match="belongs to a ranking with engine = 'replay', now 'naive'"):
        rank(vlms["qwen"], run, shapes, heads, engine="naive")
    with pytest.raises(HonesError, match=r"belongs to a ranking with .*model = "):
        rank(vlms["llava"], run, shapes, heads)
    with pytest.raises(HonesError, match="belongs to a ranking of 1 pictures at once, now 3; leave --batch-size out"):
        rank(vlms["qwen"], run, shapes, heads, batch_size=3)
    heads.write_text(heads.read_text() + " ")
    with pytest.raises(HonesError, match="belongs to a ranking with heads = "):
        rank(vlms["qwen"], run, shapes, heads)
    assert kept(run).read_bytes() == before


def test_a_damaged_sum_is_refused(tmp_path: Path) -> None:
    file, plan = tmp_path / "sum.safetensors", {"pictures": 1}
    RunningSum((2, 3), plan, file, {"model": "m"}).add(np.ones((2, 3)))
    content, again = file.read_bytes(), RunningSum((2, 3), {"pictures": 9}, file, {"model": "m"})
    assert again.done == 1 and again.plan == plan and (again.total == 1).all()
    flipped, more = content[:-1] + bytes([content[-1] ^ 1]), content.replace(b'done\\": 1', b'done\\": 2')
    assert more != content
    for bad in (b"", b"no tensors", content[:-1], flipped, more):
        file.write_bytes(bad)
        with pytest.raises(HonesError, match=r"sum\.safetensors is not a whole checkpoint .*--fresh"):
            RunningSum((2, 3), plan, file, {"model": "m"})
    file.write_bytes(content)
    with pytest.raises(HonesError, match=r"not a whole checkpoint \(shape"):
        RunningSum((2, 4), plan, file, {"model": "m"})
    save_file(load_file(file), file)
    with pytest.raises(HonesError, match="not a whole checkpoint"):
        RunningSum((2, 3), plan, file, {"model": "m"})
