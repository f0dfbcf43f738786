"""How the tasks' sets divide: exclusive groups and overlaps.

With the neuron sets N_t of T tasks, the exclusive group of a set of tasks G holds the neurons that exactly these
selected:

    group(G) = intersection over t in G of N_t, without the union over t not in G of N_t

for the 2^T - 1 nonempty G (fifteen for four tasks). They are disjoint, and together they are the union of all sets.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from hones.method.analysis.results import ExclusiveGroup, Overlap
from hones.models.sites import Site

Tasks = tuple[str, ...]


def exclusive_groups(sets: Mapping[str, Collection[Site]]) -> dict[Tasks, list[Site]]:
    """All 2^T - 1 groups, those of one task first, empty ones too; their sites in order."""
    members: dict[Tasks, list[Site]] = defaultdict(list)
    for site in sorted({site for chosen in sets.values() for site in chosen}):
        members[tuple(task for task, chosen in sets.items() if site in chosen)].append(site)
    return {tasks: members[tasks] for size in range(1, len(sets) + 1) for tasks in combinations(sets, size)}


def describe_groups(groups: Mapping[Tasks, Sequence[Site]], layers: int) -> tuple[ExclusiveGroup, ...]:
    """Every group with its size and its neurons per layer."""
    return tuple(ExclusiveGroup(tasks, len(sites), per_layer(sites, layers)) for tasks, sites in groups.items())


def overlaps(sets: Mapping[str, Collection[Site]]) -> tuple[Overlap, ...]:
    """What every pair of tasks shares."""
    pairs = combinations(((task, set(chosen)) for task, chosen in sets.items()), 2)
    return tuple(Overlap(a, b, len(first & second), len(first | second)) for (a, first), (b, second) in pairs)


def per_layer(sites: Collection[Site], layers: int) -> tuple[int, ...]:
    """How many sites each layer has [L]."""
    return tuple(int(n) for n in np.bincount([layer for layer, _ in sites], minlength=layers))
