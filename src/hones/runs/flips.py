"""Two sweeps of the same heads, in float32 and in another dtype: what `hones flips` counts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hones.data.items import Items
from hones.errors import HonesError
from hones.method.flips import Rounding, flips_between
from hones.method.heads import critical_count, head_sites, replacements
from hones.models.dtypes import device_named, dtype_named
from hones.models.interventions import BASELINE
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.runs.prepared import Prepared, prepare
from hones.stats import UNEDITED, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task

EXACT = "float32"


def count_flips(
    spec: ModelSpec,
    tasks: Sequence[Task],
    items: Items,
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
    on_prepared: Callable[[Task, Prepared], object] = lambda task, prepared: None,
) -> Rounding:
    """Sweep all heads on the same items twice; one model is in memory at a time.

    Args:
        spec: the model in the other dtype.
        on_prepared: hears of a task's items once they are opened.

    Raises:
        HonesError: a dtype that rounds nothing, no item that a task can use; as `localize_heads`.
    """
    if dtype_named(spec.dtype, device_named(spec.device)) == EXACT:
        raise HonesError(f"--dtype {spec.dtype} is float32 here", expected="bfloat16 or float16, which round")
    settings = sweep or SweepSettings()
    exact = replace(spec, dtype=EXACT).load()
    jobs = []
    for task in tasks:
        prepared = prepare(exact, task, items, "given", settings.max_new_tokens)
        on_prepared(task, prepared)
        if not prepared.examples:
            raise HonesError(f"none of {len(items)} items can be asked about for {task.name}")
        jobs.append((task, prepared.examples))
    k, sites = critical_count(exact, top_k), head_sites(exact)
    names = ", ".join(task.name for task in tasks)

    def swept(vlm: VLM) -> list[Measurement]:
        progress = f"{names}: heads in {vlm.dtype}"
        return measure(vlm, jobs, {UNEDITED: BASELINE, **replacements(vlm)}, settings, seed=seed, progress=progress)

    first = swept(exact)
    del exact
    rounded = spec.load()
    second = swept(rounded)
    found = [
        flips_between(task, a, b, sites, k, rounded.dtype) for task, a, b in zip(tasks, first, second, strict=True)
    ]
    return Rounding(rounded.name, rounded.dtype, tuple(found))
