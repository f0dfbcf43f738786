"""Render docs/planted.md from the proofs that ship with the planted models.

python -m planting.table
"""

import json
from pathlib import Path
from typing import Any

from hones.data.unified import Item
from hones.data.words import draw_item
from hones.models.place import BUILT_IN_FOLDER, WITHOUT_PICTURES
from hones.models.planted import CONSTRUCTED, FOLDER, PLANTS, load_plant, read_record
from hones.tasks import TASKS, WORD_TASK_NAMES, make_task

PAGE = Path(__file__).parents[2] / "docs" / "planted.md"

HEAD = """# Planted models: task neurons that are known

On a real model nobody knows which neurons do a task. On these, built in as `--model planted-llava-1` and so on, it is
known because they were trained so: for each task t a set P_t of FFN neurons is necessary, and the other tasks' sets are
needless. `hones.models.planted.load_plant(NAME)` gives the sets. Each is a difference to a built-in model (every matrix
of the language model by rank {rank}, the planted neurons' own weights freely); `make planted` trains and proves them.

How they were planted so that easy guesses fail:

- The sets are random neurons, spread over layers. Of each set {quiet} % of the neurons keep a column of down_proj no
  larger than the smallest tenth of their layer's.
- Two tasks were trained to share one set, of which each has the members that take part in it; which two differs between
  variants.
- One task's set is read only through the heads named below: its neurons sit in lower layers, the model does as well
  with them zeroed behind the picture, and the task fails when these heads are replaced by the mean of the others.
- Decoys. "loud": neurons whose mean activation was made that of the three largest of their layer and which the model
  was trained to do without. "cancelled": pairs (a, b) that read alike and write opposite things; a's contribution
  toward the answers was set larger than any other of its layer before training; trained with the pair, without
  it, and with either.
- Every member takes part: in training a task also fails without a few random members of its set (asked to fail without
  the whole set only, two to ten neurons of thirty came to carry each task), and neurons that ended without a part are
  dropped from the set: those whose share of what random triples do, on pictures of their own, is below 1 %.
- There is no general set that all tasks need. A task does as well as before without all neurons that were planted for
  others (rows "only"), so its set is sufficient with the neurons that were not planted, over which what the tasks share
  is spread.

The answers that a task was taught to give without its set are those of unrelated pictures, so it falls to what guessing
gives: the best single answer to all items, or for retrieval ({candidates} candidates) a random order.

Each table: the metric on unseen pictures with its 95 % interval, and the drop from the model as it is (paired
bootstrap). A few: three random neurons of the set, mean of {draws} draws. Random: as many neurons of the same layers
that are in no set, mean of {draws} draws. Measured by `python -m planting.prove NAME` from `tools`.
"""

TAIL = """## Constructed plants: general neurons and backups

`hard-llava-1`, `hard-llava-2`, `hard-qwen-1`, `hard-qwen-2` and, without pictures, `hard-text-1` and `hard-text-2`
(`hones benchmark planted --models hard` takes all six) were not trained. Each is a built-in model with four or five
layers and 32 numbers of the residual more, whose weights are set by hand so that the truth follows from them;
`hones.models.planted.circuit` has the formulas, `python -m planting.construct` from `tools` makes them. What the model
knows reaches its words through keys alone:

- **First copies and backups**: a task's set is four pairs. Each pair holds one key, which lets a part of the residual
  through to the words. The backup sees what the first copy writes and is silent, z = 0 in float32, until it is
  missing; then it writes the same. Closing all first copies changes no answer, closing both of each pair leaves none.
- **General neurons**: four without which no copy of any task writes a key, and the readout, 384 (256 without
  pictures) that carry the residual to the words. Every task needs them: they are no task's own, and rank first only by
  mistake.
- **Graded**: the keys of the models to report on let 84, 56, 34 and 18 of the 192 coordinates through (without
  pictures 56, 38, 22 and 12 of 128), of those to choose on 48 each (32).
- **Heads**: one head carries each task's flag, without which no key of it is written. On the models to report on a
  backup head does so when the first is replaced.
- **What is left without a set** is told to no method: one word, the same for all items, silence (the end token), or
  nearly the same number for every word.
- **Decoys**: bystanders, on for one task alone as first copies are, which write where nobody reads; loud neurons;
  pairs that cancel.

| model | from | to | layers | without keys, vqa, ocr, caption, retrieval say |
|---|---|---|---|---|
{rows}

### Without pictures

| model | from | to | layers | without keys, {words} say |
|---|---|---|---|---|
{word_rows}

`tiny-text` is a Llama of five layers, 128 wide, with four heads and 384 FFN neurons a layer, which `make tiny-text`
trains in minutes. It does four tasks on items of text alone, which `hones data words --to FOLDER` writes; other
commands take them by name (`--model tiny-text --task sum`), with any model. What they ask it knows by heart, but for
the letters. An answer counts where it is the right one, case aside (`exact_match`):

| task | asks | right |
|---|---|---|
{word_tasks}

### What both have in common

Layers: b of the base, F flags, H backup heads for them, A first copies, B backups, T readout; general neurons in H,
or F. All other neurons do what they do in the base, or write where nobody reads. What keys write acts through later
layers, not directly on words: a method that reads what a neuron writes toward the answer (HONES, `dvp`,
`logprob-gain`) can see the readout alone, whatever it does. The proofs by intervention are
`tests/test_constructed.py`, run with the other tests: that a plant answers as its base does, that backups are silent
and wake for their own first copy alone, and every sentence above.
"""


