"""Picture files with planted secrets, and colour profiles with a known effect. All made up."""

import io
import struct
import zlib

from PIL import Image, PngImagePlugin, TiffImagePlugin

SECRETS = (
    b"PLANTED-Jane-Roe",
    b"PLANTED-xmp-owner",
    b"PLANTED-comment",
    b"PLANTED-trailer",
    b"PLANTED-profile",
    b"PLANTED-vendor",
    b"PLANTED-iptc",
    b"PLANTED-time 2031:01:02",
)
GPS = (37.0, 33.0, 58.87)
GPS_BYTES = (struct.pack("<II", 5887, 100), struct.pack(">II", 5887, 100))  # as EXIF stores it
PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp")
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>PLANTED-xmp-owner</x:xmpmeta>"


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Make a smooth picture whose corners differ."""
    image = Image.new("RGB", (width, height))
    image.putdata(
        [
            (5 * x % 256, 7 * y % 256, (3 * x + 2 * y) % 256)
            for y in range(height)
            for x in range(width)
        ]
    )
    return image


def exif(orientation: int = 1) -> Image.Exif:
    """Make EXIF with a name, a time and a place."""
    block = Image.Exif()
    block[0x010E] = "PLANTED-Jane-Roe"
    block[0x0132] = "PLANTED-time 2031:01:02"
    block[0x0112] = orientation
    block[0x8769] = {0x9286: b"ASCII\0\0\0PLANTED-Jane-Roe"}
    block[0x8825] = {1: "N", 2: GPS, 3: "E", 4: GPS}
    return block


def planted(kind: str) -> bytes:
    """Make a file of the format that holds every kind of secret the format can."""
    image, buffer = picture(), io.BytesIO()
    icc = rgb_profile()
    if kind == "jpeg":
        image.save(buffer, "JPEG", exif=exif(), icc_profile=icc, comment=b"PLANTED-comment")
        data = buffer.getvalue()
        extra = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        extra += segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0cPLANTED-iptc")
        extra += segment(0xE7, b"MAKER\0PLANTED-vendor")
        data = data[:2] + extra + data[2:]
    elif kind == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", "PLANTED-Jane-Roe")
        info.add_text("Comment", "PLANTED-comment", zip=True)
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add(b"prVt", b"PLANTED-vendor")
        image.save(buffer, "PNG", exif=exif(), icc_profile=icc, pnginfo=info)
        data = buffer.getvalue()
    elif kind == "webp":
        image.save(buffer, "WEBP", exif=exif().tobytes(), icc_profile=icc, xmp=XMP, lossless=True)
        data = buffer.getvalue()
    elif kind == "gif":
        other = Image.new("RGB", image.size, "red")
        image.save(buffer, "GIF", save_all=True, append_images=[other], comment=b"PLANTED-comment")
        data = buffer.getvalue()
        at = data.index(b"\x21\xf9")
        data = data[:at] + b"\x21\xff\x0bXMP DataXMP" + bytes([len(XMP)]) + XMP + b"\0" + data[at:]
    elif kind == "tiff":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x010E], tags[0x013B], tags[0x8298] = "PLANTED-Jane-Roe", "PLANTED-vendor", "PLANTED"
        tags[0x02BC], tags[0x83BB] = XMP, b"PLANTED-iptc"
        tags.tagtype[0x02BC] = tags.tagtype[0x83BB] = 1
        page = Image.new("RGB", image.size, "red")
        image.save(
            buffer, "TIFF", tiffinfo=tags, icc_profile=icc, save_all=True, append_images=[page]
        )
        data = buffer.getvalue()
    else:
        image.save(buffer, "BMP")
        data = buffer.getvalue()
    return data + b"PLANTED-trailer"


def segment(marker: int, body: bytes) -> bytes:
    """Make a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """Make a PNG from filtered rows, with extra chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def rgb_profile(swapped: bool = False) -> bytes:
    """Make a matrix profile with sRGB's primaries and a linear curve.

    Swapped, the red channel means green light and the green channel red.
    """
    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    if swapped:
        red, green = green, red
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0) + b"\0" * 0
    tags = {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile() -> bytes:
    """Make a grey profile with a linear curve."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """Make a printer profile in which cyan ink prints pure Lab (60, -60, 40): green, not cyan."""
    identity = bytes(range(256))
    corners = bytearray()
    for ink in range(16):  # the first channel (C) changes slowest
        cyan, black = bool(ink & 8), bool(ink & 1)
        lightness, a, b = (0, 0, 0) if black else (60, -60, 40) if cyan else (100, 0, 0)
        corners += bytes([round(lightness * 2.55), a + 128, b + 128])
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix
    table = head + identity * 4 + bytes(corners) + identity * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"PLANTED-profile"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + b"\0" * 78
    tags = {b"desc": description, b"wtpt": _xyz((0.9642, 1.0, 0.8249)), **tags}
    tags[b"cprt"] = b"text\0\0\0\0PLANTED-profile\0"
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2030, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return header + struct.pack(">I", len(tags)) + table + body
