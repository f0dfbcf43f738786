"""A model's template: what is put around the user's text, and what is written behind an answer.

One that is given is used, else the model's own chat template, the processor's before the tokenizer's. Where it has
none, LLaVA-1.5 and PaliGemma (a base model) are asked in the words that they were trained with, and a text-only model
is given the prompt as it is, as every model is given a bare prompt. What is used is tried out when a model is loaded.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import BadItem, HonesError, seam
from hones.models.processors import TextProcessor, behind_a_prompt, leaves_as_written, picture_token, puts_in_front
from hones.models.wordings import BY_NAME, LLAVA, NONE, PALIGEMMA, WORDINGS, default_of, given_text
from hones.tasks.base import BarePrompt

OF_PROCESSOR = "the processor's chat template"
OF_TOKENIZER = "the tokenizer's chat template"
GIVEN = "the given chat template"

DATE = datetime(2024, 7, 26, tzinfo=UTC)
"""Stands for today in templates that write it, as in Llama 3's own where it does not know better."""

_TODAY = re.compile(r"strftime_now\(\s*(?:\"([^\"]*)\"|'([^']*)')\s*\)")
_THOUGHT = re.compile(r"(<[a-z_]*think[a-z_]*>|\[THINK\])\s*$", re.IGNORECASE)
_PROMPT = 'Is "it" red, or 7 stars?\nAnswer with a word or two.'
_ANSWER = "Cerulean"
_PLACEHOLDER = "placeholder for a picture"

Turn = tuple[str, str]  # (role, text)


@dataclass(frozen=True)
class Template:
    """What is put around a prompt.

    source: whose it is. text: Jinja; None for a wording of WORDINGS. parts: a message's content is a list of picture
    and text, not one text. remarks: what is worth knowing about it. given: the file or name by which a user has put it
    in the place of the model's own.
    """

    source: str
    text: str | None = None
    parts: bool = True
    remarks: tuple[str, ...] = ()
    given: str | None = None

    def __str__(self) -> str:
        """Whose it is, and how it was given."""
        return self.source if self.given is None else f"{self.source} (--chat-template {self.given})"

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat template of the model."""
        return self.text is not None

    def wrap(self, processor: ProcessorMixin, prompt: str, picture: bool) -> str:
        """The prompt as the model is given it.

        Args:
            picture: with the placeholder of one picture.

        Raises:
            BadItem: the prompt's own text holds the picture's placeholder, or the chat template refuses it.
            HonesError: the model takes no picture, or a bare prompt shows one.
        """
        if isinstance(prompt, BarePrompt) and picture:
            found = f"the bare prompt {prompt!r} with a picture"
            raise HonesError(found, expected="Example(image=None), as it shows none")
        if isinstance(processor, TextProcessor):
            if picture:
                raise HonesError("this is a text-only model", do="ask it a task without pictures")
        elif picture_token(processor) in prompt:
            raise BadItem(f"its text holds {picture_token(processor)}, the picture's placeholder")
        if isinstance(prompt, BarePrompt):
            return _without_start(processor, prompt)
        if self.text is not None:
            try:
                text = self._render(processor, [("user", prompt)], picture)
            except HonesError as error:  # it was tried at loading: something about this prompt
                raise BadItem(str(error), kind=f"{self.source} fails") from error
            return _ended(processor, _without_start(processor, text))
        if self.source == NONE:
            return _without_start(processor, prompt)
        mark = "" if not picture else picture_token(processor) + ("\n" if self.source == LLAVA else "")
        return WORDINGS[self.source].format(image=mark, start=_tokenizer(processor).bos_token, prompt=prompt)

    def behind_an_answer(self, processor: ProcessorMixin, picture: bool) -> str:
        """What is written behind an assistant's answer that ends a conversation; empty where nothing is."""
        if self.text is None:
            return ""
        turns = [("user", _PROMPT), ("assistant", _ANSWER)]
        try:
            whole = self._render(processor, turns, picture, asks=False)
        except HonesError:  # it was not made for that, which says nothing of its end
            return ""
        return whole.rpartition(_ANSWER)[2].strip() if _ANSWER in whole else ""

    def always_asks(self, processor: ProcessorMixin, picture: bool) -> bool:
        """Whether a conversation is followed by the beginning of an answer even where that is not wanted."""
        asked, ended = (self._render(processor, [("user", _PROMPT)], picture, asks) for asks in (True, False))
        return asked == ended

    def _render(self, processor: ProcessorMixin, turns: Sequence[Turn], picture: bool, asks: bool = True) -> str:
        """A conversation, the picture in its first turn. asks: followed by the beginning of an answer."""
        said: list[dict[str, Any]] = []
        for number, (role, text) in enumerate(turns):
            shown = picture and number == 0
            content: Any = f"{_mark(processor)}\n{text}" if shown else text
            if self.parts:
                content = [*([{"type": "image"}] if shown else []), {"type": "text", "text": text}]
            said.append({"role": role, "content": content})
        options: dict[str, Any] = {"chat_template": self.text, "tokenize": False, "add_generation_prompt": asks}
        with seam(f"render {self.source}"):
            if isinstance(processor, TextProcessor) or not self.parts:
                return _tokenizer(processor).apply_chat_template(said, **options)
            apply: Any = ProcessorMixin.apply_chat_template  # families override it for the sake of videos
            return apply(processor, said, **options)

    def problem(self, processor: ProcessorMixin, picture: bool) -> str | None:
        """Why it cannot be used, found by trying it; None where it can."""
        try:
            alone = self._render(processor, [("user", _PROMPT)], False)
            shown = self._render(processor, [("user", _PROMPT)], True) if picture else alone
        except HonesError as error:
            return f"fails: {error}"
        if _PROMPT not in alone or _PROMPT not in shown:
            return "does not write the prompt's text as it is"
        if picture and shown == alone and not puts_in_front(processor):
            return f"writes no {_PLACEHOLDER}"
        if picture and shown.count(picture_token(processor)) > 1 and not leaves_as_written(processor, shown):
            return f"writes more than one {_PLACEHOLDER}"
        return None


