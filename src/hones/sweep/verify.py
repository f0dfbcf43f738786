"""`hones verify`: every claim that an intervention relies on, measured on this model.

Two built-in pictures with prompts of different lengths are answered by the model itself, edited and unedited; each
claim is one number beside what rounding allows. Distances between logits are in their standard deviation. What is
measured at loading (`hones.models.probe`) is measured again here, and followed through to the logits.
"""

import math
import random
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hones.data.shapes.language import captions, describe
from hones.data.shapes.scene import draw, make_scene
from hones.errors import BadItem
from hones.models.capture import DOWN_PROJ, FFN, HEADS, O_PROJ, Z, capture, collect
from hones.models.head import spread
from hones.models.interventions import BASELINE, Intervention
from hones.models.probe import ROUNDINGS, check_edits, probe_inputs
from hones.models.vlm import VLM, Encoded
from hones.models.writing import added, contributions, is_plain, readout_of
from hones.sweep.engines import TOLERANCE, last_logits, make_engine
from hones.sweep.forward import with_answers
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.verification import Claim, Verification
from hones.tasks.base import Example

NEW_TOKENS = 6
PROMPTS = ("What is it?", "Describe the image in one sentence, with the colour and the place of every thing.")
SAVINGS = {
    "Replay": "picture once, start at the edited layer, heads as rows, drafts, shared prefix, only what is read",
    "Forward": "picture once, drafts; whole passes of the decoder",
    "Naive": "none: a full answer for every cell",
}


@torch.no_grad()
def verify(vlm: VLM) -> Verification:
    """Measure every claim on a loaded model.

    Returns:
        The table; `check()` raises for the first claim that does not hold.

    Raises:
        HonesError: the model cannot be run at all, or an edit changes nothing that leaves its layer (as at loading).
    """
    with tempfile.TemporaryDirectory() as folder:
        examples = _examples(Path(folder), vlm.shows_pictures)
        pictures = [example.open_picture() for example in examples]
        encoded = vlm.encode(pictures, [example.prompts[0] for example in examples])
        base = vlm.logits(encoded, 1)
        tolerance = TOLERANCE[vlm.model.dtype]
        rounding = ROUNDINGS * torch.finfo(vlm.model.dtype).eps
        claims = [
            Claim("a hook that changes nothing changes no bit", _no_op(vlm, encoded, base), 0.0),
            Claim("the heads' slices through o_proj sum to its output", _slices(vlm, encoded), rounding, heads_of(vlm)),
            Claim("z through down_proj is the FFN's output", _ffn_output(vlm, encoded), rounding),
            *_write_in_claims(vlm, encoded),
        ]
        alone = last_logits(vlm, examples, [BASELINE])[0]
        distance = float((base[:, -1] - alone).abs().max() / spread(alone))
        padded = f"{int((encoded.inputs['attention_mask'] == 0).sum())} padded positions"
        claims.append(Claim("a batch gives what each row alone does", distance, tolerance, padded))
        claims += _generation_claims(vlm, encoded, examples, tolerance)
        claims.append(_yes_no_claim(vlm))
        engine, claim = _engine_claim(vlm, examples, tolerance)
    savings = SAVINGS[engine]
    if engine == "Replay" and is_plain(vlm.anatomy):
        savings += ", few neurons from the next layer"
    family = type(vlm.model).__name__
    return Verification(
        vlm.name,
        family,
        vlm.revision,
        vlm.dtype,
        engine.lower(),
        savings,
        (*claims, claim),
        vlm.conventions,
        vlm.answer_tokens.ids,
    )


def _examples(folder: Path, shown: bool) -> list[Example]:
    """Two pictures, prompts of different lengths, a caption as gold answer; the prompts alone where none is shown."""
    examples = []
    for number, prompt in enumerate(PROMPTS):
        scene = make_scene(f"verify/{number}")
        picture = folder / f"{number}.png" if shown else None
        if picture is not None:
            draw(scene).save(picture)
        gold = captions(describe(scene, random.Random(0)))[0]
        examples.append(Example(str(number), picture, (prompt,), gold, (gold,)))
    return examples


