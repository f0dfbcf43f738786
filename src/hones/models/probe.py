"""What is measured when a model is attached, on two built-in pictures: its Yes and No, and that edits take effect."""

import random

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.data.shapes import captions, describe, draw, make_scene
from hones.errors import HonesError
from hones.interventions import mask_neurons, replace_heads
from hones.models.vlm import VLM, AnswerTokens, encode, forward_logits, wrap
from hones.tasks.retrieval import PROMPT

_LEADS = {"": "", "Ġ": " ", "▁": " "}  # how byte-level and sentencepiece vocabularies write a token's leading space


def _probe(model: PreTrainedModel, processor: ProcessorMixin) -> dict[str, Tensor]:
    """Inputs of four prompts: two pictures, each with its own and with the other's caption."""
    scenes = [make_scene(f"probe/{i}") for i in range(2)]
    texts = [captions(describe(scene, random.Random(0)))[0] for scene in scenes]
    pairs = [(scene, text) for scene in scenes for text in texts]
    prompts = [wrap(model, processor, PROMPT.format(candidate=text)) for _, text in pairs]
    return encode(model, processor, [draw(scene) for scene, _ in pairs], prompts)


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
    probabilities = forward_logits(model, _probe(model, processor), 1, name)[:, -1].softmax(-1).mean(0)
    pairs = []
    for mark, lead in _LEADS.items():
        yes, no = vocabulary.get(f"{mark}Yes"), vocabulary.get(f"{mark}No")
        if yes is not None and no is not None:
            pairs.append(AnswerTokens(yes, no, lead, float(probabilities[yes] + probabilities[no])))
    if not pairs:
        raise HonesError(f"{name}: its vocabulary has no single tokens for Yes and No", expected="both as one token")
    best = max(pairs, key=lambda pair: pair.mass)
    if best.yes == best.no:
        raise HonesError(f"{name}: Yes and No are the same token, id {best.yes}", expected="two different tokens")
    return best


@torch.no_grad()
def check_edits(vlm: VLM) -> None:
    """Edit one head and all neurons of each layer and demand that the logits change.

    Raises:
        HonesError: an edit changes nothing; the line names layer and site.
    """
    inputs = _probe(vlm.model, vlm.processor)
    base = forward_logits(vlm.model, inputs, 1, vlm.name)
    layers, _, neurons = vlm.anatomy.shape
    for layer in range(layers):
        edits = {
            "o_proj": replace_heads(vlm.model, [(layer, 0)]),
            "down_proj": mask_neurons(vlm.model, [(layer, i) for i in range(neurons)]),
        }
        for site, edit in edits.items():
            with edit:
                edited = forward_logits(vlm.model, inputs, 1, vlm.name)
            if torch.equal(edited, base):
                raise HonesError(
                    f"{vlm.name}: an edit at {site} of layer {layer} changes no logit", expected="a change"
                )
