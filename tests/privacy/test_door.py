"""What comes through the door is upright, sRGB and nothing but pixels; the rest is refused."""

import io
import logging
import os
import struct
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from mm.privacy import door
from mm.privacy.door import Limits, open_image
from mm.privacy.errors import DoorError
from tests.privacy import planted as plant


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def reason(source: object, **options: object) -> str:
    with pytest.raises(DoorError) as caught:
        open_image(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(caught.value.reason + ": ")
    return caught.value.reason


# --- What comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", plant.FORMATS)
def test_open_planted_carries_pixels_only(kind: str) -> None:
    image = open_image(plant.planted(kind))
    assert type(image) is Image.Image
    assert (image.mode, image.size, image.info) == ("RGB", (48, 32), {})
    assert getattr(image, "n_frames", 1) == 1
    assert not image.getexif()
    assert not hasattr(image, "text") and not hasattr(image, "tag_v2")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_open_lossless_keeps_every_pixel(kind: str) -> None:
    image = plant.picture()
    assert np.array_equal(pixels(open_image(saved(image, kind))), pixels(image))


def test_open_takes_path_bytes_and_file(tmp_path: Path) -> None:
    data = saved(plant.picture(), "PNG")
    path = tmp_path / "named.txt"  # the name decides nothing
    path.write_bytes(data)
    opened = [open_image(source) for source in (data, str(path), path, io.BytesIO(data))]
    assert all(image.tobytes() == opened[0].tobytes() for image in opened)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Lay an upright picture out as EXIF says: where row 0 and column 0 are to be seen."""
    by_sides = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }
    return np.ascontiguousarray(by_sides[orientation])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_open_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    image = Image.fromarray(stored(upright, orientation))
    if kind == "TIFF":
        data = saved(image, kind, tiffinfo={0x0112: orientation})
    else:
        extra = {"lossless": True} if kind == "WEBP" else {}
        extra |= {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
        data = saved(image, kind, exif=plant.exif(orientation).tobytes(), **extra)
    difference = np.abs(pixels(open_image(data)) - upright)
    assert difference.max() <= (8 if kind == "JPEG" else 0)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_open_impossible_orientation_is_noted(value: int) -> None:
    audit: Counter[str] = Counter()
    data = saved(plant.picture(), "PNG", exif=plant.exif(value).tobytes())
    assert np.array_equal(pixels(open_image(data, audit=audit)), pixels(plant.picture()))
    assert audit["broken_orientation"] == 1


def test_open_damaged_exif_keeps_pixels() -> None:
    data = saved(plant.picture(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert np.array_equal(pixels(open_image(data)), pixels(plant.picture()))


# --- Colour ---------------------------------------------------------------------------------------


def test_open_profile_is_converted() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    profile = plant.rgb_profile(swapped=True)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        got = pixels(open_image(saved(red, kind, icc_profile=profile)))[1, 1]
        assert got[1] > 240 and got[0] < 30 and got[2] < 30, kind


def test_open_linear_profile_matches_srgb_curve() -> None:
    grey = Image.new("RGB", (4, 4), (128, 128, 128))
    got = pixels(open_image(saved(grey, "PNG", icc_profile=plant.rgb_profile())))[0, 0]
    expected = round(255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055))  # IEC 61966-2-1
    assert np.abs(got - expected).max() <= 1


def test_open_grey_profile_is_converted() -> None:
    grey = Image.new("L", (4, 4), 128)
    got = pixels(open_image(saved(grey, "PNG", icc_profile=plant.grey_profile())))[0, 0]
    assert np.abs(got - 188).max() <= 1


def test_open_cmyk_profile_is_converted() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    tagged = saved(cyan, "TIFF", icc_profile=plant.cmyk_profile())
    red, green, blue = pixels(open_image(tagged))[4, 4]
    assert green > 120 and red < 60 and blue < 120
    assert pixels(open_image(saved(cyan, "TIFF")))[4, 4].tolist() == [0, 255, 255]


def test_open_cmyk_jpeg_is_not_inverted() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels(open_image(saved(inks, "JPEG", quality=95))).min() > 245


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile"),
        ("RGB", plant.rgb_profile()[:200]),
        ("RGB", plant.cmyk_profile()),
        ("RGB", plant.grey_profile()),
        ("CMYK", plant.rgb_profile()),
        ("RGB", plant.rgb_profile() + b"\0" * 5_000_000),
    ],
)
def test_open_unusable_profile_is_untagged_and_noted(mode: str, profile: bytes) -> None:
    image = plant.picture().convert(mode)
    audit: Counter[str] = Counter()
    got = open_image(saved(image, "TIFF", icc_profile=profile), audit=audit)
    assert np.array_equal(pixels(got), pixels(image.convert("RGB")))
    assert audit["broken_profile"] == 1


def test_open_rgb_profile_on_grey_picture() -> None:
    data = saved(Image.new("L", (4, 4), 128), "PNG", icc_profile=plant.rgb_profile())
    assert np.abs(pixels(open_image(data)) - 188).max() <= 1


def test_open_lab_tiff() -> None:
    data = saved(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
    assert pixels(open_image(data)).min() > 250


# --- Alpha and depth ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_open_hidden_pixels_do_not_survive(kind: str) -> None:
    hidden = plant.picture().convert("RGBA")
    hidden.putalpha(0)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = open_image(saved(hidden, kind, **options), background=(10, 20, 30))
    assert np.unique(pixels(got).reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


def test_open_half_transparent_is_composited() -> None:
    for image in (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), Image.new("LA", (2, 2), (0, 51))):
        assert pixels(open_image(saved(image, "PNG"))).tolist() == [[[204] * 3] * 2] * 2


def test_open_palette_with_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    expected = [[[255, 255, 255], [0, 0, 255]]]
    for kind in ("PNG", "GIF"):
        assert pixels(open_image(saved(image, kind, transparency=0))).tolist() == expected
    alphas = saved(image, "PNG", transparency=bytes([51, 255]))
    assert pixels(open_image(alphas))[0, 0].tolist() == [255, 204, 204]
    assert pixels(open_image(saved(image, "PNG")))[0].tolist() == [[255, 0, 0], [0, 0, 255]]


@pytest.mark.parametrize("colour", [(0, 1, b"\0\5", 0), (2, 3, b"\0\5" * 3, 0)])
def test_open_transparent_colour_key_is_exact_in_16_bit(
    colour: tuple[int, int, bytes, int],
) -> None:
    kind, channels, key, _ = colour
    row = b"\0" + b"\0\5" * channels + b"\x80\0" * channels
    data = plant.png(2, 1, 16, kind, row, plant.chunk(b"tRNS", key))
    got = pixels(open_image(data))[0]
    assert got[0].tolist() == [255] * 3  # the key colour shows the background
    assert got[1].tolist() == [128] * 3


@pytest.mark.parametrize("value", [0, 256, 32768, 65535])
def test_open_16_bit_grey_is_scaled_not_clipped(value: int) -> None:
    array = np.full((3, 3), value, np.uint16)
    for kind in ("PNG", "TIFF"):
        got = pixels(open_image(saved(Image.fromarray(array), kind)))
        assert np.abs(got - round(value / 257)).max() == 0


def test_open_16_bit_rgb_png_is_scaled() -> None:
    row = b"\0" + struct.pack(">3H", 0x0100, 0x8000, 0xFFFF)
    assert pixels(open_image(plant.png(1, 1, 16, 2, row))).tolist() == [[[1, 128, 255]]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_open_32_bit_and_float_tiff(array: np.ndarray, expected: list[int]) -> None:
    audit: Counter[str] = Counter()
    got = pixels(open_image(saved(Image.fromarray(array), "TIFF"), audit=audit))
    assert np.abs(got[0, :, 0] - expected).max() <= 1
    assert audit["rescaled_depth"] == 1


def test_open_one_bit() -> None:
    image = Image.new("1", (9, 1))
    image.putdata([255, 0] * 4 + [255])
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        got = pixels(open_image(saved(image, kind)))[0, :, 0]
        assert got.tolist() == [255, 0] * 4 + [255], kind


def test_open_first_frame_only() -> None:
    first, second = Image.new("RGB", (8, 8), "blue"), Image.new("RGB", (8, 8), "red")
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(first, kind, save_all=True, append_images=[second], **options)
        assert pixels(open_image(data))[0, 0].tolist() == [0, 0, 255], kind


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_open_truncated_anywhere_is_refused(kind: str) -> None:
    data = saved(plant.picture(), kind)
    reasons = {reason(data[:end]) for end in range(1, len(data) - 1, max(1, len(data) // 60))}
    assert reasons <= {"truncated", "not-an-image", "corrupt"}
    assert reason(data[: len(data) * 9 // 10]) == "truncated"


def test_open_truncated_is_refused_even_where_pillow_is_told_to_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        assert reason(saved(plant.picture(), kind)[:-40]) == "truncated"


@pytest.mark.parametrize("progressive", [False, True])
def test_open_jpeg_without_end_is_truncated(progressive: bool) -> None:
    assert reason(saved(plant.picture(), "JPEG", progressive=progressive)[:-2]) == "truncated"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not-an-image"),
        (b"BMW is a car, and this no picture of it", "not-an-image"),
        (b"\0" * 1000, "not-an-image"),
        (b"%PDF-1.7\n", "unsupported"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "corrupt"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "corrupt"),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42", "unsupported"),
        (b"8BPS\0\1", "unsupported"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "corrupt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "corrupt"),
        (b"GIF89a" + b"\1\0\1\0\0\0\0" + b"junkjunk", "corrupt"),
        (b"II*\0\xff\xff\xff\x0f", "truncated"),
    ],
)
def test_open_bad_bytes_have_a_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_open_bad_paths_have_a_reason(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.png") == "missing"
    assert reason(tmp_path) == "unreadable"
    assert reason("a\0b.png") == "unreadable"
    os.mkfifo(tmp_path / "pipe.png")  # must not wait for a writer
    assert reason(tmp_path / "pipe.png") == "unreadable"
    (tmp_path / "file").write_bytes(b"x")
    assert reason(tmp_path / "file" / "below.png") == "missing"


def test_open_error_keeps_position_and_quotes_nothing() -> None:
    with pytest.raises(DoorError) as caught:
        open_image(b"PLANTED-Jane-Roe", position=3)
    assert caught.value.position == 3
    assert str(caught.value).startswith("picture 3: not-an-image: ")
    assert "PLANTED" not in repr(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def bomb(width: int, height: int) -> dict[str, bytes]:
    """Small files that claim to be huge pictures."""
    header = plant.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    idat = plant.chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
    jpeg = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    webp = bytearray(saved(Image.new("RGB", (8, 8)), "WEBP"))
    webp[26:30] = struct.pack("<HH", min(width, 16383), min(height, 16383))
    gif = bytearray(saved(Image.new("RGB", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    bmp = bytearray(saved(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    return {
        "png": plant.PNG + header + idat + plant.chunk(b"IEND", b""),
        "jpeg": bytes(jpeg),
        "webp": bytes(webp),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
    }


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp"])
def test_open_bomb_is_refused_from_its_header(kind: str) -> None:
    start = time.monotonic()
    assert reason(bomb(60_000, 60_000)[kind]) == "too-large"
    assert time.monotonic() - start < 0.5


def test_open_tiff_bomb_is_refused_from_its_header() -> None:
    data = bytearray(saved(Image.new("RGB", (8, 8)), "TIFF"))
    for tag in (0x0100, 0x0101):
        at = data.index(
            struct.pack("<HH", tag, 4)
            if struct.pack("<HH", tag, 4) in data
            else struct.pack("<HH", tag, 3)
        )
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 60_000)
    assert reason(bytes(data)) == "too-large"


def test_open_limits() -> None:
    data = saved(plant.picture(), "PNG")
    assert reason(data, limits=Limits(max_bytes=len(data) - 1)) == "too-large"
    assert reason(io.BytesIO(data), limits=Limits(max_bytes=10)) == "too-large"
    assert reason(data, limits=Limits(max_pixels=48 * 32 - 1)) == "too-large"
    assert reason(data, limits=Limits(max_seconds=1e-9)) == "too-slow"
    exact = Limits(max_bytes=len(data), max_pixels=48 * 32)
    assert open_image(data, limits=exact).size == (48, 32)
    with pytest.raises(ValueError, match="max_pixels is 0"):
        Limits(max_pixels=0)


def test_open_over_pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # would raise in PIL.Image.open
    for kind in ("PNG", "JPEG", "BMP"):
        assert open_image(saved(plant.picture(), kind)).size == (48, 32)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_open_too_many_frames(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(0, 200, 40)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert reason(data, limits=Limits(max_frames=3)) == "too-many-frames"
    assert open_image(data, limits=Limits(max_frames=5)).size == (4, 4)


def test_open_too_many_scans() -> None:
    data = saved(plant.picture(), "JPEG", progressive=True)
    pixels = 48 * 32
    assert reason(data, limits=Limits(max_scans=2, max_pixels=pixels)) == "too-slow"
    assert open_image(data, limits=Limits(max_scans=16, max_pixels=pixels)).size == (48, 32)
    assert open_image(data, limits=Limits(max_scans=1, max_pixels=16 * pixels)).size == (48, 32)


def test_open_tiff_with_huge_tiles_is_refused_from_its_header() -> None:
    tags = b""
    for tag, value in (
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 40_000),
        (323, 40_000),
        (324, 8),
        (325, 8),
    ):
        tags += struct.pack("<HHII", tag, 4, 1, value)
    data = b"II*\0\x10\0\0\0" + zlib.compress(b"")[:8] + struct.pack("<H", 10) + tags + b"\0" * 4
    start = time.monotonic()
    assert reason(data) == "too-large"
    assert time.monotonic() - start < 0.5


def test_open_damaged_tiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(saved(plant.picture(), "TIFF", compression="tiff_adobe_deflate"))
    at = data.index(zlib.compress(b"")[:1], 8) + 20
    data[at : at + 8] = b"\xff" * 8
    assert reason(bytes(data)) == "corrupt"
    os.write(2, b"still there")
    assert capfd.readouterr() == ("", "still there")


@pytest.mark.parametrize("kind", plant.FORMATS)
def test_open_leaves_nothing_in_the_log(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    data, tiff = plant.planted(kind), plant.planted("tiff")
    logging.getLogger("PIL").setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG):
        Image.open(io.BytesIO(tiff)).load()
        assert "PLANTED-Jane-Roe" in caplog.text  # as it would be without the door
        caplog.clear()
        open_image(data)
    assert caplog.text == ""


def test_open_from_many_threads_gives_the_same() -> None:
    files = [plant.planted(kind) for kind in plant.FORMATS] * 8
    expected = [open_image(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda data: open_image(data).tobytes(), files)) == expected


def test_open_flipped_bytes_raise_nothing_but_door_errors() -> None:
    random = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for kind in plant.FORMATS:
        data = bytearray(plant.planted(kind))
        for _ in range(60):
            broken = bytearray(data)
            for at in random.integers(0, len(data), 4):
                broken[at] = random.integers(256)
            try:
                outcomes["opened"] += open_image(bytes(broken)).mode == "RGB"
            except DoorError as error:
                outcomes[error.reason] += 1
    assert sum(outcomes.values()) == 360 and outcomes["opened"] < 360


# --- Encoders -------------------------------------------------------------------------------------


def test_encode_is_pixels_of_the_image() -> None:
    image = plant.picture()
    image.info = {"exif": b"x", "icc_profile": b"PLANTED-profile", "comment": b"PLANTED-comment"}
    lossless = [door.encode_png(image), door.encode_webp(image, lossless=True)]
    assert all(np.array_equal(pixels(open_image(data)), pixels(image)) for data in lossless)
    for data in (*lossless, door.encode_jpeg(image), door.encode_webp(image)):
        assert b"PLANTED" not in data
        assert np.abs(pixels(open_image(data)) - pixels(image)).mean() < 3


def test_encode_refuses_other_modes() -> None:
    with pytest.raises(ValueError, match="image mode is 'RGBA'"):
        door.encode_png(Image.new("RGBA", (2, 2)))


def test_encode_too_wide_says_so() -> None:
    with pytest.raises(ValueError, match="20000 x 1 does not fit in WEBP"):
        door.encode_webp(Image.new("RGB", (20000, 1)))
