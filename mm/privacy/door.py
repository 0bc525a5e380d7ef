"""The one door for pixels: bytes go in, an upright 8-bit sRGB picture with nothing else comes out.

No other file of this package opens an image. The format is told from content, limits are checked
before anything is decoded, EXIF orientation is applied and forgotten, ICC colour is converted,
alpha is composited, and the result is built anew from its pixels, so that it cannot carry a
profile, a comment, a thumbnail or a second frame. What is not certain is refused.

JPEGs are decoded at the smallest scale that a wanted size allows, by libjpeg-turbo itself, which
also tells what it found wrong with the stream; the other formats by Pillow, and HEIC by libheif.
"""

import contextlib
import importlib
import io
import logging
import os
import stat
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from PIL import Image, ImageFile

from mm.privacy import boxes, colour, containers
from mm.privacy import encode as encoders
from mm.privacy.encode import encode_jpeg, encode_png, encode_webp, pixels_only
from mm.privacy.errors import DoorError
from mm.privacy.limits import (
    PAGES,
    Limits,
    allowed_kind,
    check_pixels,
    check_structure,
    check_time,
    several,
    truncated,
)
from mm.privacy.profile import declared_profile

if TYPE_CHECKING:
    from mm.privacy.encode import Pixels

__all__ = [
    "Limits",
    "check_time",
    "encode_jpeg",
    "encode_png",
    "encode_webp",
    "open_image",
    "pixels_only",
    "read_bytes",
    "recode",
    "scan_is_exact",
]

Source = bytes | str | os.PathLike[str] | BinaryIO

_PLUGINS = {  # opened directly: no guessing by Pillow, and no global size limit but ours
    "jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "png": ("PIL.PngImagePlugin", "PngImageFile"),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "jpeg2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}
