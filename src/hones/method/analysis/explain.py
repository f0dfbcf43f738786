"""Why a model gives its answer to one question about one picture: answer <- heads <- neurons <- tokens.

With the answer y, by default the model's own, and log p(y, end | picture, question) teacher forced:

    drop(l, h)    = log p(y; theta) - log p(y; theta under I(l, h))        every head, one sweep
    dependence[i] = sum_h drop(h) max(0, c[i](theta) - c[i](theta under I(h))) / sum_h drop(h)

over those of the K heads of largest drop that lower the probability: step 2 of the method on this one item, u_y from y.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np

from hones.errors import BadItem, HonesError
from hones.method.analysis.cards import contributions_of, head_shares
from hones.method.analysis.explanation import ExplainedHead, ExplainedNeuron, Explanation
from hones.method.analysis.tokens import written_tokens
from hones.method.analysis.where import PictureMap, layout_of, picture_maps
from hones.method.heads import HeadScore, critical_count, replacements
from hones.method.neurons import guiding_heads, head_importance
from hones.models.context import encode_question
from hones.models.interventions import BASELINE
from hones.models.layout import NoLayout
from hones.models.stopping import stopped
from hones.models.vlm import VLM
from hones.stats import Interval
from hones.sweep.run import SweepSettings, sweep
from hones.tasks import make_task
from hones.tasks.asking import Box, ask_as
from hones.tasks.base import Example, Task
from hones.tasks.log_probability import LogProbability
from hones.tasks.vqa import Vqa

NEURONS = 12


def explain(
    vlm: VLM,
    picture: str | Path | None,
    question: str | None = None,
    *,
    task: str | Task = "vqa",
    fields: Mapping[str, str] | None = None,
    box: Box | None = None,
    answer: str | None = None,
    top_k: int | None = None,
    neurons: int = NEURONS,
    raw: bool = False,
    where: bool = True,
    settings: SweepSettings | None = None,
) -> Explanation:
    """Explain one answer.

    Args:
        question, task, fields, box: as `hones.ask` takes them.
        answer: the answer to explain; default: the model's own.
        top_k: heads that may feed neurons; default 3 %, at least 5.
        neurons: how many are named.
        raw: ask the question as it is, not as vqa words it.
        where: map where in the picture the answer comes from (`hones.method.analysis.where`), for its first token, the
            first critical head (with attention) and the first neuron.

    Raises:
        HonesError: a picture that cannot be read, a question or answer without text, a field of the task's prompt
            without a value, an impossible top_k.
    """
    k = critical_count(vlm, top_k)
    if neurons < 1:
        raise HonesError(f"{neurons} neurons to name", expected="at least one")
    settings = settings or SweepSettings()
    layers, width, _ = vlm.anatomy.shape
    task = make_task(task) if isinstance(task, str) else task
    example = ask_as(task, picture, question, fields, box)
    if raw:
        if question is None or not isinstance(task, Vqa):
            raise HonesError(f"raw with {task.name}", expected="a question for vqa alone")
        example = replace(example, prompts=(question,))
    encode_question(vlm, example.open_picture(), example.prompts[0], settings.max_new_tokens)
    stop = vlm.stop_of(task.stop, example.prompts[0])
    example, cut = _answered(vlm, example, answer, settings.max_new_tokens, stop)
    base, heads = head_drops(vlm, example, settings)
    fed = _fed_neurons(vlm, example, heads[:k], neurons, settings)
    maps, no_maps = _maps(vlm, example, heads, fed, settings) if where and picture is not None else ((), "")
    return Explanation(
        model=vlm.name,
        picture="" if picture is None else str(picture),
        question=question if question is not None and isinstance(task, Vqa) else example.prompts[0],
        answer=example.target,
        probability=exp(base),
        layers=layers,
        heads_per_layer=width,
        all_heads=heads,
        top_k=k,
        neurons=fed,
        cut=cut,
        maps=maps,
        no_maps=no_maps,
    )


def head_drops(vlm: VLM, example: Example, settings: SweepSettings) -> tuple[float, tuple[ExplainedHead, ...]]:
    """The answer's log-probability, and what the replacement of every head takes from it, best first."""
    replaced = replacements(vlm)
    edits = [BASELINE, *replaced.values()]
    log_p = sweep(vlm, LogProbability(Vqa()), [example], edits, settings, "heads")[:, 0, 0].astype(np.float64)
    base, *edited = (float(x) for x in log_p)
    heads = [
        ExplainedHead(layer, head, base - x, exp(base) - exp(x))
        for (layer, head), x in zip(replaced, edited, strict=True)
    ]
    return base, tuple(sorted(heads, key=lambda h: (-h.log_probability_drop, h.layer, h.head)))


