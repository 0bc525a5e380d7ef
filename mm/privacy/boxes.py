"""Walk the boxes of HEIF, AVIF and JPEG 2000 files without decoding a pixel.

As in `containers.py`: pieces are offsets into `data`; `EOFError` when the file ends inside a
piece, `ValueError` when a piece is malformed.

Ref: ISO/IEC 14496-12 (boxes), 23008-12 (HEIF), AV1 Image File Format; ITU-T T.800 annexes A and I.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"}
_AVIF_BRANDS = {b"avif", b"avis"}
_ALPHA_PLANES = (b":auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"


def family(data: bytes) -> str:
    """Name what a file that starts with an `ftyp` box is: heif, avif, or video."""
    size = int.from_bytes(data[:4], "big")
    brands = {data[at : at + 4] for at in range(8, min(size, len(data), 256), 4) if at != 12}
    if data[8:12] in _AVIF_BRANDS or (data[8:12] not in _HEIF_BRANDS and brands & _AVIF_BRANDS):
        return "avif"
    if data[8:12] in (b"mif1", b"msf1", b"mif2") and brands & _AVIF_BRANDS:
        return "avif"
    return "heif" if brands & _HEIF_BRANDS else "video"


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each box body between two offsets, not descending."""
    pos, stop = start, len(data) if end is None else end
    while pos < stop:
        if pos + 8 > stop:
            raise EOFError
        size, kind = struct.unpack_from(">I4s", data, pos)
        body = pos + 8
        if size == 1:
            if pos + 16 > stop:
                raise EOFError
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif size == 0:
            size = stop - pos
        if pos + size < body:
            raise ValueError("a box shorter than its own header")
        if pos + size > stop:
            raise EOFError
        yield kind, body, pos + size
        pos += size


@dataclass
class Items:
    """What the `meta` box of a HEIF or AVIF file declares.

    Args:
        kinds: item id -> type, such as hvc1, av01, grid, Exif, mime.
        sizes: (width, height) of every `ispe` property.
        refers: reference type (thmb, auxl, dimg, cdsc, ...) -> (from id, to ids).
        primary: id of the picture to show.
        properties: types of all properties.
        where: item id -> (construction method, extents as (offset, length)).
        idat: offsets of the `idat` box.
        colours: (primaries, transfer) of the first `nclx` property.
        alphas: how many auxiliary pictures are alpha planes.
    """

    kinds: dict[int, bytes] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    refers: dict[bytes, list[tuple[int, list[int]]]] = field(default_factory=dict)
    primary: int = 0
    properties: Counter[bytes] = field(default_factory=Counter)
    where: dict[int, tuple[int, list[tuple[int, int]]]] = field(default_factory=dict)
    idat: tuple[int, int] | None = None
    colours: tuple[int, int] | None = None
    alphas: int = 0

    def pictures(self) -> int:
        """Count pictures that are none of another's tiles, thumbnails or planes."""
        parts = {i for name in (b"thmb", b"auxl") for i, _ in self.refers.get(name, [])}
        parts |= {i for _, targets in self.refers.get(b"dimg", []) for i in targets}
        coded = (b"hvc1", b"av01", b"grid", b"iovl", b"iden", b"jpeg", b"avc1", b"j2k1")
        return sum(kind in coded and i not in parts for i, kind in self.kinds.items())

    def item(self, data: bytes, number: int) -> bytes:
        """Return the bytes of an item, as far as they lie inside the file."""
        method, extents = self.where.get(number, (0, []))
        base = self.idat[0] if method == 1 and self.idat else 0
        return b"".join(data[base + at : base + at + length] for at, length in extents)


def heif_items(data: bytes) -> Items:
    """Read the `meta` box of a HEIF or AVIF file."""
    items = Items()
    for kind, start, end in boxes(data):
        if kind == b"meta":
            for inner, a, b in boxes(data, start + 4, end):
                _read_meta(data, inner, a, b, items)
    return items


