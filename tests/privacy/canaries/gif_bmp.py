"""GIF: every extension, palettes, frames. BMP: gaps, padding, unused bytes and palettes."""

import io
import struct

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture


def _sub_blocks(body: bytes) -> bytes:
    pieces = [body[k : k + 255] for k in range(0, len(body), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def _gif(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "GIF", **options)
    return buffer.getvalue()


def _extensions(canary: Canary, when: str) -> bytes:
    out = b"\x21\xfe" + _sub_blocks(canary.blob(f"comment {when}"))
    text_head = b"\x0c" + struct.pack("<4H4B", 0, 0, 8, 8, 8, 8, 1, 0)
    out += b"\x21\x01" + text_head + _sub_blocks(canary.blob(f"plain text {when}"))
    for label, name in ((b"XMP DataXMP", "xmp"), (b"ICCRGBG1012", "icc"), (b"MYAPPDATA01", "own")):
        body = exif.xmp(canary, f"xmp {when}") if name == "xmp" else canary.blob(f"{name} {when}")
        out += b"\x21\xff\x0b" + label + _sub_blocks(body)
    loop = b"\3\1\0\0" + _sub_blocks(canary.text(f"loop {when}"))
    out += b"\x21\xff\x0bNETSCAPE2.0" + loop
    return out + b"\x21\x77" + _sub_blocks(canary.blob(f"unknown extension {when}"))


def _first_extension(data: bytes) -> int:
    return 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)


def _palette_gif(canary: Canary) -> bytes:
    image = picture().quantize(32, dither=Image.Dither.NONE)
    colours = bytes(image.getpalette() or b"")[:96]
    spare = bytes(canary.hide("unused palette entries")) * 16 + canary.blob("palette")
    image.putpalette((colours + spare).ljust(768, b"\0")[:768])
    data = bytearray(_gif(image, optimize=False))
    whole = (colours + spare).ljust(768, b"\0")[:768]
    if data[10] & 7 == 7:  # the encoder may have dropped what is unused: put it back
        data[13 : 13 + 768] = whole
        return bytes(data)
    end = _first_extension(bytes(data))
    data[13:end] = whole
    data[10] |= 7
    return bytes(data)


def _bmp(canary: Canary, bits: int) -> bytes:
    """Make a BMP by hand, with everything that its fields leave room for."""
    image = picture(45, 32).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    palette = b""
    if bits == 8:
        indexed = image.quantize(32, dither=Image.Dither.NONE)
        colours = bytes(indexed.getpalette() or b"")[:96].ljust(96, b"\0")
        entries = [colours[k : k + 3][::-1] + b"Z" for k in range(0, 96, 3)]
        entries += [bytes(canary.hide("unused palette entries")) + b"\0"] * 40
        spare = canary.blob("palette")
        palette = (b"".join(entries) + spare).ljust(1024, b"\0")[:1024]
        rows = [indexed.tobytes()[y * 45 : (y + 1) * 45] for y in range(32)]
    else:
        layout = {24: "BGR", 32: "BGRX"}[bits]
        data = bytearray(image.tobytes("raw", layout))
        step = 45 * bits // 8
        if bits == 32:
            secret = (canary.text("fourth bytes of pixels") * 60)[: 45 * 32]
            data[3::4] = secret
        rows = [bytes(data[y * step : (y + 1) * step]) for y in range(32)]
    text = canary.text("row padding")
    filled = b""
    for y, row in enumerate(rows):
        room = -len(row) % 4
        filled += row + (text * 9)[y * room : (y + 1) * room]
    gap = canary.blob("gap before the pixels")
    start = 14 + 40 + len(palette) + len(gap)
    head = b"BM" + struct.pack("<I4sI", start + len(filled), b"qZx7", start)
    head += struct.pack("<IiiHHIIiiII", 40, 45, 32, 1, bits, 0, len(filled), 2835, 2835, 0, 0)
    return head + palette + gap + filled + canary.blob("after the end")


def canaries() -> list[Canary]:
    """Make the GIF and BMP files."""
    made = [Canary("gif still"), Canary("gif animated"), Canary("gif palette"), Canary("gif clear")]
    canary = made[0]
    data = _gif(picture())
    at = _first_extension(data)
    data = data[:at] + _extensions(canary, "before") + data[at:-1] + _extensions(canary, "after")
    canary.data = data + b"\x3b" + canary.blob("after the end")

    canary = made[1]
    later = [Image.new("RGB", (48, 32), canary.hide("later frame"))]
    later.append(Image.new("RGB", (48, 32), (1, 2, 3)))
    data = _gif(picture(), save_all=True, append_images=later)
    at = _first_extension(data)
    canary.data = data[:at] + _extensions(canary, "before") + data[at:]
    canary.data += _gif(Image.new("RGB", (48, 32), canary.hide("second file")))

    made[2].data = _palette_gif(made[2])

    canary = made[3]
    image = picture().quantize(30, dither=Image.Dither.NONE)
    colours = bytes(image.getpalette() or b"")[:90]
    image.putpalette(colours + bytes(canary.hide("the transparent colour")))
    image.paste(30, (0, 0, 12, 12))
    data = _gif(image, transparency=30, optimize=False)
    at = _first_extension(data)
    canary.data = data[:at] + _extensions(canary, "before") + data[at:]

    for bits in (8, 24, 32):
        canary = Canary(f"bmp {bits}-bit")
        canary.data = _bmp(canary, bits)
        made.append(canary)
    return made
