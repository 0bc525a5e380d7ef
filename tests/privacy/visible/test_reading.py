"""Rows of letters, what is read in them, and what the text rules make of it."""

from dataclasses import replace

import numpy
import pytest
from PIL import Image, ImageDraw, ImageFont

from mm.privacy import ScrubError, visible
from mm.privacy.policy import Policy
from mm.privacy.visible import words
from mm.privacy.visible.boxes import FILL
from mm.privacy.visible.reading import Word

COVERING = replace(Policy(), text_in_pictures="cover")


@pytest.fixture
def reader() -> None:
    try:
        visible.check(COVERING)
    except ScrubError as error:
        pytest.skip(str(error))


def sign(text: str, size: int, ink: str = "black", ground: str = "white") -> Image.Image:
    image = Image.new("RGB", (640, 200), ground)
    ImageDraw.Draw(image).text((30, 80), text, ink, font=ImageFont.load_default(size))
    return image


@pytest.mark.parametrize(("ink", "ground"), [("black", "white"), ("white", "navy")])
@pytest.mark.parametrize("size", [14, 24, 40])
def test_rows_of_letters_are_found_where_they_are(size: int, ink: str, ground: str) -> None:
    pytest.importorskip("cv2")
    from mm.privacy.visible.reading import find_lines

    image = sign("Call 555-0142 now", size, ink, ground)
    changed = numpy.asarray(image) != numpy.asarray(Image.new("RGB", image.size, ground))
    _, columns = changed.any(-1).nonzero()
    lines = [box for box, light in find_lines(image.convert("L")) if light == (ink == "white")]
    assert any(
        abs(left - columns.min()) < size and abs(right - columns.max()) < size
        for left, _, right, _ in lines
    )


def test_a_picture_without_letters_has_no_rows() -> None:
    pytest.importorskip("cv2")
    from mm.privacy.visible.reading import find_lines

    assert find_lines(Image.new("L", (400, 300), 90)) == []
    assert find_lines(Image.linear_gradient("L")) == []


@pytest.mark.usefixtures("reader")
def test_personal_words_are_covered_and_others_stay() -> None:
    image = sign("Write to jane.roe@example.com", 24)
    clean, found = visible.clean(image, COVERING)
    assert clean is not None and found["text_email"] >= 1
    pixels = numpy.asarray(clean)
    assert (pixels[90, 200:300] == FILL).all()
    assert (pixels[:, :100] == numpy.asarray(image)[:, :100]).all()
    again, left = visible.clean(clean, COVERING)
    assert again is clean and not left


@pytest.mark.usefixtures("reader")
def test_harmless_words_stay() -> None:
    image = sign("Mind the step, floor 3", 24)
    assert visible.clean(image, COVERING) == (image, {})


def line(*texts: str) -> list[Word]:
    return [Word(text, (100 * place, 50, 100 * place + 90, 80)) for place, text in enumerate(texts)]


def kinds(*texts: str) -> list[str]:
    spans = words.spans_of(("email", "phone", "card"), ("KR", "US"))
    return [finding.kind for finding in words.find([line(*texts)], spans, (1000, 200))]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("jane@example.com",), "text_email"),
        (("jane", "@example.com"), "text_email"),
        (("jane©example.com",), "text_email"),
        (("O1O-1234-5678",), "text_phone"),
        (("010-1234-567B",), "text_phone"),
        (("4539", "1488", "0343", "6461"), "text_long_number"),  # one digit misread: no check sum
        (("jane@exarnple",), "text_like_email"),
    ],
)
def test_what_is_misread_is_found_too(texts: tuple[str, ...], kind: str) -> None:
    assert kind in kinds(*texts)


@pytest.mark.parametrize(
    "texts", [("2024-11-24", "17:45"), ("24,900원",), ("Room", "204"), ("Oil", "SOS", "1995")]
)
def test_dates_prices_and_rooms_stay(texts: tuple[str, ...]) -> None:
    assert kinds(*texts) == []


def test_only_the_words_of_a_finding_are_covered() -> None:
    spans = words.spans_of(("email",), ("KR",))
    [finding] = words.find([line("mail", "jane@example.com", "now")], spans, (1000, 200))
    assert 90 <= finding.box[0] <= 100 and 190 <= finding.box[2] <= 200
