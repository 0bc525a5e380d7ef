"""Colours through the door beside littleCMS: `python -m tests.privacy.colours` prints a table.

The reference converts the same decoded pixels with littleCMS directly (perceptual intent), or,
where Pillow has no such pixels (16 bits a channel), with the profile's own formula in floats.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from mm.privacy.door import open_image
from tests.privacy import planted as plant

_ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
_SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def _rgb_profile(primaries: tuple[tuple[float, float, float], ...], gamma: float | None) -> bytes:
    if gamma is None:  # the curve of sRGB, IEC 61966-2-1
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *(round(n * 65536) for n in numbers))
    else:
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {f"{c}XYZ".encode(): plant._xyz(p) for c, p in zip("rgb", primaries, strict=True)}
    tags |= {f"{c}TRC".encode(): curve for c in "rgb"}
    return plant._profile(b"RGB ", b"XYZ ", b"mntr", tags)


def adobe_rgb() -> bytes:
    """Make a profile like Adobe RGB (1998)."""
    return _rgb_profile(_ADOBE, 2.19921875)


def display_p3() -> bytes:
    """Make a profile like Display P3."""
    return _rgb_profile(_P3, None)


def srgb() -> bytes:
    """Make a profile like sRGB."""
    return _rgb_profile(_SRGB, None)


def photo(width: int = 720, height: int = 480) -> Image.Image:
    """Make a picture with every hue, light and dark, smooth and noisy."""
    y, x = np.mgrid[0:height, 0:width]
    hue = x / width * 2 * np.pi
    light = 0.5 + 0.45 * np.sin(y / height * 7)
    bands = [light * (0.5 + 0.5 * np.cos(hue - k * 2.094)) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 0.02, (height, width, 3))
    return Image.fromarray((255 * np.clip(np.stack(bands, -1) + noise, 0, 1)).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    """Convert decoded pixels to sRGB with littleCMS."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    got = ImageCms.profileToProfile(image, source, target, 0, outputMode="RGB")
    assert got is not None
    return np.asarray(got).astype(float)


def by_formula(
    values: np.ndarray, primaries: tuple[tuple[float, float, float], ...], gamma: float | None
) -> np.ndarray:
    """Convert values of 0 to 1 to sRGB levels in floats, by a matrix profile's own formula."""
    if gamma is None:
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    else:
        linear = values**gamma
    change = np.linalg.inv(np.array(_SRGB).T) @ np.array(primaries).T
    linear = np.clip(linear @ change.T, 0, 1)
    curve = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curve


def _deep_png(values: np.ndarray, profile: bytes) -> bytes:
    """Encode [H, W, 3] uint16 as a PNG."""
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + values[y].astype(">u2").tobytes() for y in range(height))
    icc = plant.chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))
    return plant.png(width, height, 16, 2, rows, icc)


