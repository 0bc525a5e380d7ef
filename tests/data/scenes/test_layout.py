import random

from hypothesis import given
from hypothesis import strategies as st

from mm.data.scenes.concepts import SHAPES, concept_by_name, concepts
from mm.data.scenes.layout import (
    ORDER_MARGIN,
    Scene,
    SceneConfig,
    SceneSampler,
    held_out_partners,
)
from mm.data.scenes.words import draw_word, word_list


def sampler(**values: object) -> SceneSampler:
    catalogue = {c.index: {"colour": [2 * c.index], "icons": [2 * c.index + 1]} for c in concepts()}
    shapes = {name: 800 + i for i, name in enumerate(SHAPES)}
    config = SceneConfig(**values)  # type: ignore[arg-type]
    return SceneSampler(catalogue, shapes, ["sticks"], [(0.0, 0.0, 0.0)] * 810, {"icons"}, config)


def arts(scene: Scene) -> set[int]:
    return {concept_by_name()[t.name].index for t in scene.things if t.kind == "art"}


def pairs_held_out(scene: Scene) -> int:
    partners = held_out_partners()
    return sum(b in partners[a] for a in arts(scene) for b in arts(scene))


def test_held_out_pairs_are_symmetric_and_about_a_tenth() -> None:
    partners = held_out_partners()
    assert all(a in partners[b] for a, row in enumerate(partners) for b in row)
    share = sum(map(len, partners)) / (len(partners) * (len(partners) - 1))
    assert 0.09 < share < 0.11


@given(st.integers(0, 2**32))
def test_seen_scenes_hold_no_pair_that_unseen_scenes_are_made_of(seed: int) -> None:
    assert pairs_held_out(sampler(pairs="seen").draw(random.Random(seed))) == 0
    unseen = sampler(pairs="unseen", word_share=0.0).draw(random.Random(seed), count=3)
    assert len(arts(unseen)) < 2 or pairs_held_out(unseen) > 0


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_things_are_in_order_inside_and_decided(seed: int, count: int) -> None:
    scene = sampler(word_share=0.3).draw(random.Random(seed), count=count)
    assert len(scene.things) == count
    xs = [thing.x for thing in scene.things]
    assert all(b - a >= ORDER_MARGIN - 1e-9 for a, b in zip(xs, xs[1:], strict=False))
    assert all(0 <= v <= 1 for thing in scene.things for v in (thing.x, thing.y))
    colours = {thing.colour for thing in scene.things if thing.colour}
    assert scene.ground_colour not in colours


def test_the_same_seed_draws_the_same_scene() -> None:
    assert sampler().draw(random.Random(7)) == sampler().draw(random.Random(7))


def test_mono_share_decides_the_kind_of_set() -> None:
    rng = random.Random(0)
    only_icons = sampler(mono_share=1.0, shape_share=0.0, word_share=0.0)
    only_colour = sampler(mono_share=0.0, shape_share=0.0, word_share=0.0)
    assert all(t.sprite % 2 for _ in range(30) for t in only_icons.draw(rng).things)
    assert not any(t.sprite % 2 for _ in range(30) for t in only_colour.draw(rng).things)


@given(st.integers(0, 2**32))
def test_training_never_draws_a_held_out_word(seed: int) -> None:
    rng = random.Random(seed)
    held_out = set(word_list("test"))
    assert not held_out & {draw_word(rng, "train") for _ in range(20)}
    assert draw_word(rng, "test") in held_out
