"""Items without pictures for `tiny-text`: a word, what it follows, two numbers and letters, drawn from a seed.

Each item serves the four tasks of `hones.tasks.words`, as a built-in picture does the four of pictures.
"""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

OPPOSITES = (
    "hot/cold big/small long/short fast/slow old/young hard/soft high/low open/closed empty/full light/dark wet/dry "
    "early/late loud/quiet rich/poor sweet/bitter strong/weak thick/thin true/false clean/dirty near/far left/right "
    "up/down day/night win/lose buy/sell push/pull"
)
ROUNDS = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "January February March April May June July August September October November December",
    "spring summer autumn winter",
)
LINES = (
    "zero one two three four five six seven eight nine ten eleven twelve",
    "first second third fourth fifth sixth seventh eighth ninth tenth",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
)
NUMBERS: Sequence[str] = LINES[0].split()
LETTERS: Sequence[str] = LINES[2].split()

_PAIRS: Sequence[Sequence[str]] = [pair.split("/") for pair in OPPOSITES.split()]
OPPOSITE_OF = {pair[n]: pair[1 - n] for n in (0, 1) for pair in _PAIRS}
NEXT = {word: after for line in LINES for word, after in pairwise(line.split())} | {
    word: after for line in ROUNDS for word, after in pairwise([*line.split(), line.split()[0]])
}


def draw_item(seed: str) -> dict[str, dict[str, str]]:
    """What the four tasks ask, and the answers: an opposite, what comes after, a sum up to 12, letters backwards."""
    rng = random.Random(seed)
    word, before = rng.choice([*OPPOSITE_OF]), rng.choice([*NEXT])
    total = rng.randrange(len(NUMBERS))
    one = rng.randint(0, total)
    letters = rng.choices(LETTERS, k=3)
    return {
        "opposite": {"word": word, "answer": OPPOSITE_OF[word]},
        "after": {"word": before, "answer": NEXT[before]},
        "sum": {"one": NUMBERS[one], "other": NUMBERS[total - one], "answer": NUMBERS[total]},
        "backwards": {"letters": " ".join(letters), "answer": " ".join(reversed(letters))},
    }


def write_words(folder: str | Path, splits: dict[str, int], seed: int = 0) -> dict[str, Path]:
    """Write one unified annotation file per split, of items of text alone; returns the files by split name.

    Opposites, what comes after and sums are few, so splits share questions of these: they ask what a model knows by
    heart.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for split, size in splits.items():
        items: list[dict[str, Any]] = [
            {"item_id": f"{split}-{i:05d}", **draw_item(f"{seed}/{split}/{i}")} for i in range(size)
        ]
        files[split] = folder / f"{split}.json"
        files[split].write_text(json.dumps({"data": items}, indent=1))
    return files
