"""A forecast in the terminal: the table of stages, what dominates, and what would make it cheaper."""

from hones.runs.plan.bill import Stage
from hones.runs.plan.forecast import Forecast
from hones.runs.plan.memory import GIB, gib
from hones.tabular import Column, Table

RACING_MEASURED = "bench/results/racing.md has the shares measured on the built-in models"


def forecast_table(found: Forecast) -> Table:
    """A row per stage, and the total."""
    shapes = found.shapes
    size = f"{shapes.parameters / 1e9:.2g}B parameters, {shapes.layers} x {shapes.heads} heads"
    columns = [
        Column("stage", "stage"),
        Column("tasks", "tasks", "text"),
        Column("cells", "cells", "number"),
        Column("flop", "PFLOP", "number"),
        Column("moved", "TiB moved", "number"),
        Column("memory", "GiB of memory", "number"),
        Column("hours", "hours, one copy", "number"),
    ]
    if found.gpus > 1:
        columns.append(Column("together", f"hours, {found.gpus} GPUs", "number"))
    total = {
        "stage": "total",
        "flop": figure(sum(stage.work.flop for stage in found.counted) / 1e15),
        "moved": figure(sum(stage.work.moved for stage in found.counted) / 2**40),
        "memory": figure(max(stage.memory.total for stage in found.counted) / GIB),
        "hours": _range(found, found.total(1)),
        "together": _range(found, found.total(found.copies)),
    }
    rows = [*(_row(found, stage) for stage in found.stages), total]
    return Table("forecast", f"{shapes.name}, {found.dtype}: {size}", tuple(columns), rows)


def _row(found: Forecast, stage: Stage) -> dict[str, str]:
    work = stage.work * (sum(stage.shares) / 2)
    return {
        "stage": stage.name,
        "tasks": ", ".join(stage.tasks),
        "cells": f"{stage.cells:,.0f}",
        "flop": figure(work.flop / 1e15),
        "moved": figure(work.moved / 2**40),
        "memory": figure(stage.memory.total / GIB),
        "hours": _range(found, _hours(found, stage, 1)),
        "together": _range(found, _hours(found, stage, found.copies)),
    }


def _hours(found: Forecast, stage: Stage, copies: int) -> tuple[float, float, float]:
    middle, least, most = (hours * stage.stretched(copies) for hours in stage.hours(found.rates))
    return middle, least, most


def _range(found: Forecast, hours: tuple[float, float, float]) -> str:
    middle, least, most = map(figure, hours)
    if not found.rates.calibrated:
        return f"≥ {least}"
    return middle if least == most else f"{middle} ({least} to {most})"


def figure(x: float) -> str:
    """Two significant digits below a hundred, whole numbers above."""
    return f"{x:,.0f}" if x >= 99.5 else f"{x:.2g}" if x >= 0.001 else "<0.001"


def sentences(found: Forecast) -> list[str]:
    """What the table rests on, what dominates, and what would make it cheaper."""
    rates = found.rates
    said = [f"Rate: {rates.flop_rate / 1e12:.3g} TFLOP/s ({rates.source})" + _shares(found)]
    if not rates.calibrated:
        said.append(
            "Hours are the least possible, at the full rate of matrix products: --calibrate measures on this device "
            "what share of it each stage reaches, --tflops X takes what you know."
        )
    spread = "one GPU" if found.devices == 1 else f"{found.devices} GPUs, whose layers work one after the other"
    weights = f"{gib(found.shapes.bytes)} of weights"
    said.append(f"Memory: a copy of the model ({weights}) takes {spread}; {found.gpus} GPU(s) run {found.copies}.")
    said += [*_release(found), *_dominating(found)]
    said += [f"Assumed: {note}." for note in found.notes]
    said.append(
        "Assumed: answers as long as their targets, a tenth of the texts unlike the unedited model's, critical heads "
        "spread over the layers, selected neurons in all of them. Not counted: reading pictures, scoring, messages of "
        "the workers" + (", loading the model." if found.load == 0 else ".")
    )
    return said


def _shares(found: Forecast) -> str:
    shares = found.rates.shares
    if not shares:
        return "."
    own = (f"{stage} {100 * min(s):.0f} to {100 * max(s):.0f} %" for stage, s in shares.items())
    return f"; of it reach {', '.join(own)}."


def _release(found: Forecast) -> list[str]:
    """What the same answers cost one at a time."""
    counted = [stage for stage in found.counted if stage.release is not None]
    own = sum(stage.work.flop for stage in counted)
    released = sum(stage.release.flop for stage in counted if stage.release is not None)
    names = ", ".join(dict.fromkeys(stage.name for stage in counted))
    days = released / found.rates.flop_rate / 86400
    return [
        f"The release's way, one item at a time and the picture anew for each ({names}): "
        f"{figure(released / 1e15)} PFLOP, {released / own:.0f} times as many; {figure(days)} GPU-days if all of the "
        "rate were reached."
    ]


def _dominating(found: Forecast) -> list[str]:
    """The dearest stage, and ways to make it cheaper."""
    stages = sorted(found.counted, key=lambda stage: -stage.hours(found.rates)[0])
    whole = sum(stage.hours(found.rates)[0] for stage in stages)
    share = stages[0].hours(found.rates)[0] / whole
    said = [f"{stages[0].name.capitalize()} take {100 * share:.0f} % of the time."]
    if stages[0].name == "heads":
        cheaper = "fewer --items; --racing-share shows what a race would save (an approximation; "
        said[0] += f" Cheaper: {cheaper}{RACING_MEASURED})"
        said[0] += "; fewer --candidates." if "retrieval" in stages[0].tasks else "."
    return said
