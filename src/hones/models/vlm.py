"""A vision-language model as the method uses it: encode pictures and prompts, generate greedily, read logits.

Prompts of a batch are padded on the left, so that the last position is the one that predicts the first answer token.
A text-only model is one without pictures.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import BadItem, HonesError
from hones.models.anatomy import Anatomy
from hones.models.answer_tokens import AnswerTokens
from hones.models.capture import before
from hones.models.conventions import Conventions
from hones.models.greedy import Finite, bare_generation_config
from hones.models.head import PLAIN_HEAD, AfterHead, check_finite, forward_logits
from hones.models.prompting import encode, input_device
from hones.models.stopping import default_stop, text_of
from hones.tasks.base import BarePrompt, Example, Task

MERGES = "the tokenizer merges the template's end with its answer"
TYPES_OF_TEXT = {"paligemma": 1}  # what a family's token_type_ids are for answers; 0 elsewhere


@dataclass(frozen=True)
class Encoded:
    """Model inputs of B prompts, and for teacher forcing which positions hold answer tokens."""

    inputs: dict[str, Tensor]
    answer: Bool[Tensor, "batch positions"] | None = None


@dataclass(repr=False)
class VLM:
    """A loaded model with its processor and anatomy. Build it with `load_vlm` or `attach`.

    name: as given by the user. revision: commit of the hub, or a digest of the local files. image_backend: "pil", or
    "torchvision" where the family has no image processor for PIL or an attached one is not, or "none" for text only.
    conventions: what its files say of how it is asked and when it has answered.
    no_write_in: why it is not known what a neuron writes, None where it was measured at loading.
    after_head: what makes the model's logits of its lm_head's.
    """

    name: str
    model: PreTrainedModel
    processor: ProcessorMixin
    anatomy: Anatomy
    revision: str
    image_backend: str
    answer_tokens: AnswerTokens
    conventions: Conventions
    no_write_in: str | None = None
    after_head: AfterHead = PLAIN_HEAD

    def __repr__(self) -> str:
        """What it is, its shapes, and how it answers."""
        layers, heads, neurons = self.anatomy.shape
        none = f" ({len(self.anatomy.headless)} layers have none)" if self.anatomy.headless else ""
        ids = self.answer_tokens.ids
        yes_no = "no tokens for Yes and No" if ids is None else f"Yes is token {ids[0]}, No {ids[1]}"
        pictures = f"pictures prepared by {self.image_backend}" if self.shows_pictures else "text only"
        written = "what neurons write is known" if self.no_write_in is None else "what neurons write is not known"
        return (
            f"VLM {self.name} ({type(self.model).__name__}), revision {self.revision}, {self.dtype} on {self.device}\n"
            f"  {layers} layers x {heads} heads{none}, {neurons} neurons in each layer, width {self.anatomy.width}\n"
            f"  {pictures}; {yes_no}; {written}"
        )

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def shows_pictures(self) -> bool:
        """Whether the model takes pictures; a text-only model does not."""
        return self.image_backend != "none"

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the input embeddings."""
        return input_device(self.model)

    @property
    def attention(self) -> str:
        """The attention implementation of transformers in use."""
        return str(self.model.config.get_text_config()._attn_implementation)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def eos_ids(self) -> list[int]:
        """Every id that ends an answer, the one that belongs to it first; none where the model has none."""
        return [token.id for token in self.conventions.ends]

    def check_write_in(self) -> None:
        """Raises HonesError unless what a neuron writes into the residual is known."""
        if self.no_write_in is not None:
            raise HonesError(f"{self.name}: {self.no_write_in}", do="head scores and masking work, write-in does not")

    def wrap(self, prompt: str, picture: bool | None = None) -> str:
        """The prompt inside the model's template.

        Args:
            picture: with one placeholder for the picture; None: if the model takes pictures and the prompt is not bare.
        """
        if picture is None:
            picture = self.shows_pictures and not isinstance(prompt, BarePrompt)
        return self.conventions.template.wrap(self.processor, prompt, picture)

    def followed(self, prompt: str, answer: str, picture: bool | None = None) -> str:
        """The wrapped prompt with an answer behind it, as the model itself would go on."""
        lead = prompt.lead if isinstance(prompt, BarePrompt) else self.answer_tokens.lead
        return f"{self.wrap(prompt, picture)}{lead if answer else ''}{answer}"

    def encode(self, pictures: Sequence[Image.Image | None], prompts: Sequence[str]) -> Encoded:
        """Inputs of B (picture, prompt) pairs, padded on the left; all with a picture, or all without (None)."""
        wrapped = [self.wrap(text, picture is not None) for picture, text in zip(pictures, prompts, strict=True)]
        return Encoded(encode(self.model, self.processor, pictures, wrapped))

    def encode_with_answers(
        self, pictures: Sequence[Image.Image | None], prompts: Sequence[str], answers: Sequence[str], ended: bool = True
    ) -> Encoded:
        """Inputs of prompts followed by their answers and, if `ended`, the end token; `answer` marks these tokens."""
        end = self.conventions.end.text if ended and self.conventions.end is not None else ""
        texts = [
            self.followed(prompt, answer, picture is not None) + (end if ends_answer(prompt) else "")
            for picture, prompt, answer in zip(pictures, prompts, answers, strict=True)
        ]
        asked = [self.wrap(text, picture is not None) for picture, text in zip(pictures, prompts, strict=True)]
        inputs = encode(self.model, self.processor, pictures, texts, asked)
        marks = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            own = self.gold_ids(prompt, answer) if ended else self.answer_ids(prompt, answer)
            marks[row, marks.shape[1] - len(own) :] = True
        if "token_type_ids" in inputs:
            types = inputs["token_type_ids"]
            inputs["token_type_ids"] = types.masked_fill(marks, TYPES_OF_TEXT.get(self.model.config.model_type, 0))
        return Encoded(inputs, marks)

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """The answer's tokens as they follow the template, without specials (method: tokens of the target text).

        They follow the template's end, which is the same with and without a picture.

        Raises:
            BadItem: the tokenizer merges the answer's start with the template's end.
        """
        before = self.tokenizer(self.wrap(prompt))["input_ids"]
        after = self.tokenizer(self.followed(prompt, answer))["input_ids"]
        if after[: len(before)] != before:
            raise BadItem(f"the tokenizer merges the template's end with its answer {answer!r}", kind=MERGES)
        return after[len(before) :]

    def gold_ids(self, prompt: str, answer: str) -> list[int]:
        """`answer_ids` and the end token, where an answer to the prompt ends with it."""
        return [*self.answer_ids(prompt, answer), *(self.eos_ids[:1] if ends_answer(prompt) else ())]

    def log_probabilities(self, encoded: Encoded) -> Float[Tensor, " batch"]:
        """log p of each row's marked answer, in nats, at least in float32."""
        assert encoded.answer is not None
        marked = encoded.answer[:, 1:]
        logits = self.logits(encoded, keep=int(encoded.answer.sum(1).max()) + 1)[:, :-1]
        marked, labels = (x[:, -logits.shape[1] :] for x in (marked, encoded.inputs["input_ids"][:, 1:]))
        chosen = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        return (chosen * marked).sum(1)

    def generate(
        self, encoded: Encoded, max_new_tokens: int, stops: Iterable[Sequence[str]] | None = None
    ) -> list[str]:
        """Greedy answers, stripped of surrounding white space, one per row.

        Args:
            stops: the texts before which each row's answer ends (`stop_of`); None: only its end token ends it.

        Raises:
            HonesError: the logits are not finite.
        """
        rows = self.generate_ids(encoded, max_new_tokens)
        return [self.text_of(ids, stop) for ids, stop in zip(rows, stops or repeat(()), strict=False)]

    @torch.no_grad()
    def generate_ids(self, encoded: Encoded, max_new_tokens: int) -> list[list[int]]:
        """The tokens of greedy answers, one per row, each up to its end token.

        Raises:
            HonesError: the logits are not finite.
        """
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.eos_ids or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        with bare_generation_config(self.model):
            ids: Any = self.model.generate(  # pyright: ignore[reportCallIssue]
                **encoded.inputs, generation_config=settings, logits_processor=LogitsProcessorList([Finite(self.name)])
            )
        answers = ids[:, encoded.inputs["input_ids"].shape[1] :].tolist()
        ends = [next((k for k, token in enumerate(row) if token in self.eos_ids), len(row)) for row in answers]
        return [row[: end + 1] for row, end in zip(answers, ends, strict=True)]

    def stop_of(self, given: Sequence[str] | None, prompt: str) -> tuple[str, ...]:
        """The texts before which answers to a prompt end: those of the task, or by default the model's."""
        return default_stop(self.conventions.template, prompt) if given is None else tuple(given)

    def text_of(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The text of an answer's tokens before what it is ended by, stripped of surrounding white space."""
        ended = len(ids) > 0 and ids[-1] in self.eos_ids  # not every end token is a special one, which have no text
        return text_of(self.tokenizer, ids[:-1] if ended else ids, stop)

    @torch.no_grad()
    def yes_margins(self, encoded: Encoded) -> Float[Tensor, " batch"]:
        """logit(Yes) - logit(No) at the last prompt position.

        Computed in float32 from the final hidden state h as <h, U[Yes] - U[No]>: logits in bfloat16 would tie.
        """
        hidden: list[Tensor] = []
        with before(self.anatomy.lm_head, lambda h: hidden.append(h[:, -1])):
            self.logits(encoded, keep=1)
        return self.margins_of(hidden[0])

    def margins_of(self, hidden: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """<h, U[Yes] - U[No]> of final hidden states, at least in float32, before any scale or cap of the family.

        Where lm_head has a bias (Phi), the tokens' own are part of it.
        """
        h = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        ids = [*self.answer_tokens.both()]
        yes, no = self.anatomy.lm_head.weight[ids].to(h)
        if self.anatomy.lm_head.bias is None:
            return h @ (yes - no)
        of_yes, of_no = self.anatomy.lm_head.bias[ids].to(h)
        return h @ (yes - no) + (of_yes - of_no)

    def head(self, hidden: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions vocabulary"]:
        """The model's logits of final hidden states, on the lm_head's device."""
        weight = self.anatomy.lm_head.weight
        return self.after_head(self.anatomy.lm_head(hidden.to(weight.device)))

    def token_log_probabilities(
        self, hidden: Float[Tensor, "n width"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """log p of each label from final hidden states, in nats, at least in float32."""
        of_parts = []
        for part, wanted in zip(hidden.split(1024), labels.split(1024), strict=True):  # a row has the whole vocabulary
            logits = self.head(part)
            self.check_finite(logits)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            of_parts.append(logits.log_softmax(-1).gather(-1, wanted[:, None].to(logits.device))[:, 0])
        return torch.cat(of_parts).to(hidden.device)

    def check_finite(self, logits: Tensor) -> None:
        """Raises HonesError unless all logits are finite."""
        check_finite(logits, self.name)

    def logits(self, encoded: Encoded, keep: int = 0) -> Float[Tensor, "batch kept vocabulary"]:
        """Logits of the last `keep` positions (0: all), float32, or float64 where the model is.

        Raises:
            HonesError: they are not finite.
        """
        return forward_logits(self.model, encoded.inputs, keep, self.name)


def ends_answer(prompt: str) -> bool:
    """Whether a right answer to a prompt ends with the model's end token."""
    return not isinstance(prompt, BarePrompt) or prompt.ends


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """No gradients for the model's parameters; their flags are restored."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


def default_stop_of(vlm: VLM, task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """The texts before which a task's answers end although it says nothing of that; none where it does."""
    if task.answers != "text" or task.stop is not None:
        return ()
    return tuple(dict.fromkeys(text for example in examples for text in vlm.stop_of(None, example.prompts[0])))
