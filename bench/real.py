"""The study of smol-llava, on the built-in pictures and on photographs: bench/real.yaml, and a page of what it found.

    hones models get smol-llava
    python bench/real.py drawings photographs --photographs FOLDER [--tasks vqa ocr caption] [--race]

Each source is one `hones run` of the configuration; the photographs' is changed with `--set` as printed. With --race,
`hones heads --racing` on the same items says what a race would have found. --photographs FOLDER has flickr8k, daquar
and words (tools/smol); of them only those are used that training never saw. A run that was stopped goes on.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hones import write_shapes
from hones.method.found import HeadResult
from hones.runs.results import RunResults, TaskResults, read_results
from hones.tabular import Table
from hones.views.markdown import markdown

HERE = Path(__file__).parent
CONFIG = HERE / "real.yaml"
sys.path.append(str(HERE.parent / "tools"))
SPLITS = {"discovery": 12, "dev": 48, "test": 32}
OF_PHOTOGRAPHS = {"discovery": 24, "dev": 48, "test": 40}  # of each task
TASKS = ["vqa", "ocr"]
SEED = 31  # of the pictures; neither training nor the figures of the manifest use it
PHOTOGRAPHS = {
    "analyze": "null",
    "compare": "{methods: [hones+, rounds, selective, dvp, random], draws: 2, curves: false}",
    "limit": "{}",
    "also": "[ocr, caption]",  # under the masks and the scales of each
    "steering.also": "[ocr, caption]",
    "steering.methods": "[hones, rand-neuron, fixed-amp, no-kl, ia3]",
}


def write_data(source: str, folder: Path, photographs: Path | None, most: int | None) -> Path:
    """The three files of a source, in a folder. most: discovery items of a task, if there are to be fewer."""
    to = folder / "data" / source
    if (to / "test.json").exists():
        return to
    if source == "drawings":
        write_shapes(to, SPLITS, seed=SEED)
        return to
    from smol.files import write_photographs
    from smol.photographs import read_photographs

    if photographs is None:
        raise SystemExit("photographs: give --photographs FOLDER")
    sizes = OF_PHOTOGRAPHS | ({"discovery": most} if most else {})  # a limit would count items of any task
    write_photographs(to, read_photographs(photographs, test=True), sizes, SEED, questions=1)
    return to


def hones(*words: str) -> None:
    """One command, printed."""
    print(f"\n$ {shlex.join(['hones', *words])}", flush=True)
    subprocess.run([sys.executable, "-m", "hones", *words], check=True)


def changed(
    source: str,
    model: str,
    tasks: list[str],
    data: Path,
    out: Path,
    most: int | None,
    more: dict[str, str] | None = None,
) -> list[str]:
    """What is given to `hones run` in place of the configuration's. most: discovery items of a task."""
    files = ", ".join(f"{split}: {(data / split).resolve()}.json" for split in SPLITS)
    changes = {"model": model, "out": str(out.resolve()), "data": f"{{{files}}}"}
    changes |= {"tasks": f"[{', '.join(tasks)}]"}
    changes |= PHOTOGRAPHS if source == "photographs" else {}
    changes |= {"limit.discovery": str(most)} if most and source == "drawings" else {}
    changes |= more or {}
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def study(
    source: str, model: str, tasks: list[str], data: Path, out: Path, most: int | None, more: dict[str, str]
) -> RunResults:
    """The run of a source. more: changes of the configuration."""
    hones("run", str(CONFIG), *changed(source, model, tasks, data, out, most, more))
    hones("report", str(out))
    return read_results(out)


def compared(methods: list[str] | None) -> dict[str, str]:
    """The comparison of some methods in place of the configuration's."""
    return {"compare": f"{{methods: [{', '.join(methods)}], draws: 2, curves: false}}"} if methods else {}


def of_ratios(ratios: list[str] | None) -> dict[str, str]:
    """Sets of these sizes compared in place of the configuration's; no analysis."""
    if not ratios:
        return {}
    first, *further = ratios
    sizes = {"ratio": first, "compare.budgets": f"[{', '.join(further)}]"}
    return sizes | {"analyze": "null", "also": f"[{', '.join(TASKS)}]"}


def race(task: str, model: str, data: Path, out: Path, items: int) -> HeadResult:
    """The heads that a race finds on the discovery items."""
    asked = ["--task", task, "--data", str(data / "discovery.json"), "--max-left-out", "1", "--limit", str(items)]
    hones("heads", "--model", model, *asked, "--racing", "0.95", "--out", str(out))
    found = read_results(out).tasks
    return next(results.heads for results in found if results.task == task and results.heads is not None)


