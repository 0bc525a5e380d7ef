"""Generation: batching and caching change nothing, sampling draws what it says it draws."""

import dataclasses

import pytest
import torch
from torch import Tensor

from mm.errors import ConfigError, UsageError
from mm.generate import GenerationConfig, generate, sampling_probs, stream
from mm.vlm import VisionLanguageModel
from tests import tiny_model
from tests.tiny_model import NUM_IMAGE_TOKENS, PADDING_ROWS, pixels

VALID = tiny_model.tokenizer().vocab_size
PAD = tiny_model.tokenizer().token_id("<|image_pad|>")
IMAGE = [PAD] * NUM_IMAGE_TOKENS
# Different lengths, with the picture in different places.
PROMPTS = [[5, *IMAGE, 80], [*IMAGE, 9, 10, 11, 12, 13], [70, 71, 72, *IMAGE, 33, 34, 35, 36]]
GREEDY = GenerationConfig(max_new_tokens=9, num_valid_tokens=VALID)
SAMPLED = dataclasses.replace(GREEDY, temperature=1.3, seed=7)


@pytest.fixture(scope="module")
def vlm() -> VisionLanguageModel:
    return tiny_model.model()


def naive_greedy(
    vlm: VisionLanguageModel, prompt: list[int], pixel_values: Tensor, steps: int
) -> tuple[list[int], list[float], float]:
    """Greedy without cache, batch or streaming; also the probabilities and the least margin."""
    ids, probs, margin = list(prompt), [], float("inf")
    for _ in range(steps):
        with torch.no_grad():
            logits = vlm(torch.tensor([ids]), pixel_values)[0, -1, :VALID].float()
        best = logits.topk(2).values
        margin = min(margin, float(best[0] - best[1]))
        ids.append(int(logits.argmax()))
        probs.append(float(logits.softmax(-1).max()))
    return ids[len(prompt) :], probs, margin


def test_greedy_batched_equals_single_equals_uncached(vlm: VisionLanguageModel) -> None:
    pictures = pixels(3)
    together = generate(vlm, PROMPTS, pictures, GREEDY)
    for row, prompt in enumerate(PROMPTS):
        (alone,) = generate(vlm, [prompt], pictures[row : row + 1], GREEDY)
        ids, probs, margin = naive_greedy(vlm, prompt, pictures[row : row + 1], 9)
        assert margin > 5e-3  # else a near tie would decide the test
        assert together[row].ids == alone.ids == ids
        assert together[row].token_probs == pytest.approx(probs, rel=1e-4, abs=1e-6)
        assert alone.token_probs == pytest.approx(probs, rel=1e-4, abs=1e-6)


def test_the_picture_matters(vlm: VisionLanguageModel) -> None:
    first = generate(vlm, [PROMPTS[0]], pixels(1, seed=1), GREEDY)[0]
    second = generate(vlm, [PROMPTS[0]], pixels(1, seed=2), GREEDY)[0]
    assert first.token_probs != second.token_probs


def test_streaming_gives_the_same_tokens_and_returns_the_same_result(
    vlm: VisionLanguageModel,
) -> None:
    for config in (GREEDY, SAMPLED):
        (whole,) = generate(vlm, PROMPTS[:1], pixels(1), config)
        run = stream(vlm, PROMPTS[0], pixels(1), config)
        tokens = []
        while True:
            try:
                tokens.append(next(run))
            except StopIteration as end:
                assert end.value == whole
                break
        assert tokens == whole.ids


def test_every_stop_token_ends_a_row_and_only_that_row(vlm: VisionLanguageModel) -> None:
    plain = generate(vlm, PROMPTS, pixels(3), GREEDY)
    # Stop row 0 at its fifth token and row 2 at its third, by tokens that are new there.
    stops = (plain[0].ids[4], plain[2].ids[2])
    assert plain[0].ids.index(stops[0]) == 4 and plain[2].ids.index(stops[1]) == 2
    stopped = generate(vlm, PROMPTS, pixels(3), dataclasses.replace(GREEDY, stop_token_ids=stops))
    for before, after in zip(plain, stopped, strict=True):
        end = next((i for i, token in enumerate(before.ids) if token in stops), None)
        assert after.ids == before.ids[:end]
        assert after.token_probs == pytest.approx(before.token_probs[:end], rel=1e-5)
        assert after.finish_reason == ("length" if end is None else "stop")
        if end is None:
            assert after.stop_prob is None
        else:
            assert after.stop_prob == pytest.approx(before.token_probs[end], rel=1e-5)
    assert [row.finish_reason for row in stopped] == ["stop", "length", "stop"]


