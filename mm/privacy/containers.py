"""Walk the outer structure of picture files without decoding a pixel.

Each walker yields pieces as offsets into `data` and raises `EOFError` when the file ends inside a
piece, `ValueError` when a piece is malformed. Used for limits before decoding and for the checks
in `metadata.py`.

Ref: PNG 3rd edition sections 5 and 11; ITU-T T.81 annex B; RFC 9649 (WebP); GIF89a; TIFF 6.0.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mm.privacy import boxes

ALLOWED = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "heif", "avif", "jpeg2000")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA

_TIFF_WIDTH, _TIFF_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 0x0100, 0x0101, 0x0142, 0x0143
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed 00, fill or restart
_SVG = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg[\s>]", re.S)
_OTHER_FORMATS = (
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"SIMPLE  =", "FITS"),
)


def sniff(data: bytes) -> str | None:
    """Name the format from the first bytes; never from a file name.

    Returns:
        One of `ALLOWED`, the name of something else that is known, or None.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] in _TIFF_MAGIC:
        return "tiff"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    if data[4:8] == b"ftyp":
        return boxes.family(data)
    if data.startswith((boxes.JP2_SIGNATURE, boxes.CODESTREAM)):
        return "jpeg2000"
    for magic, name in _OTHER_FORMATS:
        if data.startswith(magic):
            return name
    if _SVG.match(data[:2048]):
        return "SVG"
    return None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each chunk body, up to and including IEND."""
    pos = len(PNG_SIGNATURE)
    while True:
        if pos + 12 > len(data):
            raise EOFError
        (length,) = struct.unpack_from(">I", data, pos)
        start, end = pos + 8, pos + 8 + length
        kind = data[pos + 4 : start]
        if not kind.isalpha():
            raise ValueError("a chunk type must be four letters")
        if end + 4 > len(data):
            raise EOFError
        yield kind, start, end
        if kind == b"IEND":
            return
        pos = end + 4


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment payload after SOI, up to and including EOI.

    The entropy-coded bytes after each SOS are skipped; for EOI start == end == end of picture.
    """
    pos = 2
    while True:
        if pos + 2 > len(data):
            raise EOFError
        if data[pos] != 0xFF:
            raise ValueError("no marker where one must be")
        while pos + 1 < len(data) and data[pos + 1] == 0xFF:  # fill bytes
            pos += 1
        if pos + 2 > len(data):
            raise EOFError
        marker = data[pos + 1]
        pos += 2
        if marker == EOI:
            yield marker, pos, pos
            return
        if marker == 0x01 or SOI - 8 <= marker <= SOI:  # TEM, RSTn, SOI: no payload
            raise ValueError("marker out of place")
        if pos + 2 > len(data):
            raise EOFError
        end = pos + int.from_bytes(data[pos : pos + 2], "big")
        if end < pos + 2:
            raise ValueError("segment shorter than its own length field")
        if end > len(data):
            raise EOFError
        yield marker, pos + 2, end
        pos = end
        if marker == SOS:
            found = _MARKER_IN_SCAN.search(data, pos)
            if found is None:
                raise EOFError
            pos = found.start()


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (fourcc, start, end) of each chunk body inside the RIFF size, padding left out."""
    (size,) = struct.unpack_from("<I", data, 4)
    stop = 8 + size
    if stop > len(data):
        raise EOFError
    pos = 12
    while pos < stop:
        if pos + 8 > stop:
            raise ValueError("chunk header outside the RIFF size")
        (length,) = struct.unpack_from("<I", data, pos + 4)
        start, end = pos + 8, pos + 8 + length
        if end > stop:
            raise ValueError("chunk outside the RIFF size")
        yield data[pos : pos + 4], start, end
        pos = end + (length & 1)


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, start, end): 0x2C a frame, 0xF9, 0xFE, ... an extension, 0x3B the trailer."""
    if len(data) < 13:
        raise EOFError
    pos = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while True:
        if pos >= len(data):
            raise EOFError
        start, introducer = pos, data[pos]
        if introducer == 0x3B:
            yield introducer, start, start + 1
            return
        if introducer == 0x21:
            kind, pos = (data[pos + 1] if pos + 1 < len(data) else 0), pos + 2
        elif introducer == 0x2C:
            if pos + 10 > len(data):
                raise EOFError
            flags = data[pos + 9]
            kind, pos = introducer, pos + 10 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0) + 1
        else:
            raise ValueError("unknown GIF block")
        while True:  # sub-blocks: a length byte, then that many bytes, until a length of 0
            if pos >= len(data):
                raise EOFError
            step = data[pos]
            pos += step + 1
            if step == 0:
                break
        yield kind, start, pos


Ifd = dict[int, tuple[int, int, int]]  # tag -> (type, count, offset of the value or its pointer)


