"""LLaVA's conversations, a JSON list or JSON lines; OpenAI's form (`messages` of `role` and `content`, a text or parts)
as well.

    {"id", "image": "coco/x.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat?"},
                                                    {"from": "gpt", "value": "A cat."}, ...]}

The first question of a conversation is an item, its id the conversation's. Later ones may lean on what was said before
("and the other one?"), so they are not asked unless `?turns=all` says that they stand alone; then each is an item. How
many were not asked is remarked. Items of one id have #2, #3, ... after it from the second on. `<image>` is no part of a
question. A conversation without a picture is an item of text; one about several pictures is named.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, Unreadable, any_has, named
from hones.data.readers.table import objects_of
from hones.data.sources import Source
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError

PLACEHOLDER = "<image>"
_SAID = ("conversations", "messages")
_PICTURES = ("image", "image_url")  # among the parts of a turn
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant", "model")


class Llava(Reader):
    """What LLaVA and its kin are trained on."""

    name: ClassVar[str] = "llava"
    about: ClassVar[str] = 'LLaVA: [{"image", "conversations": [{"from", "value"}, ...]}, ...]'
    options: ClassVar[tuple[str, ...]] = ("turns",)

    def claims(self, content: Content, source: Source) -> bool:
        return any(any_has(_conversations(content), key) for key in _SAID)

    def read(self, content: Content, source: Source) -> Reading:
        turns = source.options.get("turns", "first")
        if turns not in ("first", "all"):
            raise HonesError(f"turns={turns} of {content.path}", expected="first or all")
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no conversations", expected=self.about)
        remarks: list[LeftOut] = []
        return Reading(_items(_conversations(content), turns == "all", remarks), remarks=remarks)


def _conversations(content: Content) -> list[Any]:
    """The rows; a file of one line is one conversation, though it holds nothing but lists."""
    value = content.value
    alone = isinstance(value, dict) and any(isinstance(value.get(key), list) for key in _SAID)
    return [value] if alone else objects_of(content) or []


def _items(rows: Sequence[Any], every: bool, remarks: list[LeftOut]) -> Iterator[Row]:
    """The first question of every conversation, or all."""
    times: Counter[str] = Counter()
    for name, row in named(rows, "id"):
        if isinstance(row, LeftOut):
            yield row
            continue
        try:
            picture = _picture(row)
            asked = _turns(row)
        except Unreadable as error:
            yield LeftOut(name, str(error), UNREADABLE)
            continue
        if len(asked) > 1 and not every:
            remarks.append(
                LeftOut(name, f"{len(asked) - 1} further, ?turns=all asks them", "later questions not asked")
            )
        for question, answer in asked if every else asked[:1]:
            times[name] += 1
            called = name if times[name] == 1 else f"{name}#{times[name]}"
            vqa = {"question": question, "answer": answer, "all_answers": [answer]}
            about = {} if picture is None else {"image_id": picture, "image_info": {"file_name": picture}}
            yield {"item_id": called, **about, "vqa": vqa}


def _picture(row: Any) -> str | None:
    """The one picture of a conversation; None where it has none."""
    if not isinstance(row, dict):
        raise Unreadable("no object")
    if "video" in row:
        raise Unreadable("it is about a video")
    given = next((row[key] for key in ("image", "images") if row.get(key)), None)
    pictures = given if isinstance(given, list) else [] if given is None else [given]
    if not pictures:
        pictures = [shown for turn in _said(row) for shown in _shown_in(turn)]
    if not all(isinstance(picture, str) for picture in pictures):
        raise Unreadable("its picture is no file name")
    if len(pictures) > 1:
        raise Unreadable(f"it is about {len(pictures)} pictures")
    return pictures[0] if pictures else None


def _said(row: dict[str, Any]) -> list[dict[str, Any]]:
    said = next((row[key] for key in _SAID if key in row), None)
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise Unreadable("no conversations")
    return said


def _shown_in(turn: dict[str, Any]) -> list[Any]:
    """The pictures among the parts of a turn; a part that only marks the place of one (`{"type": "image"}`) is none."""
    parts = turn.get("content")
    pictures = [part for part in parts if _kind(part) in _PICTURES] if isinstance(parts, list) else []
    named = [next((part[key] for key in (*_PICTURES, "path", "url") if part.get(key)), None) for part in pictures]
    return [name.get("url") if isinstance(name, dict) else name for name in named if name is not None]


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def _text(turn: dict[str, Any]) -> str:
    """What is said in a turn, in one text or in parts of texts and pictures.

    Raises:
        Unreadable: it is no text.
    """
    text = turn.get("value", turn.get("content"))
    if isinstance(text, list) and text and all(_kind(part) in ("text", *_PICTURES) for part in text):
        text = "\n".join(str(part.get("text", "")) for part in text if _kind(part) == "text")
    if not isinstance(text, str):
        raise Unreadable("a turn is no text")
    return text


def _turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The questions of a conversation with their answers.

    Raises:
        Unreadable: it has none, something is said by somebody else, or it is not said in texts.
    """
    turns = [(turn.get("from", turn.get("role")), _text(turn)) for turn in _said(row)]
    if turns and turns[0][0] == "system":
        raise Unreadable("it begins with a system prompt, which would not be asked")
    pairs = [*zip(turns[::2], turns[1::2], strict=False)]
    if not pairs or len(turns) % 2 or not all(a in _ASKS and b in _ANSWERS for (a, _), (b, _) in pairs):
        raise Unreadable("its turns are not question and answer by turns")
    return [(question.replace(PLACEHOLDER, "").strip(), answer.strip()) for (_, question), (_, answer) in pairs]
