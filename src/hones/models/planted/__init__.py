"""Models whose task neurons are known by construction: differences to the built-in models.

`load_vlm("planted-llava-1")` loads one, `load_plant` says what was planted. Each is a built-in model, fine-tuned so
that for each task t a chosen set P_t of FFN neurons is necessary (without it the task falls to what guessing gives) and
the other tasks' sets are needless for it. NAME.json beside this file holds the sets, how they were trained, and the
proof by intervention; `docs/planted.md` shows the proofs as tables.

NAME.safetensors holds, for each matrix W [out, in] of the language model's layers, `up` [out, r] and `down` [r, in],
and for the FFN's matrices `own`, the rows (gate_proj, up_proj) or columns (down_proj) of planted neurons and decoys,
all float16:

    W' = float16(W + up @ down),   then W'[sites] = own   (columns of down_proj: W'[:, sites] = own.T)

The sum is taken in float64, where products of float16 numbers and their sums are exact, so that every machine rounds to
the same float16 weights.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from hones.errors import HonesError
from hones.models.planted.recipe import Recipe
from hones.models.planted.widen import widened_config
from hones.models.sites import Site

FOLDER = Path(__file__).parent
CONSTRUCTED_FOLDER = FOLDER / "constructed"
PLANTS: tuple[str, ...] = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
"""Those that were trained."""
CONSTRUCTED: tuple[str, ...] = tuple(sorted(path.stem for path in CONSTRUCTED_FOLDER.glob("*.json")))
"""Those whose weights were set by hand, with general neurons and backups (`hones.models.planted.circuit`)."""
SITES = "sites"  # prefix of each layer's planted neurons in the file


@dataclass(frozen=True)
class Plant:
    """What was planted in a model, which is known because it was trained so.

    base: the built-in model that it differs from. role: of a benchmark's variants, those on which a method is chosen
    ("select") and those kept aside to report on. sets: P_t of each task; two tasks were trained to share one, of which
    each has the neurons that take part in it. general: neurons that all tasks need. decoys: by kind, neurons that look
    important and are not: "loud" (large activation, masking them changes nothing), "cancelled" (pairs that write
    opposite things toward the answers), "bystander" (on for one task alone). through: task -> the heads through which
    its set is read. copies: task -> those of its set that do the same, the first copy before the backups that act only
    where it does not; one who is alone in its set is not named.
    """

    name: str
    base: str
    role: Literal["select", "report"]
    sets: Mapping[str, tuple[Site, ...]]
    general: tuple[Site, ...]
    decoys: Mapping[str, tuple[Site, ...]]
    through: Mapping[str, tuple[Site, ...]]
    copies: Mapping[str, tuple[tuple[Site, ...], ...]] = field(default_factory=dict)

    def shared_with(self, task: str) -> str | None:
        """The task whose set has neurons of this task's."""
        others = [other for other in self.sets if other != task]
        return next((other for other in others if {*self.sets[other]} & {*self.sets[task]}), None)


@cache
def read_record(name: str) -> dict[str, Any]:
    """NAME.json: the plant, its settings, its digests and its proof.

    Raises:
        HonesError: no such plant.
    """
    if name not in (*PLANTS, *CONSTRUCTED):
        raise HonesError(f"no planted model {name!r}", expected=f"one of {', '.join((*PLANTS, *CONSTRUCTED))}")
    return json.loads(((FOLDER if name in PLANTS else CONSTRUCTED_FOLDER) / f"{name}.json").read_text())


def load_plant(name: str) -> Plant:
    """What was planted in the model of this name.

    Raises:
        HonesError: no such plant.
    """
    plant = read_record(name)["plant"]

    def sites(of: Mapping[str, Any]) -> dict[str, tuple[Site, ...]]:
        return {key: _sites(value) for key, value in of.items()}

    return Plant(
        name=name,
        base=plant["base"],
        role=plant["role"],
        sets=sites(plant["sets"]),
        general=_sites(plant["general"]),
        decoys=sites(plant["decoys"]),
        through=sites(plant["through"]),
        copies={task: tuple(map(_sites, of)) for task, of in plant.get("copies", {}).items()},
    )


def load_recipe(name: str) -> Recipe | None:
    """How a constructed plant is made of its base; None for other models."""
    return Recipe.read(read_record(name)["recipe"]) if name in CONSTRUCTED else None


def config_of(name: str, config: Any) -> Any:
    """The configuration of the model of this name, from that of the folder which it is loaded from."""
    recipe = load_recipe(name)
    return config if recipe is None else widened_config(config, recipe)


def _sites(rows: list[list[int]]) -> tuple[Site, ...]:
    return tuple((layer, index) for layer, index in rows)


def apply_difference(model: Any, base: Path, difference: Path) -> None:
    """Turn a built-in model's language model into the planted one, in its own dtype and on its own devices.

    base: the built-in model's safetensors, whose float16 matrices the difference is added to.
    """
    layers = model.get_decoder().layers
    for layer, path, weight in planted_weights(base, difference):
        layers[layer].get_submodule(path).weight.data.copy_(weight)


def planted_weights(base: Path, difference: Path) -> Iterator[tuple[int, str, Float[Tensor, "out inner"]]]:
    """(layer, path below it, float16 matrix) of all matrices that differ."""
    with safe_open(base, "pt") as old, safe_open(difference, "pt") as new:
        of_weight = {key.rpartition("model.layers.")[2]: key for key in [*old.keys()] if "model.layers." in key}
        for key in sorted(key.removesuffix(".up") for key in [*new.keys()] if key.endswith(".up")):
            layer, _, path = key.partition(".")
            up = new.get_tensor(f"{key}.up")
            down = new.get_tensor(f"{key}.down")
            weight = combined(old.get_tensor(of_weight[f"{key}.weight"]), up, down)
            if path.startswith("mlp."):
                own = new.get_tensor(f"{key}.own")
                sites = new.get_tensor(f"{SITES}.{layer}").long()
                of_columns = path == "mlp.down_proj"
                weight.index_copy_(int(of_columns), sites, own.T if of_columns else own)
            yield int(layer), path, weight


def combined(
    weight: Float[Tensor, "out inner"], up: Float[Tensor, "out rank"], down: Float[Tensor, "rank inner"]
) -> Float[Tensor, "out inner"]:
    """float16(W + up @ down), the sum in float64."""
    return (weight.double() + up.double() @ down.double()).half()


def weights_digest(model: Any) -> str:
    """Of all weights of the decoder's matrices, rounded to float16."""
    digest = hashlib.sha256()
    for key, value in sorted(model.get_decoder().layers.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
