"""A forecast in the terminal: the table of stages, what dominates, and what would make it cheaper."""

from collections.abc import Iterable

from hones.runs.plan.forecast import Forecast
from hones.runs.plan.shapes import Shapes, Work, gib
from hones.sweep.memory import GIB
from hones.tabular import Column, Table

RACING_MEASURED = "bench/results/racing.md has the shares measured on the built-in models"


def forecast_table(found: Forecast) -> Table:
    """A row per stage, and the total."""
    shapes = found.shapes
    size = f"{shapes.parameters / 1e9:.2g}B parameters, {_heads(shapes)}"
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

    def figures(work: Work, memory: float, hours: Iterable[float], together: Iterable[float]) -> dict[str, str]:
        return {
            "flop": figure(work.flop / 1e15),
            "moved": figure(work.moved / 2**40),
            "memory": figure(memory / GIB),
            "hours": _range(found, hours),
            "together": _range(found, together),
        }

    rows = [
        {"stage": stage.name, "tasks": ", ".join(stage.tasks), "cells": f"{stage.cells:,.0f}"}
        | figures(stage.work, stage.memory.total, stage.hours(found.rates), stage.hours(found.rates, found.copies))
        for stage in found.stages
    ]
    work = sum((stage.work for stage in found.counted), Work())
    memory = max(stage.memory.total for stage in found.counted)
    rows.append({"stage": "total"} | figures(work, memory, found.total(1), found.total(found.copies)))
    return Table("forecast", f"{shapes.name}, {found.dtype}: {size}", tuple(columns), rows)


def _heads(shapes: Shapes) -> str:
    """Layers and heads."""
    headless = shapes.head_counts.count(0)
    if len({*shapes.head_counts}) == 1:
        return f"{shapes.layers} x {shapes.heads} heads"
    none = f", {headless} of them without any" if headless else ""
    return f"{shapes.all_heads} heads in {shapes.layers} layers{none}"


def _range(found: Forecast, hours: Iterable[float]) -> str:
    middle, least, most = map(figure, hours)
    if not found.rates.calibrated:
        return f"≥ {least}"
    return middle if least == most else f"{middle} ({least} to {most})"


def figure(x: float) -> str:
    """Two significant digits below a hundred, whole numbers above."""
    return f"{x:,.0f}" if x >= 99.5 else f"{x:.2g}" if x >= 0.001 else "<0.001"


def sentences(found: Forecast) -> list[str]:
    """What the table rests on, what the same answers cost one at a time, what dominates, and what would be cheaper."""
    rates = found.rates
    shares = [f"{stage} {100 * min(s):.0f} to {100 * max(s):.0f} %" for stage, s in rates.shares.items()]
    reached = f"; of it reach {', '.join(shares)}." if shares else "."
    said = [f"Rate: {rates.flop_rate / 1e12:.3g} TFLOP/s ({rates.source}){reached}"]
    if not rates.calibrated:
        said.append(
            "Hours are the least possible, at the full rate of matrix products: --calibrate measures on this device "
            "what share of it each stage reaches, --tflops X takes what you know."
        )
    spread = "one GPU" if found.devices == 1 else f"{found.devices} GPUs, whose layers work one after the other"
    weights = f"{gib(found.shapes.bytes)} of weights"
    said.append(f"Memory: a copy of the model ({weights}) takes {spread}; {found.gpus} GPU(s) run {found.copies}.")

    swept = [stage for stage in found.counted if stage.release is not None]
    released = sum(stage.release.flop for stage in swept if stage.release is not None)
    own = sum(stage.work.flop for stage in swept)
    said.append(
        f"The release's way, one item at a time and the picture anew for each "
        f"({', '.join(dict.fromkeys(stage.name for stage in swept))}): "
        f"{figure(released / 1e15)} PFLOP, {released / own:.0f} times as many; "
        f"{figure(released / rates.flop_rate / 86400)} GPU-days if all of the rate were reached."
    )

    hours: dict[str, float] = {}
    for stage in found.counted:
        hours[stage.name] = hours.get(stage.name, 0.0) + stage.hours(rates)[0]
    dearest = max(hours, key=hours.__getitem__)
    cheaper = ""
    if dearest == "heads":
        swept_tasks = [task for stage in found.counted if stage.name == dearest for task in stage.tasks]
        cheaper = (
            " Cheaper: fewer --items; --racing-share shows what a race would save (an approximation; "
            f"{RACING_MEASURED}){'; fewer --candidates' if 'retrieval' in swept_tasks else ''}."
        )
    elif dearest == "compare":
        cheaper = " Cheaper: fewer methods, budgets or also: each set is measured on every task of the run."
    said.append(f"Dearest: {dearest}, {100 * hours[dearest] / sum(hours.values()):.0f} % of the time.{cheaper}")
    said += [f"Assumed: {note}." for note in found.notes]
    if found.shapes.stateful:
        said.append(
            f"{found.shapes.stateful} of {found.shapes.layers} layers go on from a state, not from keys and values: "
            "sweeps are counted as whole passes of the decoder; steer at least, as if what lies below its neurons was "
            "kept."
        )
    loading = ", loading the model." if found.load == 0 else "."
    said.append(
        "Assumed: answers as long as their targets, a tenth of the texts unlike the unedited model's, critical heads "
        "spread over the layers, selected neurons in all of them. Not counted: reading pictures, scoring, messages of "
        f"the workers{loading}"
    )
    return said
