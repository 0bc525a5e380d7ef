"""The one door for pixels: bytes go in, an upright 8-bit sRGB picture with nothing else comes out.

No other file of this package opens an image. The format is told from content, limits are checked
before anything is decoded, EXIF orientation is applied and forgotten, ICC colour is converted,
alpha is composited, and the result is built anew from its pixels, so that it cannot carry a
profile, a comment, a thumbnail or a second frame. What is not certain is refused.
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
from typing import BinaryIO, cast

from PIL import Image, ImageFile

from mm.privacy import colour, containers
from mm.privacy.errors import DoorError

Source = bytes | str | os.PathLike[str] | BinaryIO

_PLUGINS = {  # opened directly: no guessing by Pillow, and no global size limit but ours
    "jpeg": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "png": ("PIL.PngImagePlugin", "PngImageFile"),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "gif": ("PIL.GifImagePlugin", "GifImageFile"),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile"),
}
_ORIENTATION_TAG = 0x0112
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


@dataclass(frozen=True)
class Limits:
    """What a picture may cost. Checked before decoding; the time also while decoding.

    Args:
        max_bytes: size of the file.
        max_pixels: width times height, from the header.
        max_frames: frames of an animation or pages of a TIFF (only the first is used).
        max_scans: passes over `max_pixels` that the scans of a progressive JPEG may cost together;
            a smaller picture may have as many more scans.
        max_seconds: from the first byte to the finished picture. Seen between blocks of input;
            a WebP is decoded as one block.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_frames: int = 1000
    max_scans: int = 16
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_frames", "max_scans", "max_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"limits.{name} is {value!r}; it must be a positive number")


