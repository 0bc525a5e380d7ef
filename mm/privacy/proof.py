"""Prove that an encoded picture holds pixels only: a strict reader of what our encoders write.

It shares no code with them, allows only the structures that pixels need, each exactly once and
each used, and fails closed: what is not on its short list is a leak. A JPEG's coded data is
followed to its last bit with a decoder's help (`door.scan_is_exact`); the rest is read here.

Ref: PNG 3rd edition; ITU-T T.81 annex B; RFC 9649 and RFC 6386 (WebP).
"""

import struct
import zlib
from collections.abc import Callable

from mm.privacy import containers
from mm.privacy.door import scan_is_exact
from mm.privacy.errors import PrivacyError

_SOF0, _DHT, _DQT, _APP0 = 0xC0, 0xC4, 0xDB, 0xE0


class MetadataError(PrivacyError):
    """An encoded picture holds something besides pixels; `args[0]` says what kind."""


def check_pixels_only(data: bytes) -> str:
    """Check that an encoded picture has nothing but pixel structures.

    Returns:
        The format: png, jpeg or webp.

    Raises:
        MetadataError: any other structure, bytes after the end, or another format.
    """
    kind = containers.sniff(data)
    checks: dict[str, Callable[[bytes], None]] = {
        "png": _check_png,
        "jpeg": _check_jpeg,
        "webp": _check_webp,
    }
    if kind not in checks:
        raise MetadataError(f"a shard picture must be PNG, JPEG or WebP, not {kind or 'unknown'}")
    try:
        checks[kind](data)
    except (EOFError, ValueError, IndexError, struct.error, zlib.error):
        raise MetadataError(f"malformed {kind.upper()} structure") from None
    return kind