def find_template(name: str, model: PreTrainedModel, processor: ProcessorMixin, given: str | None = None) -> Template:
    """The template of a model.

    Args:
        name: of the model, for errors. given: in place of its own: a file with a Jinja template, or a wording's name.

    Raises:
        HonesError: it has none and needs one, or what is given or its own cannot be used; the line says why.
    """
    picture = not isinstance(processor, TextProcessor)
    is_llava = model.config.model_type == "llava" and type(processor).__name__ == "LlavaProcessor"
    if given in BY_NAME:
        if picture and not is_llava:
            raise HonesError(
                f"{name}: --chat-template {given} is for models of type llava, this is {model.config.model_type}",
                expected="a file with a template that writes this model's own marks around a picture",
                do="or leave it out (`chat_template: null`) for the model's own",
            )
        return Template(BY_NAME[given], given=given)
    own = {GIVEN: given_text(given) or ""} if given is not None else _own(name, processor)
    if not own:
        if not picture:
            return Template(NONE)
        if is_llava:
            return Template(LLAVA)
        if model.config.model_type == "paligemma":
            return Template(PALIGEMMA)
        kind = type(processor).__name__
        raise HonesError(f"{kind} has no chat template", do="use the instruction-tuned checkpoint, or --chat-template")
    source, text = next(iter(own.items()))
    text = text.removeprefix("\ufeff")  # a byte order mark is no part of a prompt
    fixed = _TODAY.sub(lambda found: repr(DATE.strftime(found[1] or found[2] or "")), text)
    remarks = [] if fixed == text else [f"{source} writes the date: {DATE:%d %b %Y} stands for every day"]
    if "strftime_now(" in fixed:
        remarks.append(f"{source} writes the date, in a way that cannot be fixed: prompts change from day to day")
    if model.config.model_type == "llava" and given is None:
        remarks.append(f"prompts are wrapped by {source}, not in {LLAVA}: --chat-template llava-1.5 asks in that")
    template = Template(source, fixed, parts=picture, remarks=tuple(remarks), given=given)
    if (problem := template.problem(processor, picture)) is not None:
        template = replace(template, parts=not picture)  # a text model's template in a VLM, or the other way
        if _PLACEHOLDER in problem or template.problem(processor, picture) is not None:
            raise HonesError(
                f"{name}: {template} {problem}",
                expected=f"the user's text{' behind one placeholder for a picture' if picture else ''}",
                do="mend it, or give another with --chat-template (chat_template in Python and in YAML)",
            )
    opened = _THOUGHT.search(template.wrap(processor, _PROMPT, picture))
    if opened is not None:
        said = (
            f"{source} opens {opened[1]}, inside of which answers begin: give one that closes it with --chat-template"
        )
        template = replace(template, remarks=(*template.remarks, said))
    return template


def differing(template: Template, processor: ProcessorMixin) -> bool:
    """Whether the tokenizer has another chat template than the processor's, which asks the same text otherwise."""
    other = default_of(getattr(_tokenizer(processor), "chat_template", None))
    if template.source != OF_PROCESSOR or isinstance(processor, TextProcessor) or not other:
        return False
    found = set()
    for parts in (True, False):
        with suppress(BadItem):  # made for the other form of content, or a template that is not used anyway
            found.add(_words(Template(OF_TOKENIZER, other, parts).wrap(processor, _PROMPT, False)))
    return bool(found) and _words(template.wrap(processor, _PROMPT, False)) not in found


def _words(text: str) -> str:
    """Without differences in white space."""
    return " ".join(text.split())


def _own(name: str, processor: ProcessorMixin) -> dict[str, str]:
    """The model's own chat templates by their source, the first wins."""
    found = {OF_TOKENIZER: getattr(_tokenizer(processor), "chat_template", None)}
    if not isinstance(processor, TextProcessor):
        found = {OF_PROCESSOR: getattr(processor, "chat_template", None), **found}
    for source, given in found.items():
        if given and default_of(given) is None:
            named = ", ".join(map(str, given)) if isinstance(given, dict) else f"a {type(given).__name__}"
            raise HonesError(
                f"{name}: {source} is {named}",
                expected="one text, or several by name with one named default",
                do="give one with --chat-template (chat_template in Python and in YAML)",
            )
    return {source: text for source, given in found.items() if (text := default_of(given))}


def _tokenizer(processor: ProcessorMixin) -> Any:
    return processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def _mark(processor: ProcessorMixin) -> str:
    """What a template writes for a picture: in some families another token, which the processor replaces."""
    return getattr(processor, "boi_token", None) or picture_token(processor)


def _ended(processor: ProcessorMixin, text: str) -> str:
    """The text with what the processor would write behind it, unless the template does."""
    end = "" if isinstance(processor, TextProcessor) else behind_a_prompt(processor)
    return text if text.endswith(end) else text + end


def _without_start(processor: ProcessorMixin, text: str) -> str:
    """The text without the start token that its template writes, where the tokenizer puts one before every text."""
    tokenizer = _tokenizer(processor)
    start = tokenizer.bos_token
    if not start or not text.startswith(start):
        return text
    return text.removeprefix(start) if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else text