class _TimedBytes(io.BytesIO):
    """Bytes that stop being readable when the time is up."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self.deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        check_time(self.deadline)
        return super().read(size)


def check_time(deadline: float) -> None:
    """Raise `DoorError` once `time.monotonic()` has passed the deadline."""
    if time.monotonic() > deadline:
        raise DoorError("too-slow", "decoding took longer than limits.max_seconds")


def open_image(
    source: Source,
    *,
    limits: Limits = Limits(),
    background: tuple[int, int, int] = (255, 255, 255),
    audit: Counter[str] | None = None,
    position: int | None = None,
) -> Image.Image:
    """Open a JPEG, PNG, WebP, GIF, TIFF or BMP as an upright sRGB picture of pixels only.

    Args:
        source: the file's bytes, its path, or an open binary file.
        limits: bounds on bytes, pixels, frames and time.
        background: colour (0 to 255) behind transparent pixels.
        audit: if given, counts what the door had to decide: `untagged-broken-profile`,
            `broken-orientation`, `rescaled-depth`.
        position: index of this picture among the caller's, for the error.

    Returns:
        A new image, mode RGB, `info == {}`.

    Raises:
        DoorError: anything else; `reason` says what, and nothing is quoted from the file.
    """
    deadline = time.monotonic() + limits.max_seconds
    try:
        return _open(read_bytes(source, limits.max_bytes), limits, background, deadline, audit)
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


def _open(
    data: bytes,
    limits: Limits,
    background: tuple[int, int, int],
    deadline: float,
    audit: Counter[str] | None,
) -> Image.Image:
    _quiet_pillow_log()
    kind = _allowed_kind(data)
    _check_structure(data, kind, limits)
    module, name = _PLUGINS[kind]
    plugin: type[ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
    try:
        # Pillow warns about damaged metadata, which is thrown away here anyway.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with _quiet_stderr() if kind == "tiff" else contextlib.nullcontext():
                image: Image.Image = plugin(cast("BinaryIO", _TimedBytes(data, deadline)))
                _check_pixels(image.size, limits)
                if kind == "jpeg":
                    _check_scans(containers.num_scans(data), image.size, limits)
                image.load()
            check_time(deadline)
            orientation = _orientation(image, audit)  # after load: a TIFF turns itself there
            image = colour.to_srgb(image, background, audit, deep_key=_has_deep_key(data, kind))
    except DoorError:
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise DoorError("too-large", "needs more memory than a picture may: shrink it") from None
    except colour.UnsupportedColour:
        raise DoorError("unsupported", "a colour mode unknown here: save as RGB PNG") from None
    except Exception as error:
        # Whatever a decoder does on hostile bytes ends here; its message could quote the file.
        if "truncated" in str(error) or isinstance(error, EOFError):
            raise _truncated() from None
        raise DoorError("corrupt", "the pixels cannot be decoded: the file is damaged") from None
    check_time(deadline)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return pixels_only(image)


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


def pixels_only(image: Image.Image) -> Image.Image:
    """Build a new RGB image out of the pixels of `image`, leaving everything else behind."""
    if image.mode != "RGB":
        raise ValueError(f"image mode is {image.mode!r}; pass pictures through open_image first")
    return Image.frombytes("RGB", image.size, image.tobytes())


def _allowed_kind(data: bytes) -> str:
    kind = containers.sniff(data)
    if kind is None:
        raise DoorError("not-an-image", "the content is no known picture format, whatever its name")
    if kind not in containers.ALLOWED:
        raise DoorError("unsupported", f"{kind} is not read: convert it to PNG or JPEG")
    return kind


def _check_structure(data: bytes, kind: str, limits: Limits) -> None:
    """Check what the container says before a decoder sees it."""
    try:
        size = containers.canvas(data, kind)
        if size is not None:
            _check_pixels(size, limits)
        frames = containers.num_frames(data, kind, limits.max_frames)
    except EOFError:
        raise _truncated() from None
    except (ValueError, OverflowError, IndexError):
        raise DoorError("corrupt", f"malformed {kind.upper()} structure: re-export it") from None
    if frames > limits.max_frames:
        raise DoorError(
            "too-many-frames", f"over {limits.max_frames} frames or pages: export the first alone"
        )


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DoorError("corrupt", "the header says that there are no pixels")
    if width * height > limits.max_pixels:
        raise DoorError(
            "too-large",
            f"{width} x {height} is over {limits.max_pixels} pixels:"
            " shrink it or raise limits.max_pixels",
        )


def _check_scans(scans: int, size: tuple[int, int], limits: Limits) -> None:
    if scans * size[0] * size[1] > limits.max_scans * limits.max_pixels:
        raise DoorError("too-slow", f"{scans} scans of a large JPEG: save it as baseline JPEG")


def _truncated() -> DoorError:
    return DoorError("truncated", "the file ends before its picture does: copy it again")


def _orientation(image: Image.Image, audit: Counter[str] | None) -> int:
    """Read EXIF orientation 1 to 8; anything unreadable counts as upright and is noted."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        if isinstance(value, int) and 1 <= value <= 8:
            return value
    except Exception:  # EXIF is hostile input too, and no reason to lose the pixels
        pass
    if audit is not None:
        audit["broken-orientation"] += 1
    return 1


def _has_deep_key(data: bytes, kind: str) -> bool:
    """Tell whether a transparent colour key is in 16-bit units while Pillow gives 8-bit pixels."""
    return kind == "png" and data[24:25] == b"\x10"


def encode_png(image: Image.Image, *, compress_level: int = 6) -> bytes:
    """Encode the pixels of an RGB image as PNG: IHDR, IDAT, IEND and nothing else."""
    return _encode(image, "PNG", compress_level=compress_level)


def encode_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """Encode the pixels of an RGB image as JPEG; colour is not subsampled from quality 90 up."""
    return _encode(image, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)


def encode_webp(image: Image.Image, quality: int = 90, *, lossless: bool = False) -> bytes:
    """Encode the pixels of an RGB image as WebP; lossless keeps them exactly."""
    return _encode(image, "WEBP", quality=quality, lossless=lossless, exact=lossless)


def _encode(image: Image.Image, kind: str, **options: int | bool) -> bytes:
    buffer, clean = io.BytesIO(), pixels_only(image)
    try:
        clean.save(buffer, kind, **options)
    except (
        OSError,
        ValueError,
        SystemError,
    ) as error:  # too wide for the format is the one known cause
        raise ValueError(f"{image.width} x {image.height} does not fit in {kind}") from error
    return buffer.getvalue()