def _check_png(data: bytes) -> None:
    chunks = list(containers.png_chunks(data))
    kinds = [chunk for chunk, _, _ in chunks]
    middle = kinds[1:-1]
    if kinds[0] != b"IHDR" or not middle or set(middle) != {b"IDAT"}:
        raise MetadataError("PNG chunks besides IHDR, IDAT, IEND")
    for kind, start, end in chunks:
        (stored,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(data[start:end], zlib.crc32(kind)) != stored:
            raise MetadataError("PNG chunk with a wrong checksum")
    end = chunks[-1][2]
    if chunks[-1][1] != end or end + 4 != len(data):
        raise MetadataError("bytes in or after IEND")
    if chunks[0][2] - chunks[0][1] != 13:
        raise ValueError
    width, height, depth, colour, *rest = struct.unpack_from(">IIBBBBB", data, chunks[0][1])
    if (depth, colour, *rest) != (8, 2, 0, 0, 0):
        raise MetadataError("PNG that is not plain 8-bit RGB")
    expected = height * (1 + 3 * width)
    stream = zlib.decompressobj()
    packed = b"".join(data[start:stop] for kind, start, stop in chunks if kind == b"IDAT")
    rows = stream.decompress(packed, expected + 1)
    if len(rows) != expected or not stream.eof or max(rows[:: 1 + 3 * width], default=5) > 4:
        raise MetadataError("PNG pixel stream of the wrong length or with unknown filters")
    if stream.unused_data or stream.unconsumed_tail:
        raise MetadataError("bytes hidden after the PNG pixel stream")


def _check_jpeg(data: bytes) -> None:
    """Read a baseline JPEG of one scan: SOI, JFIF, tables, SOF0, tables, SOS, coded data, EOI."""
    segments = list(containers.jpeg_segments(data))
    if len(segments) < 2 or segments[-2][0] != containers.SOS:
        raise MetadataError("JPEG with anything between its scan and its end")
    if segments[-1][2] != len(data) or data[-2:] != b"\xff\xd9" or data[-3] == 0xFF:
        raise MetadataError("bytes after the end of the JPEG")
    tables: dict[tuple[str, int], bytes] = {}
    frame = b""
    position = 2  # every byte up to the coded data belongs to one segment
    for index, (marker, start, end) in enumerate(segments[:-1]):
        body = data[start:end]
        if start != position + 4:
            raise MetadataError("bytes between JPEG segments")
        position = end
        if marker == _APP0:
            if index or body[:5] != b"JFIF\0" or len(body) != 14 or body[12:] != b"\0\0":
                raise MetadataError("JPEG APP0 that is not one bare JFIF header")
            if body[5:12] not in (b"\1\1\0\0\1\0\1", b"\1\1\1\0\x48\0\x48", b"\1\1\0\0\x48\0\x48"):
                raise MetadataError("JFIF header with an unusual version or density")
        elif marker in (_DQT, _DHT):
            _read_tables(marker, body, tables)
        elif marker == _SOF0 and not frame:
            frame = body
        elif marker != containers.SOS or index != len(segments) - 2:
            raise MetadataError(f"JPEG segment {marker:#04x}")
    used = _used_tables(frame, data[segments[-2][1] : segments[-2][2]])
    if used != set(tables):
        raise MetadataError("JPEG tables that are missing or unused")
    if not scan_is_exact(data):
        raise MetadataError("bytes after the last block of the JPEG, or damaged data")


def _read_tables(marker: int, body: bytes, tables: dict[tuple[str, int], bytes]) -> None:
    """Take quantisation or Huffman tables apart; each may be defined once, and must be valid."""
    at = 0
    while at < len(body):
        upper, number = body[at] >> 4, body[at] & 15
        if marker == _DQT:
            name, values, end = "quantisation", body[at + 1 : at + 65], at + 65
            good = upper == 0 and 0 not in values
        else:
            name, counts = ("dc", "ac")[upper], body[at + 1 : at + 17]
            end = at + 17 + sum(counts)
            values = body[at + 17 : end]
            # Codes of each length must fit, and symbols be different and within their range.
            room = sum(count << (15 - length) for length, count in enumerate(counts))
            good = room < 2**16 and len(set(values)) == len(values)
            good = good and all(v & 15 <= (10 if upper else 11) for v in values)
            good = good and (upper == 1 or max(values, default=0) <= 11)
        if end > len(body) or not good or (name, number) in tables:
            raise MetadataError("JPEG table that is malformed or defined twice")
        tables[name, number] = values
        at = end


def _used_tables(frame: bytes, scan: bytes) -> set[tuple[str, int]]:
    """Return the tables that the only scan needs, from the frame's and the scan's header."""
    bits, height, width, count = struct.unpack_from(">BHHB", frame)
    if (bits, len(frame)) != (8, 6 + 3 * count) or not height * width or count not in (1, 3):
        raise MetadataError("JPEG frame header that is not 8-bit colour or grey")
    if len(scan) != 4 + 2 * count or scan[0] != count or scan[-3:] != b"\0\x3f\0":
        raise MetadataError("JPEG scan header that is not a baseline scan of everything")
    used = set()
    for k in range(count):
        if scan[1 + 2 * k] != frame[6 + 3 * k] or not 1 <= frame[6 + 3 * k] <= 3:
            raise MetadataError("JPEG components out of order")
        used.add(("quantisation", frame[8 + 3 * k]))
        used |= {("dc", scan[2 + 2 * k] >> 4), ("ac", scan[2 + 2 * k] & 15)}
    return used


def _check_webp(data: bytes) -> None:
    chunks = list(containers.riff_chunks(data))
    if len(chunks) != 1 or chunks[0][0] not in (b"VP8 ", b"VP8L"):
        raise MetadataError("WebP chunks besides one picture")
    kind, start, end = chunks[0]
    stop = end + (end - start & 1)
    if stop != len(data) or any(data[end:stop]):
        raise MetadataError("bytes after the WebP picture")
    if kind == b"VP8 ":
        _check_vp8(data[start:end])
    elif data[start] != 0x2F or data[start + 4] >> 4:  # signature; no alpha, version 0
        raise MetadataError("WebP that is not a plain lossless picture")


def _check_vp8(frame: bytes) -> None:
    """Check a VP8 key frame's header, and that its partitions fill it."""
    tag = int.from_bytes(frame[:3], "little")
    if tag & 1 or not tag >> 4 & 1 or frame[3:6] != b"\x9d\x01\x2a":
        raise MetadataError("WebP that is not one shown key frame")
    first = tag >> 5
    if 10 + first >= len(frame):
        raise MetadataError("WebP whose partitions do not fit")
