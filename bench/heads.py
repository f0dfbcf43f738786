"""What each way to score heads finds, and what HONES's neurons of these heads are worth.

    python bench/heads.py [--models tiny-llava] [--tasks ocr vqa] [--ways single single:logprob ...] [--out FILE.md]

Of each way: the critical heads, what replacing all of them at once costs on test items, and what masking the neurons
costs that HONES finds with them, as many for all ways, and how much more than masking random ones of the same layers.
Heads and neurons are found on --discovery items, the costs are of --test others, with paired intervals. CPU seconds
are those of finding the heads.
"""

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hones import RunFolder, Study, load_items, load_vlm, make_task, write_shapes
from hones.data.items import Items
from hones.method.head_ways import check_utility, make_head_way
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED
from hones.sweep.measure import measure
from hones.tasks.log_probability import LogProbability

WAYS = ("single", "single:logprob", "subsets", "conditional", "conditional:metric")


def row(vlm: VLM, run: RunFolder, name: str, way: str, discovery: Items, test: Items, ratio: float) -> list[str]:
    """What one way finds and what that is worth."""
    by, _, utility = way.partition(":")
    asked = make_head_way(by)
    task = make_task(name)
    scored = LogProbability(task) if check_utility(utility or None, asked) == "logprob" else task
    study = Study(vlm, run)
    started = time.process_time()
    (heads,) = study.heads([scored], discovery, by=asked)
    seconds = time.process_time() - started
    study.neurons(task, discovery, run.path / name / "heads.json", ratio)
    masking = study.mask(task, test, run.path / name / "neurons.json")
    critical = [(h.layer, h.head) for h in heads.critical]
    examples, _ = task.examples(test)
    arms = {UNEDITED: BASELINE, "heads": Intervention(heads=frozenset(critical))}
    (measured,) = measure(vlm, [(task, examples)], arms, seed=study.seed)
    found = " ".join(f"{layer}.{head}" for layer, head in critical)
    drops = (measured.drop("heads"), masking.absolute_drop, masking.advantage)
    return [way, found, *(f"{drop:+.2f}" for drop in drops), f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava"])
    parser.add_argument("--tasks", nargs="+", default=["ocr", "vqa"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="WAY or WAY:UTILITY")
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--discovery", type=int, default=48)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=120)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = {"discovery": options.discovery, "test": options.test}
        files = write_shapes(folder / "data", sizes, seed=options.seed)
        discovery, test = load_items(files["discovery"]), load_items(files["test"])
        for model in options.models:
            vlm = load_vlm(model)
            for name in options.tasks:
                on = f"found on {options.discovery} items, drops on {options.test} others"
                title = f"{model}, {name}: {on}, {100 * options.ratio:g} % of the neurons"
                drops = ("drop, heads replaced [95 %]", "drop, neurons masked [95 %]", "more than random [95 %]")
                table = Table("way", "critical heads (layer.head)", *drops, "CPU s", title=title)
                for way in options.ways:
                    run = RunFolder(folder / model / way.replace(":", "-"))
                    # escape: an interval is in brackets, which rich would take for markup
                    table.add_row(*map(escape, row(vlm, run, name, way, discovery, test, options.ratio)))
                console.print(table)
    if options.out is not None:
        asked = shlex.join(word for word in sys.argv[1:] if word not in ("--out", str(options.out)))
        head = f"# What the ways to score heads find\n\n`python bench/heads.py {asked}`\n"
        options.out.write_text(f"{head}\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
