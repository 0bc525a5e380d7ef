"""Count what a raw picture file holds besides pixels: kinds and numbers, never values.

Uses no image library. `check_pixels_only`, from `proof.py`, is the other half: what a written
picture may not hold.
"""

import struct
import zlib
from collections import Counter

from mm.privacy import boxes, containers
from mm.privacy.exif import count_exif, count_icc, count_tiff
from mm.privacy.proof import MetadataError, check_pixels_only

__all__ = ["KINDS", "MetadataError", "check_pixels_only", "count_metadata"]

KINDS = (
    *("exif", "gps", "maker_note", "serial_number", "author", "device", "time", "thumbnail"),
    *("xmp", "iptc", "icc", "icc_text", "comment", "c2pa", "vendor", "motion_photo"),
    *("extra_frame", "trailing_data", "hidden_bytes", "unused_table", "broken_structure"),
)
_PNG_KINDS = {
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "comment"),
    b"tIME": "time",
    b"fcTL": "extra_frame",
    b"caBX": "c2pa",
}
_PNG_PIXEL_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD")
    + (b"pHYs", b"hIST", b"acTL", b"fdAT", b"cICP", b"mDCV", b"cLLI")
)
_UUIDS = {  # of boxes, in JPEG 2000 and HEIF files
    "4a706754696666457869662d3e4a5032": "exif",
    "be7acfcb97a942e89c71999491e3afac": "xmp",
    "33c7a4d2b81d4723a0baf1a3e097ad38": "iptc",
    "d8fec3d61b0e483c92975828877ec481": "c2pa",
}
_GIF_APPLICATIONS = {b"XMP DataXMP": "xmp", b"ICCRGBG1012": "icc", b"C2PA_GIF\1\0\0": "c2pa"}


def count_metadata(data: bytes) -> Counter[str]:
    """Count by kind (see `KINDS`) what a raw picture file holds besides pixels. Never raises.

    `broken_structure` says that counting stopped early. A file counts what it tells more than
    once if it tells it more than once.
    """
    found: Counter[str] = Counter()
    counters = {
        "jpeg": _count_jpeg,
        "png": _count_png,
        "webp": _count_webp,
        "gif": _count_gif,
        "tiff": count_tiff,
        "bmp": _count_bmp,
        "heif": _count_heif,
        "avif": _count_heif,
        "jpeg2000": _count_jp2,
    }
    kind = containers.sniff(data)
    if kind in counters:
        try:
            counters[kind](data, found)
        except (EOFError, ValueError, struct.error, IndexError, OverflowError):
            found["broken_structure"] += 1
    return +found


def _count_jpeg(data: bytes, found: Counter[str]) -> None:
    end, profile = 0, b""
    defined: set[int] = set()
    used: set[int] = set()
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
            count_exif(data[start + 6 : end], found)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/"):
            found["xmp"] += 1
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0":
            profile += data[start + 14 : end]
        elif marker == 0xE2 and body[:4] == b"MPF\0":
            found["extra_frame"] += 1
        elif marker == 0xEB and body[:2] == b"JP":
            found["c2pa"] += 1
        elif marker == 0xED:
            found["iptc"] += 1
        elif 0xE0 <= marker <= 0xEF and not (marker == 0xEE and body[:5] == b"Adobe"):
            found["vendor"] += 1
        else:
            _note_tables(marker, data[start:end], defined, used)
    if profile:
        count_icc(profile, found)
    found["unused_table"] += len(defined - used)
    _count_tail(data, end, found)


def _note_tables(marker: int, body: bytes, defined: set[int], used: set[int]) -> None:
    """Note quantisation tables as 0x200 + id, Huffman tables as class and id."""
    at = 0
    while marker in (0xDB, 0xC4) and at < len(body):
        if marker == 0xDB:
            defined.add(0x200 + (body[at] & 15))
            at += 1 + (128 if body[at] >> 4 else 64)
        else:
            defined.add(body[at])
            at += 17 + sum(body[at + 1 : at + 17])
    if 0xC0 <= marker <= 0xC2:
        used.update(0x200 + table for table in body[8::3])
    elif marker == containers.SOS:
        for table in body[2 : 1 + 2 * body[0] : 2]:
            used |= {table >> 4, 0x10 | table & 15}


def _count_tail(data: bytes, end: int, found: Counter[str]) -> None:
    found["trailing_data"] += end != len(data)
    found["motion_photo"] += b"ftyp" in data[end : end + 2**16]


def _count_png(data: bytes, found: Counter[str]) -> None:
    end, packed = 0, []
    for chunk, start, end in containers.png_chunks(data):
        body = data[start : min(end, start + 80)]
        if chunk == b"IDAT":
            packed.append((start, end))
        elif chunk == b"eXIf":
            count_exif(data[start:end], found)
        elif chunk == b"iCCP":
            inflater = zlib.decompressobj()
            try:
                packed_profile = data[data.index(b"\0", start, end) + 2 : end]
                count_icc(inflater.decompress(packed_profile, 2**22), found)
            except (ValueError, zlib.error):
                found["broken_structure"] += 1
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
    if found["extra_frame"]:  # one fcTL belongs to the first frame
        found["extra_frame"] -= 1
    found["hidden_bytes"] += _after_zlib(data, packed)
    _count_tail(data, end + 4, found)


