"""What is too large, too deep, too many or not a picture to look at is refused from its headers."""

import io
import os
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm.privacy.door import Limits, open_image, recode
from mm.privacy.errors import DoorError
from tests.privacy import planted as plant
from tests.privacy.canaries import boxed
from tests.privacy.test_door import pixels, reason, saved


def quickly(source: object, **options: object) -> str:
    start = time.monotonic()
    found = reason(source, **options)
    assert time.monotonic() - start < 2
    return found


def test_png_of_60000_by_60000() -> None:
    packer = zlib.compressobj(9)
    zeros = b"\0" * 2**22
    packed = b"".join(packer.compress(zeros) for _ in range(8)) + packer.flush()
    header = plant.chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = plant.PNG + header + plant.chunk(b"IDAT", packed) + plant.chunk(b"IEND", b"")
    assert quickly(data) == "too-large"
    assert quickly(data, limits=Limits(max_pixels=10**10)) == "too-large"  # for its size in bytes


def test_large_flat_picture_is_no_bomb() -> None:
    data = saved(Image.new("RGB", (4000, 3000)), "PNG")
    assert len(data) < 60_000
    assert open_image(data, longest_side=100).size == (100, 75)


def test_gif_of_10000_frames() -> None:
    data = saved(Image.new("P", (2, 2)), "GIF")
    start = data.index(b"\x2c")
    assert quickly(data[:-1] + data[start:-1] * 10_000 + b"\x3b") == "too-many-frames"


def test_png_of_many_chunks() -> None:
    data = saved(plant.picture(), "PNG")
    many = data[:33] + plant.chunk(b"prVt", b"") * 60_000 + data[33:]
    assert quickly(many) == "too-many-chunks"
    few = data[:33] + plant.chunk(b"prVt", b"") * 20 + data[33:]
    assert reason(few, limits=Limits(max_chunks=10)) == "too-many-chunks"
    assert open_image(few).size == (48, 32)


def test_tiff_whose_directories_form_a_loop() -> None:
    data = bytearray(saved(plant.picture(), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert quickly(bytes(data)) == "corrupt"


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC9, 0xCA])
def test_jpeg_of_other_processes_is_refused_by_name(marker: int) -> None:
    data = saved(plant.picture(), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)
    with pytest.raises(DoorError, match="JPEG is not read") as caught:
        open_image(data)
    assert caught.value.reason == "unsupported"


def test_jpeg_of_12_bits_is_refused_by_name() -> None:
    data = bytearray(saved(plant.picture(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(DoorError, match="a JPEG of 12 bits a sample"):
        open_image(bytes(data))


def test_jpeg_with_damaged_data_is_refused() -> None:
    data = bytearray(saved(Image.effect_noise((200, 200), 90), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xfe" * 40
    cut = bytes(data[:middle]) + b"\xff\xd9"
    assert reason(cut) == "corrupt"


def test_raw_camera_files_are_refused() -> None:
    buffer = io.BytesIO()
    plant.picture().save(buffer, "TIFF", tiffinfo={0xC612: b"\1\4\0\0"})
    assert reason(buffer.getvalue()) == "unsupported"
    buffer = io.BytesIO()
    plant.picture().save(buffer, "TIFF", tiffinfo={0x00FE: 1})
    assert reason(buffer.getvalue()) == "unsupported"


def test_polyglots_are_read_as_what_they_start_as() -> None:
    png, page = saved(plant.picture(), "PNG"), b"<html><script>alert(1)</script>"
    both = png + b"PK\3\4" + page
    out = recode(both, "png", 92)
    assert np.array_equal(pixels(open_image(out)), pixels(plant.picture()))
    assert page not in out and b"PK" not in out
    assert reason(b"%PDF-1.7\n" + png) == "unsupported"
    assert reason(page + png) == "not-an-image"


def test_folder_and_forbidden_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert reason(tmp_path / "folder.jpg") == "unreadable"
    path = tmp_path / "mine.png"
    path.write_bytes(saved(plant.picture(), "PNG"))
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root may read everything
        assert reason(path) == "unreadable"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_pages_may_be_refused(kind: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (16, 16), "red")]}
    data = saved(Image.new("RGB", (16, 16)), kind, **options)
    assert reason(data, pages="refuse") == "several-pages"
    assert open_image(data).size == (16, 16)
    one = saved(Image.new("RGB", (16, 16)), kind)
    assert open_image(one, pages="refuse").size == (16, 16)
    with pytest.raises(ValueError, match="pages is 'last'"):
        open_image(one, pages="last")


def test_second_heic_picture_may_be_refused() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 64)))
    file.add_from_pillow(Image.new("RGB", (64, 64), "red"))
    buffer = io.BytesIO()
    file.save(buffer, format="HEIF")
    assert reason(buffer.getvalue(), pages="refuse") == "several-pages"
    assert open_image(buffer.getvalue()).size == (64, 64)


