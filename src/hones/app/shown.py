"""What the page shows, as HTML in which every text is escaped: answers side by side, the map of heads, one line."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from hones.app.offered import ChangedItem
from hones.method.analysis.explanation import Explanation
from hones.method.analysis.picture_map import PictureMap
from hones.method.found import HeadResult
from hones.models.sites import Site
from hones.sharing.ask import Asked, Reply
from hones.stats import UNEDITED
from hones.views.charts import HeadCell, cell_map, head_map
from hones.views.report.explain import head_chart
from hones.views.report.pictures import encoded, picture_asked_about
from hones.views.sheet import Sheet
from hones.views.svg import inline_svg
from hones.views.text import clean, one_line, token_text

Shading = HeadResult | Explanation | tuple[int, ...]
"""What shades a map of heads: a run's scores, one answer's, or nothing, how many heads the model's layers have."""

WHERE_SIDE = 480
WHERE = (
    "Each patch in turn becomes the picture's mean patch. Orange: the answer's probability falls without it; blue: it "
    "rises. Both pictures have one scale."
)
SAME, ANOTHER = "same answer", "another answer"
THUMBNAIL = 180
"""Pixels of the longer side of a picture in the gallery."""
NOT_EDITED = "Click heads, or switch on neurons or scales: the edited model answers here."
NOT_ASKED = "Choose a picture, type a question, and press Ask."
_MARK = re.compile(r'class="mark" role="img" tabindex="-1" aria-label="layer (?P<layer>\d+), head (?P<head>\d+)')


def notice(line: str) -> str:
    """One line that is said aloud; nothing for no line."""
    return Markup('<p role="alert">{}</p>').format(clean(line)) if line else ""


def heading(line: str) -> str:
    """The title of the page, and a line below it."""
    return Markup("<h1>hones</h1><p>{}</p>").format(clean(line))


def empty(line: str) -> Markup:
    """A line where there is nothing to show."""
    return Markup('<p class="empty">{}</p>').format(clean(line))


def answers(asked: Asked | None) -> str:
    """The answers of both models beside each other, or what to do to get one."""
    if asked is None:
        return empty(NOT_ASKED)
    before, *after = asked.replies
    others = [reply for reply in after if _said(reply) != _said(before)]
    cards = [_card(before, "As the model is", "", next(iter(others), None))]
    if not after:
        cards.append(Markup('<section class="card"><h3>Edited</h3>{}</section>').format(empty(NOT_EDITED)))
    for reply in after:
        verdict, other = (ANOTHER, before) if reply in others else (SAME, None)
        cards.append(_card(reply, f"Edited: {asked.edit}", verdict, other))
    prompt = Markup('<p class="prompt">{}</p>').format(one_line(asked.prompt, 400))
    return prompt + Markup('<div class="cards">{}</div>').format(Markup().join(cards))


def _card(reply: Reply, title: str, verdict: str, other: Reply | None) -> Markup:
    """One model's answer, its probability beside that of the other's, and how it would begin.

    other: the other model's reply, if it is another answer.
    """
    kind = {ANOTHER: " changed", SAME: " same"}.get(verdict, "")
    row = Markup("<dt>{}</dt><dd>{}</dd>")
    rows = row.format("probability", probability(reply.probability))
    if other is not None and reply.others is not None:
        rows += row.format(f"of “{one_line(_said(other), 40)}”", probability(reply.others))
    first = Markup().join(
        Markup('<li><span class="bar" style="width:{}%"></span><code>{}</code> {}</li>').format(
            f"{100 * p:.0f}", token_text(token), probability(p)
        )
        for token, p in reply.first
    )
    return Markup(
        '<section class="card{}"><h3>{}</h3><p class="answer">{}</p><p class="verdict">{}</p><dl>{}</dl>'
        '<p class="small">likeliest first tokens</p><ol class="tokens">{}</ol></section>'
    ).format(kind, title, _said(reply), verdict, rows, first)


def _said(reply: Reply) -> str:
    """An answer, with dots where it was cut."""
    return (clean(reply.answer) or "(empty)") + (" …" if reply.cut else "")


