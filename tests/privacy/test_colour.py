"""Colours out of the door are those that littleCMS gives, within 2 of 255 on average."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from mm.privacy import colour
from mm.privacy.door import open_image
from mm.privacy.errors import DoorError
from tests.privacy import colours
from tests.privacy import planted as plant


@pytest.mark.parametrize("name", colours.cases())
def test_colours_are_those_of_littlecms(name: str) -> None:
    if "HEIC" in name and importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("needs pillow-heif")
    got, expected = colours.cases()[name]()
    assert got.shape == expected.shape
    difference = np.abs(got - expected)
    assert difference.mean() <= 2
    assert np.quantile(difference, 0.99) <= 8


@pytest.mark.parametrize("profile", [colours.adobe_rgb(), colours.display_p3()])
def test_conversion_does_something(profile: bytes) -> None:
    image = colours.photo()
    assert np.abs(np.asarray(image) - colours.by_littlecms(image, profile)).mean() > 2
    assert not colour.is_srgb(profile)


def test_srgb_is_known_by_what_it_does() -> None:
    assert colour.is_srgb(colours.srgb())
    assert not colour.is_srgb(plant.rgb_profile())  # the same primaries, another curve
    assert not colour.is_srgb(plant.grey_profile())
    assert not colour.is_srgb(b"no profile")


def test_table_and_littlecms_agree_where_the_table_has_its_points() -> None:
    image = colours.photo()
    even = image.point(lambda value: value & 0xFE)
    profile = colours.adobe_rgb()
    found = colour._look_up(even.tobytes("raw", "RGBX"), profile).view(np.uint8)
    got = found.reshape(image.height, image.width, 4)[..., :3]
    assert np.abs(got - colours.by_littlecms(even, profile)).max() <= 1


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_by_name(transfer: int, name: str) -> None:
    data = colours.saved(plant.picture(), "PNG")
    data = data[:33] + plant.chunk(b"cICP", bytes([9, transfer, 0, 1])) + data[33:]
    with pytest.raises(DoorError, match=rf"high dynamic range \({name}\)") as caught:
        open_image(data)
    assert caught.value.reason == "unsupported"


def test_declared_srgb_changes_nothing() -> None:
    data = colours.saved(plant.picture(), "PNG")
    for primaries, transfer in ((1, 13), (1, 1), (2, 2)):
        body = bytes([primaries, transfer, 0, 1])
        tagged = data[:33] + plant.chunk(b"cICP", body) + data[33:]
        assert open_image(tagged).tobytes() == plant.picture().tobytes()


def test_ycck_jpeg_is_cmyk_in_other_words() -> None:
    image = plant.picture(64, 48)
    inverted = image.point(lambda value: 255 - value).convert("YCbCr")
    planes = [band.point(lambda value: 255 - value) for band in inverted.split()]
    inks = Image.merge("CMYK", (*planes, Image.new("L", image.size, 0)))
    data = colours.saved(inks, "JPEG", quality=98, subsampling=0)
    at = data.index(b"Adobe") + 11  # the transform: 0 is CMYK, 2 is YCCK
    assert data[at] == 0
    data = data[:at] + b"\2" + data[at + 1 :]
    difference = np.asarray(open_image(data)).astype(int) - np.asarray(image)
    assert np.abs(difference).mean() < 2
