"""Exports, uploads and answers as tables in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hones.sharing.ask import Asked, Reply
from hones.sharing.export import Exported
from hones.sharing.push import Upload


def export_table(done: Exported) -> Group:
    """The files with their sizes, what is scaled, and how the reloaded export compares."""
    m = done.manifest
    said = f"{m.scaled_neurons} neurons in {m.scaled_layers} layers, largest scale {m.largest_scale:+.3g}"
    if m.rank is not None:
        said += f", rank {m.rank}"
    if m.check is None:
        said += "; not checked"
    else:
        said += (
            f"; reloaded: at most {m.check.deviation:.2g} logits from the scaled model ({m.check.dtype}, allowed "
            f"{m.check.tolerance:.2g}; the scales change up to {m.check.effect:.2g})"
        )
    return _files(f"Export as {m.format}", done.sizes, said)


def upload_table(done: Upload) -> Group:
    """The files with their sizes and the repository."""
    kind = "private " if done.private else ""
    return _files(f"{done.folder} to {kind}{done.repo}", done.sizes, f"{_bytes(sum(done.sizes.values()))} in all")


def asked_table(asked: Asked) -> Table:
    """One row per model."""
    steered = len(asked.replies) > 1
    caption = "p: probability of the whole answer and its end"
    if steered:
        caption += f", of the other model's answer beside it; {asked.neurons} neurons scaled"
    table = Table(title=Text(asked.prompt), box=SIMPLE_HEAD, pad_edge=False, caption=caption)
    for heading in ("model", "answer", "p", *(["p of the other"] if steered else []), "likeliest first tokens"):
        table.add_column(heading)
    for reply in asked.replies:
        first = ", ".join(f"{token!r} {p:.3g}" for token, p in reply.first)
        others = [] if reply.others is None else [f"{reply.others:.3g}"]
        table.add_row(reply.model, _answer(reply), f"{reply.probability:.3g}", *others, Text(first))
    return table


def _answer(reply: Reply) -> Text:
    if not reply.answer:
        return Text("(empty)", style="dim")
    return Text(reply.answer + (" ..." if reply.cut else ""))


def _files(title: str, sizes: dict[str, int], said: str) -> Group:
    table = Table("file", title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("size", justify="right")
    for name, size in sizes.items():
        table.add_row(name, _bytes(size))
    return Group(table, Text(said))


def _bytes(size: int) -> str:
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:.4g} {('B', 'kB', 'MB', 'GB')[power]}"
