"""Tables of text by their format's own rule: the cells of every row, and every line of the file accounted for.

A cell is quoted if it begins with `"` and its closing quote is followed by the separator or the end of a line; inside
it `""` is a quote, and separators and line ends are text. Every other quote is a character, so that one which nothing
closes swallows nothing. Blanks around a cell that is not quoted are no part of it. With `|` as separator there is no
quoting (Flickr30k's captions are full of quotes).

A quoted cell may span lines if the row then has as many cells as the header. But where its lines are rows of their own,
two stray quotes have met, and they are characters: all lines have as many cells as the header and, but for tabs, the
later ones hold a picture's name where the first does, or one that differs from it in nothing but its digits.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from hones.data.unified import UNREADABLE, LeftOut, Row

SPANS_LINES, STRAY_QUOTE = "row over several lines", "quote that nothing closes"
_LINE_END = re.compile(r"\r\n?|\n")
_SEPARATOR_NAMED = re.compile(r'"?sep=(.)"?\Z', re.IGNORECASE)  # Excel's first line
_QUOTED = re.compile(r'"(?:[^"]++|"")*+"')
_TRIED = 10  # rows below the header that tell its separator
_NAME = re.compile(r"\w*0\w*")
_DIGITS = re.compile(r"\d+")
_PICTURE = re.compile(r"\S.*\.(jpe?g|png|gif|bmp|webp|tiff?|ppm|jp2)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Delimited:
    """A table: columns with a name, in order; rows by these, or as left out; what was read otherwise than it looks."""

    columns: tuple[str, ...]
    rows: list[Row]
    remarks: list[LeftOut] = field(default_factory=list)


class _Cells(NamedTuple):
    """The cells of one row, the offset behind it, and whether one begins with a quote that is a character."""

    cells: list[str]
    end: int
    stray: bool


def is_picture_name(cell: str) -> bool:
    """Whether a cell holds what looks like the name of a picture."""
    return _PICTURE.match(cell) is not None


def read_delimited(text: str) -> Delimited:
    """Read a table; its separator is the first of `|`, tab, `;` and `,` that gives one of the first rows as many cells
    as the header, or what `sep=` names.

    Columns without a name are not read (Excel's empty ones, the index of pandas). A row of more or fewer cells than
    the header is left out by its line, empty ones at its end apart; a row without content is none.
    """
    lines = _Lines(text)
    if not lines.bounds:
        return Delimited((), [])
    header, at = lines.header()
    width = len(_without_empty_end(header))
    names = [name for name in header if name]
    rows: list[Row] = []
    remarks: list[LeftOut] = []
    while at < len(lines.bounds):
        row, last = lines.row(at, width)
        where = f"line {at + 1}" if last == at else f"lines {at + 1} to {last + 1}"
        if any(row.cells) and not _fits(row.cells, width):
            rows.append(LeftOut(where, f"has {len(row.cells)} cells, the header {len(header)}", UNREADABLE))
        elif any(row.cells):
            rows.append({name: cell for name, cell in zip(header, row.cells, strict=False) if name})
            if last > at:
                remarks.append(LeftOut(where, f"{last - at + 1} lines are one row", SPANS_LINES))
        if row.stray:
            remarks.append(LeftOut(where, 'a cell begins with ", a character there', STRAY_QUOTE))
        at = last + 1
    return Delimited(tuple(names), rows, remarks)


def _without_empty_end(cells: list[str]) -> list[str]:
    count = len(cells)
    while count and not cells[count - 1]:
        count -= 1
    return cells[:count]


def _fits(cells: list[str], width: int) -> bool:
    """Whether there are as many cells as columns, empty ones at the end apart."""
    return len(_without_empty_end(cells)) <= width <= len(cells)


def _are_numbered(rows: list[list[str]]) -> bool:
    """Whether in some column all cells are one name with other digits: p1, p2, as pictures and ids are called."""
    names = [{_DIGITS.sub("0", cell) for cell in column} for column in zip(*rows, strict=False)]
    return any(len(forms) == 1 and all(map(_NAME.fullmatch, forms)) for forms in names)


class _Lines:
    """The lines of a text by their bounds, and how rows are read from them."""

    def __init__(self, text: str) -> None:
        self.text = text
        first = _LINE_END.search(text)
        alone = first is not None and first[0] == "\r"  # else a carriage return in a line is a character of it
        ends = [*re.finditer(r"\r\n?|\n" if alone else r"\r?\n", text)]
        starts = [0, *(end.end() for end in ends)]
        bounds = [*zip(starts, [*(end.start() for end in ends), len(text)], strict=True)]
        self.bounds = bounds if bounds[-1][0] < len(text) else bounds[:-1]
        self._ends = [end for _, end in self.bounds]
        self.first = next((n for n, (begin, end) in enumerate(self.bounds) if text[begin:end].strip()), 0)
        self.separator = self._separator()
        blanks = r"[ ]*+" if self.separator == "\t" else r"[ \t]*+"
        line_end = r"[\r\n]" if alone else r"\r?\n"
        follows = rf"(?={re.escape(self.separator)}|{line_end}|\Z)"
        self._quoted = re.compile(rf"{blanks}{_QUOTED.pattern}{blanks}{follows}")

    def _separator(self) -> str:
        """Of the header; names of columns in quotes may hold another. A line that only names it is passed over."""
        if not self.bounds:
            return ","
        begin, end = self.bounds[self.first]
        line = self.text[begin:end].strip(" ")
        named = _SEPARATOR_NAMED.match(line)
        if named is not None and self.first + 1 < len(self.bounds):
            self.first += 1
            return named[1]
        bare = _QUOTED.sub("x", line)
        marks = [mark for mark in "|\t;," if mark in bare.strip("\t")] or [","]
        below = self.bounds[self.first + 1 : self.first + 1 + _TRIED]
        rows = [_QUOTED.sub("x", self.text[begin:end].rstrip("\r")) for begin, end in below]
        fitting = (mark for mark in marks if any(row.count(mark) == bare.count(mark) for row in rows))
        return next(fitting, marks[0])

    def header(self) -> tuple[list[str], int]:
        """The names of the columns, and the line after them; they span lines if that gives the next row its width."""
        begin, end = self.bounds[self.first]
        several = self._cells(begin, len(self.text))
        last = self._line_of(several.end)
        if last > self.first and last + 1 < len(self.bounds):
            below = self._cells(self.bounds[last + 1][0], len(self.text)).cells
            if len(below) == len(several.cells):
                return several.cells, last + 1
        return self._cells(begin, end).cells, self.first + 1

    def row(self, line: int, width: int) -> tuple[_Cells, int]:
        """The row that begins in this line, and its last line."""
        begin, end = self.bounds[line]
        alone = self._cells(begin, end)
        if not alone.stray or self.separator == "|":
            return alone, line
        several = self._cells(begin, len(self.text))
        last = self._line_of(several.end)
        if last > line and _fits(several.cells, width) and not self._are_rows(line, last, several.cells, width):
            return several, last
        return alone, line

    def _are_rows(self, first: int, last: int, cells: list[str], width: int) -> bool:
        """Whether each of these lines reads as a row alone, that would be one row of these cells together."""
        alone = [self._cells(*self.bounds[line]).cells for line in range(first, last + 1)]
        if width < 2 or not all(_fits(own, width) for own in alone):
            return False
        pictures = [number for number, cell in enumerate(cells) if _PICTURE.match(cell)]
        named = any(all(_PICTURE.match(own[number]) for own in alone[1:]) for number in pictures)
        return named or _are_numbered(alone) or self.separator == "\t"

    def _line_of(self, offset: int) -> int:
        return min(bisect_left(self._ends, offset), len(self._ends) - 1)

    def _cells(self, at: int, stop: int) -> _Cells:
        """The cells from an offset to the end of its line, or of the line that a quoted cell ends in before `stop`."""
        line_end = self._ends[self._line_of(at)]
        if self.separator == "|" or self.text.find('"', at, line_end) < 0:
            return _Cells(
                [cell.strip(" \t\r") for cell in self.text[at:line_end].split(self.separator)], line_end, False
            )
        cells: list[str] = []
        stray = False
        while True:
            quoted = self._quoted.match(self.text, at, stop)
            if quoted is not None:
                at = quoted.end()
                cells.append(quoted[0].strip(" \t")[1:-1].replace('""', '"'))
                line_end = self._ends[self._line_of(at)]
            else:
                end = self.text.find(self.separator, at, line_end)
                cell = self.text[at : end if end >= 0 else line_end].strip(" \t\r")
                stray = stray or cell.startswith('"')
                cells.append(cell)
                at = end if end >= 0 else line_end
            if at >= line_end:
                return _Cells(cells, line_end, stray)
            at += 1
