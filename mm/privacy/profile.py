"""Make ICC profiles for colours that a file declares by numbers instead of carrying a profile.

PNG (`cICP`), AVIF and HEIC (`colr`, nclx) name primaries and a curve by code points. Displays of
high range (PQ, HLG) have no agreed way to 8-bit sRGB and are refused.

Ref: ITU-T H.273 tables 2 and 3; ICC.1:2022. Primaries are adapted to D50 (Bradford).
"""

import struct

from mm.privacy.errors import DoorError

XYZ = tuple[float, float, float]
Primaries = tuple[XYZ, XYZ, XYZ]  # of red, green, blue

_DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
_BT_2020 = (
    (0.67348, 0.27904, -0.00193),
    (0.16568, 0.67534, 0.02998),
    (0.12504, 0.04561, 0.79685),
)
_BT_709 = (
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.71410),
)
_PRIMARIES = {1: _BT_709, 2: _BT_709, 5: _BT_709, 6: _BT_709, 9: _BT_2020, 12: _DISPLAY_P3}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # the others are close to the curve of sRGB
_HIGH_RANGE = {16: "PQ", 18: "HLG"}


def declared_profile(primaries: int, transfer: int) -> bytes | None:
    """Return a profile for code points of H.273, or None where they mean sRGB or nothing.

    Raises:
        DoorError: a curve of high range.
    """
    if transfer in _HIGH_RANGE:
        name = _HIGH_RANGE[transfer]
        raise DoorError("unsupported", f"high dynamic range ({name}): export it as sRGB")
    known, gamma = _PRIMARIES.get(primaries, _BT_709), _GAMMAS.get(transfer)
    if known is _BT_709 and gamma is None:
        return None
    return matrix_profile(known, gamma)


def matrix_profile(primaries: Primaries, gamma: float | None) -> bytes:
    """Make a display profile of three primaries and one curve; without a gamma, sRGB's."""
    if gamma is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *map(_fixed, numbers))
    else:
        curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {
        name + b"XYZ": b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values))
        for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + white, b"cprt": b"text\0\0\0\0none".ljust(16, b"\0")}
    tags |= {b"desc": b"desc\0\0\0\0\0\0\0\2a\0".ljust(92, b"\0")}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4xI12s", start + len(body), 0x02400000, b"mntrRGB XYZ ")
    head += struct.pack(">6H4s28x12s48x", 2020, 1, 1, 0, 0, 0, b"acsp", white)
    return head + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> int:
    return round(value * 65536)
