"""Do the heads that `hones heads` finds for the indirect object look where name movers look?

    python bench/name_movers.py --model FOLDER --heads RUN/indirect-object/heads.json [--data FILE] [--out FILE.md]

In "When Mary and John went to the shop, John gave the ring to", the receiver (IO) is named once and the giver twice
(S1, S2). Wang et al. 2022 (arXiv 2211.00593) found in GPT-2 small that name movers attend from the last position to IO
and write that name, S-inhibition heads attend from there to S2, and others from S2 to S1. Printed are, for each
critical head and for all heads, the attention from the last position to each name (summed over the name's tokens), and
how far the critical heads are above the mean of all, by paired bootstrap over items; then the heads that look most at
IO, with what their replacement costs; and what it costs to replace either set at once, beside random heads of the same
layers.
"""

import argparse
import random
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hones import VLM, load_items, load_vlm, make_task
from hones.data.unified import Item
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.runs.artifacts import read_heads
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.run import SweepSettings, sweep
from hones.tasks.base import Example, Task
from hones.tasks.fields import text_at

EXAMPLE = Path(__file__).parents[1] / "docs/examples/indirect-object"
NAMES = ("IO", "S1", "S2")
SHOWN = 8
DRAWS = 5


def names_in(prompt: str, item: Item) -> list[tuple[int, int]]:
    """Where IO, S1 and S2 begin and end in the prompt's text."""
    receiver, giver = text_at(item, "answer"), text_at(item, "giver")
    first = prompt.index(giver)
    starts = ((prompt.index(receiver), receiver), (first, giver), (prompt.index(giver, first + 1), giver))
    return [(start, start + len(name)) for start, name in starts]


@torch.no_grad()
def attention(vlm: VLM, prompt: str, item: Item) -> Float[np.ndarray, "names layers heads"]:
    """From the last position to each name, of every head."""
    encoded: Any = vlm.encode([None], [prompt]).inputs
    found = vlm.model(**encoded, output_attentions=True).attentions
    last = torch.stack([layer[0, :, -1] for layer in found]).float().cpu().numpy()
    spans: Any = vlm.tokenizer(vlm.wrap(prompt, False), return_offsets_mapping=True)["offset_mapping"]
    assert len(spans) == last.shape[-1]
    inside = [[start < b and a < end for start, end in spans] for a, b in names_in(prompt, item)]
    return np.stack([last[..., np.array(of_name)].sum(-1) for of_name in inside])


def mean(sums: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    return sums[..., 0] / sums[..., 1]


def together(vlm: VLM, task: Task, examples: list[Example], sets: dict[str, list[Site]]) -> Table:
    """What the task loses where all heads of a set are replaced at once."""
    taken, rng = {site for own in sets.values() for site in own}, random.Random(3407)
    others = [[(x, h) for h in range(vlm.anatomy.heads) if (x, h) not in taken] for x in range(len(vlm.anatomy.layers))]

    def drawn(own: list[Site]) -> Intervention:
        """As many heads of each layer, none of a set; fewer where a layer has no more."""
        counts = Counter(layer for layer, _ in own)
        parts = [rng.sample(others[layer], min(count, len(others[layer]))) for layer, count in counts.items()]
        return Intervention(heads=frozenset(chain(*parts)))

    edits = {UNEDITED: [BASELINE]}
    for name, own in sets.items():
        edits |= {name: [Intervention(heads=frozenset(own))], f"random for {name}": [drawn(own) for _ in range(DRAWS)]}
    rows = [*chain(*edits.values())]
    cells = iter(sweep(vlm, task, examples, rows, SweepSettings(max_new_tokens=3)))
    statistics = {name: np.stack([next(cells) for _ in of_arm]) for name, of_arm in edits.items()}
    measured = Measurement(statistics, task.score, seed=3407)
    table = Table("replaced at once", "metric", "drop", "drop beyond random", title="all heads of a set")
    for name in sets:
        beyond = measured.difference(f"random for {name}", name)
        # escape: an interval without width is words in brackets, which rich would take for markup
        cells_of = (f"{measured.level(name):.3f}", f"{measured.drop(name):+.3f}", f"{beyond:+.3f}")
        table.add_row(name, *map(escape, cells_of))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=EXAMPLE / "test.csv")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = read_heads(options.heads)
    task, items = make_task(str(EXAMPLE / "task.yaml")), load_items(options.data)
    examples, _ = task.examples(items)
    vlm = load_vlm(options.model, attn_implementation="eager")  # other kernels do not give their attention
    pairs = zip(examples, items, strict=True)
    seen = np.stack([attention(vlm, example.prompts[0], item) for example, item in pairs])  # [items, names, L, H]

    critical = [(head.layer, head.head) for head in found.critical]
    arms: dict[Any, Any] = {}
    for number, name in enumerate(NAMES):
        of_name = seen[:, number]
        by_arm = {site: of_name[:, *site] for site in np.ndindex(of_name.shape[1:])}
        by_arm |= {"critical": np.stack([by_arm[site] for site in critical]).mean(0), "all": of_name.mean((1, 2))}
        arms |= {(name, arm): np.stack([x, np.ones_like(x)], -1)[None] for arm, x in by_arm.items()}
    measured = Measurement(arms, mean, seed=3407)

    def row(arm: Any) -> list[str]:
        return [escape(f"{measured.level((name, arm)):.3f}") for name in NAMES]

    console = Console(record=True, width=130)
    title = f"{options.model}: attention from the last position to the names, {len(examples)} items"
    table = Table("heads", "drop when replaced", *NAMES, title=title)
    drops: dict[Any, Interval] = {(head.layer, head.head): head.score for head in found.heads}
    for site in critical:
        table.add_row(f"{site[0]}.{site[1]}", escape(f"{drops[site]:+.3f}"), *row(site))
    table.add_row(f"mean of these {len(critical)}", "", *row("critical"))
    table.add_row(f"mean of all {len(drops)}", "", *row("all"))
    above = [f"{measured.difference((name, 'critical'), (name, 'all')):+.3f}" for name in NAMES]
    table.add_row("difference", "", *above)
    console.print(table)
    ranked = sorted(drops, key=lambda site: -measured.value(("IO", site)))
    most = Table("heads", "drop when replaced", *NAMES, title="the heads that look most at IO")
    for site in ranked[:SHOWN]:
        most.add_row(f"{site[0]}.{site[1]}", escape(f"{drops[site]:+.3f}"), *row(site))
    console.print(most)
    places = ", ".join(f"{x}.{h}: {1 + ranked.index((x, h))}" for x, h in critical)
    console.print(f"rank of each critical head by attention to IO, of {len(drops)}: {places}")
    sets = {"the critical heads": critical, f"the {SHOWN} that look most at IO": ranked[:SHOWN]}
    console.print(together(vlm, task, examples, sets))
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
