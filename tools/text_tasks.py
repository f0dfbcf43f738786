"""The tables of the examples without pictures: docs/examples/{agreement,indirect-object,greater-than}.

    python tools/text_tasks.py [FOLDER]

Each task has a discovery, a dev and a test table. Rows are drawn by a seed from the words below, none twice; halves of
a table hold the two answers that a guesser would choose between: singular and plural, the name that comes first and the
one that comes second.
"""

import csv
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs/examples"
SIZES = {"discovery": 24, "dev": 56, "test": 80}
Row = dict[str, str | list[str]]
Draw = Callable[[random.Random, int], Row]

# Agreement: the verb follows the first noun, not the nearer one
SUBJECTS = {
    "bicycle": "bicycles",
    "bridge": "bridges",
    "child": "children",
    "clock": "clocks",
    "dog": "dogs",
    "farmer": "farmers",
    "flower": "flowers",
    "horse": "horses",
    "key": "keys",
    "lamp": "lamps",
    "letter": "letters",
    "neighbour": "neighbours",
    "painting": "paintings",
    "sign": "signs",
    "teacher": "teachers",
    "woman": "women",
}
NEARER = {"boat": "boats", "box": "boxes", "car": "cars", "chair": "chairs", "table": "tables", "tree": "trees"}
BETWEEN = ("near", "next to", "behind", "in front of")
SAYING = ("I know that the", "It is clear that the", "We can see that the", "We know that the")
VERBS = (["is", "was", "has", "does"], ["are", "were", "have", "do"])

# Indirect object: of two names the one that was named once
NAMES = (
    *("Alice", "Anna", "David", "Emma", "George", "Henry", "James", "Jane", "John", "Julia"),
    *("Laura", "Mark", "Mary", "Nina", "Paul", "Peter", "Robert", "Sarah", "Thomas", "William"),
)
PLACES = ("garden", "kitchen", "library", "market", "museum", "park", "school", "theatre")
GIVEN = ("apple", "book", "camera", "drink", "flower", "letter", "map", "ring")
STORIES = (
    "When {first} and {second} went to the {place}, {giver} gave the {thing} to",
    "Then, {first} and {second} went to the {place}. {giver} gave the {thing} to",
    "While {first} and {second} were sitting in the {place}, {giver} handed the {thing} to",
)

# Greater than: a span ends after it began
LASTING = ("drought", "expedition", "famine", "journey", "lawsuit", "quarrel", "siege", "strike", "voyage", "war")
SPANS = (
    "The {noun} lasted from the year {century}{year:02} to the year {century}",
    "The {noun} lasted from {century}{year:02} to {century}",
)


def agreement(r: random.Random, number: int) -> Row:
    """Half are plural; in half of each the nearer noun has the other number."""
    plural, other = number % 2, number // 2 % 2
    subject, nearer = (
        r.choice([*nouns.items()])[form] for nouns, form in ((SUBJECTS, plural), (NEARER, plural ^ other))
    )
    prompt = f"{r.choice(SAYING)} {subject} {r.choice(BETWEEN)} the {nearer}"
    attractor = "other" if other else "same"
    return {"question": prompt, "answer": VERBS[plural][0], "answers": VERBS[plural], "attractor": attractor}


def indirect_object(r: random.Random, number: int) -> Row:
    """In half of them the receiver is the first name."""
    first, second = r.sample(NAMES, 2)
    giver, receiver = (second, first) if number % 2 else (first, second)
    words = {"place": r.choice(PLACES), "thing": r.choice(GIVEN)}
    prompt = r.choice(STORIES).format(first=first, second=second, giver=giver, **words)
    return {"question": prompt, "answer": receiver, "giver": giver}


def greater_than(r: random.Random, number: int) -> Row:
    """Any two digits above the year are right; the target is the next ones."""
    year = r.randint(2, 88)
    prompt = r.choice(SPANS).format(noun=r.choice(LASTING), century=r.randint(11, 18), year=year)
    later = [f"{y:02}" for y in range(year + 1, 100)]
    return {"question": prompt, "answer": later[0], "answers": later}


TASKS: dict[str, Draw] = {"agreement": agreement, "indirect-object": indirect_object, "greater-than": greater_than}


def tables(draw: Draw, seed: int = 3407) -> dict[str, list[Row]]:
    """The rows of each split, no question twice."""
    r, asked = random.Random(seed), set()
    splits: dict[str, list[Row]] = {}
    for split, size in SIZES.items():
        rows: list[Row] = []
        while len(rows) < size:
            row = draw(r, len(rows))
            if row["question"] not in asked:
                asked.add(row["question"])
                rows.append({"id": f"{split}-{len(rows) + 1}", **row})
        splits[split] = rows
    return splits


def write(rows: list[Row], file: Path) -> None:
    """JSON lines where a cell is a list, else CSV."""
    if any(isinstance(cell, list) for row in rows for cell in row.values()):
        file.with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return
    with file.with_suffix(".csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(folder: Path) -> None:
    for name, draw in TASKS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, rows in tables(draw).items():
            write(rows, folder / name / split)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
