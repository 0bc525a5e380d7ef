"""EXIF, XMP, IPTC and ICC blocks full of secrets."""

import struct

from tests.privacy import planted as plant
from tests.privacy.canaries import Canary

_ASCII, _BYTE, _UNDEFINED, _LONG, _SHORT, _RATIONAL = 2, 1, 7, 4, 3, 5
_MAIN = {0x010D: "document", 0x010E: "description", 0x010F: "make", 0x0110: "model"}
_MAIN |= {0x011D: "page name", 0x0131: "software", 0x0132: "date", 0x013B: "artist"}
_MAIN |= {0x013C: "host", 0x8298: "copyright", 0xC62F: "camera serial", 0x4746: "private"}
_WIDE = {0x9C9B: "XP title", 0x9C9C: "XP comment", 0x9C9D: "XP author", 0x9C9E: "XP keywords"}
_WIDE |= {0x9C9F: "XP subject"}
_EXIF = {0x9003: "original date", 0x9004: "digitised date", 0x9290: "subseconds"}
_EXIF |= {0xA420: "unique id", 0xA430: "owner", 0xA431: "body serial", 0xA433: "lens make"}
_EXIF |= {0xA434: "lens model", 0xA435: "lens serial", 0xA436: "title", 0xA437: "photographer"}
_EXIF |= {0xA438: "editor", 0xA004: "sound file", 0x8824: "spectral", 0xEA1C: "padding"}
_GPS = {0x08: "satellites", 0x12: "datum", 0x1B: "method", 0x1C: "area", 0x1D: "date stamp"}


def directory(
    fields: list[tuple[int, int, bytes]], start: int, order: str = "<", following: int = 0
) -> bytes:
    """Lay out one directory with its values behind it, to stand at `start`."""
    sizes = {_ASCII: 1, _BYTE: 1, _UNDEFINED: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, 13: 4}
    table, values = b"", b""
    at = start + 2 + 12 * len(fields) + 4
    for tag, kind, value in sorted(fields):
        count = len(value) // sizes[kind]
        if len(value) <= 4:
            table += struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
        else:
            table += struct.pack(f"{order}HHII", tag, kind, count, at + len(values))
            values += value + b"\0" * (len(value) & 1)
    head = struct.pack(f"{order}H", len(fields))
    return head + table + struct.pack(f"{order}I", following) + values


def block(canary: Canary, name: str = "exif", orientation: int = 1, order: str = "<") -> bytes:
    """Make a TIFF-structured EXIF block with directories, GPS, maker note and a thumbnail."""

    def number(code: str, value: int) -> bytes:
        return struct.pack(order + code, value)

    degrees = b"".join(struct.pack(order + "II", *pair) for pair in ((37, 1), (33, 1), (5887, 100)))
    gps = [(1, _ASCII, b"N\0"), (2, _RATIONAL, degrees), (3, _ASCII, b"E\0")]
    gps += [(4, _RATIONAL, degrees)]
    gps += [(tag, _ASCII, canary.text(f"{name} GPS {what}") + b"\0") for tag, what in _GPS.items()]
    inner = [(tag, _ASCII, canary.text(f"{name} {what}") + b"\0") for tag, what in _EXIF.items()]
    inner.append((0x927C, _UNDEFINED, b"MAKER\0" + canary.blob(f"{name} maker note")))
    inner.append((0x9286, _UNDEFINED, b"UNICODE\0" + canary.utf16(f"{name} user comment")))
    interop = [(1, _ASCII, b"R98\0"), (0x1000, _ASCII, canary.text(f"{name} interop") + b"\0")]
    fields = [(tag, _ASCII, canary.text(f"{name} {what}") + b"\0") for tag, what in _MAIN.items()]
    fields += [(tag, _BYTE, canary.utf16(f"{name} {what}")) for tag, what in _WIDE.items()]
    fields.append((0x0112, _SHORT, number("H", orientation)))
    thumbnail = b"\xff\xd8" + canary.blob(f"{name} thumbnail") + b"\xff\xd9"

    # First with empty pointers, to learn the sizes; then for good.
    at = [0, 0, 0, 0]
    for _ in range(2):
        pointers = [(0x8769, _LONG, number("I", at[0])), (0x8825, _LONG, number("I", at[1]))]
        main = directory(fields + pointers, 8, order, following=at[3])
        sub = [(0xA005, _LONG, number("I", at[2]))]
        parts = [directory(inner + sub, at[0], order), directory(gps, at[1], order)]
        parts.append(directory(interop, at[2], order))
        end = 8 + len(main)
        for k, part in enumerate(parts):
            at[k] = end
            end += len(part)
        at[3] = end
    small = [(0x0103, _SHORT, number("H", 6)), (0x0201, _LONG, number("I", at[3] + 2 + 36 + 4))]
    small.append((0x0202, _LONG, number("I", len(thumbnail))))
    head = (b"II*\0" if order == "<" else b"MM\0*") + number("I", 8)
    return head + main + b"".join(parts) + directory(small, at[3], order) + thumbnail


def xmp(canary: Canary, name: str = "xmp") -> bytes:
    """Make an XMP packet: creator, place, serial number, history, padding."""
    fields = ("dc:creator", "photoshop:City", "aux:SerialNumber", "xmpMM:DocumentID", "GPSLatitude")
    body = "".join(f"<{f}>{canary.text(f'{name} {f}').decode()}</{f}>" for f in fields)
    packet = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF>{body}</rdf:RDF></x:xmpmeta>"
    return packet.encode() + b" " * 40 + canary.text(f"{name} padding") + b"<?xpacket end='w'?>"


def iptc(canary: Canary, name: str = "iptc") -> bytes:
    """Make a Photoshop resource block with IPTC records and a private resource."""
    records = b""
    for number, what in ((80, "by-line"), (90, "city"), (25, "keyword"), (120, "caption")):
        text = canary.text(f"{name} {what}")
        records += b"\x1c\2" + bytes([number]) + struct.pack(">H", len(text)) + text
    out = b"Photoshop 3.0\0"
    for number, body in ((0x0404, records), (0x07D0, canary.blob(f"{name} resource"))):
        out += b"8BIM" + struct.pack(">HHI", number, 0, len(body)) + body + b"\0" * (len(body) & 1)
    return out


def icc(canary: Canary, name: str = "icc") -> bytes:
    """Make a profile close to sRGB with secrets in its texts and in a private tag."""
    profile = plant.rgb_profile()
    old = b"PLANTED-profile"
    text = canary.text(f"{name} description")[: len(old)]
    del canary.tokens[f"{name} description"]  # shortened: the tail below carries it whole
    profile = profile.replace(old, text)
    return profile + canary.blob(f"{name} tail")