def _after_zlib(data: bytes, pieces: list[tuple[int, int]]) -> bool:
    """Tell whether bytes follow the end of a PNG's pixel stream; inflates without keeping."""
    stream = zlib.decompressobj()
    for start, end in pieces:
        piece = data[start:end]
        while piece and not stream.eof:
            try:
                stream.decompress(piece, 2**20)
            except zlib.error:
                return False  # the door says what is wrong with it
            piece = stream.unconsumed_tail
        if stream.eof and (stream.unused_data or piece):
            return True
    return False


def _count_webp(data: bytes, found: Counter[str]) -> None:
    kinds = {b"XMP ": "xmp", b"ANMF": "extra_frame", b"C2PA": "c2pa"}
    for fourcc, start, end in containers.riff_chunks(data):
        if fourcc == b"EXIF":
            count_exif(data[start:end].removeprefix(b"Exif\0\0"), found)
        elif fourcc == b"ICCP":
            count_icc(data[start:end], found)
        elif fourcc not in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM"):
            found[kinds.get(fourcc, "vendor")] += 1
    if found["extra_frame"]:
        found["extra_frame"] -= 1
    _count_tail(data, 8 + int.from_bytes(data[4:8], "little"), found)


def _count_gif(data: bytes, found: Counter[str]) -> None:
    frames = end = 0
    for kind, start, stop in containers.gif_blocks(data):
        end = stop
        if kind == 0x2C:
            frames += 1
        elif kind in (0xFE, 0x01):  # a comment; plain text drawn over the picture
            found["comment"] += 1
        elif kind == 0xFF:
            label = data[start + 3 : start + 14]
            if label not in (b"NETSCAPE2.0", b"ANIMEXTS1.0"):
                found[_GIF_APPLICATIONS.get(label, "vendor")] += 1
        elif kind not in (0xF9, 0x3B):
            found["vendor"] += 1
    found["extra_frame"] += max(frames - 1, 0)
    _count_tail(data, end, found)


def _count_bmp(data: bytes, found: Counter[str]) -> None:
    size, pixels = int.from_bytes(data[2:6], "little"), int.from_bytes(data[10:14], "little")
    header = int.from_bytes(data[14:18], "little")
    if 0 < size < len(data):
        _count_tail(data, size, found)
    if header >= 40:
        bits, colours = struct.unpack_from("<H", data, 28)[0], struct.unpack_from("<I", data, 46)[0]
        table = 4 * (colours or (1 << bits if bits <= 8 else 0)) + 12
        found["hidden_bytes"] += pixels > 14 + header + table
    if header == 124:  # BITMAPV5HEADER
        found["icc"] += data[70:74] in (b"MBED", b"DEBM", b"LINK", b"KNIL")


def _count_heif(data: bytes, found: Counter[str]) -> None:
    items = boxes.heif_items(data)
    for number, kind in items.kinds.items():
        body = items.item(data, number)
        if kind == b"Exif":
            skip = 4 + int.from_bytes(body[:4], "big")
            count_exif(body[skip:], found)
        elif kind == b"mime":
            found["xmp"] += 1
        elif kind == b"uri ":
            found["vendor"] += 1
    found["thumbnail"] += sum(len(targets) for _, targets in items.refers.get(b"thmb", []))
    found["extra_frame"] += max(items.pictures() - 1, 0)
    planes = len(items.refers.get(b"auxl", []))  # depth and gain maps, alpha
    found["extra_frame"] += max(planes - items.alphas, 0)
    coded = [
        extent for method, extents in items.where.values() if method == 0 for extent in extents
    ]
    for kind, start, end in boxes.boxes(data):
        if kind in (b"free", b"skip"):
            found["hidden_bytes"] += end > start
        elif kind == b"uuid":
            found[_UUIDS.get(data[start : start + 16].hex(), "vendor")] += 1
        elif kind in (b"moov", b"mpvd"):
            found["extra_frame" if kind == b"moov" else "motion_photo"] += 1
        elif kind == b"mdat":
            covered = sum(length for at, length in coded if start <= at < end)
            found["hidden_bytes"] += covered < end - start and b"moov" not in data
        elif kind not in (b"ftyp", b"meta", b"moof", b"sidx"):
            found["vendor"] += 1
        if kind == b"meta":
            _count_profiles(data, start + 4, end, found)


def _count_profiles(data: bytes, start: int, end: int, found: Counter[str]) -> None:
    for kind, a, b in boxes.boxes(data, start, end):
        if kind in (b"iprp", b"ipco"):
            _count_profiles(data, a, b, found)
        elif kind == b"colr" and data[a : a + 4] in (b"prof", b"rICC"):
            count_icc(data[a + 4 : b], found)
        elif kind in (b"udes", b"uuid", b"free", b"skip"):
            found["comment" if kind == b"udes" else "vendor"] += 1


def _count_jp2(data: bytes, found: Counter[str]) -> None:
    pictures = 0
    if data.startswith(boxes.CODESTREAM):
        pictures = 1
    else:
        for kind, start, _ in boxes.boxes(data):
            pictures += kind == b"jp2c"
            if kind == b"uuid":
                found[_UUIDS.get(data[start : start + 16].hex(), "vendor")] += 1
            elif kind == b"xml ":
                found["xmp"] += 1
            elif kind not in (b"jP  ", b"ftyp", b"jp2h", b"jp2c"):
                found["vendor"] += 1
    found["extra_frame"] += max(pictures - 1, 0)
    if profile := boxes.jp2_profile(data):
        count_icc(profile, found)
    start, end = boxes.codestream(data)
    for marker, _, _ in boxes.codestream_segments(data, start, end):
        found["comment"] += marker == 0xFF64
    last = data.rfind(b"\xff\xd9", start, end)
    found["trailing_data"] += last >= 0 and last + 2 != end
