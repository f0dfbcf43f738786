"""What a stage takes of a device's memory, and how many devices one copy of the model needs.

    weights     all of the model's
    kept        sweep: of each picture of a group, at every position and layer, the residual, the heads' outputs and
                keys and values (d + H d_h + keys); training: the residual entering its first layer, d, and the states
                at answers, as many pictures as fit into a share of what is free
    rows        keys and values of the rows of a pass, of those that wait to be decoded, and of those being decoded
    working     a pass: some FFN and residual numbers at each position that is computed at once; for training what
                autograd keeps of each layer: 4 I + 2 H d_h + keys + 4 d at each position of a step

The sweep takes as much at once as fits, so there are two figures: what it would take here, and the least, with one
picture and one row at once. G devices share weights and what is kept; what works, works on one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hones.errors import HonesError
from hones.method.steering.fast import SHARE_OF_MEMORY
from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.sweeping import at_once, groups
from hones.runs.plan.training import Training, kept_bytes, mean_length
from hones.sweep.memory import MemoryPlan

GIB = 2**30
MOST_DEVICES = 64
LOGITS_AT_ONCE = 1024
LEAST = MemoryPlan(1, 1, 1)
"""One picture and one row at once."""


@dataclass(frozen=True)
class Memory:
    """Bytes. weights, kept and rows can be shared by several devices; working is on the one that works."""

    weights: Number
    kept: Number = 0.0
    rows: Number = 0.0
    working: Number = 0.0

    @property
    def total(self) -> Number:
        return self.weights + self.kept + self.rows + self.working

    def on_each(self, devices: int) -> Number:
        """On the fullest of so many devices."""
        return (self.weights + self.kept + self.rows) / devices + self.working


def sweep_memory(shapes: Shapes, asked: Sequence[Asked], plan: MemoryPlan, edits: int, summed: int = 0) -> Memory:
    """Of a sweep's largest group.

    Args:
        edits: those that begin at one layer, at most. summed: heads of which float32 [L, I] is summed, twice: the sums,
            and what a group adds.
    """
    largest, in_layers = Memory(shapes.bytes), shapes.layers * shapes.itemsize
    of_layer = 3 * shapes.neurons + 4 * shapes.width + 2 * shapes.inner + shapes.keys
    for group in groups(asked, plan.pictures):
        length, prompts = group.length, [prompt for of_kind in group.prompts.values() for prompt in of_kind]
        width = max(p.own + max(0, p.answer - 1) for p in prompts)
        positions = len(group.seen) * length + sum(p.own + p.answer for p in prompts)
        texts = len(group.prompts.get("text", ())) * (length + width)
        kept = positions * (shapes.width + shapes.inner + shapes.keys) + texts * shapes.keys
        begun = min(edits * len(prompts), at_once(shapes, plan, length, width))
        rows = min(edits * len(prompts), at_once(shapes, plan, width, length))
        rows_kept = (begun + 2 * rows) * (length + width) * shapes.keys
        at_a_time = max(min(plan.positions, max(begun * length, rows * width)), length)
        working = at_a_time * of_layer + min(at_a_time, LOGITS_AT_ONCE) * shapes.vocabulary * 2
        sums = 2 * 4 * summed * shapes.layers * shapes.neurons
        taken = Memory(shapes.bytes, kept * in_layers, rows_kept * in_layers, working * shapes.itemsize + sums)
        largest = max(largest, taken, key=lambda memory: memory.total)
    return largest


def training_memory(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int, free: Number) -> Memory:
    """A training on so many items; the definition, which proves the first step, goes back to the lowest layer."""
    answer = max(max(one.gold) for one in asked)
    length = max(mean_length(one) + max(one.gold) for one in asked)
    of_layer = 4 * shapes.neurons + 2 * shapes.inner + shapes.keys + 4 * shapes.width
    gradients = training.batch_size * length * of_layer * shapes.layers * shapes.itemsize
    logits = training.batch_size * answer * shapes.vocabulary * 4 * 6
    kept = min(kept_bytes(shapes, asked, training, items), max(0.0, SHARE_OF_MEMORY * free))
    return Memory(shapes.bytes, kept, 0.0, gradients + logits)


def check_fits(shapes: Shapes, dtype: str, needs: Sequence[Memory], memory: Number, gpus: int) -> int:
    """How many devices a copy of the model takes.

    Raises:
        HonesError: it fits neither one device nor all of them together; the line says what would.
    """
    numbers = range(1, MOST_DEVICES + 1)
    devices = next((n for n in numbers if all(need.on_each(n) <= memory for need in needs)), None)
    if devices is not None and devices <= gpus:
        return devices
    most = max(needs, key=lambda need: need.total)
    ways = [
        "--dtype bfloat16 halves the weights" if shapes.itemsize > 2 else "",
        f"spread a copy over {devices} of them (--gpus {devices})" if devices is not None else "",
        "--step-size 1 trains on one pair at once" if most.working > 0.5 * memory else "",
        f"a device with {gib(most.total)}",
    ]
    raise HonesError(
        f"{shapes.name} in {dtype} does not fit {gpus} x {gib(memory)}: weights {gib(most.weights)}, "
        f"and {gib(most.total - most.weights)} for the smallest passes",
        expected="weights and the smallest passes in memory",
        do="; or ".join(filter(None, ways)),
    )


def gib(number: Number) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{number / GIB:.1f} GiB" if number >= 0.1 * GIB else f"{number / 2**20:.1f} MiB"
