"""Picture files with secrets planted in every corner their formats have. All made up.

Each secret is a token that starts with `MARK`, written plainly, in UTF-16, in base64 or deflated;
what is hidden as pixels (frames, thumbnails, colours below transparency) is magenta, which the
pictures themselves have nowhere. `python -m tests.privacy.canaries` counts what survives.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

MARK = "qZx7Kw9vTb"
MAGENTA = (255, 0, 255)


@dataclass
class Canary:
    """A file, the tokens planted in it, and the names of the places that hold magenta."""

    name: str
    data: bytes = b""
    tokens: dict[str, str] = field(default_factory=dict)  # place -> token
    pixels: list[str] = field(default_factory=list)
    forms: dict[str, str] = field(default_factory=dict)  # token -> how it is written

    def text(self, place: str) -> bytes:
        """Make a secret of 26 letters and digits, in plain ASCII."""
        return self._token(place, "plain").encode()

    def utf16(self, place: str) -> bytes:
        """Make a secret in UTF-16."""
        return self._token(place, "utf-16").encode("utf-16-le")

    def blob(self, place: str) -> bytes:
        """Make four secrets in one: plain, UTF-16, base64 and deflated."""
        packed = zlib.compress(self._token(f"{place}, deflated", "deflated").encode())
        coded = base64.b64encode(self._token(f"{place}, base64", "base64").encode())
        return b"|".join((self.text(place), self.utf16(f"{place}, utf-16"), coded, packed))

    def _token(self, place: str, form: str) -> str:
        token = MARK + hashlib.sha256(f"{self.name} {place}".encode()).hexdigest()[:16]
        assert place not in self.tokens, place
        self.tokens[place] = token
        self.forms[token] = form
        return token

    def hide(self, place: str) -> tuple[int, int, int]:
        """Note that magenta is hidden somewhere, and return it."""
        self.pixels.append(place)
        return MAGENTA

    @property
    def num_secrets(self) -> int:
        """Count what is planted."""
        return len(self.tokens) + len(self.pixels)


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Make a smooth picture whose corners differ and that has nothing near magenta."""
    image = Image.new("RGB", (width, height))
    image.putdata(
        [
            (40 + 3 * x * 48 // width % 140, 90 + 4 * y * 32 // height % 130, 60 + (x + y) % 60)
            for y in range(height)
            for x in range(width)
        ]
    )
    return image


def needles(token: str = MARK) -> list[bytes]:
    """List the forms in which a token, or the start of any token, would be recognised."""
    plain = token.encode()
    forms = [plain, plain[::-1], token.encode("utf-16-le"), token.encode("utf-16-be")]
    forms += [plain.hex().encode(), plain.hex().upper().encode(), plain.swapcase()]
    for shift in range(3):  # base64 of the token inside of something, whatever its alignment
        coded = base64.b64encode(b"\0" * shift + plain)
        forms.append(coded[4 if shift else 0 : len(coded) // 4 * 4 - 4])
    return forms


def inflated(data: bytes, limit: int = 2**22) -> Iterator[bytes]:
    """Yield every zlib stream in some bytes, inflated, wherever it starts."""
    for head in (b"\x78\x9c", b"\x78\xda", b"\x78\x01", b"\x78\x5e"):
        at = data.find(head)
        while at >= 0:
            try:
                yield zlib.decompressobj().decompress(data[at:], limit)
            except zlib.error:
                pass
            at = data.find(head, at + 1)


def finds(data: bytes, token: str = MARK) -> bool:
    """Tell whether a token is in some bytes in any form, compressed included."""
    forms = needles(token)
    once = list(inflated(data))
    twice = [again for blob in once for again in inflated(blob)]
    return any(needle in blob for blob in (data, *once, *twice) for needle in forms)


def shows_magenta(image: Image.Image) -> bool:
    """Tell whether any pixel is near magenta."""
    red, green, blue = image.convert("RGB").split()
    near = [red.point(lambda v: 255 * (v > 190)), green.point(lambda v: 255 * (v < 90))]
    near.append(blue.point(lambda v: 255 * (v > 190)))
    pairs = zip(*(band.tobytes() for band in near), strict=True)
    return any(r and g and b for r, g, b in pairs)


def pixel_bytes(image: Image.Image) -> list[bytes]:
    """Return pixels in the orders in which bytes could hide in them."""
    bands = [band.tobytes() for band in image.split()]
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    return [image.tobytes(), image.tobytes("raw", "BGR"), *bands, turned.tobytes()]


def all_canaries() -> list[Canary]:
    """Make every file."""
    from tests.privacy.canaries import boxed, gif_bmp, jpeg, png, tiff, webp

    made: list[Canary] = []
    for module in (jpeg, png, webp, gif_bmp, tiff, boxed):
        made += module.canaries()
    return made
