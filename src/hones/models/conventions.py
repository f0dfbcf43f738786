"""What a model's files say of how it is asked and when it has answered: template, end tokens, padding.

End tokens are named in four places: what the chat template writes behind an answer, the tokenizer's end token,
generation_config (the file of that name, or config.json where there is none) and config.json. An answer ends at any of
them. One belongs to an answer, has a probability and is learned: the one that the template writes, else the
tokenizer's, else the first that the configurations name. What generation_config says beyond that (sampling, penalties,
lengths) is not used: answers are greedy.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import HonesWarning
from hones.log import LOG, remark
from hones.models.processors import TextProcessor
from hones.models.template import OF_PROCESSOR, OF_TOKENIZER, Template, differing, find_template

GENERATION = "generation_config"
TOKENIZER = "the tokenizer"
CONFIG = "config.json"

_OF_NO_MATTER = (
    *("_", "output_", "return_", "use_cache", "cache_", "transformers_version", "compile_config"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
)
"""With what the names of those settings of generation begin that change no answer, or are used."""
_MARKS = ("<", "[")
"""What a text begins with that is meant as one token, not as words."""


@dataclass(frozen=True)
class Token:
    """A token: its id and its text."""

    id: int
    text: str

    def __str__(self) -> str:
        return f"{self.text!r} (id {self.id})"


@dataclass(frozen=True)
class Conventions:
    """How a model is asked, and when it has answered.

    prompt: how it is given a prompt that reads {prompt}. ends: the tokens that end an answer; the first is the one
    that belongs to it, and there may be none. named: the ids that each source names. padding: and where it is from.
    unused: settings of generation that are not used. disagree: a line for each two sources that do. remarks: what else
    is worth knowing.
    """

    template: Template
    prompt: str
    ends: tuple[Token, ...]
    named: Mapping[str, tuple[int, ...]]
    padding: Token
    padding_from: str
    unused: Mapping[str, Any] = field(default_factory=dict)
    disagree: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def end(self) -> Token | None:
        """The token that belongs to an answer."""
        return self.ends[0] if self.ends else None

    def decides(self) -> dict[str, Any]:
        """What a model's answers depend on beside its files: these must be the same where a run goes on."""
        return {"template": self.prompt, "end_tokens": [token.id for token in self.ends]}

    def record(self) -> dict[str, Any]:
        """All of it, for run.json."""
        of_token = {t.id: [source for source, ids in self.named.items() if t.id in ids] for t in self.ends}
        return {
            "template": str(self.template),
            "prompt": self.prompt,
            "end_tokens": [{"id": t.id, "text": t.text, "from": of_token[t.id]} for t in self.ends],
            "padding": {"id": self.padding.id, "text": self.padding.text, "from": self.padding_from},
            "generation_settings_not_used": {key: _plain(value) for key, value in self.unused.items()},
            "remarks": [*self.disagree, *self.remarks],
        }

    def say(self, name: str) -> None:
        """Warn where sources disagree; the rest is remarked. name: of the model."""
        for line in self.disagree:
            LOG.warning("%s: %s", name, line)
            warnings.warn(f"{name}: {line}", HonesWarning, stacklevel=3)
        for line in self.remarks:
            remark(f"{name}: {line}")


def find_conventions(
    name: str, model: PreTrainedModel, processor: ProcessorMixin, chat_template: str | None = None
) -> Conventions:
    """What a model uses. Its tokenizer pads on the left from here on, with a token that the model has.

    Args:
        name: of the model. chat_template: given in place of its own, as `find_template` takes it.

    Raises:
        HonesError: as `find_template`.
    """
    template = find_template(name, model, processor, chat_template)
    shown = not isinstance(processor, TextProcessor)
    tokenizer: Any = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    disagree = []
    if differing(template, processor):
        disagree.append(f"{OF_PROCESSOR} and {OF_TOKENIZER} ask the same text in other words; the processor's is used")
    named, unknown = _named(model, processor, template, shown)
    disagree += unknown
    told = [source for source in (template.source, TOKENIZER) if named.get(source)]
    ends = dict.fromkeys(id for source in (template.source, TOKENIZER, GENERATION, CONFIG) for id in named[source])
    tokens = tuple(Token(id, tokenizer.decode([id])) for id in ends)
    if told and named[GENERATION] and tokens[0].id not in named[GENERATION]:
        generation = _joined(token for token in tokens if token.id in named[GENERATION])
        others = " and ".join(source for source in told if tokens[0].id in named[source])
        disagree.append(
            f"{GENERATION} ends an answer at {generation}, {others} at {tokens[0]}: answers end at any of them, and "
            f"{tokens[0]} is the one that belongs to an answer"
        )
    if not tokens:
        disagree.append("no end token is named anywhere: every answer goes on to the longest length that is allowed")
    unused = _unused(model)
    remarks = [*template.remarks]
    if unused:
        settings = ", ".join(f"{key} {_plain(value)}" for key, value in unused.items())
        remarks.append(f"of {GENERATION}, {settings}: not used, answers are greedy and end at --max-new-tokens")
    padding, padding_from = _pad(model, processor, tokens)
    pad_with(processor, padding)
    prompt = template.wrap(processor, "{prompt}", shown)
    return Conventions(template, prompt, tokens, named, padding, padding_from, unused, tuple(disagree), tuple(remarks))