@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_claimed_size_of_boxed_pictures(kind: str) -> None:
    if kind == "heic":
        pytest.importorskip("pillow_heif")
    data = getattr(boxed, kind)(Image.new("RGB", (64, 64)))
    huge = data.replace(
        b"ispe\0\0\0\0" + struct.pack(">II", 64, 64), b"ispe\0\0\0\0\0\1\0\0\0\1\0\0"
    )
    assert huge != data
    assert quickly(huge) == "too-large"


def test_claimed_size_of_jpeg_2000() -> None:
    data = saved(plant.picture(), "JPEG2000")
    at = data.index(b"\xff\x51")
    huge = data[: at + 6] + struct.pack(">II", 60_000, 60_000) + data[at + 14 :]
    assert quickly(huge) == "too-large"


# --- A smaller picture ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "JPEG2000", "TIFF", "AVIF"])
@pytest.mark.parametrize("longest_side", [300, 217, 64, 5])
def test_smaller_picture_is_the_large_one_shrunk(kind: str, longest_side: int) -> None:
    image = plant.picture(30, 20).resize((600, 400), Image.Resampling.BICUBIC)
    data = saved(image, kind)
    got = open_image(data, longest_side=longest_side)
    assert got.size == (longest_side, round(longest_side * 2 / 3))
    expected = open_image(data).resize(got.size, Image.Resampling.BICUBIC)
    assert np.abs(pixels(got) - pixels(expected)).mean() < 4
    assert open_image(data, longest_side=600).size == (600, 400)
    assert open_image(data, longest_side=5000).size == (600, 400)


def test_smaller_picture_stands_upright() -> None:
    image = plant.picture(30, 20).resize((600, 400), Image.Resampling.BICUBIC)
    data = saved(image, "JPEG", exif=plant.exif(6).tobytes())
    assert open_image(data, longest_side=150).size == (100, 150)


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_recode_is_open_and_encode(encoding: str) -> None:
    from mm.privacy.encode import encode

    for kind in plant.FORMATS:
        audit: Counter[str] = Counter()
        data = plant.planted(kind)
        got = recode(data, encoding, 90, longest_side=40, audit=audit)
        assert got == encode(open_image(data, longest_side=40), encoding, 90)
    with pytest.raises(DoorError, match="picture 3: too-large: does not fit in webp"):
        recode(saved(Image.new("RGB", (17000, 1)), "PNG"), "webp", 90, position=3)
    with pytest.raises(DoorError, match="not-an-image"):
        recode(b"nothing", encoding, 90)


def test_heic_without_its_extra_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    head = struct.pack(">I4s4sI4s", 20, b"ftyp", b"heic", 0, b"mif1")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DoorError, match=r"HEIC needs: pip install 'mm\[privacy\]'") as caught:
        open_image(head + boxed.box(b"mdat", b"\0" * 40))
    assert caught.value.reason == "unsupported"
