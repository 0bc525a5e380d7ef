"""Changed copies are found again, and nothing else is."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm.evaluate.contamination import pictures
from mm.evaluate.contamination.pictures import PictureIndex, thumbnail
from mm.report import bench_contamination
from mm.report.bench_contamination import CHANGES, as_jpeg
from tests.tiny_artwork import write_artwork

NUM = 24


def picture(seed: int) -> Image.Image:
    """Coloured discs and bars on a ramp."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:160, 0:200].astype(np.float32)
    canvas = np.empty((160, 200, 3), np.float32)
    canvas[:] = rng.integers(40, 216, 3)
    canvas += (x / 4)[..., None] * rng.uniform(-1, 1)
    for _ in range(6):
        cx, cy, size = rng.uniform(0, 200), rng.uniform(0, 160), rng.uniform(8, 40)
        is_disc = rng.random() < 0.5
        inside = np.hypot(x - cx, y - cy) < size if is_disc else np.abs(x - cx - y / 3) < size / 3
        canvas[inside] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def index() -> PictureIndex:
    return PictureIndex(np.stack([thumbnail(as_jpeg(picture(seed))) for seed in range(NUM)]))


def found(index: PictureIndex, images: list[Image.Image]) -> set[tuple[int, int]]:
    batch = np.stack([thumbnail(as_jpeg(image)) for image in images])
    return {(match.looked_through, match.searched_for) for match in index.search(batch)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(index: PictureIndex, change: str) -> None:
    rng = random.Random(1)
    copies = [CHANGES[change](picture(seed), rng) for seed in range(NUM)]
    pairs = found(index, copies)
    assert pairs <= {(n, n) for n in range(NUM)} and len(pairs) >= NUM - 2


def test_a_picture_is_found_in_what_it_was_cut_from() -> None:
    rng = random.Random(2)
    cut = [CHANGES["cropped by up to 10 %"](picture(seed), rng) for seed in range(NUM)]
    index = PictureIndex(np.stack([thumbnail(as_jpeg(image)) for image in cut]))
    pairs = found(index, [picture(seed) for seed in range(NUM)])
    assert pairs <= {(n, n) for n in range(NUM)} and len(pairs) >= NUM - 2


def test_others_are_not_found(index: PictureIndex) -> None:
    assert found(index, [picture(seed) for seed in range(100, 160)]) == set()


def test_a_plain_picture_is_like_nothing() -> None:
    plain = Image.new("RGB", (64, 64), (200, 200, 200))
    index = PictureIndex(np.stack([thumbnail(as_jpeg(plain))]))
    assert index.is_plain.all() and found(index, [plain]) == set()


def test_the_same_shape_in_other_colours_is_another_picture() -> None:
    def square(shape: tuple[int, int, int], ground: tuple[int, int, int]) -> Image.Image:
        image = Image.new("RGB", (100, 100), ground)
        image.paste(Image.new("RGB", (40, 40), shape), (20, 30))
        return image

    index = PictureIndex(np.stack([thumbnail(as_jpeg(square((230, 30, 30), (0, 140, 140))))]))
    assert found(index, [square((250, 220, 40), (40, 70, 220))]) == set()
    assert found(index, [square((230, 30, 30), (0, 140, 140))]) == {(0, 0)}


def test_portions_change_nothing(index: PictureIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(seed) for seed in range(20, 30)]
    whole = found(index, images)
    monkeypatch.setattr(pictures, "_AT_ONCE", 3000)
    assert found(index, images) == whole == {(n, 20 + n) for n in range(4)}


def test_the_bench_counts_copies_and_false_pairs(tmp_path: Path) -> None:
    artwork = str(write_artwork(tmp_path / "artwork"))
    result = bench_contamination.run([artwork], Path("conf"), pictures=40, copies=2)
    assert (result["pictures"], result["searched_for"]) == (64, 48)
    assert result["recall_all"]["value"] >= 0.9 and result["precision"]["n"] >= 22
    assert "cropped by up to 10 %" in bench_contamination.table(result)
