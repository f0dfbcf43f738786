"""Known truth: models whose task neurons were planted, and every method scored against them (hones benchmark)."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hones.benchmark.aggregate import summarise
from hones.benchmark.contenders import Contender, contender_of, own_contender
from hones.benchmark.results import Benchmark
from hones.benchmark.stage import Settings, score_variants
from hones.benchmark.variants import Variant, planted_variants, task_names
from hones.rivals import make_method
from hones.runs.artifacts import write_result
from hones.sweep.run import SweepSettings
from hones.tasks import make_tasks
from hones.tasks.base import Task


def score_ranking(
    rank: Callable[..., Any],
    *,
    name: str = "yours",
    against: Sequence[str] = ("hones",),
    models: Sequence[str | Variant] | None = None,
    tasks: str = "all",
    seeds: int = 3,
    items: int = 48,
    test: int = 100,
    candidates: int = 8,
    out: str | Path | None = None,
    device: str = "auto",
) -> Benchmark:
    """Score your own ranking on models whose task neurons are known.

    Args:
        rank: rank(vlm, task, items) -> importance [L, I], an array or tensor, larger is more important; items are the
            task's discovery examples.
        against: methods of `hones methods` to put beside it.
        models: planted models by name, or as `Variant`; None: all.
        tasks: with commas; all: the built-in tasks that the models can be asked.
        seeds: how often discovery items are drawn.
        items, test: discovery items to rank on, and other items to mask on.
        candidates: of retrieval.
        out: a run folder, where the other methods' results are kept and reused; None: a temporary one.

    Raises:
        HonesError: what `rank` returns is no finite number per neuron, or it has changed the model.
    """
    contenders = [own_contender(rank, name), *(contender_of(make_method(method)) for method in against)]
    named = [m for m in models or () if not isinstance(m, Variant)]
    variants = [m for m in models or () if isinstance(m, Variant)]
    if models is None or named:
        variants = [*planted_variants(named or None, device), *variants]
    settings = Settings(items, test, tuple(range(seeds)))
    chosen = make_tasks(task_names(tasks, variants), candidates=candidates)
    with tempfile.TemporaryDirectory() as scratch:
        return run_benchmark(variants, chosen, contenders, settings, Path(out or scratch))


def run_benchmark(
    variants: Sequence[Variant],
    tasks: Sequence[Task],
    contenders: Sequence[Contender],
    settings: Settings,
    folder: Path,
    *,
    sweep: SweepSettings | None = None,
    fresh: bool = False,
    page: Path | None = None,
    command: str = "hones.benchmark in Python",
) -> Benchmark:
    """Every contender on every model, task and seed; what the folder holds is not computed again.

    Writes benchmark.json, and leaderboard.md with its charts, or the page named.

    Raises:
        HonesError: as `score_variants`.
    """
    from hones.benchmark.page import write_page

    found = summarise(score_variants(variants, tasks, contenders, settings, folder, sweep, fresh))
    write_result(folder / "benchmark.json", found)
    write_page(page or folder / "leaderboard.md", found, command)
    return found