def _named(
    model: PreTrainedModel, processor: ProcessorMixin, template: Template, shown: bool
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The end tokens that each source names and the model has, and a line for each that it has not."""
    tokenizer: Any = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    special = {*tokenizer.all_special_ids}
    configs = (model.config, model.config.get_text_config())
    # a configuration class names an end token of its own where the file names none: an ordinary word of another model
    of_config = [id for config in configs for id in _ids(getattr(config, "eos_token_id", None)) if id in special]
    of_generation = _ids(getattr(model.generation_config, "eos_token_id", None))
    behind = template.behind_an_answer(processor, shown)
    of_others = {*of_generation, *of_config, *_ids(tokenizer.eos_token_id)}
    of_template = _first_end(tokenizer, behind, of_others)
    if of_template and of_template[0] not in of_others and template.always_asks(processor, shown):
        # what follows an answer may be the beginning of the next: a mark with nothing behind it
        mark = tokenizer.decode(of_template)
        of_template = of_template if behind.partition(mark)[2].strip() else []
    found = {
        template.source: of_template,
        TOKENIZER: _ids(tokenizer.eos_token_id),
        GENERATION: of_generation,
        CONFIG: of_config,
    }
    size = _rows(model.get_output_embeddings(), model)
    lines = [
        f"{source} names the end token {id}, the model has {size} tokens: it is left out"
        for source, ids in found.items()
        for id in ids
        if not 0 <= id < size
    ]
    for source, settings in ((GENERATION, model.generation_config), (CONFIG, model.config)):
        given = getattr(settings, "eos_token_id", None)
        others = [given] if given == [] else [x for x in _several(given) if x is not None and not _ids(x)]
        lines += [f"{source} names the end token {other!r}, which is no id: it is left out" for other in others]
    if behind.startswith(_MARKS) and not of_template:
        lines.append(f"{template.source} ends an answer with {behind!r}, which is no token of the vocabulary")
    kept = {source: tuple(dict.fromkeys(id for id in ids if 0 <= id < size)) for source, ids in found.items()}
    return kept, lines


def _first_end(tokenizer: Any, behind: str, named: set[int]) -> list[int]:
    """The first token behind an answer that is a mark of the vocabulary; none where text alone follows."""
    if not behind:
        return []
    marks = named | {*tokenizer.all_special_ids} | {*getattr(tokenizer, "added_tokens_decoder", {})}
    found = [id for id in tokenizer(behind, add_special_tokens=False)["input_ids"] if id in marks]
    if not found and behind.startswith(_MARKS):  # an ordinary entry of the vocabulary, as long as it is one
        found = _ids(tokenizer.get_vocab().get(behind.split()[0]))
    return found[:1]


def _ids(given: Any) -> list[int]:
    """One id, several, or none."""
    return [id for id in _several(given) if isinstance(id, int) and not isinstance(id, bool)]


def _several(given: Any) -> Sequence[Any]:
    """What is given, as several."""
    return given if isinstance(given, list | tuple) else [given]


def _rows(embeddings: Any, model: PreTrainedModel) -> int:
    """How many tokens embeddings have."""
    weight = getattr(embeddings, "weight", None)
    return int(model.config.get_text_config().vocab_size if weight is None else weight.shape[0])


def _pad(model: PreTrainedModel, processor: Any, ends: tuple[Token, ...]) -> tuple[Token, str]:
    """The padding token; where the model has none any will do, as what is padding is told by the mask.

    Any but those that stand for pictures: processors and models count them, masked or not.
    """
    tokenizer = processor.tokenizer
    size = _rows(model.get_input_embeddings(), model)
    counted = {getattr(processor, f"{kind}_token_id", None) for kind in ("image", "video", "audio")}
    usable = {*range(size)} - counted
    own = tokenizer.pad_token_id
    if own in usable:
        return Token(own, tokenizer.pad_token), TOKENIZER
    others = {
        "the end token": [token.id for token in ends],
        "the unknown token": _ids(tokenizer.unk_token_id),
        "the start token": _ids(tokenizer.bos_token_id),
        "the first token of the vocabulary": [min(usable)],
    }
    source, id = next((source, id) for source, ids in others.items() for id in ids if id in usable)
    return Token(id, tokenizer.convert_ids_to_tokens(id)), source


def pad_with(processor: ProcessorMixin, token: Token) -> None:
    """Let a tokenizer pad on the left, with this token."""
    tokenizer: Any = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id != token.id:
        tokenizer.pad_token = token.text


def _unused(model: PreTrainedModel) -> dict[str, Any]:
    """The settings of generation that would make other answers."""
    if model.generation_config is None:
        return {}
    given = model.generation_config.to_diff_dict()
    return {key: value for key, value in sorted(given.items()) if not key.startswith(_OF_NO_MATTER)}


def _plain(value: Any) -> Any:
    """A setting as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _joined(tokens: Iterable[Token]) -> str:
    return ", ".join(map(str, tokens))