def test_padding_rows_are_never_chosen(vlm: VisionLanguageModel) -> None:
    wild = tiny_model.model()
    with torch.no_grad():
        wild.decoder.lm_head.weight[VALID:] *= 100  # they would win nearly every time
    config = dataclasses.replace(SAMPLED, max_new_tokens=40, temperature=5.0)
    free = generate(wild, PROMPTS, pixels(3), dataclasses.replace(config, num_valid_tokens=None))
    assert any(token >= VALID for row in free for token in row.ids)
    for chosen in (config, dataclasses.replace(config, temperature=0.0)):
        rows = generate(wild, PROMPTS, pixels(3), chosen)
        assert all(token < VALID for row in rows for token in row.ids)
        assert all(0 < prob <= 1 for row in rows for prob in row.token_probs)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(vlm: VisionLanguageModel) -> None:
    pictures, seeds = pixels(3), [3, 4, 5]
    rows = generate(vlm, PROMPTS, pictures, SAMPLED, seeds)
    back = generate(vlm, PROMPTS[::-1], pictures.flip(0), SAMPLED, seeds[::-1])[::-1]
    alone = [
        generate(vlm, [PROMPTS[i]], pictures[i : i + 1], SAMPLED, [seeds[i]])[0] for i in range(3)
    ]
    assert [r.ids for r in rows] == [r.ids for r in back] == [r.ids for r in alone]
    other = generate(vlm, PROMPTS, pictures, SAMPLED, [30, 40, 50])
    assert all(a.ids != b.ids for a, b in zip(rows, other, strict=True))


def test_one_seed_for_all_rows_is_the_default(vlm: VisionLanguageModel) -> None:
    twins = generate(vlm, [PROMPTS[0]] * 2, pixels(1).repeat(2, 1, 1, 1), SAMPLED)
    assert twins[0].ids == twins[1].ids
    assert twins[0].ids == generate(vlm, [PROMPTS[0]], pixels(1), SAMPLED, [SAMPLED.seed])[0].ids


def test_the_global_generator_is_left_alone(vlm: VisionLanguageModel) -> None:
    before = torch.get_rng_state()
    generate(vlm, PROMPTS, pixels(3), SAMPLED)
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_follows_the_models_distribution(vlm: VisionLanguageModel) -> None:
    """2,000 first tokens against the exact distribution, by total variation."""
    config = dataclasses.replace(SAMPLED, max_new_tokens=1, temperature=0.5, top_k=6)
    with torch.no_grad():
        logits = vlm(torch.tensor([PROMPTS[0]]), pixels(1))[:, -1, :VALID].float()
    expected = sampling_probs(logits, config)[0]
    n = 2000
    rows: list[int] = []
    for start in range(0, n, 250):
        found = generate(
            vlm,
            [PROMPTS[0]] * 250,
            pixels(1).expand(250, -1, -1, -1),
            config,
            list(range(start, start + 250)),
        )
        rows += [row.ids[0] for row in found]
    counts = torch.bincount(torch.tensor(rows), minlength=VALID) / n
    assert int((expected > 0).sum()) == 6
    assert not counts[expected == 0].any()
    # Six cells of 2,000 draws: the expected distance is about 0.02, and 0.06 is beyond chance.
    assert float((counts - expected).abs().sum() / 2) < 0.06


LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0, -torch.inf]])
PROBS = LOGITS.softmax(-1)[0].tolist()  # of ids 1, 3, 2, 0: 0.644, 0.237, 0.087, 0.032


