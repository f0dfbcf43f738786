"""Which engine serves a model, proven before it is used.

`replay` is taken where it gives the logits of the whole edited model on the first pictures: the unedited model is not
enough of a proof, since a stale cache is right as long as nothing changes. A family for which it does not is named and
served by `forward`, which is proven the same way, and at last by the definition.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesWarning
from hones.models.head import TOLERANCE, spread
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.sweep.forward import Forward
from hones.sweep.memory import MemoryPlan
from hones.sweep.naive import Naive
from hones.sweep.names import check_engine
from hones.sweep.prompts import OTHER_FORM, why_unserved
from hones.sweep.replay import Replay
from hones.tasks.base import Example

DEFAULT_BATCH_SIZE = 32


def make_engine(
    vlm: VLM,
    engine: str,
    max_new_tokens: int,
    batch_size: int | None,
    plan: MemoryPlan,
    examples: Sequence[Example],
    edits: Sequence[Intervention],
) -> Naive | Forward | Replay:
    """The engine of that name; of the fast ones the fastest that is proven on these examples.

    Raises:
        HonesError: no such engine.
    """
    check_engine(engine)
    naive = Naive(vlm, max_new_tokens=max_new_tokens, batch_size=batch_size or DEFAULT_BATCH_SIZE)
    edited = sorted((edit for edit in edits if edit.layers), key=lambda edit: edit.layers[0])
    if engine == "naive" or not edited:
        return naive
    few = [edited[0], edited[len(edited) // 2], edited[-1]]  # first, middle and last layer
    few += [edit for edit in edited if edit.adapter is not None][:1]
    asked = [replace(x, prompts=(prompt,)) for x in examples for prompt in x.prompts[:2]]
    with_picture = [x for x in asked if x.image is not None]
    without = [x for x in asked if x.image is None]
    kinds = [kind for kind in (with_picture, without) if kind]  # a batch has either
    expected = [last_logits(vlm, kind, [BASELINE, *few]) for kind in kinds]
    replay = Replay(vlm, max_new_tokens=max_new_tokens, plan=plan)
    forward = Forward(vlm, max_new_tokens=max_new_tokens, batch_size=naive.batch_size)
    for candidate, then in ((replay, "whole passes of the decoder"), (forward, "the definition")):
        problems = (disproof(candidate, e, x, few, vlm.model.dtype) for e, x in zip(expected, kinds, strict=True))
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is None:
            return candidate
        name = type(candidate).__name__.lower()
        family = type(vlm.model).__name__
        warnings.warn(
            f"{family} cannot be served by {name} ({problem}); {then} take longer", HonesWarning, stacklevel=2
        )
    return naive


@torch.no_grad()
def last_logits(vlm: VLM, examples: Sequence[Example], edits: Sequence[Intervention]) -> Float[Tensor, "e n v"]:
    """Logits of the whole edited model where each example's prompt ends, one at a time."""
    rows = []
    for edit in edits:
        with edit.on(vlm.model):
            rows.append([vlm.logits(vlm.encode([x.open_picture()], x.prompts[:1]), 1)[0, -1] for x in examples])
    return torch.stack([torch.stack(row) for row in rows])


def disproof(
    engine: Forward | Replay,
    expected: Float[Tensor, "e_and_baseline n v"],
    examples: Sequence[Example],
    edits: Sequence[Intervention],
    dtype: torch.dtype,
) -> str | None:
    """Why an engine cannot be used, None if it can.

    Its logits must be the whole model's, `expected` (the unedited model's first), to the dtype's rounding; and where an
    edit changes them by more than rounding, it must change them in the same direction.
    """
    try:
        logits = engine.last_logits(examples, edits).to(expected)
    except OTHER_FORM as error:
        return why_unserved(error)
    tolerance = TOLERANCE[dtype] * spread(expected)
    difference = (logits - expected[1:]).abs().amax()
    if difference > tolerance:
        return f"its logits differ by {difference / spread(expected):.2g} of their standard deviation from the model's"
    # A small change passes the tolerance even where the engine ignores the edit: so its direction is asked for too.
    change = (expected[1:] - expected[:1]).flatten(1)
    change_here = (logits - expected[:1]).flatten(1)
    alike = torch.cosine_similarity(change, change_here, dim=1)
    if bool(((alike < 0.7) & (change.abs().amax(1) > 0.2 * tolerance)).any()):
        return "an edit changes its logits in another direction than the model's"
    return None
