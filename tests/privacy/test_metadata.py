"""The strict check passes our encoders and nothing with more in it; the counter names kinds."""

import io
import zlib

import pytest
from PIL import Image

from mm.privacy import door
from mm.privacy.metadata import MetadataError, check_pixels_only, count_metadata
from tests.privacy import planted as plant

ENCODED = {
    "png": door.encode_png(plant.picture()),
    "jpeg": door.encode_jpeg(plant.picture()),
    "jpeg-subsampled": door.encode_jpeg(plant.picture(), 60),
    "webp": door.encode_webp(plant.picture()),
    "webp-lossless": door.encode_webp(plant.picture(), lossless=True),
}


@pytest.mark.parametrize("name", ENCODED)
def test_check_passes_our_encoders(name: str) -> None:
    assert check_pixels_only(ENCODED[name]) == name.partition("-")[0]
    assert not count_metadata(ENCODED[name])


@pytest.mark.parametrize("name", ENCODED)
def test_check_refuses_bytes_after_the_end(name: str) -> None:
    for tail in (b"\0", b"PLANTED-trailer", ENCODED[name]):
        with pytest.raises(MetadataError):
            check_pixels_only(ENCODED[name] + tail)
        assert count_metadata(ENCODED[name] + tail)["trailing_data"] == 1


@pytest.mark.parametrize("name", ENCODED)
def test_check_refuses_every_truncation(name: str) -> None:
    data = ENCODED[name]
    for end in range(0, len(data), 7):
        with pytest.raises(MetadataError):
            check_pixels_only(data[:end])


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "bmp"])
def test_check_refuses_planted(kind: str) -> None:
    with pytest.raises(MetadataError):
        check_pixels_only(plant.planted(kind))


@pytest.mark.parametrize(
    "extra",
    [
        plant.chunk(b"tEXt", b"Author\0x"),
        plant.chunk(b"gAMA", b"\0\0\xb1\x8f"),
        plant.chunk(b"pHYs", b"\0" * 9),
        plant.chunk(b"prVt", b""),
    ],
)
def test_check_refuses_any_other_png_chunk(extra: bytes) -> None:
    data = ENCODED["png"]
    for at in (33, len(data) - 12):  # after IHDR; before IEND
        with pytest.raises(MetadataError, match="chunks besides"):
            check_pixels_only(data[:at] + extra + data[at:])


def test_check_refuses_bytes_hidden_in_the_pixel_stream() -> None:
    rows = b"\0" + b"\1\2\3" * 4
    good = plant.png(4, 1, 8, 2, rows)
    assert check_pixels_only(good) == "png"
    with pytest.raises(MetadataError, match="wrong length"):
        check_pixels_only(plant.png(4, 1, 8, 2, rows + b"PLANTED"))
    packed = zlib.compress(rows)
    at = good.index(b"IDAT") - 4
    hidden = plant.chunk(b"IDAT", packed + b"PLANTED") + plant.chunk(b"IEND", b"")
    with pytest.raises(MetadataError, match="hidden after"):
        check_pixels_only(good[:at] + hidden)
    with pytest.raises(MetadataError, match="in or after IEND"):
        check_pixels_only(good[:-12] + plant.chunk(b"IEND", b"PLANTED"))
    with pytest.raises(MetadataError, match="checksum"):
        check_pixels_only(good[:-2] + b"\0\0")
    with pytest.raises(MetadataError, match="plain 8-bit RGB"):
        check_pixels_only(plant.png(4, 1, 8, 6, b"\0" + b"\1\2\3\0" * 4))


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xE0])
def test_check_refuses_any_other_jpeg_segment(marker: int) -> None:
    data = ENCODED["jpeg"]
    end_of_header = 2 + 2 + 16
    with pytest.raises(MetadataError, match="JPEG"):
        check_pixels_only(data[:end_of_header] + plant.segment(marker, b"x") + data[end_of_header:])


def test_check_refuses_a_thumbnail_in_the_jfif_header() -> None:
    data = ENCODED["jpeg"]
    header = b"JFIF\0\1\1\0\0\1\0\1\1\1abc"
    with pytest.raises(MetadataError, match="bare JFIF"):
        check_pixels_only(data[:2] + plant.segment(0xE0, header) + data[20:])


def test_check_refuses_a_webp_with_more_chunks() -> None:
    buffer = io.BytesIO()
    plant.picture().save(buffer, "WEBP", exif=b"II*\0", lossless=True)
    with pytest.raises(MetadataError, match="chunks besides"):
        check_pixels_only(buffer.getvalue())


def test_count_names_every_planted_kind() -> None:
    expected = {
        "jpeg": "exif gps xmp icc icc_text iptc comment time vendor trailing_data",
        "png": "exif gps xmp icc icc_text comment time vendor trailing_data",
        "webp": "exif gps xmp icc icc_text comment time trailing_data",
        "gif": "xmp comment extra_frame trailing_data",
        "tiff": "xmp icc icc_text iptc comment author extra_frame",
        "bmp": "trailing_data",
    }
    for kind, names in expected.items():
        assert set(count_metadata(plant.planted(kind))) == set(names.split()), kind


def test_count_sees_an_exif_thumbnail() -> None:
    ifd = b"\1\0" + b"\x12\1\3\0\1\0\0\0\1\0\0\0" + (26).to_bytes(4, "little")
    second = b"\1\0" + b"\1\2\4\0\1\0\0\0\x30\0\0\0" + b"\0\0\0\0"
    block = b"Exif\0\0II*\0\x08\0\0\0" + ifd + second
    data = ENCODED["jpeg"]
    found = count_metadata(data[:20] + plant.segment(0xE1, block) + data[20:])
    assert found == {"exif": 1, "thumbnail": 1}


def test_count_never_raises_on_damage() -> None:
    for kind in plant.FORMATS:
        data = plant.planted(kind)
        for end in range(0, len(data), 11):
            assert all(number > 0 for number in count_metadata(data[:end]).values())
    assert count_metadata(b"text") == {}
    assert count_metadata(Image.new("RGB", (1, 1)).tobytes()) == {}
