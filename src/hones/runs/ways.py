"""Ways to steer by name: `hones.method.steering.controls`, `parts`, and the sets that compared methods left in a run.

set:NAME     learned on what the comparison method NAME selects
"""

from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import digest_of
from hones.method.steering.controls import BASE, CONTROLS, Learned, Steering, SteeringContext
from hones.method.steering.parts import WAYS
from hones.method.steering.settings import HONES, SET
from hones.models.sites import Site
from hones.rivals import make_method
from hones.runs.artifacts import read_neurons
from hones.runs.found_on import check_found_on


class OtherSet(Learned):
    """What a comparison method selects, as `hones compare` wrote it: at most as many neurons as the HONES set."""

    def __init__(self, method: str) -> None:
        self.method = make_method(method).name
        self.name = f"{SET}{self.method}"
        self.summary = f"learned on the neurons that {self.method} selects"

    def file(self, context: SteeringContext) -> Path:
        """RUN/T/methods/NAME/neurons.json.

        Raises:
            HonesError: there is none; the line says what makes it.
        """
        file = None if context.methods is None else context.methods / self.method / "neurons.json"
        if file is None or not file.is_file():
            raise HonesError(
                f"{self.name}: no file {file or f'methods/{self.method}/neurons.json'}",
                do=f"run `hones compare --task {context.task.name} --methods {self.method}` with the same --out first",
            )
        return file

    def check(self, context: SteeringContext) -> None:
        """The file is there, its neurons are the model's, and not more than HONES has."""
        super().check(context)
        neurons = self.neurons(context)
        check_found_on(context.vlm, self.file(context))
        for site in neurons:
            context.vlm.anatomy.check_neuron(*site)
        if len(neurons) > len(set(context.neurons)):
            raise HonesError(
                f"{self.file(context)} holds {len(neurons)} neurons, the HONES set {len(set(context.neurons))}",
                expected="the same budget",
                do="run `hones compare` with the --ratio of `hones neurons`",
            )

    def neurons(self, context: SteeringContext) -> list[Site]:
        """The file's neurons."""
        return [(n.layer, n.neuron) for n in read_neurons(self.file(context))]

    def depends(self, context: SteeringContext) -> dict[str, Any]:
        """The settings and the file."""
        return {**super().depends(context), "set": digest_of(self.file(context))}


def make_steering(name: str) -> Steering:
    """The way to steer of that name.

    Raises:
        HonesError: no such name.
    """
    if name.startswith(SET):
        return OtherSet(name.removeprefix(SET))
    if name not in WAYS:
        raise HonesError(f"no way to steer {name!r}", expected=f"one of {', '.join(WAYS)}, {SET}METHOD")
    return WAYS[name]


def make_steerings(names: str) -> list[Steering]:
    """The ways of a comma-separated list, HONES first; `all` stands for HONES and its controls, which scale neurons.

    The model itself is the base of every comparison, so `base` adds nothing.

    Raises:
        HonesError: no such way, or one named twice.
    """
    named = [n for name in names.split(",") for n in ([*CONTROLS] if name == "all" else [name])]
    if len(set(named)) < len(named):
        raise HonesError(f"--methods {names}", expected="each once")
    return [make_steering(name) for name in dict.fromkeys((HONES, *named)) if name != BASE]
