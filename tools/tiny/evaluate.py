"""Is a built-in model competent, blind without the picture, and does masking its neurons matter?

    python -m tiny.evaluate tiny-llava --items 300

Per task, on pictures that training never saw: the metric, the metric with blank pictures, what guessing gives (the best
single answer to all items; retrieval: a random order), and for the top 3 % of neurons by HONES (found on other
pictures) the metric when they are masked beside layer-matched random neurons, with paired bootstrap intervals. Writes
manifest.json beside the weights.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from hones import attribute_neurons, evaluate_masking, load_items, load_vlm, localize_heads, make_task, write_shapes
from hones.data.shapes.scene import SIZE
from hones.method.neurons import select_neurons
from hones.models.interventions import BASELINE
from hones.models.place import BUILT_IN_FOLDER
from hones.stats import UNEDITED
from hones.sweep.measure import measure
from hones.tasks import TASKS

from .architecture import NAMES

DISCOVERY, DISCOVERY_CANDIDATES = 48, 10
SEED = 20  # of the evaluation pictures; training draws from other names, so none is shared


def evaluate(name: str, items: int, retrieval_items: int, ratio: float) -> dict[str, dict]:
    """The figures of every task."""
    vlm = load_vlm(name)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_shapes(Path(scratch), {"discovery": DISCOVERY, "test": items}, seed=SEED)
        blank = Path(scratch) / "blank.png"
        Image.new("RGB", (SIZE, SIZE), (235, 235, 235)).save(blank)
        figures = {}
        for task_name in TASKS:
            started = time.monotonic()
            count = retrieval_items if task_name == "retrieval" else items
            test, _ = make_task(task_name).examples(load_items(files["test"], limit=count))
            finder = make_task(task_name, candidates=DISCOVERY_CANDIDATES)
            discovery, _ = finder.examples(load_items(files["discovery"]))
            task = make_task(task_name)
            (seen,) = measure(vlm, [(task, test)], {UNEDITED: BASELINE}, seed=0)
            without_pictures = [replace(e, image=blank) for e in test]
            (blind,) = measure(vlm, [(task, without_pictures)], {UNEDITED: BASELINE}, seed=0)
            heads = localize_heads(vlm, finder, discovery)
            importance = attribute_neurons(vlm, finder, discovery, heads)
            masking = evaluate_masking(vlm, task, test, select_neurons(importance, ratio))
            figures[task_name] = {
                "metric": task.metric_name,
                "items": len(test),
                "score": seen.level(UNEDITED).as_dict(),
                "guess": task.guess(test),
                "blank_picture": blind.value(UNEDITED),
                "critical_heads": [[h.layer, h.head, round(h.score.value, 3)] for h in heads.critical],
                "masking": asdict(masking),
            }
            print(task_name, json.dumps(figures[task_name]), f"{time.monotonic() - started:.0f} s", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--retrieval-items", type=int, default=30)
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--training", type=Path, help="training log to copy into the manifest")
    options = parser.parse_args()
    figures = evaluate(options.name, options.items, options.retrieval_items, options.ratio)
    manifest = {
        "model": options.name,
        "evaluation": f"python -m tiny.evaluate {options.name} --items {options.items} --ratio {options.ratio}",
        "masked_share": options.ratio,
        "figures": figures,
    }
    if options.training is not None:
        manifest["training_log"] = options.training.read_text().splitlines()
    (BUILT_IN_FOLDER / f"{options.name}.manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
