"""What a stage takes of a device's memory, and how many devices one copy of the model needs.

    weights     all of the model's
    kept        sweep: of each picture of a group, at every position and layer, the residual, the heads' outputs and
                keys and values (d + H d_h + keys); training: the residual entering its first layer, d, and the states
                at answers, as many pictures as fit into a share of what is free
    rows        keys and values of the rows of a pass, of those that wait to be decoded, and of those being decoded
    working     a pass: some FFN and residual numbers at each position that is computed at once (`WORKING`); for
                training what autograd keeps of each layer: 4 I + 2 H d_h + keys + 4 d at each position of a step

The sweep takes as much at once as fits, so there are two figures: what it would take here, and the least, with one
picture and one row at once. G devices share weights and what is kept; what works, works on one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hones.errors import HonesError
from hones.method.steering.fast import SHARE_OF_MEMORY
from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.sweeping import at_once, group_of, groups, only_read
from hones.runs.plan.training import Training, mean_length, pairs_of
from hones.sweep.memory import Plan

GIB = 2**30
MOST_DEVICES = 64
LOGITS_AT_ONCE = 1024
LEAST = Plan(1, 1, 1)
"""One picture and one row at once."""


@dataclass(frozen=True)
class Memory:
    """Bytes. weights and kept can be shared by several devices; rows and working are on the one that works."""

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


def sweep_memory(shapes: Shapes, asked: Sequence[Asked], plan: Plan, edits: int) -> Memory:
    """Of a sweep's largest group. edits: those that begin at one layer, at most."""
    largest = Memory(shapes.bytes)
    for group in groups(asked, plan.pictures):
        length, prompts = group.length, group.prompts
        width = max(p.own + max(0, p.answer - 1) for p in prompts)
        positions = len(group.seen) * length + sum(p.own + p.answer for p in prompts)
        texts = sum(p.kind == "text" for p in prompts)
        kept = positions * (shapes.width + shapes.inner + shapes.keys) + texts * (length + width) * shapes.keys
        begun = min(edits * len(prompts), at_once(shapes, plan, length, width))
        rows = min(edits * len(prompts), at_once(shapes, plan, width, length))
        numbers = (begun + 2 * rows) * (length + width) * shapes.keys
        at_a_time = max(min(plan.positions, begun * length), min(plan.positions, rows * width), length)
        of_layer = 3 * shapes.neurons + 4 * shapes.width + 2 * shapes.inner + shapes.keys
        working = at_a_time * of_layer + min(at_a_time, LOGITS_AT_ONCE) * shapes.vocabulary * 2
        in_layers = shapes.layers * shapes.itemsize
        taken = Memory(shapes.bytes, kept * in_layers, numbers * in_layers, working * shapes.itemsize)
        largest = max(largest, taken, key=lambda m: m.total)
    return largest


def least_memory(shapes: Shapes, asked: Sequence[Asked]) -> Memory:
    """What a sweep takes with one picture and one row at once."""
    return sweep_memory(shapes, [max(asked, key=lambda one: one.length)], LEAST, 1)


def attribution_memory(shapes: Shapes, asked: Sequence[Asked], plan: Plan, heads: int) -> Memory:
    """A sweep without answers, and float32 [heads, L, I] twice: the sums, and what a group adds."""
    taken = sweep_memory(shapes, only_read(asked), plan, heads)
    return replace(taken, working=taken.working + 2 * 4 * heads * shapes.layers * shapes.neurons)


def training_memory(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int, free: Number) -> Memory:
    """A training on so many items; the definition, which proves the first step, goes back to the lowest layer."""
    answer = max(max(one.gold) for one in asked)
    length = max(mean_length(one) + max(one.gold) for one in asked)
    of_layer = 4 * shapes.neurons + 2 * shapes.inner + shapes.keys + 4 * shapes.width
    gradients = training.batch_size * length * of_layer * shapes.layers * shapes.itemsize
    logits = training.batch_size * answer * shapes.vocabulary * 4 * 6
    kept = min(kept_bytes(shapes, asked, training, items), max(0.0, SHARE_OF_MEMORY * free))
    return Memory(shapes.bytes, kept, 0.0, gradients + logits)


def kept_bytes(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int) -> Number:
    """Of a training that keeps all pictures: d and the scaled neurons' z at each position, d for each answer token."""
    numbers, written = 0.0, training.neurons * training.start(shapes)
    for one in asked:
        pairs, length = pairs_of(one, training.epochs), group_of([one]).length
        rest = mean_length(one) - length + pairs.answer - 1
        numbers += (length + pairs.distinct * rest) * (shapes.width + written)
        numbers += pairs.distinct * pairs.answer * shapes.width
    return numbers / len(asked) * items * shapes.itemsize


def check_fits(shapes: Shapes, dtype: str, needs: Sequence[Memory], memory: Number, gpus: int) -> int:
    """How many devices a copy of the model takes.

    Raises:
        HonesError: it fits neither one device nor all of them together; the line says what would.
    """
    numbers = range(1, MOST_DEVICES + 1)
    devices = next((n for n in numbers if all(need.on_each(n) <= memory for need in needs)), None)
    if devices is not None and devices <= gpus:
        return devices
    most = max(needs, key=lambda m: m.total)
    ways = []
    if shapes.itemsize > 2:
        ways.append("--dtype bfloat16 halves the weights")
    if devices is not None:
        ways.append(f"spread a copy over {devices} of them (--gpus {devices})")
    if most.working > 0.5 * memory:
        ways.append("--step-size 1 trains on one pair at once")
    ways.append(f"a device with {gib(most.total)}")
    raise HonesError(
        f"{shapes.name} in {dtype} does not fit {gpus} x {gib(memory)}: weights {gib(most.weights)}, "
        f"and {gib(most.total - most.weights)} for the smallest passes",
        expected="weights and the smallest passes in memory",
        do="; or ".join(ways),
    )


def gib(number: Number) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{number / GIB:.1f} GiB" if number >= 0.1 * GIB else f"{number / 2**20:.1f} MiB"
