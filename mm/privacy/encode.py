"""Write pictures from their pixels and nothing else: PNG, JPEG, WebP.

What comes out is read again by `metadata.check_pixels_only`, which shares no code with this file.
"""

import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Pixels = Image.Image | NDArray[numpy.uint8]  # mode RGB; [H, W, 3]; or [H, W, 4], last ignored

ENCODINGS = ("png", "webp", "jpeg")
_FULL_COLOUR_QUALITY = 95  # below, JPEG halves the resolution of colour, as nearly all photos do


def encode(image: "Pixels", encoding: str, quality: int) -> bytes:
    """Encode as `encoding` says; quality 100 makes a WebP lossless, and PNG always is."""
    if encoding == "png":
        return encode_png(image)
    if encoding == "webp":
        return encode_webp(image, quality, lossless=quality == 100)
    if encoding == "jpeg":
        return encode_jpeg(image, quality)
    raise ValueError(f"encoding is {encoding!r}; known: {', '.join(ENCODINGS)}")


def encode_png(image: "Pixels", *, compress_level: int = 2) -> bytes:
    """Encode pixels as PNG: IHDR, IDAT, IEND and nothing else.

    Level 6 takes photographs three times as long for the same size, and saves a fifth on drawings.
    """
    return _save(image, "PNG", compress_level=compress_level)


def encode_jpeg(image: "Pixels", quality: int = 92) -> bytes:
    """Encode pixels as baseline JPEG; colour is not subsampled from quality 95 up."""
    import numpy
    import simplejpeg

    _check_mode(image)
    array: Any = numpy.asarray(image)
    height, width, channels = array.shape
    if max(height, width) > 65500:
        raise ValueError(f"{width} x {height} does not fit in JPEG")
    data: bytes = simplejpeg.encode_jpeg(
        numpy.ascontiguousarray(array),
        quality=quality,
        colorspace="RGBX" if channels == 4 else "RGB",
        colorsubsampling="444" if quality >= _FULL_COLOUR_QUALITY else "420",
        fastdct=False,
    )
    return data


def encode_webp(image: "Pixels", quality: int = 90, *, lossless: bool = False) -> bytes:
    """Encode pixels as WebP; lossless keeps them exactly."""
    return _save(image, "WEBP", quality=quality, lossless=lossless, exact=lossless)


def pixels_only(image: "Pixels") -> Image.Image:
    """Build a new RGB image out of the pixels of `image`, leaving everything else behind."""
    _check_mode(image)
    if isinstance(image, Image.Image):
        return Image.frombytes("RGB", image.size, image.tobytes())
    height, width, channels = image.shape
    layout = "RGBX" if channels == 4 else "RGB"
    return Image.frombytes("RGB", (width, height), image.tobytes(), "raw", layout)


def _check_mode(image: "Pixels") -> None:
    if isinstance(image, Image.Image) and image.mode != "RGB":
        raise ValueError(f"image mode is {image.mode!r}; pass pictures through open_image first")


def _save(image: "Pixels", kind: str, **options: int | bool) -> bytes:
    buffer, clean = io.BytesIO(), pixels_only(image)
    try:
        clean.save(buffer, kind, **options)
    except (OSError, ValueError, SystemError) as error:  # too wide is the one known cause
        raise ValueError(f"{clean.width} x {clean.height} does not fit in {kind}") from error
    return buffer.getvalue()
