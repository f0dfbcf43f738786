"""Text and numbers as a page shows them. Whatever a model, a data file or a file name says is only ever text."""

import math
import re
import unicodedata
import zlib
from collections.abc import Sequence

from hones.stats import Interval

SHORT = 160
_METRICS = {"vqa_soft_accuracy": "VQA soft accuracy", "anls": "ANLS", "bleu4": "BLEU-4", "ndcg@5": "NDCG@5"}
_WHITE = {" ": "␣", "▁": "␣", "Ġ": "␣", "\n": "↵", "Ċ": "↵", "\t": "⇥", "ĉ": "⇥", "\r": "↵"}
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")
_NUMBERED = re.compile(r"\ufffd+#(\d+)")


def clean(text: str) -> str:
    """Text that HTML, XML and UTF-8 can hold: control and direction-changing characters are made visible."""
    return "".join(_visible(c) for c in text)


def _visible(character: str) -> str:
    code = ord(character)
    kind = unicodedata.category(character)
    if character in "\n\t" or kind not in ("Cc", "Cs", "Cf", "Cn"):
        return character
    if kind == "Cf" and unicodedata.bidirectional(character) in ("BN", "ON", "L", "R", "AL"):
        return character  # joiners of emoji and scripts
    if code < 0x20:
        return chr(0x2400 + code)
    return "�" if kind in ("Cs", "Cn") else f"⟨U+{code:04X}⟩"


def one_line(text: str, length: int = SHORT) -> str:
    """Clean text on one line, cut to `length`."""
    line = " ".join(clean(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def token_text(text: str, length: int = 24) -> str:
    """A token with its spaces visible; one that is part of a character by its bytes, or else by its number."""
    if numbered := _NUMBERED.fullmatch(text):
        return f"byte #{numbered[1]}"
    if _BYTES.fullmatch(text):
        content = bytes.fromhex(text.replace("<0x", "").replace(">", ""))
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return one_line(f"byte {content.hex(' ').upper()}", length)
    return one_line("".join(_WHITE.get(c, c) for c in text) or "∅", length)


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of decimals with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def with_interval(interval: Interval, digits: int = 3, *, change: bool = False) -> str:
    """0.740 [0.620, 0.850]; the value alone where the interval is not known; words where it has no width.

    Args:
        change: whether it is a difference, and not a level that can be at a floor or a ceiling.
    """
    value = number(interval.value, digits)
    if math.isnan(interval.low) or math.isnan(interval.high):
        return value
    if interval.low == interval.high == interval.value:
        return f"{value} {interval.bounds('+.3f' if change else '.3f')}"
    return f"{value} [{number(interval.low, digits)}, {number(interval.high, digits)}]"


def with_change(interval: Interval, digits: int = 3) -> str:
    """0.040 [−0.010, 0.090], of a difference; [no change] where no item's score differs."""
    return with_interval(interval, digits, change=True)


def includes_zero(interval: Interval) -> bool:
    """Whether the interval includes zero; one that is not known does."""
    return not (interval.low > 0 or interval.high < 0)


def metric(name: str) -> str:
    """A metric's name as papers write it."""
    return _METRICS.get(name, clean(name))


def group_name(tasks: Sequence[str]) -> str:
    """vqa + ocr."""
    return " + ".join(map(clean, tasks)) or "none"


def count(n: int, noun: str) -> str:
    """1 head, 2 heads, 1,024 heads."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def slug(name: str) -> str:
    """A name for ids and files: unchanged where it is plain, else with a checksum that keeps names apart."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    return plain if plain == name else f"{plain[:40]}-{zlib.crc32(name.encode(errors='replace')):08x}"


def neuron_mark(layer: int, neuron: int, expert: int | None) -> str:
    """A neuron's name where there is little room."""
    return f"L{layer} N{neuron}" if expert is None else f"L{layer} E{expert} N{neuron}"


def neuron_words(layer: int, neuron: int, expert: int | None) -> str:
    """A neuron's name."""
    return f"layer {layer}, neuron {neuron}" if expert is None else f"layer {layer}, expert {expert}, neuron {neuron}"