def in_brief(asked: Asked | None) -> str:
    """Both answers in one line, to stand beside what changes them."""
    if asked is None:
        return ""
    said = (f"{one_line(_said(reply), 40)} ({probability(reply.probability)})" for reply in asked.replies)
    return " → ".join(said)


def probability(p: float) -> str:
    """Three digits; a dash where an answer is no event of the model."""
    if p != p:
        return "–"
    return f"{p:.3f}" if p >= 0.0005 or p == 0 else f"{p:.1e}"


def where(maps: Sequence[tuple[PictureMap, Image.Image]]) -> str:
    """Maps over the picture beside each other, of the model as it is and of the edited one."""
    names = ("As the model is", "Edited")
    figures = Markup().join(
        Markup('<figure><h3>{}</h3><img alt="{}" src="{}"><figcaption>{}</figcaption></figure>').format(
            name, of.words(), encoded(of.title, over, WHERE_SIDE).address, f"{clean(of.title)}: {of.words()}"
        )
        for name, (of, over) in zip(names, maps, strict=False)  # one map without an edit
    )
    return Markup('<div class="cards">{}</div><p class="small">{}</p>').format(figures, WHERE)


def gallery(items: Sequence[ChangedItem], run: Path) -> str:
    """The items as buttons, in order: picture, question, the unedited answer and what it becomes."""
    return Markup('<div class="items">{}</div>').format(Markup().join(_item(i, x, run) for i, x in enumerate(items)))


def _item(index: int, changed: ChangedItem, run: Path) -> Markup:
    picture = picture_asked_about(changed.item, run, THUMBNAIL)
    image = Markup('<img alt="" src="{}">').format(picture.address) if picture.address else one_line(picture.problem)
    before = changed.item.answers[UNEDITED].answer
    becomes = Markup("<br>").join(
        Markup("{}: <s>{}</s> → <b>{}</b>").format(arm, _short(before), _short(said.answer))
        for arm, said in changed.changing
    )
    return Markup(
        '<button type="button" data-pick="{}"><span class="picture">{}</span><span>{}</span><span>{}</span></button>'
    ).format(index, image, one_line(changed.asked), becomes)


def _short(answer: str) -> str:
    return one_line(answer, 60) or "nothing"


def head_buttons(task: str, shading: Shading, chosen: Collection[Site], brief: str = "") -> str:
    """The map of heads, whose cells are buttons: the chosen heads are pressed.

    brief: the answers in one line, where the page is too narrow to have them beside the map.
    """

    def button(mark: re.Match[str]) -> str:
        site = (int(mark["layer"]), int(mark["head"]))
        on = site in chosen
        return (
            f'class="mark{" chosen" if on else ""}" role="button" aria-pressed="{str(on).lower()}" '
            f'data-pick="{site[0]}.{site[1]}" tabindex="-1" aria-label="layer {site[0]}, head {site[1]}'
        )

    title, svg, caption = _drawn(task, shading)
    figure = Markup(_MARK.sub(button, svg))
    now = Markup('<p class="now">{}</p>').format(brief) if brief else ""
    return Markup("<figure><h3>{}</h3>{}{}<figcaption>{}</figcaption></figure>").format(title, figure, now, caption)


@lru_cache(maxsize=16)  # drawing takes longer than answering, and a click changes only what is pressed
def _drawn(task: str, shading: Shading) -> tuple[str, str, str]:
    """Title, figure and caption."""
    if isinstance(shading, HeadResult):
        chart = head_map(task, shading)
        return f"Heads: {task} in the run", inline_svg(chart), chart.caption
    if isinstance(shading, Explanation):
        chart = head_chart(shading)
        title = one_line(f"Heads that the answer “{shading.answer}” needs", 80)
        return title, inline_svg(chart), chart.caption
    sites = [(layer, head) for layer, count in enumerate(shading) for head in range(count)]
    cells = [HeadCell(layer, head, 0.0, f"layer {layer}, head {head}") for layer, head in sites]
    caption = "Click heads to replace them by the mean of their layer's others."
    chart = cell_map("Heads", caption, Sheet("heads", "Heads", ("layer", "head"), ()), cells, (), len(shading))
    return "Heads", inline_svg(chart), chart.caption