def cases() -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Return for each case a function that gives the door's pixels and the reference's."""

    def tagged(kind: str, profile: bytes, **options: object) -> tuple[np.ndarray, np.ndarray]:
        data = saved(photo(), kind, icc_profile=profile, **options)
        decoded = Image.open(io.BytesIO(data)).convert("RGB")
        return _door(data), by_littlecms(decoded, profile)

    def cmyk(kind: str) -> tuple[np.ndarray, np.ndarray]:
        options = {"quality": 95} if kind == "JPEG" else {}
        data = saved(photo().convert("CMYK"), kind, icc_profile=plant.cmyk_profile(), **options)
        return _door(data), by_littlecms(Image.open(io.BytesIO(data)), plant.cmyk_profile())

    def deep() -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(1).integers(0, 257, (480, 720, 3))
        values = np.clip(np.asarray(photo()).astype(int) * 257 + random - 128, 0, 65535)
        data = _deep_png(values.astype(np.uint16), display_p3())
        return _door(data), by_formula(values / 65535, _P3, None)

    def palette() -> tuple[np.ndarray, np.ndarray]:
        image = photo().quantize(200, dither=Image.Dither.NONE)
        alphas = bytes(k for k in range(200))
        data = saved(image, "PNG", icc_profile=adobe_rgb(), transparency=alphas)
        rgba = Image.open(io.BytesIO(data)).convert("RGBA")
        colours = by_littlecms(rgba.convert("RGB"), adobe_rgb())
        alpha = np.asarray(rgba.getchannel("A"))[..., None] / 255
        return _door(data), colours * alpha + 255 * (1 - alpha)

    def grey() -> tuple[np.ndarray, np.ndarray]:
        image = photo().convert("L")
        data = saved(image, "PNG", icc_profile=plant.grey_profile())
        return _door(data), by_littlecms(image, plant.grey_profile())

    def heic() -> tuple[np.ndarray, np.ndarray]:
        from tests.privacy.canaries.boxed import heic as encode

        image = photo(240, 160)
        plain, tags = encode(image), encode(image, icc_profile=display_p3())
        return _door(tags), by_littlecms(open_image(plain), display_p3())

    def numbered(kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Display P3 declared by numbers alone."""
        if kind == "PNG":
            data = saved(photo(), "PNG")
            data = data[:33] + plant.chunk(b"cICP", bytes([12, 13, 0, 1])) + data[33:]
            return _door(data), by_littlecms(photo(), display_p3())
        plain = saved(photo(), "AVIF", quality=90, speed=10)
        at = plain.index(b"nclx")
        data = plain[: at + 4] + b"\0\x0c\0\x0d" + plain[at + 8 :]
        return _door(data), by_littlecms(Image.open(io.BytesIO(plain)), display_p3())

    def scaled() -> tuple[np.ndarray, np.ndarray]:
        data = saved(photo(1440, 960), "JPEG", quality=95, icc_profile=adobe_rgb())
        decoded = Image.open(io.BytesIO(data)).convert("RGB")
        reference = Image.fromarray(by_littlecms(decoded, adobe_rgb()).astype(np.uint8))
        small = reference.resize((640, 427), Image.Resampling.LANCZOS)
        got = np.asarray(open_image(data, longest_side=640)).astype(float)
        return got, np.asarray(small).astype(float)

    return {
        "Adobe RGB, JPEG": lambda: tagged("JPEG", adobe_rgb(), quality=92),
        "Adobe RGB, PNG": lambda: tagged("PNG", adobe_rgb()),
        "Adobe RGB, JPEG scaled to 640": scaled,
        "Display P3, JPEG": lambda: tagged("JPEG", display_p3(), quality=92),
        "Display P3, WebP": lambda: tagged("WEBP", display_p3(), lossless=True),
        "Display P3, AVIF": lambda: tagged("AVIF", display_p3(), quality=90, speed=10),
        "Display P3, HEIC": heic,
        "Display P3 by numbers, PNG": lambda: numbered("PNG"),
        "Display P3 by numbers, AVIF": lambda: numbered("AVIF"),
        "sRGB tagged, JPEG": lambda: tagged("JPEG", srgb(), quality=92),
        "CMYK with profile, JPEG": lambda: cmyk("JPEG"),
        "CMYK with profile, TIFF": lambda: cmyk("TIFF"),
        "16-bit Display P3, PNG": deep,
        "palette + alpha, Adobe RGB, PNG": palette,
        "grey with profile, PNG": grey,
    }


def _door(data: bytes) -> np.ndarray:
    return np.asarray(open_image(data)).astype(float)


def main() -> None:
    """Print a table."""
    print(f"{'':32s} mean  p99.9   max   of 255")
    for name, make in cases().items():
        got, expected = make()
        difference = np.abs(got - expected)
        print(
            f"{name:32s} {difference.mean():4.2f} {np.quantile(difference, 0.999):6.1f}"
            f" {difference.max():5.0f}"
        )


if __name__ == "__main__":
    main()