def page(
    model: str,
    source: str,
    tasks: list[str],
    results: RunResults,
    raced: dict[str, HeadResult],
    most: int | None,
    more: list[str],
) -> str:
    """The results as markdown. more: further words of the command."""
    found_on = " and ".join(f"{task.heads.items} of {task.task}" for task in results.tasks if task.heads is not None)
    command = ["python bench/real.py", source, "--tasks", *tasks, *(["--discovery", str(most)] if most else [])]
    command += more
    lines = [
        f"# {model} on {source}",
        "",
        f"`{' '.join(command)}`; sets found on items as follows: {found_on}.",
        "",
    ]
    for task in results.tasks:
        lines += [f"## {task.task}", "", *_heads(task, raced.get(task.task))]
        shown = [task.masking, task.comparison, task.evidence]
        for table in [table for result in shown if result is not None for table in result.tables()]:
            lines += _shown(table)
    if results.per_layer:
        lines += ["## Neurons per layer, from the first", ""]
        lines += [f"- {name}: {' '.join(map(str, counts))}" for name, counts in results.per_layer.items()]
        lines.append("")
    if results.analysis is not None:
        lines += ["## Groups", ""]
        for table in results.analysis.tables():
            lines += _shown(table) if table.name in ("ablations", "overlap") else []
    lines += ["## Seconds of each stage", "", "| stage | seconds |", "|---|---|"]
    lines += [f"| {name} | {stage.seconds:.0f} |" for name, stage in results.record.stages.items()]
    return "\n".join([*lines, ""])


def _shown(table: Table) -> Iterator[str]:
    yield from (f"### {table.title}", "", markdown(table))


def _heads(task: TaskResults, raced: HeadResult | None) -> Iterator[str]:
    """The critical heads, how sure they are, and what a race makes of them."""
    assert task.heads is not None
    exact = task.heads
    sure = [h for h in exact.heads if h.score.low > 0]
    for_worse = [h for h in exact.heads if h.score.high < 0]
    alike = len({h.score.value for h in exact.heads})
    yield from (f"### Heads: {exact.metric_name} {exact.baseline:.3f} on {exact.items} items", "")
    yield (
        f"{len(exact.heads)} heads with {alike} different scores; {len(sure)} intervals lie above zero, "
        f"{len(for_worse)} below."
    )
    yield from ("", "| layer.head | drop when replaced |", "|---|---|")
    for head in exact.critical:
        yield f"| {head.layer}.{head.head} | {head.score:+.3f} |"
    yield ""
    if raced is None:
        return
    sites = [{(h.layer, h.head) for h in found.critical} for found in (exact, raced)]
    cells = sum(h.items for h in raced.heads) / (len(exact.heads) * exact.items)
    yield from (
        f"A race at .95 runs {cells:.0%} of the cells and finds {len(sites[0] & sites[1])} of these {len(sites[0])}.",
        "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", choices=("drawings", "photographs"))
    parser.add_argument("--model", default="smol-llava")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--discovery", type=int, help="discovery items of a task, at most")
    parser.add_argument("--methods", nargs="+", help="compared with HONES, in place of the configuration's")
    parser.add_argument("--ratios", nargs="+", help="sizes of the sets, in place of the configuration's")
    parser.add_argument("--race", action="store_true")
    parser.add_argument("--to", type=Path, default=Path("runs/real"))
    parser.add_argument("--pages", type=Path, default=HERE / "results")
    options = parser.parse_args()
    for source in options.sources:
        data = write_data(source, options.to, options.photographs, options.discovery)
        part = "" if options.tasks == TASKS else "-" + "-".join(options.tasks)
        part += f"-at-{'-and-'.join(f'{100 * float(x):g}' for x in options.ratios)}-percent" if options.ratios else ""
        more = compared(options.methods) | of_ratios(options.ratios)
        out = options.to / f"{source}{part}"
        results = study(source, options.model, options.tasks, data, out, options.discovery, more)
        raced: dict[str, HeadResult] = {}
        for found in results.tasks if options.race else ():
            assert found.heads is not None
            items = found.heads.items  # those that the exact sweep had
            raced[found.task] = race(found.task, options.model, data, options.to / f"{source}-raced", items)
        given = {"--methods": options.methods, "--ratios": options.ratios}
        words = [word for option, values in given.items() if values for word in (option, *values)]
        written = page(options.model, source, options.tasks, results, raced, options.discovery, words)
        (options.pages / f"real-{source}{part}.md").write_text(written)


if __name__ == "__main__":
    main()
