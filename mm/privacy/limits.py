"""What a picture file may cost, checked from its structure before anything is decoded."""

import struct
import time
from dataclasses import dataclass

from mm.privacy import containers
from mm.privacy.errors import DoorError

PAGES = ("first", "refuse")
_UNREAD_FRAMES = {  # kinds of JPEG that are not decoded, by their SOF marker
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded JPEG"),
}
_DNG_VERSION, _NEW_SUBFILE_TYPE = 0xC612, 0x00FE
_SMALL_PICTURE = 16_000_000  # pixels; below, a small file is a flat picture and no bomb


@dataclass(frozen=True)
class Limits:
    """What a picture may cost. Checked before decoding; the time also while decoding.

    Args:
        max_bytes: size of the file.
        max_pixels: width times height, from the header.
        max_frames: frames of an animation or pages of a TIFF (only the first is used).
        max_chunks: pieces of structure: segments, chunks, blocks, boxes, tags.
        max_expansion: bytes of pixels per byte of file, for pictures over 16 million pixels.
        max_scans: passes over `max_pixels` that the scans of a progressive JPEG may cost together;
            a smaller picture may have as many more scans.
        max_seconds: from the first byte to the finished picture. Seen between blocks of input;
            a WebP is decoded as one block.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    max_frames: int = 1000
    max_chunks: int = 50_000
    max_expansion: float = 2000.0
    max_scans: int = 16
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"limits.{name} is {value!r}; it must be a positive number")


def check_time(deadline: float) -> None:
    """Raise `DoorError` once `time.monotonic()` has passed the deadline."""
    if time.monotonic() > deadline:
        raise DoorError("too-slow", "decoding took longer than limits.max_seconds")


def allowed_kind(data: bytes) -> str:
    """Name the format of a file that the door reads, from its content."""
    kind = containers.sniff(data)
    if kind is None:
        raise DoorError("not-an-image", "the content is no known picture format, whatever its name")
    if kind not in containers.ALLOWED:
        raise DoorError("unsupported", f"{kind} is not read: convert it to PNG or JPEG")
    return kind


def check_structure(data: bytes, kind: str, limits: Limits, pages: str) -> None:
    """Check what the container says before a decoder sees it.

    Raises:
        DoorError: truncated, corrupt, unsupported, or over a limit.
    """
    try:
        if kind == "jpeg":
            _check_jpeg_kind(data)
        if kind == "tiff":
            _check_first_page(data)
        size = containers.canvas(data, kind)
        if size is not None:
            check_pixels(size, limits)
            _check_expansion(size, len(data), limits)
        pieces = containers.count_pieces(data, kind, limits.max_chunks)
    except EOFError:
        raise truncated() from None
    except (ValueError, OverflowError, IndexError, struct.error):
        raise DoorError("corrupt", f"malformed {kind.upper()} structure: re-export it") from None
    if pieces.chunks > limits.max_chunks:
        raise DoorError("too-many-chunks", f"over {limits.max_chunks} pieces: re-export it")
    if pieces.frames > limits.max_frames:
        raise DoorError(
            "too-many-frames", f"over {limits.max_frames} frames or pages: export the first alone"
        )
    if pieces.frames > 1 and pages == "refuse":
        raise several()
    if size is not None:
        _check_scans(pieces.scans, size, limits)


def _check_jpeg_kind(data: bytes) -> None:
    marker, bits, *_ = containers.jpeg_frame(data)
    if marker in _UNREAD_FRAMES:
        raise DoorError("unsupported", f"{_UNREAD_FRAMES[marker]} is not read: save as baseline")
    if bits != 8:
        raise DoorError("unsupported", f"a JPEG of {bits} bits a sample: save it with 8")


def _check_first_page(data: bytes) -> None:
    """Refuse raw camera files, whose first page is a thumbnail or not a picture to look at."""
    first = next(containers.tiff_ifds(data), {})
    thumbnail = _NEW_SUBFILE_TYPE in first and (
        containers.tiff_pointer(data, first[_NEW_SUBFILE_TYPE]) & 1
    )
    if _DNG_VERSION in first or thumbnail or data[8:10] == b"CR":
        raise DoorError("unsupported", "a raw camera file or a thumbnail page: export the picture")


def _check_expansion(size: tuple[int, int], num_bytes: int, limits: Limits) -> None:
    if size[0] * size[1] > max(_SMALL_PICTURE, limits.max_expansion * num_bytes / 3):
        raise DoorError(
            "too-large", f"over {limits.max_expansion:g} bytes of pixels per byte of file"
        )


def check_pixels(size: tuple[int, int], limits: Limits) -> None:
    """Check a width and height."""
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


def truncated() -> DoorError:
    """Make the error about a file that ends too soon."""
    return DoorError("truncated", "the file ends before its picture does: copy it again")


def several() -> DoorError:
    """Make the error about a file of several pages."""
    return DoorError("several-pages", "more than one frame or page, and policy.pages is refuse")
