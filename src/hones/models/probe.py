"""What is measured when a model is attached, on two built-in pictures, or on their captions alone.

Which tokens are its Yes and No, that every edit takes effect, that what an FFN adds is what its neurons write, and
that padding leaves a layer's state as it is.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.data.shapes.language import captions, describe
from hones.data.shapes.scene import draw, make_scene
from hones.errors import HonesError, seam
from hones.models.anatomy import Layer
from hones.models.answer_tokens import AnswerTokens
from hones.models.capture import Z, after, collect, forward_is
from hones.models.head import TOLERANCE, forward_logits, spread
from hones.models.interventions import mask_neurons, replace_heads
from hones.models.processors import TextProcessor
from hones.models.prompting import encode
from hones.models.template import Template, find_template
from hones.models.vlm import VLM
from hones.models.writing import added, check_weights
from hones.tasks.retrieval import PROMPT

PADDED = 7  # positions
ROUNDINGS = 32  # how many roundings of what is added, and of the residual that it is taken from
_LEADS = {"": "", "Ġ": " ", "▁": " "}  # how byte-level and sentencepiece vocabularies write a token's leading space


@dataclass(frozen=True)
class WriteIn:
    """How far what the FFN of a layer adds is from what its neurons write, relative; allowed: by rounding.

    problem: why what a neuron writes is not known, None where it is; without plain weights nothing is measured (NaN).
    """

    distance: float
    allowed: float
    problem: str | None


def probe_inputs(
    model: PreTrainedModel, processor: ProcessorMixin, template: Template | None = None, prompts: int = 4
) -> dict[str, Tensor]:
    """Inputs of the first of four prompts: two pictures, each with both captions; or the texts alone.

    Args:
        template: the model's, found where it is not given.
    """
    template = template or find_template("the model", model, processor)
    scenes = [make_scene(f"probe/{i}") for i in range(2)]
    texts = [captions(describe(scene, random.Random(0)))[0] for scene in scenes]
    pairs = [(scene, text) for scene in scenes for text in texts][:prompts]
    shown = not isinstance(processor, TextProcessor)
    wrapped = [template.wrap(processor, PROMPT.format(candidate=text), shown) for _, text in pairs]
    return encode(model, processor, [draw(scene) if shown else None for scene, _ in pairs], wrapped)


@torch.no_grad()
def find_answer_tokens(
    name: str, model: PreTrainedModel, processor: ProcessorMixin, inputs: dict[str, Tensor]
) -> AnswerTokens:
    """The single-token forms of "Yes" and "No" that the model itself continues its template with.

    Of the forms in the vocabulary (with and without a leading space) the pair that gets the larger share of the model's
    probability on the probe is taken. Where there is no pair of different tokens, that of all words says whether its
    answers begin with a space.
    """
    tokenizer = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    vocabulary = tokenizer.get_vocab()
    with seam(f"run {name} on a prompt", expected="a model and a processor that fit each other"):
        logits = forward_logits(model, inputs, 1, name)
    probabilities = logits[:, -1].softmax(-1).mean(0)
    pairs: list[AnswerTokens] = []
    equal = None
    for mark, lead in _LEADS.items():
        yes = vocabulary.get(f"{mark}Yes")
        no = vocabulary.get(f"{mark}No")
        if yes is not None and no is not None and yes != no:
            pairs.append(AnswerTokens((yes, no), lead, float(probabilities[yes] + probabilities[no])))
        elif yes is not None and no is not None:
            equal = yes
    if pairs:
        return max(pairs, key=lambda pair: pair.mass)
    problem = f"{name}: its vocabulary has no single tokens for Yes and No"
    if equal is not None:
        problem = f"{name}: Yes and No are the same token, id {equal}"
    return AnswerTokens(None, _lead(vocabulary, probabilities), 0.0, problem)


def _lead(vocabulary: Mapping[str, int], probabilities: Float[Tensor, " vocabulary"]) -> str:
    """What a model puts before an answer: a space where words behind one are likelier together than words alone."""
    spaced = [id for word, id in vocabulary.items() if word[:1] in _LEADS and word[1:2].isalnum()]
    alone = [id for word, id in vocabulary.items() if word[:1].isalnum()]
    return " " if float(probabilities[spaced].sum()) > float(probabilities[alone].sum()) else ""


@torch.no_grad()
def check_edits(vlm: VLM, inputs: dict[str, Tensor]) -> list[WriteIn]:
    """Edit one head and all neurons of each layer: what leaves it must change, by what its neurons write.

    It takes one pass, in which every layer runs four times on what enters it: as it is, which goes on to the next, with
    a head replaced (if it has heads), with its neurons masked, and as it is again. An edit must change more than its
    undoing left.

    Raises:
        HonesError: an edit changes nothing that leaves its layer, or stays behind; the line names layer and site.
    """
    layers = vlm.anatomy.layers
    found: dict[int, WriteIn] = {}

    def check(number: int, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        edits = {"o_proj": replace_heads(vlm.model, [(number, 0)])} if layers[number].heads else {}
        edits["down_proj"] = mask_neurons(vlm.model, [(number, i) for i in range(layers[number].neurons)])
        once = partial(_left, layers[number], partial(run, *args, **kwargs))
        output, leaving, passed_on = once()
        if leaving.ndim != 2:
            raise HonesError(
                f"{vlm.name}: layer {number} gives {leaving.ndim + 1} axes",
                expected="three: rows, positions, width of one residual, not of several side by side",
            )
        edited = {}
        for site, edit in edits.items():
            with edit:
                edited[site] = once()
        left_behind = (once()[1] - leaving).norm()
        for site in edits:
            if not (edited[site][1] - leaving).norm() > left_behind:
                raise _no_effect(vlm, site, number)
        found[number] = _write_in(vlm, number, passed_on - edited["down_proj"][2], leaving, z[number])
        return output

    with ExitStack() as stack:
        z = stack.enter_context(collect(vlm.anatomy, Z, _last_position))
        for number, layer in enumerate(layers):
            stack.enter_context(forward_is(layer.block, partial(check, number, layer.block.forward)))
        forward_logits(vlm.model, inputs, 1, vlm.name)
    for number in range(len(layers)):
        if number not in found:  # the model has this layer and does not run it
            raise _no_effect(vlm, "o_proj" if layers[number].heads else "down_proj", number)
    return [found[number] for number in range(len(layers))]


def _left(layer: Layer, run: Callable[[], Any]) -> tuple[Any, Tensor, Tensor]:
    """What a layer gives; of it what leaves at the last position, and that less what a further branch adds to it.

    Such a branch reads the residual behind the FFN: what it makes of a neuron is not what the neuron writes.
    """
    of_branch: list[Tensor] = []
    with nullcontext() if layer.branch is None else after(layer.branch, of_branch.append):
        output = run()
    leaving = _last_position(output)
    further = [float(layer.factor) * _last_position(x) for x in of_branch]
    return output, leaving, leaving - further[-1] if further else leaving


@torch.no_grad()
def check_padding(vlm: VLM, inputs: dict[str, Tensor]) -> None:
    """Where layers go on from a state, padding must leave it as it is: a batch is padded to its longest prompt.

    Args:
        inputs: of one prompt.

    Raises:
        HonesError: padding before the prompt changes what the model says.
    """
    if not any(layer.keeps_state for layer in vlm.anatomy.layers):
        return
    shape = inputs["input_ids"].shape
    fill = {"input_ids": vlm.conventions.padding.id}
    padded = {
        name: pad(x, (PADDED, 0), value=fill.get(name, 0)) if x.shape == shape else x for name, x in inputs.items()
    }
    alone, beside = (forward_logits(vlm.model, of, 1, vlm.name)[:, -1] for of in (inputs, padded))
    apart = float((alone - beside).abs().max() / spread(alone))
    if not apart <= TOLERANCE[vlm.model.dtype]:
        raise HonesError(
            f"{vlm.name}: padding before a prompt moves its logits by {apart:.2g} of their standard deviation",
            expected="layers whose state padding leaves as it is",
            do="this family is not served: prompts of other lengths share a batch",
        )


def _last_position(output: Any) -> Tensor:
    """Of what is there, or of the first of several tensors that a layer gives, float32."""
    hidden = output[0] if isinstance(output, tuple) else output
    return hidden[:, -1].float()


def _no_effect(vlm: VLM, site: str, layer: int) -> HonesError:
    return HonesError(
        f"{vlm.name}: an edit at {site} of layer {layer} changes nothing that leaves it",
        expected="a change, gone when it is over",
    )


def _write_in(vlm: VLM, layer: int, taken: Tensor, leaving: Tensor, z: Tensor) -> WriteIn:
    """Compare what masking all neurons took from the residual leaving a layer with what they are said to write."""
    modules = vlm.anatomy.layers[layer]
    if modules.uncounted is not None:
        said = f"layer {layer} has {modules.uncounted} beside its FFN, whose neurons are not counted"
        return WriteIn(float("nan"), float("nan"), said)
    try:
        check_weights(modules, f"layer {layer}")
    except HonesError as error:
        return WriteIn(float("nan"), float("nan"), str(error))
    expected = added(modules, z) - added(modules, torch.zeros_like(z))
    if taken.shape != expected.shape:
        widths = f"the residual has width {taken.shape[-1]}, the FFN of layer {layer} writes {expected.shape[-1]}"
        return WriteIn(float("nan"), float("nan"), widths)
    distance = float((taken - expected).norm() / expected.norm())
    allowed = float(ROUNDINGS * torch.finfo(vlm.model.dtype).eps * (1 + leaving.norm() / expected.norm()))
    problem = None
    if not distance <= allowed:  # NaN too
        writes = "is not what its neurons write"
        problem = f"what the FFN of layer {layer} adds to the residual {writes} (off by {distance:.2g})"
    return WriteIn(distance, allowed, problem)
