"""HEIC, AVIF and JPEG 2000: items, free, skip and uuid boxes, profiles, gaps, second pictures."""

import importlib.util
import io
import struct

from PIL import Image

from tests.privacy.canaries import Canary, exif, picture
from tests.privacy.planted import segment


def box(kind: bytes, body: bytes) -> bytes:
    """Make a box."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def parse(data: bytes) -> list[tuple[bytes, bytes]]:
    """Take bytes apart into (type, body) of boxes."""
    found, pos = [], 0
    while pos < len(data):
        size, kind = struct.unpack_from(">I4s", data, pos)
        body = pos + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, body)[0]
            body += 8
        size = size or len(data) - pos
        found.append((kind, data[body : pos + size]))
        pos += size
    return found


def _shifted(iloc: bytes, by: int) -> bytes:
    """Move every extent of an item location box that counts from the start of the file."""
    version = iloc[0]
    offset, length, base = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4
    index = iloc[5] & 15 if version else 0
    wide = 4 if version == 2 else 2
    out, pos = bytearray(iloc), 6

    def number(width: int, add: int = 0) -> int:
        nonlocal pos
        value = int.from_bytes(out[pos : pos + width], "big")
        if add:
            out[pos : pos + width] = (value + add).to_bytes(width, "big")
        pos += width
        return value

    for _ in range(number(wide)):
        number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        move = by if method == 0 else 0
        number(base, move if base else 0)
        for _ in range(number(2)):
            number(index)
            number(offset, 0 if base else move)
            number(length)
    return bytes(out)


def edited(
    data: bytes,
    *,
    properties: tuple[tuple[bytes, bytes], ...] = (),
    in_meta: bytes = b"",
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Add to a HEIF or AVIF file, moving its items along.

    Args:
        properties: (type, body) of properties that the first item gets, in this order.
        in_meta: boxes at the end of the meta box.
        before: boxes between ftyp and meta.
        after: bytes at the end of the file.
    """
    whole = parse(data)
    meta = next(body for kind, body in whole if kind == b"meta")
    inner = dict(parse(meta[4:]))
    names = [kind for kind, _ in parse(meta[4:])]
    if properties:
        parts = dict(parse(inner[b"iprp"]))
        known = len(parse(parts[b"ipco"]))
        parts[b"ipco"] += b"".join(box(kind, body) for kind, body in properties)
        ipma = bytearray(parts[b"ipma"])
        assert ipma[0] == 0 and not ipma[3] & 1  # small ids, small indices
        for k, (kind, _) in enumerate(properties):
            essential = 0x80 if kind in (b"irot", b"imir", b"clap") else 0
            ipma[10] += 1  # associations of the first item
            ipma[11 + ipma[10] - 1 : 11 + ipma[10] - 1] = bytes([essential | known + 1 + k])
        parts[b"ipma"] = bytes(ipma)
        inner[b"iprp"] = b"".join(box(kind, body) for kind, body in parts.items())
    by = sum(len(body) for body in (before, in_meta))
    by += len(inner[b"iprp"]) - len(dict(parse(meta[4:]))[b"iprp"])
    inner[b"iloc"] = _shifted(inner[b"iloc"], by)
    meta = meta[:4] + b"".join(box(kind, inner[kind]) for kind in names) + in_meta
    out = b""
    for kind, body in whole:
        out += before + box(kind, meta) if kind == b"meta" else box(kind, body)
    return out + after


def heic(image: Image.Image, **options: object) -> bytes:
    """Encode as HEIC."""
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, format="HEIF", quality=90, **options)
    return buffer.getvalue()


def avif(image: Image.Image, **options: object) -> bytes:
    """Encode as AVIF."""
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", **{"quality": 90, "speed": 10, **options})
    return buffer.getvalue()


def _full(canary: Canary, data: bytes) -> None:
    uuid = bytes(range(16))
    before = box(b"free", canary.blob("free box before")) + box(b"skip", canary.blob("skip box"))
    before += box(b"uuid", uuid + canary.blob("uuid box before"))
    in_meta = box(b"free", canary.blob("free box in meta"))
    in_meta += box(b"uuid", uuid + canary.blob("uuid box in meta"))
    description = b"\0\0\0\0en\0" + canary.text("description name") + b"\0"
    description += canary.text("description text") + b"\0" + canary.text("description tags") + b"\0"
    properties = ((b"udes", description), (b"colr", b"prof" + exif.icc(canary)))
    after = box(b"free", canary.blob("free box after")) + box(b"mdat", canary.blob("second mdat"))
    after += box(b"uuid", uuid + canary.blob("uuid box after"))
    after += box(b"mpvd", box(b"ftyp", b"mp42\0\0\0\0") + box(b"mdat", canary.blob("motion photo")))
    after += box(b"prVt", canary.blob("unknown box")) + box(b"sefd", canary.blob("vendor trailer"))
    canary.data = edited(data, properties=properties, in_meta=in_meta, before=before, after=after)


