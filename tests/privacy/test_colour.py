"""Colours out of the door are those that littleCMS gives, within 2 of 255 on average."""

import importlib.util

import numpy as np
import pytest

from mm.privacy import colour
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