# Warnings of libjpeg after which the pixels are not what was taken.
_DAMAGE = ("premature end", "bad huffman", "instead of rst", "inconsistent progression")
_ORIENTATION_TAG = 0x0112
_DEFAULT_LIMITS = Limits()
_LOCKS: dict[str, threading.Lock] = {}  # made on first use, so that importing only defines
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _TimedBytes(io.BytesIO):
    """Bytes that stop being readable when the time is up."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self.deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        check_time(self.deadline)
        return super().read(size)


def open_image(
    source: Source,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    background: tuple[int, int, int] = (255, 255, 255),
    longest_side: int | None = None,
    pages: str = "first",
    audit: Counter[str] | None = None,
    position: int | None = None,
) -> Image.Image:
    """Open a picture file as an upright sRGB picture of pixels only.

    Read are JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, and HEIC with `mm[privacy]`.

    Args:
        source: the file's bytes, its path, or an open binary file.
        limits: bounds on bytes, pixels, frames and time.
        background: colour (0 to 255) behind transparent pixels.
        longest_side: shrink the picture to this many pixels; decoding at a smaller scale makes
            that quicker than shrinking afterwards.
        pages: what a file of several frames or pages gives: `first`, or `refuse`.
        audit: if given, counts what was found on the way to the pixels: `broken_profile`,
            `broken_orientation`, `rescaled_depth`, `hidden_pixels` (colours below full
            transparency), `unused_palette`, `hidden_bytes` (between or after scans).
        position: index of this picture among the caller's, for the error.

    Returns:
        A new image, mode RGB, `info == {}`.

    Raises:
        DoorError: anything else; `reason` says what, and nothing is quoted from the file.
    """
    wish = _Wish(limits, background, longest_side, pages, audit)
    return pixels_only(_at(position, source, wish))


def recode(
    source: Source,
    encoding: str,
    quality: int,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    background: tuple[int, int, int] = (255, 255, 255),
    longest_side: int | None = None,
    pages: str = "first",
    audit: Counter[str] | None = None,
    position: int | None = None,
) -> bytes:
    """Open a picture as `open_image` does and encode it anew: what scrubbing does, without copies.

    Args:
        encoding: png, webp or jpeg.
        quality: 1 to 100; see `mm.privacy.encode.encode`.

    Raises:
        DoorError: as `open_image`; also where the picture does not fit in `encoding`.
    """
    wish = _Wish(limits, background, longest_side, pages, audit)
    pixels = _at(position, source, wish)
    try:
        return encoders.encode(pixels, encoding, quality)
    except ValueError:
        raise DoorError("too-large", f"does not fit in {encoding}", position) from None


@dataclass(frozen=True)
class _Wish:
    """What a caller asked for."""

    limits: Limits
    background: tuple[int, int, int]
    longest_side: int | None
    pages: str
    audit: Counter[str] | None

    def __post_init__(self) -> None:
        if self.pages not in PAGES:
            raise ValueError(f"pages is {self.pages!r}; known: {', '.join(PAGES)}")

    def note(self, kind: str) -> None:
        if self.audit is not None:
            self.audit[kind] += 1


def _at(position: int | None, source: Source, wish: _Wish) -> "Pixels":
    deadline = time.monotonic() + wish.limits.max_seconds
    try:
        return _open(read_bytes(source, wish.limits.max_bytes), wish, deadline)
    except DoorError as error:
        raise DoorError(error.reason, error.detail, position) from None


def read_bytes(source: Source, max_bytes: int = Limits.max_bytes) -> bytes:
    """Read a picture file whole, without decoding, if it is a regular file within `max_bytes`.

    Raises:
        DoorError: missing, unreadable, empty or too-large.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        try:
            if isinstance(source, str | os.PathLike):
                if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe or device could hang us
                    raise DoorError("unreadable", "not a regular file: give a picture file")
                with open(source, "rb") as file:
                    data = file.read(max_bytes + 1)
            else:
                data = source.read(max_bytes + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise DoorError("missing", "no such file: check the path") from None
        except (OSError, ValueError):  # ValueError: a null byte in a path, a closed file
            raise DoorError("unreadable", "cannot be read: check its permissions") from None
    if not data:
        raise DoorError("empty", "the file has no bytes: copy or download it again")
    if len(data) > max_bytes:
        raise DoorError(
            "too-large", f"more than {max_bytes} bytes: shrink it or raise limits.max_bytes"
        )
    return data


def _open(data: bytes, wish: _Wish, deadline: float) -> "Pixels":
    _quiet_pillow_log()
    kind = allowed_kind(data)
    check_structure(data, kind, wish.limits, wish.pages)
    try:
        # Pillow warns about damaged metadata, which is thrown away here anyway.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with _quiet_stderr() if kind == "tiff" else contextlib.nullcontext():
                pixels, orientation = _decode(data, kind, wish, deadline)
    except DoorError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise DoorError("too-large", "needs more memory than a picture may: shrink it") from None
    except colour.UnsupportedColour:
        raise DoorError("unsupported", "a colour mode unknown here: save as RGB PNG") from None
    except Exception as error:
        # Whatever a decoder does on hostile bytes ends here; its message could quote the file.
        if "truncated" in str(error) or isinstance(error, EOFError):
            raise truncated() from None
        raise DoorError("corrupt", "the pixels cannot be decoded: the file is damaged") from None
    check_time(deadline)
    pixels = _fit(pixels, wish.longest_side)
    return _turned(pixels, orientation)


def _decode(data: bytes, kind: str, wish: _Wish, deadline: float) -> tuple["Pixels", int]:
    """Return sRGB pixels as they are stored, and the EXIF orientation that makes them upright."""
    if kind == "heif":
        image = _open_heif(data, wish)
        image.info.setdefault("icc_profile", _declared(data, kind))
        return colour.to_srgb(image, wish.background, wish.audit), 1  # libheif has turned it
    module, name = _PLUGINS[kind]
    plugin: type[ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
    image = plugin(cast("BinaryIO", _TimedBytes(data, deadline)))
    check_pixels(image.size, wish.limits)
    if wish.pages == "refuse" and getattr(image, "n_frames", 1) > 1:
        raise several()
    if kind == "png" or not image.info.get("icc_profile"):  # PNG: numbers go before a profile
        image.info["icc_profile"] = _declared(data, kind) or image.info.get("icc_profile")
    profile = image.info.get("icc_profile")
    if kind == "jpeg" and (image.mode == "RGB" or (image.mode == "L" and not profile)):
        orientation = _orientation(image, wish)
        tagged = profile is not None and not colour.is_srgb(profile)
        array = _decode_jpeg(data, image.size, "RGBX" if tagged else "RGB", wish)
        return colour.array_to_srgb(array, profile if tagged else None, wish.audit), orientation
    if kind == "jpeg" and wish.longest_side is not None:
        image.draft(None, _at_least(image.size, wish.longest_side))
    elif kind == "jpeg2000":
        image.info["icc_profile"] = boxes.jp2_profile(data)
        if wish.longest_side is not None:
            halvings = (max(image.size) // wish.longest_side).bit_length() - 1
            cast(Any, image).reduce = max(0, min(halvings, _resolutions(data) - 1))
    image.load()
    check_time(deadline)
    orientation = _orientation(image, wish)  # after load: a TIFF turns itself there
    deep_key = kind == "png" and data[24:25] == b"\x10"  # in 16-bit units; Pillow's pixels are not
    return colour.to_srgb(image, wish.background, wish.audit, deep_key=deep_key), orientation


def _decode_jpeg(data: bytes, size: tuple[int, int], layout: str, wish: _Wish) -> Any:
    """Decode at the smallest scale that still has `longest_side` pixels; [H, W, 3 or 4] uint8."""
    import simplejpeg

    least = size if wish.longest_side is None else _at_least(size, wish.longest_side)
    options = {"colorspace": layout, "min_width": least[0], "min_height": least[1]}
    if least == size:
        options = {"colorspace": layout}
    try:
        return simplejpeg.decode_jpeg(data, strict=True, **options)
    except ValueError as error:
        warning = str(error).lower()
        if any(damage in warning for damage in _DAMAGE):
            raise DoorError("corrupt", "the picture's data is damaged: copy it again") from None
        array = simplejpeg.decode_jpeg(data, strict=False, **options)
        wish.note("hidden_bytes" if "extraneous" in warning else "odd_stream")
        return array


def scan_is_exact(data: bytes) -> bool:
    """Tell whether the coded data of a one-scan JPEG ends with its last block, to the byte.

    Bytes could hide between the last block and the end marker. Without its last byte, data that
    is exact lacks bits of its last block, and a decoder has to say so.

    Args:
        data: a JPEG whose last two bytes are EOI, right after the coded data.
    """
    import simplejpeg

    cut = 4 if data[-4:-2] == b"\xff\0" else 3
    try:
        simplejpeg.decode_jpeg(data[:-cut] + data[-2:], min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return "premature end of data segment" in str(error)
    return False


def _open_heif(data: bytes, wish: _Wish) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:
        raise DoorError("unsupported", "HEIC needs: pip install 'mm[privacy]'") from None
    file: Any = pillow_heif.open_heif(data)
    if wish.pages == "refuse" and len(file) > 1:
        raise several()
    chosen = file[file.primary_index]
    check_pixels(chosen.size, wish.limits)
    image: Image.Image = chosen.to_pillow()
    return image


def _declared(data: bytes, kind: str) -> bytes | None:
    """Return a profile of the colours that a file names by numbers."""
    if kind in ("heif", "avif"):
        colours = boxes.heif_items(data).colours
        return declared_profile(*colours) if colours else None
    if kind == "png":
        for chunk, start, end in containers.png_chunks(data):
            if chunk == b"cICP" and end - start == 4:
                return declared_profile(data[start], data[start + 1])
            if chunk == b"IDAT":
                break
    return None


def _resolutions(data: bytes) -> int:
    """Return how often a JPEG 2000 picture can be halved while decoding."""
    start, end = boxes.codestream(data)
    for marker, at, _ in boxes.codestream_segments(data, start, end):
        if marker == 0xFF52:  # COD
            return data[at + 5] + 1
    return 1


def _at_least(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """Return the size that `_fit` will make, which a scaled decoding must not go below."""
    scale = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fit(pixels: "Pixels", longest_side: int | None) -> "Pixels":
    size = _size(pixels)
    if longest_side is None or max(size) <= longest_side:
        return pixels
    image = pixels if isinstance(pixels, Image.Image) else pixels_only(pixels)
    return image.resize(_at_least(size, longest_side), Image.Resampling.HAMMING, reducing_gap=3.0)


def _size(pixels: "Pixels") -> tuple[int, int]:
    """Return (width, height)."""
    if isinstance(pixels, Image.Image):
        return pixels.size
    return pixels.shape[1], pixels.shape[0]


def _turned(pixels: "Pixels", orientation: int) -> "Pixels":
    if orientation not in _UPRIGHT:
        return pixels
    image = pixels if isinstance(pixels, Image.Image) else pixels_only(pixels)
    return image.transpose(_UPRIGHT[orientation])


def _quiet_pillow_log() -> None:
    """Turn Pillow's own log off for good: at level DEBUG it quotes the values of tags."""
    log = logging.getLogger("PIL")
    if log.level <= logging.CRITICAL:
        log.setLevel(logging.CRITICAL + 1)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what libtiff prints about a damaged file: it writes past Python, to descriptor 2."""
    with _LOCKS.setdefault("stderr", threading.Lock()):
        try:
            kept = os.dup(2)
        except OSError:  # no standard error, nothing to keep quiet
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(sink)


def _orientation(image: Image.Image, wish: _Wish) -> int:
    """Read EXIF orientation 1 to 8; anything unreadable counts as upright and is noted."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        if isinstance(value, int) and 1 <= value <= 8:
            return value
    except Exception:  # EXIF is hostile input too, and no reason to lose the pixels
        pass
    wish.note("broken_orientation")
    return 1
