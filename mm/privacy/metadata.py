"""Check that an encoded picture holds pixels only, and count what a raw file holds besides.

Neither uses an image library: `check_pixels_only` is a second opinion on our own encoders, and it
fails closed: a structure that is not on its short list is a leak. `count_metadata` names kinds and
numbers of what it finds, never values.
"""

import struct
import zlib
from collections import Counter

from mm.privacy import containers
from mm.privacy.errors import PrivacyError

# SOF0 to SOF2, DHT, SOS, DQT, DRI
_JPEG_PIXEL_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD})
_GPS_POINTER, _THUMBNAIL_POINTER = 0x8825, 0x0201
_TIFF_KINDS = {
    0x8769: "exif",
    _GPS_POINTER: "gps",
    0x02BC: "xmp",
    0x8773: "icc",
    0x83BB: "iptc",
    0x8649: "iptc",
    **dict.fromkeys((0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C), "comment"),
    **dict.fromkeys((0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F), "comment"),
}
_PNG_KINDS = {
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "comment"),
    b"eXIf": "exif",
    b"iCCP": "icc",
    b"tIME": "time",
    b"fcTL": "extra-frames",
}
_PNG_PIXEL_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD")
    + (b"pHYs", b"hIST", b"acTL", b"fdAT", b"cICP", b"mDCV", b"cLLI")
)


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
    checks = {"png": _check_png, "jpeg": _check_jpeg, "webp": _check_webp}
    if kind not in checks:
        raise MetadataError(f"a shard picture must be PNG, JPEG or WebP, not {kind or 'unknown'}")
    try:
        checks[kind](data)
    except (EOFError, ValueError, struct.error, zlib.error):
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
    if len(stream.decompress(packed, expected + 1)) != expected or not stream.eof:
        raise MetadataError("PNG pixel stream of the wrong length")
    if stream.unused_data or stream.unconsumed_tail:
        raise MetadataError("bytes hidden after the PNG pixel stream")


def _check_jpeg(data: bytes) -> None:
    end = 0
    for index, (marker, start, end) in enumerate(containers.jpeg_segments(data)):
        if marker == 0xE0:
            body = data[start:end]
            if index or body[:5] != b"JFIF\0" or len(body) != 14 or body[12:] != b"\0\0":
                raise MetadataError("JPEG APP0 that is not one bare JFIF header")
        elif marker != containers.EOI and marker not in _JPEG_PIXEL_MARKERS:
            raise MetadataError(f"JPEG segment {marker:#04x}")
    if end != len(data):
        raise MetadataError("bytes after the end of the JPEG")


def _check_webp(data: bytes) -> None:
    chunks = list(containers.riff_chunks(data))
    if len(chunks) != 1 or chunks[0][0] not in (b"VP8 ", b"VP8L"):
        raise MetadataError("WebP chunks besides one picture")
    end = chunks[0][2] + (chunks[0][2] - chunks[0][1] & 1)
    if end != len(data) or any(data[chunks[0][2] : end]):
        raise MetadataError("bytes after the WebP picture")


def count_metadata(data: bytes) -> Counter[str]:
    """Count by kind what a raw picture file holds besides pixels.

    Kinds: exif, gps, thumbnail, xmp, icc, iptc, comment, time, vendor, extra-frames,
    trailing-data, and broken-structure where the count stopped early. Never raises.
    """
    found: Counter[str] = Counter()
    counters = {
        "jpeg": _count_jpeg,
        "png": _count_png,
        "webp": _count_webp,
        "gif": _count_gif,
        "tiff": _count_tiff,
        "bmp": _count_bmp,
    }
    kind = containers.sniff(data)
    if kind in counters:
        try:
            counters[kind](data, found)
        except (EOFError, ValueError, struct.error, IndexError, OverflowError):
            found["broken-structure"] += 1
    return +found


def _count_exif(block: bytes, found: Counter[str]) -> None:
    found["exif"] += 1
    try:
        for number, tags in enumerate(containers.tiff_ifds(block)):
            found["gps"] += _GPS_POINTER in tags
            found["thumbnail"] += number > 0 or _THUMBNAIL_POINTER in tags
            if number > 8:
                break
    except (EOFError, ValueError):
        found["broken-structure"] += 1


