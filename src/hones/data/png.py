"""The pixels of a PNG file whose texts and other extras keep Pillow from reading it.

A PNG is a row of chunks, each with a checksum. Those that a picture cannot do without have a name in upper case (IHDR,
PLTE, IDAT, IEND); damage in them is damage of the picture. Of the others only transparency and EXIF are looked at.
"""

from zlib import crc32

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"tRNS", b"eXIf")
_AROUND = 12  # bytes of a chunk that are not its content: length, name, checksum


def pixels_alone(raw: bytes) -> bytes | None:
    """The file without its texts, colour profiles and the like, and without a damaged EXIF; None where it has none.

    What cannot be taken apart stays as it is, for Pillow to refuse.
    """
    if not raw.startswith(SIGNATURE):
        return None
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at + _AROUND <= len(raw):
        end = at + _AROUND + int.from_bytes(raw[at : at + 4])
        name, checked = raw[at + 4 : at + 8], raw[at + 4 : end - 4]
        is_needed = not name[0] & 0x20
        if is_needed or (name in _KEPT and crc32(checked) == int.from_bytes(raw[end - 4 : end])):
            kept.append(raw[at:end])
        at = end
    alone = b"".join([*kept, raw[at:]])
    return alone if len(alone) < len(raw) else None
