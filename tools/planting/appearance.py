"""How sets and decoys look to methods that go by size: ranks within a neuron's layer, 1 the largest of 640.

activation: root mean square of z over prompt tokens, all tasks; column: norm of W_down[:, i]; write size: their
product; write-in: |mean z <W_down[:, i], u_y>| at the last prompt position of the neuron's task.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.models.planted import Plant
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.rivals.base import Context
from hones.tasks import TASKS
from hones.tasks.base import Example, Task


def appearance(vlm: VLM, plant: Plant, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> dict[str, Any]:
    """Median ranks of each task's set, and the ranks of every decoy."""
    columns = np.stack([layer.down_proj.weight.detach().float().norm(dim=0).numpy() for layer in vlm.anatomy.layers])
    size = np.sqrt(sum(METHODS["wanda"].importance(Context(vlm, t, e)).astype(np.float64) ** 2 for t, e in jobs))
    write_in = {task.name: METHODS["dvp"].importance(Context(vlm, task, examples)) for task, examples in jobs}
    sizes = {"activation": size / columns, "column": columns, "write size": size}

    def ranks(task: str, sites: Sequence[Site]) -> dict[str, list[int]]:
        of = {**sizes, "write-in": np.abs(write_in[task])}
        return {name: [_rank(values, site) for site in sites] for name, values in of.items()}

    sets = {task: {k: float(np.median(v)) for k, v in ranks(task, plant.sets[task]).items()} for task in TASKS}
    loud = [_rank(sizes["activation"], site) for site in plant.decoys["loud"]]
    members = plant.decoys["cancelled"]
    pairs = []
    for task, a, b in zip(TASKS, members[::2], members[1::2], strict=True):
        c = [float(write_in[task][site]) for site in (a, b)]
        of_pair = {"task": task, "write-in ranks": ranks(task, (a, b))["write-in"]}
        pairs.append({**of_pair, "left after cancelling": round(abs(sum(c)) / max(map(abs, c)), 4)})
    return {"sets": sets, "loud": loud, "cancelled": pairs}


def _rank(values: Float[np.ndarray, "layers neurons"], site: Site) -> int:
    return int((values[site[0]] > values[site]).sum()) + 1
