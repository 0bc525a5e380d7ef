"""PNG: every ancillary chunk, bytes after the zlib and file end, frames, hidden colours."""

import io
import struct
import zlib

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture
from tests.privacy.planted import PNG, chunk

_SIZE = (48, 32)


def _rows(image: Image.Image) -> bytes:
    width, height = image.size
    step = len(image.getbands()) * width
    data = image.tobytes()
    return b"".join(b"\0" + data[k * step : (k + 1) * step] for k in range(height))


def _header(size: tuple[int, int], depth: int, colour: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))


def _idat(rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows))


def _ancillary(canary: Canary) -> bytes:
    """Make one of every chunk that may stand before the pixels."""
    text = canary.text
    out = chunk(b"tEXt", b"Author\0" + text("tEXt"))
    out += chunk(b"tEXt", text("tEXt keyword") + b"\0x")
    out += chunk(b"zTXt", b"Comment\0\0" + zlib.compress(canary.blob("zTXt")))
    out += chunk(b"iTXt", b"Title\0\0\0en\0" + text("iTXt translated") + b"\0" + text("iTXt"))
    packed = zlib.compress(canary.blob("iTXt compressed"))
    out += chunk(b"iTXt", b"Description\0\1\0\0\0" + packed)
    out += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + exif.xmp(canary))
    for name, body in (("exif", b"Exif\0\0" + exif.block(canary, "raw exif")), ("iptc", b"")):
        body = body or exif.iptc(canary, "raw iptc")
        coded = f"\n{name}\n{len(body):8}\n{body.hex()}\n".encode()
        out += chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(coded))
    out += chunk(b"eXIf", exif.block(canary, "eXIf"))
    out += chunk(b"iCCP", b"profile\0\0" + zlib.compress(exif.icc(canary)))
    out += chunk(b"sPLT", text("sPLT name") + b"\0\x08" + text("sPLT entries").ljust(30, b"x"))
    out += chunk(b"pCAL", text("pCAL") + b"\0" + b"\0" * 8 + b"\0\1" + text("pCAL unit") + b"\0x")
    out += chunk(b"sCAL", b"\1" + text("sCAL"))
    out += chunk(b"tIME", struct.pack(">HBBBBB", 2031, 1, 2, 3, 4, 5))
    for name in (b"oFFs", b"sTER", b"dSIG", b"gIFx", b"gIFt", b"gIFg", b"caBX", b"prVt", b"vpAg"):
        out += chunk(name, canary.blob(name.decode()))
    return out


def _after(canary: Canary) -> bytes:
    out = chunk(b"tEXt", b"Late\0" + canary.text("tEXt after the pixels"))
    out += chunk(b"teSt", canary.blob("private chunk after the pixels"))
    out += chunk(b"IEND", b"") + canary.blob("after IEND")
    second = Image.new("RGB", _SIZE, canary.hide("second file"))
    out += PNG + _header(_SIZE, 8, 2) + _idat(_rows(second)) + chunk(b"IEND", b"")
    return out + b"PK\3\4" + canary.text("archive behind the picture")


def _full(canary: Canary, image: Image.Image, colour: int, *extra: bytes) -> None:
    rows = _rows(image)
    packed = zlib.compress(rows)
    canary.data = PNG + _header(image.size, 8, colour) + _ancillary(canary) + b"".join(extra)
    canary.data += chunk(b"IDAT", packed[:100]) + chunk(b"IDAT", packed[100:])
    canary.data += chunk(b"IDAT", canary.text("after the zlib stream"))
    canary.data += chunk(b"IDAT", canary.blob("another IDAT")) + _after(canary)


def _animated(canary: Canary, first_is_default: bool) -> None:
    image, other = picture(), Image.new("RGB", _SIZE, canary.hide("later frame"))
    place = struct.pack(">IIIIHHBB", *_SIZE, 0, 0, 1, 10, 0, 0)
    head = PNG + _header(_SIZE, 8, 2) + chunk(b"acTL", struct.pack(">II", 2, 0))
    if first_is_default:
        head += chunk(b"fcTL", struct.pack(">I", 0) + place) + _idat(_rows(image))
        number = 1
    else:
        head += _idat(_rows(image)) + chunk(b"fcTL", struct.pack(">I", 0) + place)
        late = Image.new("RGB", _SIZE, canary.hide("first frame of the animation"))
        head += chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(_rows(late)))
        number = 2
    head += chunk(b"fcTL", struct.pack(">I", number) + place)
    head += chunk(b"fdAT", struct.pack(">I", number + 1) + zlib.compress(_rows(other)))
    canary.data = head + chunk(b"fdAT", struct.pack(">I", number + 2) + canary.text("fdAT tail"))
    canary.data += chunk(b"tEXt", b"x\0" + canary.text("tEXt")) + chunk(b"IEND", b"")


def canaries() -> list[Canary]:
    """Make the PNG files."""
    made = [Canary("png rgb"), Canary("png rgba"), Canary("png palette"), Canary("png grey alpha")]
    _full(made[0], picture(), 2)

    clear = picture().convert("RGBA")
    box = Image.new("RGBA", (20, 20), (*made[1].hide("below transparency"), 0))
    clear.paste(box, (4, 4))
    secret = made[1].text("bytes of transparent pixels")
    hidden = (secret * 10)[: 3 * 60]
    for k in range(20):  # each transparent pixel of a row spells three letters
        clear.putpixel((4 + k, 10), (*hidden[3 * k : 3 * k + 3], 0))
    _full(made[1], clear, 6)

    indexed = picture().quantize(64, dither=Image.Dither.NONE)
    colours = bytes(indexed.getpalette() or b"")[:192].ljust(192, b"\0")
    spare = bytes(made[2].hide("unused palette entries")) * 40 + made[2].blob("palette").ljust(72)
    spare = spare[: (256 - 64) * 3]
    _full(made[2], indexed, 3, chunk(b"PLTE", colours + spare[: len(spare) // 3 * 3]))

    grey = picture().convert("LA")
    secret = made[3].text("grey below transparency")
    for k, value in enumerate(secret):
        grey.putpixel((k, 5), (value, 0))
    _full(made[3], grey, 4)

    deep = Canary("png 16-bit")
    low = (deep.text("lower halves of 16-bit samples") * 200)[: 48 * 3 * 32]
    rows = b""
    for y in range(32):
        line = picture().tobytes()[y * 144 : (y + 1) * 144]
        rows += b"\0" + b"".join(
            bytes(pair) for pair in zip(line, low[y * 144 : (y + 1) * 144], strict=True)
        )
    deep.data = PNG + _header(_SIZE, 16, 2) + _ancillary(deep) + _idat(rows) + _after(deep)
    made.append(deep)

    laced = Canary("png interlaced with text in its filters' way")
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    body = buffer.getvalue()
    laced.data = body[:33] + _ancillary(laced) + body[33:-12] + _after(laced)
    made.append(laced)

    for first_is_default in (True, False):
        canary = Canary(f"apng {'first' if first_is_default else 'hidden'} frame")
        _animated(canary, first_is_default)
        made.append(canary)

    key = Canary("png transparent key")
    keyed = picture()
    keyed.paste(key.hide("colour that a key makes transparent"), (0, 0, 10, 10))
    _full(key, keyed, 2, chunk(b"tRNS", struct.pack(">3H", 255, 0, 255)))
    made.append(key)
    return made
