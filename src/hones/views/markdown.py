"""A table as markdown, its numbers with a true minus sign."""

from hones.tabular import Column, Table


def markdown(table: Table) -> str:
    """The columns that people read, and all rows."""
    heads = [_escaped(column.full or column.heading) for column in table.headed]
    rows = [[_cell(column, row.get(column.name)) for column in table.headed] for row in table.rows]
    lines = [" | ".join(cells) for cells in (heads, ["---"] * len(heads), *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def _cell(column: Column, value: object) -> str:
    text = _escaped(column.text(value))
    return text.replace("-", "−") if column.kind in ("number", "interval") else text


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