def _yes_no_claim(vlm: VLM) -> Claim:
    """Which tokens they are; where there are none only tasks that read them cannot be asked."""
    tokens = vlm.answer_tokens
    if tokens.ids is None:
        note = f"{tokens.problem.removeprefix(f'{vlm.name}: ')}: no retrieval and yes-or-no tasks, all others work"
        return Claim("Yes and No are different tokens", 0.0, None, note, needed=False)
    return Claim("Yes and No are different tokens", 1.0, None, f"ids {tokens.yes} and {tokens.no}")


def _no_op(vlm: VLM, encoded: Encoded, base: Tensor) -> float:
    def same(_: int, x: Tensor) -> Tensor:
        return x.clone()

    with capture(vlm.anatomy, HEADS, same), capture(vlm.anatomy, Z, same):
        return float((vlm.logits(encoded, 1) - base).abs().max())


def heads_of(vlm: VLM) -> str:
    """Which layers have no heads, or other numbers of them, in words; empty where all have the same."""
    counts = vlm.anatomy.head_counts
    kinds = {count: counts.count(count) for count in sorted({*counts}, reverse=True)}
    if len(kinds) == 1:
        return ""
    return "; ".join(f"{count or 'no'} heads in {layers} of {len(counts)} layers" for count, layers in kinds.items())


def _slices(vlm: VLM, encoded: Encoded) -> float:
    """The largest relative distance over layers with heads, at the last position."""
    distances = []
    with collect(vlm.anatomy, HEADS) as heads, collect(vlm.anatomy, O_PROJ) as projected:
        vlm.logits(encoded, 1)
    for number, layer in enumerate(vlm.anatomy.layers):
        if not layer.heads:
            continue
        x = heads[number][:, -1:]
        width = layer.head_dim
        nothing = layer.o_proj(torch.zeros_like(x)).float()  # its bias
        total = nothing.clone()
        for head in range(layer.heads):
            alone = torch.zeros_like(x)
            alone[..., head * width : (head + 1) * width] = x[..., head * width : (head + 1) * width]
            total += layer.o_proj(alone).float() - nothing
        distances.append(_distance(total, projected[number][:, -1:]))
    return _worst(distances or [0.0])


def _ffn_output(vlm: VLM, encoded: Encoded) -> float:
    """The largest relative distance over layers between what down_proj gives and what the FFN does."""
    with collect(vlm.anatomy, DOWN_PROJ) as projected, collect(vlm.anatomy, FFN) as of_ffn:
        vlm.logits(encoded, 1)
    return _worst(_distance(projected[number], of_ffn[number]) for number in range(len(vlm.anatomy.layers)))


def _distance(found: Tensor, expected: Tensor) -> float:
    """Relative; 0 where both are nothing."""
    apart = (found.float() - expected.float()).norm()
    return float(apart / expected.float().norm()) if apart != 0 else 0.0


def _worst(distances: Iterable[float]) -> float:
    """The largest; NaN where one is, which is within no bound."""
    return float(np.max([*distances]))


def _write_in_claims(vlm: VLM, encoded: Encoded) -> Iterator[Claim]:
    """What masking takes from the residual is what the neurons write; their contributions sum to it; edits show."""
    inputs = probe_inputs(vlm.model, vlm.processor, vlm.conventions.template)
    yield from _edit_claims(vlm, Encoded(inputs))
    worst = max(check_edits(vlm, inputs), key=lambda x: math.inf if x.problem is not None else x.distance / x.allowed)
    plain = "W_down z" if is_plain(vlm.anatomy) else "through what follows down_proj"
    yield Claim("an FFN adds what its neurons write", worst.distance, worst.allowed, worst.problem or plain)
    if vlm.no_write_in is not None:
        return
    pair = vlm.answer_tokens.ids or (0, 1)  # any two tokens have a direction
    rows = vlm.anatomy.lm_head.weight[[*pair]].float()
    u = torch.nn.functional.normalize(rows, dim=-1)[: len(PROMPTS)]
    total = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    with collect(vlm.anatomy, Z, lambda z: z[:, -1].float()) as at_last:
        vlm.logits(encoded, 1)
    deviations = []
    for number, layer in enumerate(vlm.anatomy.layers):
        z = at_last[number]
        written = added(layer, z) - added(layer, torch.zeros_like(z))
        along = (written * u.to(written.device)).sum(-1)
        deviations.append(float((total[:, number].to(along.device) - along).abs().max() / written.norm()))
    yield Claim("contributions sum to <what the FFN adds, u>", _worst(deviations), 1e-5)


