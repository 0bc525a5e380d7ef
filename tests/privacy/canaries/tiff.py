"""TIFF: text and private tags, sub-directories, pages, gaps, extra samples."""

import struct

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture
from tests.privacy.canaries.exif import directory

_ASCII, _SHORT, _LONG, _BYTE, _UNDEFINED = 2, 3, 4, 1, 7
_TEXTS = {0x010D: "document", 0x010E: "description", 0x010F: "make", 0x0110: "model"}
_TEXTS |= {0x011D: "page name", 0x0131: "software", 0x0132: "date", 0x013B: "artist"}
_TEXTS |= {0x013C: "host", 0x0151: "target printer", 0x014D: "ink names", 0x8298: "copyright"}
_TEXTS |= {0xA480: "metadata of a library", 0xC614: "unique model", 0xC62F: "serial"}
_BLOBS = {0x02BC: "xmp", 0x83BB: "iptc", 0x8649: "photoshop", 0x935C: "layers", 0xFDE9: "private"}
_BLOBS |= {0x8773: "icc", 0xEA1C: "padding", 0xC634: "maker note", 0xCD41: "c2pa"}


def _tiff(
    canary: Canary, samples: Image.Image, photometric: int, order: str, extra: tuple[int, ...]
) -> bytes:
    """Lay out a TIFF of two pages with everything that a reader of pixels skips."""
    name = "II*\0" if order == "<" else "MM\0*"
    width, height = samples.size
    count = len(samples.getbands())

    def short(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}H", *values)

    def number(value: int) -> bytes:
        return struct.pack(f"{order}I", value)

    out = name.encode() + b"\0\0\0\0" + canary.blob("gap before the pixels")
    out += b"\0" * (len(out) & 1)
    strip = len(out)
    pixels = samples.tobytes()
    out += pixels + canary.blob("gap after the pixels")

    def page(start: int, where: int, fields: list[tuple[int, int, bytes]], after: int) -> bytes:
        base = [(0x0100, _LONG, number(width)), (0x0101, _LONG, number(height))]
        base += [(0x0102, _SHORT, short(*[8] * count)), (0x0103, _SHORT, short(1))]
        base += [(0x0106, _SHORT, short(photometric)), (0x0111, _LONG, number(where))]
        base += [(0x0115, _SHORT, short(count)), (0x0116, _LONG, number(height))]
        base += [(0x0117, _LONG, number(len(pixels)))]
        if extra:
            base.append((0x0152, _SHORT, short(*extra)))
        return directory(base + fields, start, order, after)

    later = Image.new(samples.mode, samples.size, samples.getpixel((0, 0)))
    later.paste({"RGB": (255, 0, 255), "RGBA": (255, 0, 255, 255)}[samples.mode], (0, 0, 48, 32))
    hidden = []
    for place in ("second page", "sub-directory"):
        canary.hide(place)
        out += b"\0" * (len(out) & 1)
        at = len(out)
        out += later.tobytes()
        out += b"\0" * (len(out) & 1)
        text = [(0x010E, _ASCII, canary.text(f"{place} description") + b"\0")]
        hidden.append(len(out))
        out += page(len(out), at, text, 0)
    inner = [(0xA430, _ASCII, canary.text("exif owner") + b"\0")]
    inner += [(0x927C, _UNDEFINED, canary.blob("exif maker note"))]
    gps = [(0x1C, _ASCII, canary.text("gps area") + b"\0")]
    where = []
    for fields in (inner, gps):
        out += b"\0" * (len(out) & 1)
        where.append(len(out))
        out += directory(fields, len(out), order)
    fields = [(tag, _ASCII, canary.text(what) + b"\0") for tag, what in _TEXTS.items()]
    fields += [(0x8769, _LONG, number(where[0])), (0x8825, _LONG, number(where[1]))]
    fields.append((0x014A, _LONG, number(hidden[1])))
    for tag, what in _BLOBS.items():
        makers = {"xmp": exif.xmp, "iptc": exif.iptc, "icc": exif.icc}
        body = makers[what](canary) if what in makers else canary.blob(what)
        fields.append((tag, _BYTE if what != "icc" else _UNDEFINED, body))
    out += b"\0" * (len(out) & 1)
    first = len(out)
    out += page(first, strip, fields, hidden[0]) + canary.blob("after the end")
    return out[:4] + number(first) + out[8:]


def canaries() -> list[Canary]:
    """Make the TIFF files."""
    made = []
    for order in ("<", ">"):
        canary = Canary(f"tiff rgb {order}")
        canary.data = _tiff(canary, picture(), 2, order, ())
        made.append(canary)

    canary = Canary("tiff alpha")
    clear = picture().convert("RGBA")
    clear.paste((*canary.hide("below transparency"), 0), (0, 0, 16, 16))
    secret = canary.text("bytes of transparent pixels")
    for k in range(len(secret) // 3):
        clear.putpixel((k, 20), (*secret[3 * k : 3 * k + 3], 0))
    canary.data = _tiff(canary, clear, 2, "<", (2,))
    made.append(canary)

    canary = Canary("tiff extra samples")
    spare = (canary.text("a fourth sample of no meaning") * 80)[: 48 * 32]
    fourth = Image.frombytes("L", (48, 32), spare)
    canary.data = _tiff(canary, Image.merge("RGBA", (*picture().split(), fourth)), 2, "<", (0,))
    made.append(canary)
    return made
