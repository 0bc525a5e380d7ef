"""The strict reader refuses any structure that pixels do not need, to the last byte."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from mm.privacy import door
from mm.privacy.proof import MetadataError, check_pixels_only
from tests.privacy import planted as plant
from tests.privacy.canaries import all_canaries


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


JPEG = door.encode_jpeg(noise(40, 24))


def refused(data: bytes) -> str:
    with pytest.raises(MetadataError) as caught:
        check_pixels_only(data)
    return str(caught.value)


def saved(**options: object) -> bytes:
    buffer = io.BytesIO()
    noise(40, 24).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def before_scan(data: bytes, extra: bytes) -> bytes:
    at = data.index(b"\xff\xda")
    return data[:at] + extra + data[at:]


@pytest.mark.parametrize("quality", [1, 30, 75, 92, 95, 100])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33), (200, 3), (131, 64)])
def test_our_jpegs_pass(quality: int, size: tuple[int, int]) -> None:
    for seed in range(3):
        assert check_pixels_only(door.encode_jpeg(noise(*size, seed), quality)) == "jpeg"


def test_flat_jpegs_pass() -> None:
    for colour in ("black", "white", (12, 200, 3)):
        assert check_pixels_only(door.encode_jpeg(Image.new("RGB", (64, 48), colour))) == "jpeg"


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8, 13, 100])
@pytest.mark.parametrize("byte", [b"\0", b"U", b"\xaa", b"\x7f"])
def test_jpeg_with_bytes_after_its_last_block(number: int, byte: bytes) -> None:
    for seed in range(5):
        data = door.encode_jpeg(noise(33, 17, seed))
        assert check_pixels_only(data) == "jpeg"
        assert "last block" in refused(data[:-2] + number * byte + data[-2:])


def test_jpeg_with_stuffed_bytes_after_its_last_block() -> None:
    assert "last block" in refused(JPEG[:-2] + b"\xff\0" * 3 + JPEG[-2:])
    assert "after the end" in refused(JPEG[:-2] + b"\xff\xff" + JPEG[-2:])


def test_jpeg_tables_must_be_used_once_and_valid() -> None:
    quantisation = plant.segment(0xDB, b"\3" + bytes(range(1, 65)))
    counts = bytes([0, 1] + [0] * 14)
    huffman = plant.segment(0xC4, b"\x13" + counts + b"\1")
    for extra in (quantisation, huffman):
        assert "unused" in refused(before_scan(JPEG, extra))
    again = plant.segment(0xDB, b"\0" + bytes(range(1, 65)))
    assert "twice" in refused(before_scan(JPEG, again))
    for bad in (
        plant.segment(0xDB, b"\3" + bytes(64)),  # divides by zero
        plant.segment(0xDB, b"\x13" + bytes(range(1, 129))),  # 16-bit
        plant.segment(0xDB, b"\3" + bytes(range(1, 65)) + b"secret"),
        plant.segment(0xC4, b"\x13" + bytes([3] + [0] * 15) + b"\1\2\3"),  # too many short codes
        plant.segment(0xC4, b"\x13" + bytes([0, 2] + [0] * 14) + b"\1\1"),  # one symbol twice
        plant.segment(0xC4, b"\3" + counts + b"\x77"),  # no such difference
        plant.segment(0xC4, b"\x13" + counts),  # too short
    ):
        assert "JPEG table" in refused(before_scan(JPEG, bad))


def test_jpeg_without_a_table_it_needs() -> None:
    at = JPEG.index(b"\xff\xc4")
    end = at + 2 + struct.unpack_from(">H", JPEG, at + 2)[0]
    assert "missing" in refused(JPEG[:at] + JPEG[end:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"progressive": True}, "between its scan and its end|segment 0x|malformed"),
        ({"restart_marker_rows": 1}, "segment 0xdd"),
        ({"comment": b"hello"}, "segment 0xfe"),
        ({"dpi": (300, 299)}, "density"),
    ],
)
def test_jpegs_of_other_encoders(options: dict[str, object], words: str) -> None:
    with pytest.raises(MetadataError, match=words):
        check_pixels_only(saved(**options))


def test_jpeg_with_a_second_scan_or_frame() -> None:
    at = JPEG.index(b"\xff\xda")
    assert "segment 0xda" in refused(JPEG[:-2] + JPEG[at:])
    frame = JPEG[JPEG.index(b"\xff\xc0") :][:19]
    assert "segment 0xc0" in refused(before_scan(JPEG, frame))
    assert "after the end" in refused(JPEG + JPEG)


def test_jpeg_with_fill_bytes_between_segments() -> None:
    assert "between JPEG segments" in refused(before_scan(JPEG, b"\xff\xff\xff"))


def test_png_rows_have_known_filters_only() -> None:
    good = plant.png(4, 1, 8, 2, b"\0" + b"\1\2\3" * 4)
    assert check_pixels_only(good) == "png"
    assert "filters" in refused(plant.png(4, 1, 8, 2, b"\x41" + b"\1\2\3" * 4))


def test_webp_headers_are_read() -> None:
    lossy, lossless = door.encode_webp(noise(9, 9)), door.encode_webp(noise(9, 9), lossless=True)
    for data in (lossy, lossless):
        assert check_pixels_only(data) == "webp"
    assert "key frame" in refused(lossy[:20] + bytes([lossy[20] | 1]) + lossy[21:])
    refused(lossless[:24] + bytes([lossless[24] | 0x10]) + lossless[25:])  # claims alpha


def test_no_canary_file_passes_as_it_is() -> None:
    for canary in all_canaries():
        if canary.name != "jpeg cropped by its header":  # hides pixels, which the door drops
            refused(canary.data)
