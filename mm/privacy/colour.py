"""Bring any decoded picture to 8-bit sRGB: depth, palette, alpha and ICC profile.

littleCMS converts. Large RGB pictures go through a table of its answers on every second level of
each channel, which takes a fifth of the time; a profile that changes no level by more than one is
sRGB under another name, and left alone.

Out-of-range depth is scaled, never clipped. A profile that is broken, or made for another kind of
picture, is treated as absent (the picture counts as sRGB) and noted in the audit.

Ref: ICC.1:2022 section 6.2.2, perceptual intent; PNG 3rd edition section 11.3.1.
"""

import functools
import io
from collections import Counter
from typing import Any

from PIL import Image

_MAX_PROFILE_BYTES = 4 * 2**20  # real CMYK profiles take 0.5 to 2.5 MB
_COLOUR_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_TABLE_PIXELS = 2**18  # above, making a table costs less than converting without one
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class UnsupportedColour(Exception):
    """A pixel mode without a defined way to sRGB."""


def to_srgb(
    image: Image.Image,
    background: tuple[int, int, int],
    audit: Counter[str] | None = None,
    *,
    deep_key: bool = False,
) -> Image.Image:
    """Convert a loaded image to mode RGB in sRGB, composited over `background`.

    Args:
        image: any mode that Pillow decodes to.
        background: colour (0 to 255), already sRGB.
        audit: counter that notes `broken_profile` and `rescaled_depth`.
        deep_key: the transparent colour is in 16-bit units although the pixels are in 8 bits.
    """
    profile = image.info.get("icc_profile")
    colours, alpha = _split(image, audit, deep_key)
    rgb = _apply_profile(colours, profile, audit)
    if alpha is None:
        return rgb
    if audit is not None and _hides(rgb, alpha):
        audit["hidden_pixels"] += 1
    canvas = Image.new("RGB", rgb.size, background)
    canvas.paste(rgb, mask=alpha)  # weight 0 leaves the background alone: nothing hides below
    return canvas


def _split(
    image: Image.Image, audit: Counter[str] | None, deep_key: bool
) -> tuple[Image.Image, Image.Image | None]:
    """Return 8-bit colours in L, RGB, CMYK or LAB, and the alpha plane if there is one."""
    key = image.info.get("transparency")
    if audit is not None and image.mode in ("P", "PA") and _has_unused_entries(image):
        audit["unused_palette"] += 1
    if image.mode in _DEEP:
        return _from_deep(image, key if isinstance(key, int) else None, audit)
    if key is not None and image.mode in ("1", "L", "RGB", "P"):
        if deep_key and image.mode == "RGB" and isinstance(key, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in key)
        image = image.convert("RGBA")
    if image.mode == "P":
        palette = image.palette
        image = image.convert("RGBA" if palette and "A" in palette.mode else "RGB")
    if image.mode in ("La", "RGBa", "PA"):
        image = image.convert({"La": "LA"}.get(image.mode, "RGBA"))
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        return image.convert("L" if image.mode == "LA" else "RGB"), alpha
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    raise UnsupportedColour(image.mode)