def _jp2(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG2000", irreversible=False)
    return buffer.getvalue()


def _full_jp2(canary: Canary, image: Image.Image) -> None:
    xmp_id = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    extra = box(b"xml ", exif.xmp(canary)) + box(b"uuid", xmp_id + exif.xmp(canary, "uuid xmp"))
    extra += box(b"uuid", b"JpgTiffExif->JP2" + exif.block(canary))
    extra += box(b"uuid", bytes(range(16)) + canary.blob("uuid"))
    extra += box(b"uinf", box(b"ulst", canary.blob("uuid list")) + box(b"url ", canary.text("url")))
    extra += box(b"asoc", box(b"lbl ", canary.text("label"))) + box(b"jp2i", canary.blob("rights"))
    extra += box(b"free", canary.blob("free")) + box(b"prVt", canary.blob("unknown"))
    out = b""
    for kind, body in parse(_jp2(image)):
        if kind == b"jp2c":
            at = body.index(b"\xff\x52")  # a comment before the coding style
            comment = segment(0x64, b"\0\1" + canary.blob("codestream comment"))
            body = body[:at] + comment + body[at:]
            out += extra + box(kind, body + canary.blob("after the codestream"))
        elif kind == b"jp2h":
            out += box(kind, body + box(b"colr", b"\2\0\0" + exif.icc(canary)))
        else:
            out += box(kind, body)
    later = Image.new("RGB", image.size, canary.hide("second codestream"))
    out += box(b"jp2c", dict(parse(_jp2(later)))[b"jp2c"])
    canary.data = out + box(b"xml ", canary.blob("xml after the picture"))


def canaries() -> list[Canary]:
    """Make the HEIC, AVIF and JPEG 2000 files; HEIC where its encoder is installed."""
    made = []
    later = Image.new("RGB", (64, 64), (255, 0, 255))
    clear = picture(64, 64).convert("RGBA")
    clear.paste((255, 0, 255, 0), (0, 0, 32, 32))

    def start(name: str, *pixels: str) -> Canary:
        canary = Canary(name)
        for place in pixels:
            canary.hide(place)
        made.append(canary)
        return canary

    def tags(canary: Canary) -> dict[str, object]:
        return {"exif": b"Exif\0\0" + exif.block(canary), "xmp": exif.xmp(canary)}

    canary = start("avif still")
    _full(canary, avif(picture(64, 64), **tags(canary)))
    canary = start("avif animated", "later frame")
    canary.data = avif(
        picture(64, 64), save_all=True, append_images=[later], duration=100, **tags(canary)
    ) + box(b"free", canary.blob("free"))
    canary = start("avif alpha", "below transparency")
    canary.data = avif(clear, **tags(canary)) + box(b"uuid", bytes(16) + canary.blob("uuid"))
    for canary in made:  # the encoder writes EXIF anew, without its thumbnail
        canary.tokens = {p: t for p, t in canary.tokens.items() if not p.startswith("exif thumb")}
    if importlib.util.find_spec("pillow_heif"):
        canary = start("heic still")
        _full(canary, heic(picture(64, 64), **tags(canary)))
        canary = start("heic alpha", "below transparency")
        canary.data = heic(clear, **tags(canary)) + box(b"skip", canary.blob("skip"))
        canary = start("heic two pictures", "second picture")
        import pillow_heif

        file = pillow_heif.from_pillow(picture(64, 64))
        file.add_from_pillow(later)
        buffer = io.BytesIO()
        file.save(buffer, format="HEIF", quality=90, primary_index=0)
        canary.data = buffer.getvalue() + box(b"free", canary.blob("free"))
    for name, image in (("jp2 rgb", picture()), ("jp2 grey", picture().convert("L"))):
        canary = start(name)
        _full_jp2(canary, image)
    canary = start("jp2 alpha", "below transparency")
    small = picture().convert("RGBA")
    small.paste((255, 0, 255, 0), (0, 0, 16, 16))
    secret = canary.text("bytes of transparent pixels")
    for k in range(len(secret) // 3):
        small.putpixel((k, 20), (*secret[3 * k : 3 * k + 3], 0))
    _full_jp2(canary, small)
    bare = start("j2k codestream")
    body = dict(parse(_jp2(picture())))[b"jp2c"]
    at = body.index(b"\xff\x52")
    comment = segment(0x64, b"\0\1" + bare.blob("comment"))
    bare.data = body[:at] + comment + body[at:] + bare.blob("after the end")
    return made