def _answered(
    vlm: VLM, example: Example, answer: str | None, max_new_tokens: int, stop: Sequence[str]
) -> tuple[Example, bool]:
    """The example with its answer, given or the model's own, and whether that was cut before its end."""
    if answer is None:
        (ids,) = vlm.generate_ids(vlm.encode([example.open_picture()], example.prompts), max_new_tokens)
        text = vlm.text_of(ids, stop)
        cut = ids[-1] not in vlm.eos_ids and not stopped(vlm.tokenizer, ids, stop)
    else:
        text = answer.strip()
        cut = False
    if not text:
        raise HonesError("the answer is empty", expected="an answer to explain", do="pass one with --answer")
    try:
        vlm.answer_ids(example.prompts[0], text)
    except BadItem as error:
        raise HonesError(str(error), expected="an answer that the model can give") from error
    return replace(example, target=text, references=(text,)), cut


def _maps(
    vlm: VLM, example: Example, heads: Sequence[ExplainedHead], fed: Sequence[ExplainedNeuron], settings: SweepSettings
) -> tuple[tuple[PictureMap, ...], str]:
    """The maps over the picture, of the strongest head that looks anywhere; or why there are none."""
    try:
        layout = layout_of(vlm, example)
    except NoLayout as error:
        return (), str(error)
    neuron = (fed[0].layer, fed[0].neuron) if fed else None
    layers = vlm.anatomy.layers
    site = next(((head.layer, head.head) for head in heads if not layers[head.layer].keeps_state), None)
    return picture_maps(vlm, example, head=site, neuron=neuron, layout=layout, settings=settings), ""


def _fed_neurons(
    vlm: VLM, example: Example, heads: Sequence[ExplainedHead], count: int, settings: SweepSettings
) -> tuple[ExplainedNeuron, ...]:
    """The neurons of largest dependence above zero; none where no head lowers the probability."""
    drops = [Interval(h.log_probability_drop, h.log_probability_drop, h.log_probability_drop) for h in heads]
    scores = [HeadScore(h.layer, h.head, drop, 0.0, 0.0, 1) for h, drop in zip(heads, drops, strict=True)]
    if not guiding_heads(scores):
        return ()
    parts = head_importance(vlm, Vqa(), [example], scores, sweep=settings)
    dependence = parts.sum(0)
    order = np.argsort(-dependence.ravel(), kind="stable")[:count]
    sites = [(int(i) // dependence.shape[1], int(i) % dependence.shape[1]) for i in order]
    sites = [site for site in sites if dependence[site] > 0]
    if not sites:
        return ()
    (contributed,) = contributions_of(vlm, Vqa(), [example], sites)
    return tuple(
        ExplainedNeuron(
            layer=site[0],
            neuron=site[1],
            contribution=float(c),
            dependence=float(dependence[site]),
            heads=head_shares(scores, parts, site),
            promotes=promotes,
            suppresses=suppresses,
            expert=vlm.anatomy.expert_of(*site),
        )
        for site, c, (promotes, suppresses) in zip(sites, contributed, written_tokens(vlm, sites), strict=True)
    )