def _from_deep(
    image: Image.Image, key: int | None, audit: Counter[str] | None
) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit, 32-bit and float grey to 8 bits.

    16 bits (and 12 in 16) keep their fixed range. Whole numbers of 32 bits and floats have none:
    values inside 0 to 1 (floats), 0 to 255 or 0 to 65535 are taken as that range, others are
    stretched from their minimum to their maximum.
    """
    import numpy

    if audit is not None:
        audit["rescaled_depth"] += 1
    values: Any = numpy.asarray(image, dtype=numpy.float64)
    values = numpy.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    alpha = None
    if key is not None:
        alpha = Image.fromarray(numpy.where(values == key, 0, 255).astype(numpy.uint8))
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(258, (16,))
        low, high = 0.0, float(2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1)
    else:
        low, high = float(values.min()), float(values.max())
        if low >= 0:
            ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0]
            low, high = 0.0, next((top for top in ranges if high <= top), high)
    scaled = (values - low) * (255.0 / (high - low if high > low else 1.0))
    grey = Image.fromarray(numpy.rint(numpy.clip(scaled, 0, 255)).astype(numpy.uint8))
    if getattr(image, "tag_v2", {}).get(262) == 0 and image.mode == "I;16":
        grey = grey.point(lambda value: 255 - value)  # WhiteIsZero, which Pillow inverts in L only
    return grey, alpha


def _apply_profile(
    image: Image.Image, profile: bytes | None, audit: Counter[str] | None
) -> Image.Image:
    from PIL import ImageCms

    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(lab), ImageCms.ImageCmsProfile(srgb), "LAB", "RGB"
        )
        return transform.apply(image)
    if profile and not (image.mode == "RGB" and is_srgb(profile)):
        try:
            mode = _profile_mode(profile)
            if mode != image.mode:
                if {mode, image.mode} != {"RGB", "L"}:
                    raise ValueError
                if mode == "L" and not _is_grey(image):
                    raise ValueError
                image = image.convert(mode)
            if mode == "RGB" and image.width * image.height >= _TABLE_PIXELS:
                array = _look_up(image.tobytes("raw", "RGBX"), profile)
                return Image.frombytes("RGB", image.size, array.tobytes(), "raw", "RGBX")
            converted: Image.Image = _transform(profile, mode).apply(image)
            return converted
        except (ImageCms.PyCMSError, OSError, ValueError, KeyError, TypeError):
            if audit is not None:
                audit["broken_profile"] += 1
    return image.convert("RGB")


def array_to_srgb(array: Any, profile: bytes | None, audit: Counter[str] | None = None) -> Any:
    """Convert decoded RGB pixels by a profile.

    Args:
        array: [H, W, 3] uint8, or [H, W, 4] with a last channel to ignore if there is a profile.
        profile: an ICC profile that is not sRGB's, or None.
        audit: counter that notes `broken_profile`.

    Returns:
        An array of the same shape, or an RGB image.
    """
    if profile is None:
        return array
    height, width, _ = array.shape
    if height * width >= _TABLE_PIXELS and _converts(profile):
        return _look_up(array, profile).view("uint8").reshape(array.shape)
    image = Image.frombytes("RGB", (width, height), array.tobytes(), "raw", "RGBX")
    return _apply_profile(image, profile, audit)


def is_srgb(profile: bytes) -> bool:
    """Tell whether converting by a profile would change no level by more than one."""
    try:
        return _same_as_srgb(profile)
    except _cms_errors():
        return False


def _converts(profile: bytes) -> bool:
    """Tell whether littleCMS takes a profile for RGB pixels."""
    try:
        return _profile_mode(profile) == "RGB" and _transform(profile, "RGB") is not None
    except _cms_errors():
        return False


def _cms_errors() -> tuple[type[Exception], ...]:
    from PIL import ImageCms

    return (ImageCms.PyCMSError, OSError, ValueError, KeyError, TypeError)


@functools.lru_cache(64)
def _same_as_srgb(profile: bytes) -> bool:
    import numpy

    levels = numpy.linspace(0, 255, 18, dtype=numpy.uint8)
    cube = numpy.stack(numpy.meshgrid(levels, levels, levels), -1).reshape(-1, 18, 3)
    if _profile_mode(profile) != "RGB":
        return False
    got = _transform(profile, "RGB").apply(Image.fromarray(cube))
    difference = numpy.asarray(got).astype(numpy.int16) - cube
    return int(numpy.abs(difference).max()) <= 1


@functools.lru_cache(64)
def _profile_mode(profile: bytes) -> str:
    from PIL import ImageCms

    if len(profile) > _MAX_PROFILE_BYTES:
        raise ValueError
    return _COLOUR_SPACES[ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space]


@functools.lru_cache(16)
def _transform(profile: bytes, mode: str) -> Any:
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL)


@functools.lru_cache(4)
def _table(profile: bytes) -> Any:
    """Return what to add (modulo 256, in each byte) to RGBX pixels, by their upper seven bits.

    [2 ** 21] uint32, at red/2 + green/2 * 2**7 + blue/2 * 2**14. What is added is the same for
    both levels of a cell, bounded so that no byte overflows.
    """
    import numpy

    even = numpy.arange(128, dtype=numpy.uint32) * 2
    cells = even | even[:, None] << 8 | even[:, None, None] << 16 | numpy.uint32(0xFF000000)
    image = Image.frombytes("RGB", (2048, 1024), cells.tobytes(), "raw", "RGBX")
    converted = _transform(profile, "RGB").apply(image).tobytes("raw", "RGBX")
    before = cells.reshape(-1).view(numpy.uint8).astype(numpy.int16)
    added = numpy.frombuffer(converted, numpy.uint8).astype(numpy.int16) - before
    return numpy.minimum(added, 254 - before).astype(numpy.uint8).view(numpy.uint32)


def _look_up(pixels: Any, profile: bytes) -> Any:
    """Convert RGBX pixels by `_table`: [N] uint32."""
    import numpy

    table = _table(profile)
    words = numpy.frombuffer(pixels, numpy.uint32)
    converted = numpy.empty_like(words)
    low, high = numpy.uint32(0x7F7F7F7F), numpy.uint32(0x80808080)
    for start in range(0, len(words), 2**16):  # pieces that stay in the cache
        word = words[start : start + 2**16]
        cell = word >> 1 & 0x7F | word >> 2 & 0x3F80 | word >> 3 & 0x1FC000
        add = table.take(cell.astype(numpy.intp), mode="wrap")
        # Add byte by byte: without their upper bits no byte carries into the next.
        converted[start : start + 2**16] = (word & low) + (add & low) ^ (word ^ add) & high
    return converted


def _hides(rgb: Image.Image, alpha: Image.Image) -> bool:
    """Tell whether there is more than one colour below full transparency."""
    import numpy

    if alpha.getextrema()[0] != 0:
        return False
    below = numpy.asarray(rgb)[numpy.asarray(alpha) == 0]
    return bool((below != below[0]).any())


def _has_unused_entries(image: Image.Image) -> bool:
    """Tell whether a palette holds colours, besides black and white, that no pixel has."""
    if image.palette is None:
        return False
    colours, width = bytes(image.palette.palette), len(image.palette.mode)
    uses = image.histogram()[: len(colours) // width]
    entries = (colours[k * width : k * width + 3] for k, used in enumerate(uses) if not used)
    return any(entry not in (b"\0\0\0", b"\xff\xff\xff") for entry in entries)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (band.tobytes() for band in image.split())
    return red == green == blue
