"""What is measured when a model is attached, on two built-in pictures, or on their captions alone.

Which tokens are its Yes and No, that every edit takes effect, and that what an FFN adds is what its neurons write.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.data.shapes.language import captions, describe
from hones.data.shapes.scene import draw, make_scene
from hones.errors import HonesError
from hones.models.capture import LEAVING, Z, collect
from hones.models.head import forward_logits
from hones.models.interventions import mask_neurons, replace_heads
from hones.models.prompting import encode, wrap
from hones.models.text import TextProcessor
from hones.models.vlm import VLM, AnswerTokens
from hones.models.writing import added, check_weights
from hones.tasks.retrieval import PROMPT

ROUNDINGS = 32  # how many roundings of what is added, and of the residual that it is taken from
_LEADS = {"": "", "Ġ": " ", "▁": " "}  # how byte-level and sentencepiece vocabularies write a token's leading space


@dataclass(frozen=True)
class SiteCheck:
    """What edits of a layer did.

    heads, neurons: how far the logits moved, in their standard deviations. write_in: distance between what the FFN adds
    and what its neurons write, relative; allowed: by rounding. problem: why the latter is not known.
    """

    heads: float
    neurons: float
    write_in: float
    allowed: float
    problem: str | None


def probe_inputs(model: PreTrainedModel, processor: ProcessorMixin) -> dict[str, Tensor]:
    """Inputs of four prompts: two pictures, each with its own and with the other's caption; or the texts alone."""
    scenes = [make_scene(f"probe/{i}") for i in range(2)]
    texts = [captions(describe(scene, random.Random(0)))[0] for scene in scenes]
    pairs = [(scene, text) for scene in scenes for text in texts]
    shown = not isinstance(processor, TextProcessor)
    prompts = [wrap(model, processor, PROMPT.format(candidate=text), shown) for _, text in pairs]
    return encode(model, processor, [draw(scene) if shown else None for scene, _ in pairs], prompts)


@torch.no_grad()
def find_answer_tokens(name: str, model: PreTrainedModel, processor: ProcessorMixin) -> AnswerTokens:
    """The single-token forms of "Yes" and "No" that the model itself continues its template with.

    Of the forms in the vocabulary (with and without a leading space) the pair that gets the larger share of the model's
    probability on the probe is taken.

    Raises:
        HonesError: the vocabulary has no such pair, or both are the same token.
    """
    tokenizer = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    vocabulary = tokenizer.get_vocab()
    probabilities = forward_logits(model, probe_inputs(model, processor), 1, name)[:, -1].softmax(-1).mean(0)
    pairs = []
    for mark, lead in _LEADS.items():
        yes = vocabulary.get(f"{mark}Yes")
        no = vocabulary.get(f"{mark}No")
        if yes is not None and no is not None:
            pairs.append(AnswerTokens(yes, no, lead, float(probabilities[yes] + probabilities[no])))
    if not pairs:
        raise HonesError(f"{name}: its vocabulary has no single tokens for Yes and No", expected="both as one token")
    best = max(pairs, key=lambda pair: pair.mass)
    if best.yes == best.no:
        raise HonesError(f"{name}: Yes and No are the same token, id {best.yes}", expected="two different tokens")
    return best


@torch.no_grad()
def check_edits(vlm: VLM) -> list[SiteCheck]:
    """Edit one head and all neurons of each layer: the logits must change, and the FFN must add what its neurons write.

    Raises:
        HonesError: an edit changes no logit; the line names layer and site.
    """
    inputs = probe_inputs(vlm.model, vlm.processor)
    layers, _, neurons = vlm.anatomy.shape
    with collect(vlm.anatomy, LEAVING, _last_position) as leaving, collect(vlm.anatomy, Z, _last_position) as z:
        base = forward_logits(vlm.model, inputs, 1, vlm.name)
    checks = []
    for layer in range(layers):
        edits = {
            "o_proj": replace_heads(vlm.model, [(layer, 0)]),
            "down_proj": mask_neurons(vlm.model, [(layer, i) for i in range(neurons)]),
        }
        change = {}
        without = {}
        for site, edit in edits.items():
            with edit, collect(vlm.anatomy, LEAVING, _last_position) as without[site]:
                edited = forward_logits(vlm.model, inputs, 1, vlm.name)
            change[site] = float((edited - base).abs().max() / base.std())
            if torch.equal(edited, base):
                raise HonesError(
                    f"{vlm.name}: an edit at {site} of layer {layer} changes no logit", expected="a change"
                )
        taken = leaving[layer] - without["down_proj"][layer]
        write_in, allowed, problem = _write_in(vlm, layer, taken, leaving, z)
        checks.append(SiteCheck(change["o_proj"], change["down_proj"], write_in, allowed, problem))
    return checks


def _last_position(x: Tensor) -> Tensor:
    return x[:, -1].float()


def _write_in(
    vlm: VLM, layer: int, taken: Tensor, leaving: dict[int, Tensor], z: dict[int, Tensor]
) -> tuple[float, float, str | None]:
    """Compare what masking all neurons took from the residual leaving a layer with what they are said to write."""
    modules = vlm.anatomy.layers[layer]
    try:
        check_weights(modules, f"layer {layer}")
    except HonesError as error:
        return float("nan"), float("nan"), str(error)
    expected = added(modules, z[layer]) - added(modules, torch.zeros_like(z[layer]))
    distance = float((taken - expected).norm() / expected.norm())
    precision = torch.finfo(vlm.model.dtype).eps
    allowed = float(ROUNDINGS * precision * (1 + leaving[layer].norm() / expected.norm()))
    problem = None
    if not distance <= allowed:  # NaN too
        writes = "is not what its neurons write"
        problem = f"what the FFN of layer {layer} adds to the residual {writes} (off by {distance:.2g})"
    return distance, allowed, problem
