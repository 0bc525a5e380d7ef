"""Bring any decoded picture to 8-bit sRGB: depth, palette, alpha and ICC profile.

Out-of-range depth is scaled, never clipped. A profile that is broken, or made for another kind of
picture, is treated as absent (the picture counts as sRGB) and noted in the audit.

Ref: ICC.1:2022 section 6.2.2, perceptual intent; PNG 3rd edition section 11.3.1.
"""

import io
from collections import Counter
from typing import Any

from PIL import Image

_MAX_PROFILE_BYTES = 4 * 2**20  # real CMYK profiles take 0.5 to 2.5 MB
_COLOUR_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
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
        audit: counter that notes `untagged-broken-profile` and `rescaled-depth`.
        deep_key: the transparent colour is in 16-bit units although the pixels are in 8 bits.
    """
    profile = image.info.get("icc_profile")
    colours, alpha = _split(image, audit, deep_key)
    rgb = _apply_profile(colours, profile, audit)
    if alpha is None:
        return rgb
    canvas = Image.new("RGB", rgb.size, background)
    canvas.paste(rgb, mask=alpha)  # weight 0 leaves the background alone: nothing hides below
    return canvas


def _split(
    image: Image.Image, audit: Counter[str] | None, deep_key: bool
) -> tuple[Image.Image, Image.Image | None]:
    """Return 8-bit colours in L, RGB, CMYK or LAB, and the alpha plane if there is one."""
    key = image.info.get("transparency")
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
        audit["rescaled-depth"] += 1
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
    if profile:
        try:
            if len(profile) > _MAX_PROFILE_BYTES:
                raise ValueError
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = _COLOUR_SPACES[source.profile.xcolor_space]
            if mode != image.mode:
                if {mode, image.mode} != {"RGB", "L"}:
                    raise ValueError
                if mode == "L" and not _is_grey(image):
                    raise ValueError
                image = image.convert(mode)
            target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            transform = ImageCms.buildTransform(
                source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL
            )
            return transform.apply(image)
        except (ImageCms.PyCMSError, OSError, ValueError, KeyError, TypeError):
            if audit is not None:
                audit["untagged-broken-profile"] += 1
    return image.convert("RGB")


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (band.tobytes() for band in image.split())
    return red == green == blue
