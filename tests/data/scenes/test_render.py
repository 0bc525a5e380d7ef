import random

import pytest
import torch

from mm.data.scenes.artwork import Artwork
from mm.data.scenes.batch import OtherPicture, collate_scenes, patch_classes, thing_class
from mm.data.scenes.concepts import COLOURS
from mm.data.scenes.layout import Scene, SceneConfig, Thing
from mm.data.scenes.render import Renderer
from mm.data.scenes.style import PLAIN_STYLE, StyleConfig
from tests.tiny_artwork import tiny_artwork


@pytest.fixture(scope="module")
def artwork(tmp_path_factory: pytest.TempPathFactory) -> Artwork:
    return tiny_artwork(tmp_path_factory.mktemp("shards") / "artwork")


def draw(
    artwork: Artwork,
    scenes: list[Scene | OtherPicture],
    size: int,
    style: StyleConfig,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate_scenes(scenes, artwork, random.Random(seed), style)
    others = torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    return Renderer(artwork, "cpu", others).draw(batch, size, style, generator)


def test_things_are_where_the_scene_says_and_in_its_colours(artwork: Artwork) -> None:
    row = artwork.shape_rows["circle"]
    things = tuple(
        Thing("shape", "circle", x, y, 0.3, sprite=row, colour=colour)
        for colour, x, y in (("red", 0.2, 0.2), ("blue", 0.8, 0.7))
    )
    pictures, labels = draw(artwork, [Scene(things, "plain", "white")], 128, PLAIN_STYLE)
    for thing in things:
        seen = pictures[0, :, int(thing.y * 128), int(thing.x * 128)]
        wanted = torch.tensor(COLOURS[thing.colour][1])
        assert (seen.int() - wanted).abs().max() <= 15
        assert labels[0, 0, int(thing.y * 16), int(thing.x * 16)] == thing_class(thing)
    corner = pictures[0, :, 127, 0]
    assert (corner.int() - torch.tensor(COLOURS["white"][1])).abs().max() <= 15
    assert labels[0, :, 15, 0].tolist() == [patch_classes()[0] - 1, -100, -100]


def test_patches_know_how_many_are_alike_and_which_place_they_have(artwork: Artwork) -> None:
    row = artwork.shape_rows["circle"]
    things = [
        Thing("shape", "circle", x, 0.3, 0.2, sprite=row, colour=colour)
        for colour, x in (("red", 0.15), ("blue", 0.4), ("red", 0.65))
    ]
    things.append(Thing("word", "SUN", 0.7, 0.8, 0.5, colour="black", font="sticks"))
    _, labels = draw(artwork, [Scene(tuple(things), "plain", "white")], 128, PLAIN_STYLE)
    found = [labels[0, 1:, 4, int(x * 16)].tolist() for x in (0.15, 0.4, 0.65)]
    assert found == [[1, 0], [0, 1], [1, 2]]
    word = labels[0, :, 10:16][:, labels[0, 0, 10:16] == patch_classes()[0] - 2]
    assert word.shape[1] > 0 and (word[1] == 0).all() and (word[2] == 3).all()


def test_small_words_are_averaged_not_skipped(artwork: Artwork) -> None:
    word = Thing("word", "SUN", 0.5, 0.5, 0.5, colour="black", font="sticks")
    scene = Scene((word,), "plain", "white")
    small, _ = draw(artwork, [scene], 64, PLAIN_STYLE)
    large, _ = draw(artwork, [scene], 512, PLAIN_STYLE)
    averaged = torch.nn.functional.avg_pool2d(large.float(), 8)
    assert (small.float() - averaged).abs().mean() < 0.8


def test_a_noisy_ground_looks_the_same_at_every_size(artwork: Artwork) -> None:
    scene = Scene((), "noisy", "gray")
    small, _ = draw(artwork, [scene], 128, PLAIN_STYLE)
    large, _ = draw(artwork, [scene], 256, PLAIN_STYLE)
    halved = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert abs(halved.std() - small.float().std()) < 1.0
    assert small.float().std() > 5


def test_style_changes_the_look_but_no_label_of_the_middle(artwork: Artwork) -> None:
    sampler = artwork.sampler(SceneConfig(word_share=0.0, shape_share=0.0))
    rng = random.Random(1)
    scenes: list[Scene | OtherPicture] = [sampler.draw(rng, count=1) for _ in range(24)]
    strong = StyleConfig(occlude=0.0)
    plain, _ = draw(artwork, scenes, 128, PLAIN_STYLE)
    styled, labels = draw(artwork, scenes, 128, strong)
    assert (plain != styled).any(dim=(1, 2, 3)).all()
    for scene, label in zip(scenes, labels, strict=True):
        assert isinstance(scene, Scene)
        thing = scene.things[0]
        assert thing_class(thing) in label[0, int(thing.y * 16) - 2 : int(thing.y * 16) + 3]


def test_other_pictures_take_their_places(artwork: Artwork) -> None:
    scenes = [OtherPicture("other", 0), Scene((), "plain", "red"), OtherPicture("picture", 1)]
    scenes += [OtherPicture("texture")]
    pictures, labels = draw(artwork, scenes, 64, PLAIN_STYLE)  # type: ignore[arg-type]
    assert (pictures[0] == 77).all()
    assert (labels[:, 0] == patch_classes()[0] - 1).all() and (labels[:, 1:] == -100).all()
    assert pictures[2].float().std() > 10 and pictures[3].float().std() > 5


def test_a_word_is_drawn_and_labelled(artwork: Artwork) -> None:
    word = Thing("word", "SUN", 0.5, 0.5, 0.5, colour="black", font="sticks")
    pictures, labels = draw(artwork, [Scene((word,), "plain", "white")], 128, PLAIN_STYLE)
    assert (pictures[0].float().mean(0) < 60).sum() > 50
    assert (labels[:, 0] == patch_classes()[0] - 2).any()


def test_the_same_seed_draws_the_same_pixels(artwork: Artwork) -> None:
    scene = artwork.sampler(SceneConfig()).draw(random.Random(3))
    first, _ = draw(artwork, [scene], 64, StyleConfig(), seed=5)
    second, _ = draw(artwork, [scene], 64, StyleConfig(), seed=5)
    assert torch.equal(first, second)
