"""What is shipped of smol-llava: the updates of its language model, the tower and the projector."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from hones.models.merged import DIFFERENCE, FOLDER

from .architecture import Parts
from .updates import updates

NAME = "smol-llava"


def _named(parts: Parts) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for path, update in updates(parts.language):
        named |= {f"language.{path}.up": update.up, f"language.{path}.down": update.down}
    for part, module in (("tower", parts.tower), ("projector", parts.projector)):
        named |= {f"{part}.{name}": weight for name, weight in module.state_dict().items()}
    return named


def difference_of(parts: Parts) -> dict[str, Tensor]:
    """What is shipped, float16."""
    return {name: weight.detach().half().contiguous() for name, weight in _named(parts).items()}


def load_shipped(parts: Parts, folder: Path = FOLDER / NAME) -> None:
    """Put a shipped difference into a model; its updates only where the model has updates."""
    shipped = load_file(folder / DIFFERENCE)
    for name, weight in _named(parts).items():
        weight.data.copy_(shipped[name])
