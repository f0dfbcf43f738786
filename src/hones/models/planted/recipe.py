"""What a constructed plant is made of: where its layers, neurons, keys and targets are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hones.models.sites import Site

BASE, FLAGS, FLAGS_AGAIN, FIRST, BACKUP, READOUT = "b", "F", "H", "A", "B", "T"


@dataclass(frozen=True)
class Recipe:
    """How a built-in model is widened into a constructed plant; `hones.models.planted.circuit` says what for.

    order: its layers, a letter each: b a layer of the base, F flags, H (not in all) backup heads for them, A first
    copies, B backups, T the readout; general neurons are in H, or in F where there is none. opens: how many coordinates
    of the residual each key lets through. flag: task -> the token of its prompts that no other task's prompts and
    answers have. head: task -> the head of F that carries its flag, and of H as backup. target: task -> (token, nats),
    what is said without keys, and how loudly it is said with them; a task without one says nothing in particular. rms:
    letter -> task -> the residual's median root mean square where that layer reads it, at the positions that predict an
    answer; "flag/F", "flag/H" -> task -> at the flag's token. general, first, backup, readout, bystanders, loud,
    cancelled: neurons, of first, backup and bystanders by task, of first and backup a key's each, in the order of keys;
    of readout those of coordinate j, +x and -x, at 2 j and 2 j + 1; of cancelled the pairs one after the other.
    """

    order: str
    opens: tuple[int, ...]
    flag: Mapping[str, int]
    head: Mapping[str, int]
    target: Mapping[str, tuple[int, float]]
    rms: Mapping[str, Mapping[str, float]]
    general: tuple[Site, ...]
    first: Mapping[str, tuple[Site, ...]]
    backup: Mapping[str, tuple[Site, ...]]
    readout: tuple[Site, ...]
    bystanders: Mapping[str, tuple[Site, ...]]
    loud: tuple[Site, ...]
    cancelled: tuple[Site, ...]
    seed: int

    @property
    def at_general(self) -> str:
        """The letter of the layer with the general neurons."""
        return FLAGS_AGAIN if FLAGS_AGAIN in self.order else FLAGS

    @property
    def tasks(self) -> list[str]:
        return [*self.flag]

    def layer(self, letter: str) -> int:
        """The number of the layer of a letter other than b."""
        return self.order.index(letter)

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> "Recipe":
        """From JSON, where sites and pairs are lists."""
        return cls(**{key: _tuples(value) for key, value in written.items()})


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    return value
