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
from dataclasses import dataclass

from hones.errors import HonesError
from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.stages import Training, mean_length, pairs_of
from hones.runs.plan.sweeping import at_once, groups
from hones.method.steering.fast import SHARE_OF_MEMORY
from hones.sweep.memory import Plan, plan_for

GIB = 2**30
MOST_DEVICES = 64
LOGITS_AT_ONCE = 1024


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


def sweep_plan(shapes: Shapes, asked: Sequence[Asked], free: Number, device: str, batch_size: int | None) -> Plan:
    """The plan that a sweep makes for itself: the first example of every task measures a picture."""
    firsts = {one.task: one for one in reversed(asked)}.values()
    positions = sum(one.length + sum(map(len, one.tails[1:])) for one in firsts)
    kept = max(1, positions) * shapes.layers * shapes.bytes_per_position
    return plan_for(kept, max(0, int(free)), device, batch_size)


def sweep_memory(shapes: Shapes, asked: Sequence[Asked], plan: Plan, most_rows: int) -> Memory:
    """Of a sweep by a plan. most_rows: edits that begin at one layer, times the prompts of a group at most."""
    size, most = shapes.itemsize, Memory(shapes.bytes)
    for group in groups(asked, plan.pictures):
        prompts = [p for own in group.prompts.values() for p in own]
        width = max(p.own + max(0, p.answer - 1) for p in prompts)
        positions = len(group.seen) * group.length + sum(p.own + p.answer for p in prompts)
        texts = group.prompts.get("text", [])
        state = shapes.width + shapes.inner + shapes.keys
        kept = positions * state + len(texts) * (group.length + width) * shapes.keys
        rows = min(most_rows, at_once(shapes, plan, width, group.length))
        begun = min(most_rows, at_once(shapes, plan, group.length, width))
        seen = (group.length + width) * shapes.keys
        computed = max(min(plan.positions, begun * group.length), min(plan.positions, rows * width), group.length)
        taken = Memory(
            shapes.bytes,
            kept * shapes.layers * size,
            (begun + 2 * rows) * seen * shapes.layers * size,
            working(shapes, computed),
        )
        most = max(most, taken, key=lambda m: m.total)
    return most


def working(shapes: Shapes, positions: Number) -> Number:
    """Bytes of a pass over so many positions at once, and of the logits of a part of them."""
    of_layer = 3 * shapes.neurons + 4 * shapes.width + 2 * shapes.inner + shapes.keys
    logits = min(positions, LOGITS_AT_ONCE) * shapes.vocabulary * 2
    return (positions * of_layer + logits) * shapes.itemsize


def attribution_memory(shapes: Shapes, asked: Sequence[Asked], plan: Plan, heads: int) -> Memory:
    """A sweep without answers, and float32 [heads, L, I] twice: the sums, and what a group adds."""
    taken = sweep_memory(shapes, asked, plan, heads * plan.pictures)
    sums = 2 * 4 * heads * shapes.layers * shapes.neurons
    return Memory(taken.weights, taken.kept, taken.rows, taken.working + sums)


def training_memory(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int, free: Number) -> Memory:
    """A training on so many items; the definition, which proves the first step, goes back to the lowest layer."""
    length = max(mean_length(one) + max(one.gold) for one in asked)
    of_layer = 4 * shapes.neurons + 2 * shapes.inner + shapes.keys + 4 * shapes.width
    rows = training.batch_size * length
    gradients = rows * of_layer * (shapes.layers - training.lowest) * shapes.itemsize
    logits = training.batch_size * max(max(one.gold) for one in asked) * shapes.vocabulary * 4 * 6
    kept = kept_bytes(shapes, asked, training, items)
    return Memory(shapes.bytes, min(kept, max(0.0, SHARE_OF_MEMORY * free)), 0.0, gradients + logits)


def kept_bytes(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int) -> Number:
    """Of a training that keeps all pictures: d and the scaled neurons' z at each position, d for each answer token."""
    numbers, written = 0.0, training.neurons if training.is_written(shapes) else 0
    for one in asked:
        pairs = pairs_of(one, training.epochs)
        (group,) = groups([one], 1)
        own = mean_length(one) - group.length + pairs.answer - 1
        numbers += (group.length + pairs.distinct * own) * (shapes.width + written)
        numbers += pairs.distinct * pairs.answer * shapes.width
    return numbers / len(asked) * items * shapes.itemsize


def kept_share(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int, free: Number) -> Number:
    """Of the pictures, how many a training keeps."""
    return min(1.0, max(0.0, SHARE_OF_MEMORY * free) / max(1.0, kept_bytes(shapes, asked, training, items)))


def least(shapes: Shapes, asked: Sequence[Asked]) -> Memory:
    """What a sweep takes with one picture and one row at once."""
    longest = max(asked, key=lambda one: one.length)
    return sweep_memory(shapes, [longest], Plan(1, 1, 1), 1)


def devices_for(needs: Sequence[Memory], memory: Number) -> int | None:
    """How many devices one copy of the model is spread over; None: more than any sensible number."""
    for devices in range(1, MOST_DEVICES + 1):
        if all(need.on_each(devices) <= memory for need in needs):
            return devices
    return None


def check_fits(shapes: Shapes, dtype: str, needs: Sequence[Memory], memory: Number, gpus: int) -> int:
    """How many devices a copy of the model takes.

    Raises:
        HonesError: it fits neither one device nor all of them together; the line says what would.
    """
    most = max(needs, key=lambda m: m.total)
    devices = devices_for(needs, memory)
    if devices is not None and devices <= gpus:
        return devices
    ways = []
    if shapes.itemsize > 2:
        ways.append("--dtype bfloat16 halves the weights")
    if devices is not None:
        ways.append(f"spread a copy over {devices} of them (--gpus {devices})")
    if most.working > 0.5 * memory:
        ways.append("--step-size 1 trains on one pair at once")
    ways.append(f"a device with {most.total / GIB:.0f} GiB")
    raise HonesError(
        f"{shapes.name} in {dtype} does not fit {gpus} x {memory / GIB:.1f} GiB: weights {most.weights / GIB:.1f} GiB, "
        f"and {(most.total - most.weights) / GIB:.1f} GiB for the smallest passes",
        expected="weights and the smallest passes in memory",
        do="; or ".join(ways),
    )
