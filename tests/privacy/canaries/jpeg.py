"""JPEG: every APPn, thumbnails, second images, between and after scans, unused tables."""

import io
import struct

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture
from tests.privacy.planted import segment


def _encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def _magenta(canary: Canary, place: str, size: tuple[int, int] = (24, 16)) -> bytes:
    return _encoded(Image.new("RGB", size, canary.hide(place)))


def _segments(canary: Canary) -> bytes:
    """Make one of every kind of segment that may stand before the picture."""
    out = b""
    for number in range(16):
        out += segment(0xE0 + number, b"Label\0" + canary.blob(f"APP{number}"))
    out += segment(0xFE, canary.blob("comment")) + segment(0xFE, canary.utf16("wide comment"))
    out += segment(0xE1, b"Exif\0\0" + exif.block(canary))
    out += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + exif.xmp(canary))
    guid = b"0123456789ABCDEF0123456789ABCDEF"
    extended = exif.xmp(canary, "extended xmp")
    head = b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(extended), 0)
    out += segment(0xE1, head + extended)
    out += segment(0xE2, b"ICC_PROFILE\0\1\1" + exif.icc(canary))
    out += segment(0xE2, b"FPXR\0" + canary.blob("FlashPix"))
    out += segment(0xEB, b"JP\0\1\0\0\0\1" + b"jumb" + canary.blob("C2PA"))
    out += segment(0xEC, b"Ducky\0" + canary.text("Ducky"))
    out += segment(0xED, exif.iptc(canary))
    out += segment(0xE0, b"JFXX\0\x10" + _magenta(canary, "JFXX thumbnail"))
    small = bytes(canary.hide("JFIF thumbnail")) * 16
    return segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\4\4" + small) + out


def _motion_photo(canary: Canary) -> bytes:
    film = struct.pack(">I4s4sI", 16, b"ftyp", b"mp42", 0)
    body = canary.blob("motion photo")
    return film + struct.pack(">I4s", 8 + len(body), b"mdat") + body


def _before_scan(data: bytes, extra: bytes) -> bytes:
    at = data.index(b"\xff\xda")
    return data[:at] + extra + data[at:]


def _between_scans(data: bytes, extra: bytes) -> bytes:
    """Put segments before the second scan of a progressive JPEG."""
    first = data.index(b"\xff\xda")
    at = min(p for p in (data.find(b"\xff\xc4", first), data.find(b"\xff\xda", first + 2)) if p > 0)
    return data[:at] + extra + data[at:]


def _tables(canary: Canary) -> bytes:
    """Make tables that no scan uses, made of secrets."""
    quantisation = canary.text("unused quantisation table")
    out = segment(0xDB, bytes([3]) + quantisation.ljust(64, b"\1"))
    symbols = canary.text("unused Huffman table")
    # 26 codes of eight bits each: valid lengths, whatever the symbols say
    counts = bytes([0] * 7 + [len(symbols)] + [0] * 8)
    return out + segment(0xC4, bytes([0x13]) + counts + symbols)


def canaries() -> list[Canary]:
    """Make the JPEG files."""
    made = []
    image = picture()
    kinds = {
        "baseline": _encoded(image),
        "progressive": _encoded(image, progressive=True),
        "grey": _encoded(image.convert("L")),
        "cmyk": _encoded(image.convert("CMYK")),
        "restarts": _encoded(image, restart_marker_rows=1),
        "full-colour": _encoded(image, subsampling=0, optimize=True),
    }
    for kind, data in kinds.items():
        canary = Canary(f"jpeg {kind}")
        extra = segment(0xFE, canary.blob("comment after the frame header"))
        if kind not in ("full-colour", "cmyk"):
            extra += _tables(canary)
        if kind == "progressive":
            between = segment(0xFE, canary.blob("comment between scans"))
            between += segment(0xE5, canary.blob("APP5 between scans"))
            data = _between_scans(data, between)
        data = _before_scan(data, extra)
        end = data.rindex(b"\xff\xd9")
        data = data[:end] + canary.text("after the last block") + data[end:]
        data = data[:2] + _segments(canary) + data[2:]
        data += canary.blob("after the end") + _magenta(canary, "second image", (64, 64))
        data += _motion_photo(canary) + canary.utf16("at the very end")
        canary.data = data
        made.append(canary)
    made.append(_cropped())
    for order in ("<", ">"):
        canary = Canary(f"jpeg exif {order}")
        canary.data = kinds["baseline"]
        block = segment(0xE1, b"Exif\0\0" + exif.block(canary, "first exif", order=order))
        block += segment(0xE1, b"Exif\0\0" + exif.block(canary, "second exif", order=order))
        canary.data = canary.data[:2] + block + canary.data[2:]
        made.append(canary)
    return made


def _cropped() -> Canary:
    """Make a JPEG whose header leaves out the last rows and columns of its last blocks."""
    canary = Canary("jpeg cropped by its header")
    image = picture(48, 32)
    image.paste(canary.hide("pixels beyond the edge"), (41, 0, 48, 32))
    data = bytearray(_encoded(image, subsampling=0, quality=98))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 32, 41)  # still six blocks a row
    canary.data = bytes(data)
    return canary
