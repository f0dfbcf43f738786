"""What a text is compared as, and what is read out of an answer: words in it, the letter of a choice, a number.

Texts are compared in Unicode's composed form (NFC), so that a letter and its accent are one, however they were typed.
Nothing else is made equal: a ligature is not its letters, a full-width digit is not a narrow one (that would be NFKC).
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from unicodedata import category, normalize

_REMEMBERED = 2**17  # a sweep scores the same references once per intervention

# --- words -----------------------------------------------------------------------------------------------------------

# Chinese, Japanese, Thai and their like put no space between words, Korean none before its particles
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SIGNS = "+-\N{MINUS SIGN}"
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_CANNOT = re.compile(rf"[{_APOSTROPHES}]t\b")
_CONTRACTED = re.compile(r"(?:s|t|d|m|ll|re|ve)\b")


@lru_cache(_REMEMBERED)
def plain(text: str) -> str:
    """The text without outer space, in lower case and composed: what a plain comparison compares."""
    return normalize("NFC", normalize("NFC", text).strip().lower())


def begins_with(answer: str, reference: str) -> bool:
    """Whether the first words of an answer are those of a reference; an empty reference never is."""
    return next(_places(answer, reference), -1) == 0


def holds(answer: str, reference: str) -> bool:
    """Whether the words of a reference stand in the answer, one after the other; an empty reference never does."""
    return any(True for _ in _places(answer, reference))


def _places(answer: str, reference: str) -> Iterator[int]:
    """Where a reference begins in an answer, as whole words; case and the width of spaces are ignored."""
    text = " ".join(plain(answer).split())
    words = " ".join(plain(reference).split())
    start = text.find(words) if words else -1
    while start >= 0:
        if not _runs_on(text, start - 1) and not _runs_on(text, start + len(words) - 1):
            yield start
        start = text.find(words, start + 1)


def _runs_on(text: str, last: int) -> bool:
    """Whether the word or number that has the character `last` goes on after it.

    5 goes on in 15, 5.5, -5 and 1,5; C in C++ and C#; can in can't; 5 ends in 5-7, rock in rock-paper, Paris in Paris's
    and begins Italie in l'Italie.
    """
    if not 0 <= last < len(text) - 1:
        return False
    left, right = text[last], text[last + 1]
    before = text[last - 1] if last else " "
    after = text[last + 2] if last + 2 < len(text) else " "
    if _in_word(left) and _in_word(right):
        return not (_UNSPACED.match(left) or _UNSPACED.match(right))
    if right.isdigit() and left in f"{_SIGNS}.":  # a sign or a decimal point, unless something stands before it
        return not _in_word(before) or (left == "." and before.isdigit())
    if right.isdigit() and left == ",":
        return before.isdigit()
    if left.isdigit() and right in ".,":
        return after.isdigit()
    if _in_word(left) and right in _APOSTROPHES:  # a negation, or one letter that is joined to a word
        return _CANNOT.match(text, last + 1) is not None or (after.isalpha() and not _in_word(before))
    if right.isalpha() and left in _APOSTROPHES:  # the end of a contraction
        return before.isalpha() and _CONTRACTED.match(text, last + 1) is not None
    return (_in_word(left) or left in "+#") and right in "+#" and not _in_word(after)


def _in_word(character: str) -> bool:
    """A letter, a digit, an underscore, or a mark on a letter that has no composed form."""
    return character == "_" or character.isalnum() or category(character).startswith("M")


# --- the letter of a choice ------------------------------------------------------------------------------------------

_MARKUP = re.compile(
    r"[*`\"\u201c\u201d$]|\\(?:text|boxed)(?=\{)|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)"
    r"|^\s*(?:[-#>\u2022]+\s+)+",  # a list, a heading, a quotation
    re.MULTILINE,
)
_QUOTED = re.compile(r"(?<!\w)['\u2018]([A-Za-z])['\u2019](?!\w)")
_OPEN = r"[(\[{<\uff08]"
_CLOSE = r"[)\]}>\uff09]"
# no part of a word, of a grade (B+) or of a name (X-ray, C#)
_LETTER = r"(?<![A-Za-z0-9'\u2019])([A-Za-z])(?![A-Za-z0-9_'\u2019+#]|-\w)"
# what may follow it, so that the A of "A cat" is an article
_ENDS = (
    rf"(?=\s*(?:{_CLOSE}|[,;:!?/&<|\u3001\u3002\uff0c\uff1a\uff1b\uff01\uff1f]|\.(?:\s|$|{_CLOSE})|$|[-\u2013\u2014]\s"
    r"|(?:or|and|is|are|because|since|as|which)\b)|\s*\n)"
)
_FIRST = re.compile(rf"^\s*{_OPEN}*{_LETTER}{_ENDS}", re.MULTILINE)
_BRACKETED = re.compile(rf"(?<![Nn]ot ){_OPEN}+{_LETTER}{_CLOSE}")
_SAID = re.compile(
    r"\b(?i:answer|option|choice|choose|pick|select|correct|right|it|this|that|say|go(?:ing)? with)\b"
    r"(?:\s+(?i:answer|option|choice|one|letter|is|was|would|be|are|either|both)\b|'s|\s*[-:=>])*"
    rf"\s*{_OPEN}*{_LETTER}(?:{_ENDS}|(?<=[B-HJ-Z])(?=\s))"
)
_RIGHT = re.compile(
    rf"(?:[.;!?]\s+|\b(?i:so|thus|therefore|hence)\b,?\s+){_OPEN}*{_LETTER}{_CLOSE}*"
    r"\s+(?:is|must be|would be)\s+(?:the\s+)?(?:best\s+|most\s+)?(?:correct|right|answer)\b"
)
_ALSO = re.compile(rf"\s*{_CLOSE}*\s*(?:[,/&]|\b(?:or|and)\b)\s*(?:or\b|and\b)?\s*{_OPEN}*{_LETTER}{_ENDS}")
_DENIED = re.compile(rf"\s*{_CLOSE}*\s*(?:is|are|was)?\s*(?:not\b|n['\u2019]t\b|wrong\b|incorrect\b|false\b)")


@lru_cache(_REMEMBERED)
def letter_in(text: str) -> str | None:
    """The letter, A to Z, that an answer chooses; None where it names none, or more than one.

    Read are a letter that begins a line and stands alone (B), in brackets or before a mark, (B) B. B) B: B - B, one
    that is said to be it (the answer is B, option b), and one in brackets anywhere, in any case and markup. Where the
    lines list several, what is said decides. "A cat" chooses nothing: its A is an article.
    """
    text = _QUOTED.sub(r"\1", _MARKUP.sub("", text)).strip(" '\u2018\u2019\t\n")
    begun = _letters(_FIRST, text)
    said = _letters(_SAID, text) | _letters(_RIGHT, text)
    named = (said if said and len(begun) > 1 else begun | said) or _letters(_BRACKETED, text)
    return named.pop() if len(named) == 1 else None


def _letters(pattern: re.Pattern[str], text: str) -> set[str]:
    """The letters that a pattern finds, with those that go on from them (A or B), without those that are denied."""
    letters = set()
    for found in pattern.finditer(text):
        if _DENIED.match(text, found.end(1)):
            continue
        letters.add(found[1].upper())
        also = _ALSO.match(text, found.end(1))
        while also:
            letters.add(also[1].upper())
            also = _ALSO.match(text, also.end(1))
    return letters


# --- a number --------------------------------------------------------------------------------------------------------

_BETWEEN_THOUSANDS = re.compile("(?<=\\d)[\u00a0\u2009\u202f'\u2019_](?=\\d{3}(?!\\d))")
_DIGITS = re.compile(
    r"(?P<sign>(?<![\w)\]])[-+\u2212\u2013])?[$\u20ac\xa3\xa5]?"
    r"(?P<value>(?<![A-Za-z_.\d])\.\d+"
    r"|(?<![A-Za-z_\d])\d+(?:[-.,/:\u2013]\d+| \d{3}(?!\d))*(?:[eE][-+]?\d{1,6}(?!\w))?)"
)
_ENGLISH = re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")


def numbers_in(text: str) -> list[Decimal | None]:
    """The numbers in digits of a text, in order; None for digits that are no number: a date, a range, 1/2, 3,5, 1 000.

    As English writes them: 1,000 is a thousand, 1.5 one and a half. What stands around them, such as a unit, a currency
    or a percent sign, is left aside, and so are digits of a word (H2O).
    """
    found = _DIGITS.finditer(_BETWEEN_THOUSANDS.sub("", text))
    return [_number(match["value"], match["sign"]) for match in found]


def _number(digits: str, sign: str | None) -> Decimal | None:
    if not _ENGLISH.fullmatch(digits):
        return None
    number = Decimal(digits.replace(",", ""))
    return number if sign in (None, "+") else -number


@lru_cache(_REMEMBERED)
def number_in(text: str) -> Decimal | None:
    """The number that an answer ends in: of several the last, as in 2 + 3 = 5; None where that is none."""
    return next(reversed(numbers_in(text)), None)