def shares(kept: list[int], probs: list[float] = PROBS) -> list[float]:
    total = sum(probs[i] for i in kept)
    return [probs[i] / total if i in kept else 0.0 for i in range(len(probs))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, PROBS),
        ({"temperature": 2.0}, (LOGITS / 2).softmax(-1)[0].tolist()),
        ({"top_k": 2}, shares([1, 3])),
        ({"top_k": 99}, PROBS),
        ({"top_p": 0.5}, shares([1])),
        ({"top_p": 0.65}, shares([1, 3])),  # id 3 crosses the threshold and stays
        ({"top_p": 0.89}, shares([1, 3, 2])),
        ({"min_p": 0.1}, shares([1, 3, 2])),
        ({"min_p": 0.2}, shares([1, 3])),
        ({"min_p": 1.0}, shares([1])),
        # After top-k the rest is renormalised, so that id 1 alone reaches 0.73 of top_p.
        ({"top_k": 2, "top_p": 0.7}, shares([1])),
        ({"top_k": 3, "top_p": 0.7}, shares([1, 3])),
    ],
)
def test_sampling_rules_on_fixed_logits(rules: dict[str, float], expected: list[float]) -> None:
    config = GenerationConfig(**{"temperature": 1.0, **rules})  # type: ignore[arg-type]
    assert sampling_probs(LOGITS.clone(), config)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_sampling_rules_equal_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    logits = torch.empty(4, 50).normal_(generator=torch.Generator().manual_seed(0)) * 3
    config = GenerationConfig(temperature=0.7, top_k=20, top_p=0.8, min_p=0.05)
    scores = logits.clone()
    for rule in (
        transformers.TemperatureLogitsWarper(0.7),
        transformers.TopKLogitsWarper(20),
        transformers.TopPLogitsWarper(0.8),
        transformers.MinPLogitsWarper(0.05),
    ):
        scores = rule(None, scores)
    torch.testing.assert_close(sampling_probs(logits, config), scores.softmax(-1))


def test_repetition_penalty_equals_its_definition(vlm: VisionLanguageModel) -> None:
    penalised = dataclasses.replace(GREEDY, repetition_penalty=1.7)
    (row,) = generate(vlm, [PROMPTS[0]], pixels(1), penalised)
    ids = list(PROMPTS[0])
    for token in row.ids:
        with torch.no_grad():
            logits = vlm(torch.tensor([ids]), pixels(1))[0, -1, :VALID].float()
        for seen in set(ids):
            logits[seen] = logits[seen] / 1.7 if logits[seen] > 0 else logits[seen] * 1.7
        assert token == int(logits.argmax())
        ids.append(token)
    assert row.ids != generate(vlm, [PROMPTS[0]], pixels(1), GREEDY)[0].ids


def test_a_long_neighbour_does_not_cut_a_row_short() -> None:
    vlm = tiny_model.model(max_position_embeddings=20)
    rows = generate(vlm, [[5, 6], list(range(40, 57))], None, GREEDY)
    assert [len(row.ids) for row in rows] == [9, 3]
    assert rows[0].ids == generate(vlm, [[5, 6]], None, GREEDY)[0].ids
    assert {row.finish_reason for row in rows} == {"length"}


def test_prompts_that_cannot_be_read_are_refused() -> None:
    vlm = tiny_model.model(max_position_embeddings=20)
    for prompt in ([], list(range(20))):
        with pytest.raises(UsageError, match="this model reads 1 to 19"):
            generate(vlm, [prompt], None, GREEDY)
    with pytest.raises(ValueError, match="2 seeds for 1 prompts"):
        generate(vlm, [[1]], None, GREEDY, [1, 2])
    assert generate(vlm, [], None, GREEDY) == []


def test_placeholders_and_pictures_must_match(vlm: VisionLanguageModel) -> None:
    with pytest.raises(ValueError, match="placeholders"):
        generate(vlm, PROMPTS[:1], pixels(2), GREEDY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is .*; it must be"):
        GenerationConfig(**{name: value})  # type: ignore[arg-type]


def test_bfloat16_and_autocast_run(vlm: VisionLanguageModel) -> None:
    """The training loop generates under autocast, with float32 weights."""
    exact = generate(vlm, PROMPTS, pixels(3), GREEDY)
    with torch.autocast("cpu", torch.bfloat16):
        rough = generate(vlm, PROMPTS, pixels(3), GREEDY)
    half = tiny_model.model().to(torch.bfloat16)
    halved = generate(half, PROMPTS, pixels(3), GREEDY)
    for rows in (rough, halved):
        assert [len(row.ids) for row in rows] == [9, 9, 9]
        # The first choice is clear by far, and bfloat16 keeps two to three digits of a logit.
        assert [row.ids[0] for row in rows] == [row.ids[0] for row in exact]
        for row, reference in zip(rows, exact, strict=True):
            assert row.token_probs[0] == pytest.approx(reference.token_probs[0], rel=0.2)


def test_the_head_has_padding_rows_in_these_tests(vlm: VisionLanguageModel) -> None:
    assert vlm.decoder.config.vocab_size - VALID == PADDING_ROWS
