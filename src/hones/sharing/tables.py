"""The files of an export or an upload as a table."""

from collections.abc import Mapping

from hones.tabular import Column, Table


def files_table(title: str, sizes: Mapping[str, int], caption: str) -> Table:
    """The files with their sizes."""
    columns = (Column("file", "file", "text"), Column("size", "size"), Column("bytes"))
    rows = [{"file": name, "size": readable(size), "bytes": size} for name, size in sizes.items()]
    return Table("files", title, columns, rows, caption)


def readable(size: int) -> str:
    """A number of bytes in its largest unit."""
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:.4g} {('B', 'kB', 'MB', 'GB')[power]}"
