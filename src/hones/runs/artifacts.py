"""The artifacts of a task's folder: the names and shapes that outside scripts rely on, written and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hones.errors import HonesError, first_invalid, from_validation
from hones.files import read_json, short, write_json, write_npy
from hones.method.found import HeadResult, HeadScore, RankedNeuron, RankedNeurons
from hones.method.head_ways import FoundBy
from hones.method.steering.settings import Scales
from hones.runs.published import is_published, published_of
from hones.stats import Interval
from hones.sweep.racing import RaceRules

FLOAT32_MAX = float(np.finfo(np.float32).max)


def write_heads(
    folder: Path, result: HeadResult, layers: int, heads: int, found_on: Mapping[str, str] | None = None
) -> None:
    """heads.json and head_scores.npy [L, H], NaN where there is no head.

    found_on: the model's name and revision (`hones.runs.found_on`).
    """
    rows = [
        {
            "layer": h.layer,
            "head": h.head,
            "score": h.score.value,
            "score_low": h.score.low,
            "score_high": h.score.high,
            "baseline": h.baseline,
            "intervened": h.intervened,
            "metric_name": result.metric_name,
            "n": h.items,
            **({"dropped": h.dropped} if result.racing is not None else {}),
            **_step_of(h),
        }
        for h in result.heads
    ]
    baseline = {
        "metric": result.baseline.value,
        "metric_low": result.baseline.low,
        "metric_high": result.baseline.high,
        "metric_name": result.metric_name,
        "n": result.items,
    }
    write_npy(folder / "head_scores.npy", result.matrix(layers, heads))
    how: dict[str, Any] = {"racing": asdict(result.racing)} if result.racing is not None else {}
    if result.found_by is not None:
        how["by"] = asdict(result.found_by)
    if result.headless:
        how["layers_without_heads"] = [*result.headless]
    top = rows[: len(result.critical)]
    content = {"baseline": baseline, **how, "top_k": result.top_k, "all_heads": rows, "top_heads": top}
    write_json(folder / "heads.json", {**(found_on or {}), **content})


def read_heads(path: Path, task: str | None = None) -> HeadResult:
    """heads.json, ours or the public release's (which has no intervals: they are read as NaN), or a published run.

    Args:
        task: whose heads of a published run; it may be left out where that has one task.

    Raises:
        HonesError: no such file, or not of that form.
    """
    content = read_json(path)
    if is_published(content):
        return published_of(content, path).heads(task)
    try:
        baseline, rows = content["baseline"], content["all_heads"]
        scores = tuple(
            HeadScore(
                int(row["layer"]),
                int(row["head"]),
                _interval(row, "score"),
                float(row["baseline"]),
                float(row["intervened"]),
                int(row.get("n", baseline["n"])),
                bool(row.get("dropped", False)),
                int(row["step"]) if "step" in row else None,
                _interval(row, "growth") if "growth" in row else None,
            )
            for row in rows
        )
        top = [(int(row["layer"]), int(row["head"])) for row in content["top_heads"]]
        racing = TypeAdapter(RaceRules).validate_python(content["racing"]) if "racing" in content else None
        found_by = TypeAdapter(FoundBy).validate_python(content["by"]) if "by" in content else None
        interval = _interval(baseline, "metric")
        top_k = int(content.get("top_k", len(top)))
        metric = str(baseline["metric_name"])
        headless = tuple(int(layer) for layer in content.get("layers_without_heads", ()))
        result = HeadResult(metric, interval, int(baseline["n"]), scores, top_k, racing, found_by, headless)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise HonesError(
            f"{path} is not a heads file ({type(error).__name__}: {error})",
            expected="baseline, all_heads and top_heads as `hones heads` writes them",
        ) from error
    if not result.heads or any(h.layer < 0 or h.head < 0 for h in result.heads):
        raise HonesError(f"{path} holds no heads, or some below 0", expected="layers and heads from 0")
    if [(h.layer, h.head) for h in result.heads[: len(top)]] != top:
        raise HonesError(f"{path}: top_heads are not the first of all_heads", expected="both best first")
    return result


def _step_of(head: HeadScore) -> dict[str, Any]:
    """What a row of heads.json says of a head that was scored in steps."""
    if head.growth is None:
        return {}
    ends = {f"growth_{end}": getattr(head.growth, end) for end in ("low", "high")}
    return {"step": head.step, "growth": head.growth.value, **ends}


def _interval(row: dict[str, Any], key: str) -> Interval:
    bounds = [
        float(row[f"{key}_{end}"]) if row.get(f"{key}_{end}") is not None else float("nan") for end in ("low", "high")
    ]
    return Interval(float(row[key]), *bounds)


def write_neurons(
    folder: Path,
    importance: Float[np.ndarray, "layers neurons"],
    selected: Sequence[RankedNeuron],
    found_on: Mapping[str, str] | None = None,
) -> None:
    """neuron_importance.npy [L, I] and neurons.json, best first.

    found_on: the model's name and revision (`hones.runs.found_on`), which every row has beside its neuron. expert: in
    rows of a mixture of experts alone.
    """
    write_npy(folder / "neuron_importance.npy", importance)
    rows = [{name: value for name, value in vars(neuron).items() if value is not None} for neuron in selected]
    write_json(folder / "neurons.json", [{**row, **(found_on or {})} for row in rows])


def read_neurons(path: Path, task: str | None = None) -> RankedNeurons:
    """neurons.json, or a published run.

    Args:
        task: whose neurons of a published run; it may be left out where that has one task.

    Raises:
        HonesError: no such file, not of that form, or empty.
    """
    content = read_json(path)
    if is_published(content):
        return published_of(content, path).neurons(task)
    neurons = RankedNeurons(read_result(path, list[RankedNeuron]))
    if not neurons:
        raise HonesError(f"{path} holds no neurons", expected="at least one")
    return neurons


def write_scales(path: Path, scales: Scales) -> None:
    """scales.json: one {layer, neuron, scale} per neuron, in order."""
    rows = [{"layer": layer, "neuron": i, "scale": s} for (layer, i), s in sorted(scales.values.items())]
    write_json(path, rows)


MAX_SCALES_BYTES = 2**28  # a row for every neuron of a 70B model takes 160 MiB


class _ScaleRow(BaseModel):
    """One row; further fields are allowed."""

    model_config = ConfigDict(strict=True, frozen=True)

    layer: int = Field(ge=0)
    neuron: int = Field(ge=0)
    scale: float = Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)


def read_scales(path: Path) -> Scales:
    """scales.json, or the list under "scales" of an exported steering.json; `scales_for` also fits it to a model.

    Raises:
        HonesError: no such file, too large, or not of that form: rows of whole numbers layer and neuron >= 0 and a
            finite scale, no neuron twice. The line names the first such row.
    """
    expected = "a list of {layer, neuron, scale}, each neuron once"
    if path.suffix == ".safetensors":
        raise HonesError(
            f"{path} is an adapter", expected="scales.json", do="adapters stay in the run that learned them"
        )
    if path.exists() and not path.is_file():
        raise HonesError(f"{path} is not a file", expected=expected)
    if path.exists() and path.stat().st_size > MAX_SCALES_BYTES:
        raise HonesError(f"{path} has {path.stat().st_size} bytes", expected=f"at most {MAX_SCALES_BYTES}")
    content = read_json(path)
    listed = content.get("scales") if isinstance(content, dict) else content
    try:
        rows = TypeAdapter(list[_ScaleRow]).validate_python(listed, strict=True)
    except ValidationError as error:
        invalid = first_invalid(error)
        where = "".join(f"{'row ' if isinstance(part, int) else ''}{part}: " for part in invalid.where)
        raise HonesError(
            f"{path}: {where}{invalid.problem}, found {short(invalid.value)}", expected=expected
        ) from error
    if not rows:
        raise HonesError(f"{path} holds no scales", expected="at least one")
    scales: dict[tuple[int, int], float] = {}
    for number, row in enumerate(rows):
        if (row.layer, row.neuron) in scales:
            raise HonesError(f"{path}: row {number}: neuron {row.layer, row.neuron} again", expected=expected)
        scales[row.layer, row.neuron] = row.scale
    return Scales(scales)


def write_result(path: Path, result: Any) -> None:
    """Any result dataclass, or a list of them, as JSON."""
    write_json(path, TypeAdapter(type(result)).dump_python(result))


def read_result(path: Path, kind: Any) -> Any:
    """What `write_result` wrote, as `kind`: a result dataclass or a list of one.

    Raises:
        HonesError: no such file, or not of that form.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        raise from_validation(error, str(path), do="run the stage that writes it again") from error