def _read_meta(data: bytes, kind: bytes, start: int, end: int, items: Items) -> None:
    body = _Reader(data, start, end)
    if kind == b"idat":
        items.idat = start, end
        return
    if kind not in (b"pitm", b"iinf", b"iprp", b"iref", b"iloc"):
        return
    if kind == b"iprp":
        for inner, a, b in boxes(data, start, end):
            if inner == b"ipco":
                for name, x, y in boxes(data, a, b):
                    items.properties[name] += 1
                    if name == b"ispe":
                        words = _Reader(data, x + 4, y)
                        items.sizes.append((words.number(4), words.number(4)))
                    elif name == b"colr" and data[x : x + 4] == b"nclx" and not items.colours:
                        words = _Reader(data, x + 4, y)
                        items.colours = words.number(2), words.number(2)
                    elif name == b"auxC":
                        items.alphas += any(kind in data[x:y] for kind in _ALPHA_PLANES)
        return
    version = body.number(4) >> 24
    if kind == b"pitm":
        items.primary = body.number(2 if version == 0 else 4)
    elif kind == b"iinf":
        body.number(2 if version == 0 else 4)
        for inner, a, b in boxes(data, body.pos, end):
            if inner == b"infe":
                entry = _Reader(data, a, b)
                if (form := entry.number(4) >> 24) >= 2:
                    number = entry.number(2 if form == 2 else 4)
                    entry.number(2)
                    items.kinds[number] = entry.number(4).to_bytes(4, "big")
    elif kind == b"iref":
        width = 2 if version == 0 else 4
        for inner, a, b in boxes(data, body.pos, end):
            entry = _Reader(data, a, b)
            number, count = entry.number(width), entry.number(2)
            targets = [entry.number(width) for _ in range(count)]
            items.refers.setdefault(inner, []).append((number, targets))
    else:
        _read_locations(body, version, items)


def _read_locations(body: "_Reader", version: int, items: Items) -> None:
    sizes = body.number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(body.number(2 if version < 2 else 4)):
        number = body.number(2 if version < 2 else 4)
        method = body.number(2) & 15 if version else 0
        body.number(2)
        start, extents = body.number(base), []
        for _ in range(body.number(2)):
            body.number(index if version else 0)
            at = start + body.number(offset)
            extents.append((at, body.number(length)))
        items.where[number] = method, extents


class _Reader:
    """Big-endian numbers, one after the other, within bounds."""

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data, self.pos, self.end = data, pos, end

    def number(self, width: int) -> int:
        if self.pos + width > self.end:
            raise ValueError("a box shorter than its fields")
        value = int.from_bytes(self.data[self.pos : self.pos + width], "big")
        self.pos += width
        return value


def codestream(data: bytes) -> tuple[int, int]:
    """Return (start, end) of the JPEG 2000 codestream, in a JP2 file or bare."""
    if data.startswith(CODESTREAM):
        return 0, len(data)
    for kind, start, end in boxes(data):
        if kind == b"jp2c":
            return start, end
    raise ValueError("no codestream")


def jp2_canvas(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a JPEG 2000 picture, from its codestream."""
    start, end = codestream(data)
    if data[start : start + 4] != CODESTREAM:
        raise ValueError("the codestream does not start as one")
    if start + 24 > end:
        raise EOFError
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def jp2_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a JP2 file, if its colour specification holds one."""
    for kind, start, end in () if data.startswith(CODESTREAM) else boxes(data):
        if kind == b"jp2h":
            for inner, a, b in boxes(data, start, end):
                if inner == b"colr" and data[a : a + 1] in (b"\2", b"\3"):
                    return data[a + 3 : b]
    return None


def codestream_segments(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments of a codestream's main header."""
    pos = start + 2
    while pos + 4 <= end:
        marker, length = struct.unpack_from(">HH", data, pos)
        if marker == 0xFF90:  # the first tile
            return
        if marker < 0xFF00 or length < 2 or pos + 2 + length > end:
            raise ValueError("malformed codestream header")
        yield marker, pos + 4, pos + 2 + length
        pos += 2 + length
    raise EOFError
