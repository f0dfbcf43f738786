"""The files of an export or an upload as a table."""

from collections.abc import Mapping

from rich.filesize import decimal

from hones.tabular import Column, Table


def files_table(title: str, sizes: Mapping[str, int], caption: str) -> Table:
    """The files with their sizes, given in bytes."""
    columns = (Column("file", "file", "text"), Column("size", "size"), Column("bytes"))
    rows = [{"file": name, "size": decimal(size), "bytes": size} for name, size in sizes.items()]
    return Table("files", title, columns, rows, caption)
