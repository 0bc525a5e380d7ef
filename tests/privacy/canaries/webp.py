"""WebP: metadata and unknown chunks, later frames, hidden colours, bytes after the end."""

import io
import struct

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture


def _chunk(name: bytes, body: bytes, pad: bytes = b"\0") -> bytes:
    return name + struct.pack("<I", len(body)) + body + (pad if len(body) & 1 else b"")


def _riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _picture_chunk(image: Image.Image, **options: object) -> bytes:
    """Encode and return the chunks of the picture alone, without VP8X."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    data = buffer.getvalue()[12:]
    if data[:4] == b"VP8X":
        data = data[18:]
    return data


def _extended(canary: Canary, chunks: bytes, flags: int, size: tuple[int, int]) -> bytes:
    sides = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    head = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    out = head + _chunk(b"ICCP", exif.icc(canary)) + _chunk(b"zzzz", canary.blob("early chunk"))
    out += chunks + _chunk(b"EXIF", exif.block(canary)) + _chunk(b"XMP ", exif.xmp(canary))
    out += _chunk(b"EXIF", b"Exif\0\0" + exif.block(canary, "second exif", order=">"))
    for name in (b"C2PA", b"META", b"prVt", b"Xtra"):
        out += _chunk(name, canary.blob(name.decode()), pad=b"Z")
    return _riff(out) + canary.blob("after the end")


def canaries() -> list[Canary]:
    """Make the WebP files."""
    made = []
    for lossless in (True, False):
        canary = Canary(f"webp {'lossless' if lossless else 'lossy'}")
        body = _picture_chunk(picture(), lossless=lossless, quality=90)
        canary.data = _extended(canary, body, 0x2C, (48, 32))
        made.append(canary)
    for lossless in (True, False):
        canary = Canary(f"webp alpha {'lossless' if lossless else 'lossy'}")
        clear = picture().convert("RGBA")
        clear.paste((*canary.hide("below transparency"), 0), (0, 0, 16, 16))
        secret = canary.text("bytes of transparent pixels") if lossless else b""
        for k in range(len(secret) // 3):
            clear.putpixel((k, 20), (*secret[3 * k : 3 * k + 3], 0))
        body = _picture_chunk(clear, lossless=lossless, exact=True, quality=90)
        canary.data = _extended(canary, body, 0x3C, (48, 32))
        made.append(canary)

    canary = Canary("webp simple with a long chunk")
    body = _picture_chunk(picture(), lossless=True)
    inner = body[8 : 8 + int.from_bytes(body[4:8], "little")]
    longer = _chunk(b"VP8L", inner + canary.text("after the coded picture"))
    canary.data = _riff(longer + _chunk(b"junk", canary.blob("chunk after the picture")))
    canary.data += canary.text("after the end")
    made.append(canary)

    canary = Canary("webp animated")
    later = Image.new("RGB", (48, 32), canary.hide("later frame"))
    buffer = io.BytesIO()
    picture().save(buffer, "WEBP", save_all=True, append_images=[later], lossless=True)
    extra = _chunk(b"XMP ", exif.xmp(canary)) + _chunk(b"EXIF", exif.block(canary))
    canary.data = _riff(buffer.getvalue()[12:] + extra) + canary.blob("after the end")
    made.append(canary)
    return made