def _count_jpeg(data: bytes, found: Counter[str]) -> None:
    end = 0
    for marker, start, end in containers.jpeg_segments(data):
        body = data[start : min(end, start + 64)]
        if marker == 0xFE:
            found["comment"] += 1
        elif marker == 0xE0 and body[:5] == b"JFIF\0":
            found["thumbnail"] += len(body) >= 14 and body[12:14] != b"\0\0"
            found["vendor"] += end - start > 14 and body[12:14] == b"\0\0"
        elif marker == 0xE0 and body[:5] == b"JFXX\0":
            found["thumbnail"] += 1
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            _count_exif(data[start + 6 : end], found)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/"):
            found["xmp"] += 1
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0":
            found["icc"] += 1
        elif marker == 0xE2 and body[:4] == b"MPF\0":
            found["extra-frames"] += 1
        elif marker == 0xED:
            found["iptc"] += 1
        elif 0xE0 <= marker <= 0xEF and not (marker == 0xEE and body[:5] == b"Adobe"):
            found["vendor"] += 1
    found["trailing-data"] += end != len(data)


def _count_png(data: bytes, found: Counter[str]) -> None:
    end = 0
    for chunk, start, end in containers.png_chunks(data):
        body = data[start : min(end, start + 80)]
        if chunk == b"eXIf":
            _count_exif(data[start:end], found)
        elif chunk == b"iTXt" and body.startswith(b"XML:com.adobe.xmp"):
            found["xmp"] += 1
        elif chunk in (b"tEXt", b"zTXt") and body.lower().startswith(b"raw profile type "):
            name = body[17:].split(b"\0")[0].lower()
            kinds = {b"exif": "exif", b"app1": "exif", b"iptc": "iptc", b"xmp": "xmp"}
            found[kinds.get(name, "icc" if name in (b"icc", b"icm") else "comment")] += 1
        elif chunk in _PNG_KINDS:
            found[_PNG_KINDS[chunk]] += 1
        elif chunk not in _PNG_PIXEL_CHUNKS:
            found["vendor"] += 1
    if found["extra-frames"]:  # one fcTL belongs to the first frame
        found["extra-frames"] -= 1
    found["trailing-data"] += end + 4 != len(data)


def _count_webp(data: bytes, found: Counter[str]) -> None:
    for fourcc, start, end in containers.riff_chunks(data):
        if fourcc == b"EXIF":
            block = data[start:end]
            _count_exif(block.removeprefix(b"Exif\0\0"), found)
        elif fourcc in (b"XMP ", b"ICCP"):
            found["xmp" if fourcc == b"XMP " else "icc"] += 1
        elif fourcc == b"ANMF":
            found["extra-frames"] += 1
        elif fourcc not in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM"):
            found["vendor"] += 1
    if found["extra-frames"]:
        found["extra-frames"] -= 1
    found["trailing-data"] += 8 + int.from_bytes(data[4:8], "little") != len(data)


def _count_gif(data: bytes, found: Counter[str]) -> None:
    frames = 0
    end = 0
    for kind, start, stop in containers.gif_blocks(data):
        end = stop
        if kind == 0x2C:
            frames += 1
        elif kind in (0xFE, 0x01):  # a comment; plain text drawn over the picture
            found["comment"] += 1
        elif kind == 0xFF:
            label = data[start + 3 : start + 14]
            if label not in (b"NETSCAPE2.0", b"ANIMEXTS1.0"):
                kinds = {b"XMP DataXMP": "xmp", b"ICCRGBG1012": "icc"}
                found[kinds.get(label, "vendor")] += 1
    found["extra-frames"] += max(frames - 1, 0)
    found["trailing-data"] += end != len(data)


def _count_tiff(data: bytes, found: Counter[str]) -> None:
    for number, tags in enumerate(containers.tiff_ifds(data)):
        for tag in tags:
            if tag in _TIFF_KINDS:
                found[_TIFF_KINDS[tag]] += 1
            elif tag >= 0x8000:  # private tags
                found["vendor"] += 1
        found["extra-frames"] += number > 0


def _count_bmp(data: bytes, found: Counter[str]) -> None:
    size = int.from_bytes(data[2:6], "little")
    found["trailing-data"] += 0 < size < len(data)
    if int.from_bytes(data[14:18], "little") == 124:  # BITMAPV5HEADER
        found["icc"] += data[70:74] in (b"MBED", b"DEBM", b"LINK", b"KNIL")
