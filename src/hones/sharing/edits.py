"""An edit by the names that a command line and a page give it: heads, files of neurons, a file of scales."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hones.errors import HonesError
from hones.models.sites import Site

if TYPE_CHECKING:
    from hones.models.interventions import Intervention
    from hones.models.vlm import VLM

_TYPED = re.compile(r"\s*\d+\.\d+\s*(,\s*\d+\.\d+\s*)*")


@dataclass(frozen=True)
class EditNames:
    """Heads to replace by the mean of their layer's others, neurons to mask, scales to switch on; together one edit.

    heads: (layer, head) pairs, or a heads.json, of which the critical ones are meant. neurons: files neurons.json, all
    of whose neurons are masked.
    """

    heads: tuple[Site, ...] | Path = ()
    neurons: tuple[Path, ...] = ()
    scales: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.heads or self.neurons or self.scales)

    def check(self, task: str) -> None:
        """Read the files, before a model is loaded.

        Raises:
            HonesError: one is missing or not of its form.
        """
        from hones.runs.artifacts import read_heads, read_neurons, read_scales

        if isinstance(self.heads, Path):
            read_heads(self.heads, task)
        for file in self.neurons:
            read_neurons(file, task)
        if self.scales is not None:
            read_scales(self.scales)

    def of(self, vlm: "VLM", task: str) -> "Intervention":
        """The edit of a model; without names, none.

        Args:
            task: whose heads and neurons of a published run.

        Raises:
            HonesError: as `check`, a file is of another model, the model has no such head or neuron, or the files name
                none.
        """
        from hones.models.interventions import Intervention
        from hones.runs.artifacts import read_heads, read_neurons
        from hones.runs.found_on import check_found_on
        from hones.sharing.origin import scales_for

        for file in (*([self.heads] if isinstance(self.heads, Path) else ()), *self.neurons):
            check_found_on(vlm, file)
        heads: Iterable[Site] = (
            ((head.layer, head.head) for head in read_heads(self.heads, task).critical)
            if isinstance(self.heads, Path)
            else self.heads
        )
        edit = Intervention(
            heads=frozenset(heads),
            masked=frozenset((n.layer, n.neuron) for file in self.neurons for n in read_neurons(file, task)),
            scales={} if self.scales is None else scales_for(vlm, self.scales)[0].values,
        )
        if self and not (edit.heads or edit.masked or edit.scales):
            raise HonesError("the given files name no head, neuron or scale", expected="something to edit, or no file")
        edit.check(vlm.anatomy)
        return edit


def named_heads(given: str) -> tuple[Site, ...] | Path:
    """What --heads names: LAYER.HEAD with commas between them, or a file.

    Raises:
        HonesError: it begins like such pairs and is none, and there is no such file.
    """
    if _TYPED.fullmatch(given):
        pairs = (pair.split(".") for pair in given.split(","))
        return tuple(dict.fromkeys((int(layer), int(head)) for layer, head in pairs))
    if re.match(r"\s*\d", given) and not Path(given).exists():
        raise HonesError(f"--heads {given}", expected="LAYER.HEAD, such as 3.2, with commas; or a heads.json")
    return Path(given)


def typed_heads(heads: Sequence[Site]) -> str:
    """Heads as `named_heads` reads them: 3.2,4.0."""
    return ",".join(f"{layer}.{head}" for layer, head in heads)