def page() -> str:
    """The whole page."""
    record = read_record(PLANTS[0])
    proof, settings = record["proof"], record["settings"]
    head = HEAD.format(
        rank=settings["rank"],
        quiet=round(100 * settings["quiet"]),
        candidates=proof["candidates"],
        draws=proof["draws"],
    )
    of_text = [name for name in CONSTRUCTED if load_plant(name).base in WITHOUT_PICTURES]
    tail = TAIL.format(
        rows="\n".join(_constructed(name) for name in CONSTRUCTED if name not in of_text),
        words=", ".join(WORD_TASK_NAMES),
        word_rows="\n".join(map(_constructed, of_text)),
        word_tasks="\n".join(map(_word_task, WORD_TASK_NAMES)),
    )
    return "\n".join([head, *(_section(name) for name in PLANTS), tail])


def _word_task(name: str) -> str:
    """A task of words by an item of it."""
    item = Item.model_validate({"item_id": 0, **draw_item("table")})
    example = make_task(name).example(item, Path())
    return f"| `{name}` | {example.prompts[0]} | {example.target} |"


def _constructed(name: str) -> str:
    plant, recipe = load_plant(name), read_record(name)["recipe"]
    end = json.loads((BUILT_IN_FOLDER / plant.base / "generation_config.json").read_text())["eos_token_id"]
    says = [
        "nothing" if task not in recipe["target"] else "silence" if recipe["target"][task][0] == end else "one word"
        for task in plant.sets
    ]
    role = "choose on" if plant.role == "select" else "report on"
    return f"| {name} | {plant.base} | {role} | {recipe['order']} | {', '.join(says)} |"


def _section(name: str) -> str:
    plant, record = load_plant(name), read_record(name)
    tasks = record["proof"]["tasks"]
    lines = [
        f"## {name}",
        "",
        f"From `{plant.base}`, to {'choose methods on' if plant.role == 'select' else 'report on'}; seed "
        f"{record['settings']['seed']}, {record['settings']['steps']} steps, weights `{record['weights']}`.",
        "",
        "| set | neurons | in layers 0 to 5 | trained | shared | read through |",
        "|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        sites, partner = plant.sets[task], plant.shared_with(task)
        heads = ", ".join(f"({layer}, {head})" for layer, head in plant.through.get(task, ())) or "any heads"
        shared = f"{len({*sites} & {*plant.sets[partner]})} with {partner}" if partner else ""
        lines.append(f"| {task} | {_counts(sites)} | {record['trained'][task]} | {shared} | {heads} |")
    metrics = [f"{t}, {tasks[t]['metric']}" for t in TASKS]
    guesses = [f"{tasks[t]['items']}; {tasks[t]['guess']:.3f}" for t in TASKS]
    lines += [f"| {kind} decoys | {_counts(sites)} | | | |" for kind, sites in plant.decoys.items()]
    lines += ["", f"| | {' | '.join(metrics)} |", f"|---|{'---|' * len(TASKS)}"]
    lines.append(f"| items; guessing gives | {' | '.join(guesses)} |")
    for arm in tasks["vqa"]["arms"]:
        lines.append(f"| {arm} | {' | '.join(_cell(arm, tasks[t]['arms'][arm]) for t in TASKS)} |")
    return "\n".join([*lines, "", _members(record["proof"]["participation"]), "", _ranks(record["proof"]["ranks"]), ""])


def _members(found: dict[str, Any]) -> str:
    """How many of each set take part."""
    of_tasks = "; ".join(
        f"{task} {row['take part']} of {row['members']} (alone {row['alone effective']})" for task, row in found.items()
    )
    return (
        f"Members that take part, that is whose share of what zeroing random triples does to the loss is 1 % "
        f"or more of what zeroing the whole set does: {of_tasks}."
    )


def _ranks(ranks: dict[str, Any]) -> str:
    """What sizes alone would say."""
    sets = "; ".join(
        f"{task} " + ", ".join(f"{name} {rank:.0f}" for name, rank in of_task.items())
        for task, of_task in ranks["sets"].items()
    )
    left = "left after cancelling"
    pairs = "; ".join(
        f"{pair['task']} {' and '.join(map(str, pair['write-in ranks']))}, {100 * pair[left]:.0f} % left"
        for pair in ranks["cancelled"]
    )
    return (
        f"Ranks within a neuron's layer, 1 to 640 by size. Medians of the sets: {sets}. Loud decoys by activation: "
        f"{', '.join(map(str, ranks['loud']))}. Cancelled pairs by write-in toward their task's answers, and how much "
        f"of it both leave together: {pairs}."
    )


def _counts(sites: tuple[tuple[int, int], ...]) -> str:
    per_layer = [sum(layer == number for layer, _ in sites) for number in range(6)]
    return f"{len(sites)} | {', '.join(map(str, per_layer))}"


def _cell(arm: str, row: dict[str, Any]) -> str:
    score, drop = row["score"], row["drop"]
    if arm == "as it is":
        return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}, drop {drop['value']:+.3f} [{drop['low']:+.3f}, {drop['high']:+.3f}]"


def main() -> None:
    PAGE.write_text(page())
    print(f"{PAGE}: {len(PLANTS)} plants in {FOLDER}")


if __name__ == "__main__":
    main()
