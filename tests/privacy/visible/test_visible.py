"""Policies over what can be seen: cover, drop, keep; detectors that are missing."""

from collections import Counter
from dataclasses import dataclass

import numpy
import pytest
import zxingcpp
from PIL import Image

from mm.privacy import ScrubError, visible
from mm.privacy.visible import codes, faces, plates, reading
from mm.privacy.visible.boxes import FILL, Finding


@dataclass(frozen=True)
class Fields:
    """What `visible` reads of a policy."""

    faces: str = "keep"
    codes: str = "keep"
    plates: str = "keep"
    text_in_pictures: str = "keep"
    text_rules: tuple[str, ...] = ("email", "card", "phone")
    phone_regions: tuple[str, ...] = ("KR", "US", "GB")


def picture_with_codes() -> Image.Image:
    image = Image.new("RGB", (500, 300), (190, 200, 180))
    for text, kind, corner in [
        ("made up", zxingcpp.QRCode, (40, 60)),
        ("4006381333931", zxingcpp.EAN13, (220, 80)),
    ]:
        code = zxingcpp.create_barcode(text, kind)
        image.paste(Image.fromarray(numpy.array(code.to_image(scale=2))), corner)
    return image


def test_codes_are_covered_and_cannot_be_read_again() -> None:
    image = picture_with_codes()
    before = image.tobytes()
    covered, found = visible.clean(image, Fields(codes="cover"))
    assert covered is not None and found == Counter(code=2)
    assert zxingcpp.read_barcodes(numpy.asarray(covered), return_errors=True) == []
    assert covered.getpixel((75, 90)) == FILL
    assert covered.getpixel((5, 5)) == (190, 200, 180)
    assert image.tobytes() == before


def test_cover_leaves_no_trace_of_what_was_below() -> None:
    image = picture_with_codes()
    other = image.copy()
    [box, _] = sorted(finding.box for finding in codes.find(image))
    noise = numpy.random.default_rng(0).integers(0, 255, (box[3] - box[1], box[2] - box[0], 3))
    other.paste(Image.fromarray(noise.astype(numpy.uint8)), box[:2])
    assert visible.cover(image, [box]).tobytes() == visible.cover(other, [box]).tobytes()


def test_clean_picture_comes_back_itself() -> None:
    image = Image.new("RGB", (300, 200), (10, 90, 200))
    assert visible.clean(image, Fields(codes="cover")) == (image, Counter())
    assert visible.clean(picture_with_codes(), Fields())[1] == Counter()


def test_cleaning_twice_equals_once() -> None:
    once, _ = visible.clean(picture_with_codes(), Fields(codes="cover"))
    assert once is not None
    twice, found = visible.clean(once, Fields(codes="cover"))
    assert twice is once and found == Counter()


def test_drop_gives_no_picture_and_says_why() -> None:
    assert visible.clean(picture_with_codes(), Fields(codes="drop")) == (None, Counter(code=2))


def test_drop_by_the_first_detector_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "find", lambda image: pytest.fail("not needed any more"))
    assert visible.clean(picture_with_codes(), Fields(codes="drop", faces="cover"))[0] is None


def test_what_covering_does_not_end_makes_the_picture_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "find", lambda image: [Finding("code", (0, 0, 9, 9))])
    image = Image.new("RGB", (30, 30))
    clean, found = visible.clean(image, Fields(codes="cover"))
    assert clean is None and found["still_visible"] == 1


def test_unknown_action_is_an_error() -> None:
    with pytest.raises(ScrubError, match="policy.codes is 'blur'; known: cover, drop, keep"):
        visible.check(Fields(codes="blur"))


@pytest.mark.parametrize("field", ["faces", "codes"])
def test_missing_detector_names_the_field_and_the_command(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (faces, codes):
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ScrubError, match=rf"policy.{field} is cover, but .*: pip install 'mm\[privacy\]'"
    ):
        visible.check(Fields(**{field: "cover"}))
    visible.check(Fields())


@pytest.mark.parametrize("field", ["plates", "text_in_pictures"])
def test_missing_reader_names_the_field_and_the_command(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.opencv, "check", lambda: None)
    monkeypatch.setattr(reading.shutil, "which", lambda name: None)
    reading.check.cache_clear()
    with pytest.raises(
        ScrubError,
        match=rf"policy.{field} is drop, but .*apt-get install tesseract-ocr tesseract-ocr-kor",
    ):
        visible.check(Fields(**{field: "drop"}))
    reading.check.cache_clear()


def test_versions_name_what_the_policy_asks_for_alone() -> None:
    assert visible.versions(Fields()) == {}
    named = visible.versions(Fields(codes="cover"))
    assert list(named) == ["codes"] and named["codes"].startswith("zxing-cpp ")


def line(*texts: str) -> list[reading.Word]:
    return [
        reading.Word(text, (100 * place, 50, 100 * place + 90, 80))
        for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ("12가", "3456"),
        ("123가4567",),
        ("서울", "12", "가", "3456"),
        ("AB12", "CDE"),
        ("ABC-1234",),
    ],
)
def test_plate_patterns_match(texts: tuple[str, ...]) -> None:
    [finding] = plates.find([line(*texts)], Image.new("RGB", (1000, 200)))
    assert finding.kind == "plate"
    assert finding.box[0] <= 0 and finding.box[2] >= 100 * len(texts) - 10


@pytest.mark.parametrize("texts", [("가격", "12000원"), ("STOP",), ("2024",), ("OPEN", "24", "H")])
def test_plate_patterns_leave_other_words_alone(texts: tuple[str, ...]) -> None:
    assert plates.find([line(*texts)], Image.new("RGB", (1000, 200))) == []
