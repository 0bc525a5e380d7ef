"""No planted secret survives the door, in whatever corner of whatever format it sits."""

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mm.data.sample import Sample
from mm.data.shards import write_shards
from mm.privacy import door
from mm.privacy.metadata import KINDS, count_metadata
from mm.privacy.policy import Policy
from tests.privacy.canaries import MARK, Canary, all_canaries, finds, needles, shows_magenta
from tests.privacy.canaries.__main__ import survivors
from tests.privacy.test_scrub import every_byte

CANARIES = {canary.name: canary for canary in all_canaries()}
FORMATS = {"jpeg", "png", "apng", "webp", "gif", "bmp", "tiff", "avif", "jp2", "j2k"}


def test_canaries_are_many_and_planted() -> None:
    assert {name.split()[0] for name in CANARIES} >= FORMATS
    tokens = [(canary, token) for canary in CANARIES.values() for token in canary.tokens.values()]
    assert len({token for _, token in tokens}) == len(tokens) > 3000
    # Without those that lie across pixels, padding or hexadecimal, each is where it was planted.
    found = sum(finds(canary.data, token) for canary, token in tokens)
    assert found > 0.9 * len(tokens)
    for form in ("utf-16", "base64", "deflated"):
        assert any(
            canary.forms[token] == form and finds(canary.data, token) for canary, token in tokens
        )


@pytest.mark.parametrize("name", CANARIES)
def test_nothing_survives_the_door(name: str) -> None:
    assert survivors(CANARIES[name]) == []


@pytest.mark.parametrize("name", CANARIES)
def test_nothing_survives_a_smaller_picture(name: str) -> None:
    assert survivors(CANARIES[name], longest_side=24) == []


def test_what_the_usual_idioms_leave_is_seen() -> None:
    """The search finds what a plain save with Pillow leaves: it could fail."""
    left = 0
    for canary in CANARIES.values():
        if canary.name.startswith(("jpeg", "png", "webp", "tiff")):
            image, buffer = Image.open(io.BytesIO(canary.data)), io.BytesIO()
            kept = {key: image.info[key] for key in ("exif", "icc_profile") if key in image.info}
            image.save(buffer, image.format, **kept)
            left += finds(buffer.getvalue())
    assert left > 10
    assert all(finds(b"..." + needle + b"...") for needle in needles())
    magenta = CANARIES["png transparent key"]
    assert shows_magenta(Image.open(io.BytesIO(magenta.data)).convert("RGB"))


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_nothing_survives_in_shards(tmp_path: Path, encoding: str) -> None:
    samples = [
        Sample([canary.data], [("user", "<image>What?")], {}, f"/home/{MARK}/{name}")
        for name, canary in CANARIES.items()
    ]
    report = write_shards(samples, tmp_path / "out", Policy(encoding=encoding))
    assert report.samples == len(samples) and not report.quarantined
    for blob in every_byte(tmp_path / "out"):
        assert not finds(blob)


def test_every_kind_of_finding_is_named() -> None:
    found = {name: count_metadata(canary.data) for name, canary in CANARIES.items()}
    seen = {kind for counts in found.values() for kind in counts}
    assert seen <= set(KINDS)
    assert set(KINDS) - seen == {"broken_structure"}
    assert not any(re.search(MARK, kind) for kind in seen)
    jpeg = found["jpeg progressive"]
    expected = (
        "exif gps maker_note serial_number author device time thumbnail xmp iptc icc icc_text"
    )
    expected += " comment c2pa vendor motion_photo trailing_data unused_table"
    assert set(jpeg) == set(expected.split())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("png rgba", "hidden_pixels"),
        ("tiff alpha", "hidden_pixels"),
        ("webp alpha lossless", "hidden_pixels"),
        ("gif palette", "unused_palette"),
        ("png palette", "unused_palette"),
        ("jpeg baseline", "hidden_bytes"),
    ],
)
def test_what_is_only_seen_in_pixels_is_counted(name: str, kind: str) -> None:
    audit: Counter[str] = Counter()
    door.open_image(CANARIES[name].data, audit=audit)
    assert audit[kind] == 1


def test_a_canary_names_each_place_once() -> None:
    canary = Canary("x")
    canary.text("a")
    with pytest.raises(AssertionError, match="a"):
        canary.text("a")