def tiff_ifds(data: bytes, start: int | None = None) -> Iterator[Ifd]:
    """Yield the directories of a TIFF (or an EXIF block) from the first on, or from `start`."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        raise EOFError
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    head, count_of, entry, pointer = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    step = struct.calcsize(order + count_of)
    width = struct.calcsize(order + pointer)
    try:
        pos = struct.unpack_from(order + pointer, data, head)[0] if start is None else start
        seen: set[int] = set()
        while pos:
            if pos in seen:
                raise ValueError("the directories form a loop")
            seen.add(pos)
            (num,) = struct.unpack_from(order + count_of, data, pos)
            if pos + step + num * entry + width > len(data):
                raise EOFError
            tags: Ifd = {}
            for k in range(num):
                at = pos + step + k * entry
                tag, kind = struct.unpack_from(order + "HH", data, at)
                (count,) = struct.unpack_from(order + pointer, data, at + 4)
                tags[tag] = (kind, count, at + 4 + width)
            yield tags
            (pos,) = struct.unpack_from(order + pointer, data, pos + step + num * entry)
    except struct.error:
        raise EOFError from None


def tiff_pointer(data: bytes, field: tuple[int, int, int]) -> int:
    """Read the first unsigned number that a directory entry holds or points to."""
    kind, _, at = field
    order = "<" if data[:2] == b"II" else ">"
    code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if code is None:
        raise ValueError("not an unsigned number")
    try:
        return int(struct.unpack_from(order + code, data, at)[0])
    except struct.error:
        raise EOFError from None


def jpeg_frame(data: bytes) -> tuple[int, int, int, int, int]:
    """Return (SOF marker, bits per sample, width, height, components) of a JPEG."""
    for marker, start, end in jpeg_segments(data):
        if marker == SOS:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if end - start < 6:
                raise ValueError("frame header too short")
            bits, height, width, components = struct.unpack_from(">BHHB", data, start)
            return marker, bits, width, height, components
    raise ValueError("no frame before the first scan")


def canvas(data: bytes, kind: str) -> tuple[int, int] | None:
    """Return (width, height) that a decoder will allocate, from the headers; None: not known here.

    A GIF or WebP has its canvas allocated on opening; a TIFF has tiles, which may be larger than
    the picture; a HEIF may be put together from several pictures, of which the largest counts.
    """
    if kind == "jpeg":
        return jpeg_frame(data)[2:4]
    if kind == "png":
        if data[12:16] != b"IHDR"[: max(len(data) - 12, 0)]:
            raise ValueError("a PNG begins with IHDR")
        return struct.unpack_from(">II", data, 16) if len(data) >= 24 else None
    if kind in ("heif", "avif"):
        sizes = boxes.heif_items(data).sizes
        return max(sizes, key=lambda size: size[0] * size[1]) if sizes else None
    if kind == "jpeg2000":
        return boxes.jp2_canvas(data)
    if kind == "tiff":
        first = next(tiff_ifds(data), {})
        sides = [
            tiff_pointer(data, first[tag]) if tag in first else 1
            for tag in (_TIFF_WIDTH, _TIFF_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT)
        ]
        return max(sides[0], sides[2]), max(sides[1], sides[3])
    if kind == "gif":
        return struct.unpack_from("<HH", data, 6) if len(data) >= 10 else None
    if kind == "webp":
        return _webp_canvas(data)
    return None


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    for fourcc, at, end in riff_chunks(data):
        body = data[at : min(end, at + 10)]
        if fourcc == b"VP8X" and len(body) == 10:
            return (
                int.from_bytes(body[4:7], "little") + 1,
                int.from_bytes(body[7:10], "little") + 1,
            )
        if fourcc == b"VP8L" and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if fourcc == b"VP8 " and len(body) == 10:
            width, height = struct.unpack_from("<HH", body, 6)
            return width & 0x3FFF, height & 0x3FFF
    return None


@dataclass(frozen=True)
class Pieces:
    """What a file is made of: pieces of structure, frames or pages, passes over a JPEG."""

    chunks: int
    frames: int = 1
    scans: int = 0


def count_pieces(data: bytes, kind: str, stop_after: int) -> Pieces:
    """Count pieces of structure, not further than `stop_after` + 1; checks them on the way.

    Raises:
        EOFError: the file ends before its structure does.
        ValueError: the structure is malformed.
    """
    chunks = frames = scans = 0
    for name, start, end in _pieces(data, kind):
        chunks += 1
        if chunks > stop_after:
            break
        if kind == "png" and name == b"acTL" and end - start >= 4:
            frames = max(frames, int.from_bytes(data[start : start + 4], "big"))
        scans += kind == "jpeg" and name == SOS
        frames += name in (b"ANMF", 0x2C, "page")
    if kind in ("heif", "avif"):
        items = boxes.heif_items(data)
        chunks, frames = chunks + len(items.kinds) + items.properties.total(), items.pictures()
    return Pieces(chunks, max(frames, 1), scans)


def _pieces(data: bytes, kind: str) -> Iterator[tuple[bytes | int | str, int, int]]:
    if kind == "png":
        yield from png_chunks(data)
    elif kind == "jpeg":
        yield from jpeg_segments(data)
    elif kind == "webp":
        yield from riff_chunks(data)
    elif kind == "gif":
        yield from gif_blocks(data)
    elif kind == "tiff":
        for tags in tiff_ifds(data):
            yield "page", 0, 0
            yield from (("tag", 0, 0) for _ in tags)
    elif kind in ("heif", "avif") or (kind == "jpeg2000" and data[4:8] == b"jP  "):
        yield from boxes.boxes(data)
