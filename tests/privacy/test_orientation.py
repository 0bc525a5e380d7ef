"""All eight orientations come out upright, from wherever a format keeps them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mm.privacy.door import open_image
from tests.privacy import planted as plant
from tests.privacy.canaries import boxed
from tests.privacy.test_door import pixels, saved, stored

# EXIF orientation -> HEIF rotation (quarter turns to the left), then mirror (0: top and bottom
# change places, 1: left and right). ISO/IEC 23008-12 sections 6.5.10 and 6.5.12.
_BOXES: dict[int, tuple[int, int | None]] = {
    1: (0, None),
    2: (0, 1),
    3: (2, None),
    4: (0, 0),
    5: (1, 0),
    6: (3, None),
    7: (3, 0),
    8: (1, None),
}


def corners(height: int, width: int) -> np.ndarray:
    upright = np.zeros((height, width, 3), np.uint8) + 90
    upright[: height // 2, : width // 2] = (200, 40, 40)
    upright[: height // 2, width // 2 :] = (40, 200, 40)
    upright[height // 2 :, : width // 2] = (40, 40, 200)
    return upright


def properties(orientation: int) -> tuple[tuple[bytes, bytes], ...]:
    turns, mirror = _BOXES[orientation]
    out: tuple[tuple[bytes, bytes], ...] = ((b"irot", bytes([turns])),) if turns else ()
    return out + (((b"imir", bytes([mirror])),) if mirror is not None else ())


@pytest.mark.parametrize("kind", ["heic", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_and_mirror(kind: str, orientation: int) -> None:
    if kind == "heic":
        pytest.importorskip("pillow_heif")
    upright = corners(64, 96)
    image = Image.fromarray(stored(upright, orientation))
    data = boxed.edited(getattr(boxed, kind)(image), properties=properties(orientation))
    got = open_image(data)
    assert got.size == (96, 64)
    assert np.abs(pixels(got) - upright).mean() < 4
    small = open_image(data, longest_side=48)
    assert np.abs(pixels(small) - upright[::2, ::2]).mean() < 8


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_exif_orientation_means_nothing_where_boxes_decide(kind: str) -> None:
    if kind == "heic":
        pytest.importorskip("pillow_heif")
    upright = corners(64, 96)
    block = Image.Exif()
    block[0x0113] = 6  # a tag of no meaning, renamed below: the encoders act on the real one
    data = getattr(boxed, kind)(Image.fromarray(upright), exif=block.tobytes())
    turned = data.replace(b"\x13\1\3\0\1\0\0\0\6\0", b"\x12\1\3\0\1\0\0\0\6\0")
    turned = turned.replace(b"\1\x13\0\3\0\0\0\1\0\6", b"\1\x12\0\3\0\0\0\1\0\6")
    assert turned != data
    assert open_image(turned).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_of_every_mode(mode: str, orientation: int, scaled: bool) -> None:
    upright = corners(64, 96)
    image = Image.fromarray(stored(upright, orientation)).convert(mode)
    exif = plant.exif(orientation).tobytes()
    data = saved(image, "JPEG", exif=exif, quality=95, subsampling=0)
    got = open_image(data, longest_side=48 if scaled else None)
    expected = np.asarray(Image.fromarray(upright).convert("L" if mode == "L" else "RGB"))
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
    step = 2 if scaled else 1
    assert got.size == (96 // step, 64 // step)
    assert np.abs(pixels(got) - expected[::step, ::step]).mean() < (6 if scaled else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_with_exif_as_text(orientation: int) -> None:
    upright = corners(32, 48)
    block = plant.exif(orientation).tobytes()
    text = b"Raw profile type exif\0\0" + zlib.compress(
        f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    )
    data = saved(Image.fromarray(stored(upright, orientation)), "PNG")
    data = data[:33] + plant.chunk(b"zTXt", text) + data[33:]
    assert np.array_equal(pixels(open_image(data)), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_exif_in_either_byte_order(orientation: int, order: str) -> None:
    from tests.privacy.canaries import Canary
    from tests.privacy.canaries.exif import block

    upright = corners(32, 48)
    data = saved(Image.fromarray(stored(upright, orientation)), "JPEG", quality=95, subsampling=0)
    body = b"Exif\0\0" + block(Canary("turned"), orientation=orientation, order=order)
    data = data[:2] + plant.segment(0xE1, body) + data[2:]
    assert np.abs(pixels(open_image(data)) - upright).mean() < 3


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_xmp_orientation_where_there_is_no_exif(orientation: int) -> None:
    upright = corners(32, 48)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="{orientation}"/></x:xmpmeta>'
    buffer = io.BytesIO()
    image = Image.fromarray(stored(upright, orientation))
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    data = buffer.getvalue()
    body = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
    data = data[:2] + plant.segment(0xE1, body) + data[2:]
    assert np.abs(pixels(open_image(data)) - upright).mean() < 3
    assert struct.unpack(">H", data[4:6])[0] == len(body) + 2