def _edit_claims(vlm: VLM, encoded: Encoded) -> Iterator[Claim]:
    """Each layer's edits alone, through the whole model: loading looks no further than what leaves the layer."""
    layers = vlm.anatomy.layers
    base = vlm.logits(encoded, 1)

    def smallest(edits: Iterable[Intervention]) -> float:
        changes = []
        for edit in edits:
            with edit.on(vlm.model):
                changes.append(float((vlm.logits(encoded, 1) - base).abs().max() / spread(base)))
        return min(changes)

    with_heads = [number for number, layer in enumerate(layers) if layer.heads]
    of_heads = smallest(Intervention(heads=frozenset({(number, 0)})) for number in with_heads) if with_heads else None
    of_neurons = smallest(
        Intervention(masked=frozenset((number, i) for i in range(layer.neurons))) for number, layer in enumerate(layers)
    )
    if of_heads is not None:
        yield Claim("editing a head of any layer changes the logits", of_heads, None, "smallest change")
    yield Claim("editing the neurons of any layer changes them", of_neurons, None, "smallest change")


def _generation_claims(vlm: VLM, encoded: Encoded, examples: list[Example], tolerance: float) -> Iterator[Claim]:
    """Each generated token is the argmax of a teacher-forced pass; gold answers are the same as text and as tokens."""
    drafts = vlm.generate_ids(encoded, NEW_TOKENS)
    forced = _log_probabilities(vlm, encoded, drafts)
    behind = max(float((row.amax(-1) - row.gather(-1, ids[:, None])[:, 0]).max()) for row, ids in forced)
    scale = float(spread(torch.cat([row for row, _ in forced])))
    count = sum(map(len, drafts))
    yield Claim("generation is greedy over teacher-forced passes", behind / scale, tolerance, f"{count} tokens")
    prompts = [e.prompts[0] for e in examples]
    answers = [e.target for e in examples]
    try:
        gold = [vlm.gold_ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    except BadItem as error:  # of a template whose end merges with any word
        yield Claim("an answer is as likely as text as in tokens", math.nan, tolerance, str(error))
        return
    as_text = vlm.log_probabilities(
        vlm.encode_with_answers([e.open_picture() for e in examples], prompts, answers)
    ).float()
    as_tokens = [
        row.log_softmax(-1).gather(-1, ids[:, None]).sum() for row, ids in _log_probabilities(vlm, encoded, gold)
    ]
    distance = float((as_text - torch.stack(as_tokens).to(as_text)).abs().max() / max(map(len, gold)))
    yield Claim("an answer is as likely as text as in tokens", distance, tolerance, "nats per token")


def _log_probabilities(vlm: VLM, encoded: Encoded, answers: list[list[int]]) -> list[tuple[Tensor, Tensor]]:
    """For each row the logits that predict its answer's tokens [tokens, V], and these."""
    length = encoded.inputs["input_ids"].shape[1]
    logits = vlm.logits(with_answers(vlm, encoded, [answer[:-1] for answer in answers]))
    return [
        (logits[row, length - 1 : length - 1 + len(answer)], torch.tensor(answer, device=logits.device))
        for row, answer in enumerate(answers)
    ]


def _engine_claim(vlm: VLM, examples: list[Example], tolerance: float) -> tuple[str, Claim]:
    """The engine of the sweeps and the distance of its logits under edits from the edited model's."""
    last = dict(vlm.anatomy.head_sites)
    edits = [Intervention(heads=frozenset({site})) for site in last.items()]
    layers = len(vlm.anatomy.layers)
    edits.append(Intervention(masked=frozenset({(0, 0), (layers - 1, vlm.anatomy.layers[-1].neurons - 1)})))
    plan = make_plan(vlm, 1024, len(examples))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        engine = make_engine(vlm, "replay", NEW_TOKENS, len(examples), plan, examples, edits)
    name = type(engine).__name__
    note = "; ".join(str(w.message) for w in said if "cannot be served" in str(w.message))
    if isinstance(engine, Naive):
        return name, Claim("the sweep's engine gives what the edited model does", 0.0, tolerance, note)
    expected = last_logits(vlm, examples, edits)
    distance = float((engine.last_logits(examples, edits).to(expected) - expected).abs().max() / spread(expected))
    return name, Claim("the sweep's engine gives what the edited model does", distance, tolerance, note or name.lower())
