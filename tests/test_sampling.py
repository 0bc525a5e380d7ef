"""Sampling: the distribution is transformers', and what is drawn follows it."""

import dataclasses
import itertools

import pytest
import torch

from mm.errors import ConfigError
from mm.sampling import Chooser, GenerationConfig, greedy, penalised, sampling_probs

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


GRID = [
    {"temperature": t, "top_k": k, "top_p": p, "min_p": m, "repetition_penalty": r}
    for t, k, p, m, r in itertools.product(
        (0.6, 1.5), (0, 1, 20, 99), (1.0, 0.95, 0.3), (0.0, 0.05), (1.0, 1.3)
    )
]


@pytest.mark.parametrize("rules", GRID, ids=lambda rules: "-".join(map(str, rules.values())))
def test_every_combination_equals_transformers_processors(rules: dict[str, float]) -> None:
    transformers = pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(3, 300).normal_(generator=generator) * 3
    read = torch.randint(0, 300, (3, 40), generator=generator)
    config = GenerationConfig(**rules)  # type: ignore[arg-type]
    chain = [transformers.TemperatureLogitsWarper(config.temperature)]
    if config.repetition_penalty != 1:
        chain.insert(0, transformers.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.top_k:
        chain.append(transformers.TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        chain.append(transformers.TopPLogitsWarper(config.top_p))
    if config.min_p > 0:
        chain.append(transformers.MinPLogitsWarper(config.min_p))
    expected = logits.clone()
    for rule in chain:
        expected = rule(read, expected)
    seen = torch.zeros(3, 300, dtype=torch.bool).scatter(1, read, True)
    ours = sampling_probs(penalised(logits, seen, config.repetition_penalty), config)
    torch.testing.assert_close(ours, expected.softmax(-1))


def test_tokens_that_tie_with_the_kth_stay_as_in_transformers() -> None:
    """Logits of bfloat16 tie often: 2,000 of them have some 400 values here."""
    transformers = pytest.importorskip("transformers")
    drawn = torch.empty(8, 2000).normal_(generator=torch.Generator().manual_seed(1)) * 3
    logits = drawn.bfloat16().float()
    expected = transformers.TopKLogitsWarper(50)(None, logits.clone()).softmax(-1)
    assert int((expected > 0).sum(-1).max()) > 50
    found = sampling_probs(logits, GenerationConfig(temperature=1.0, top_k=50))
    torch.testing.assert_close(found, expected)


def choose(config: GenerationConfig, logits: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """Tokens of as many rows as seeds, all with the same logits `[V]`."""
    chooser = Chooser(config, [[1]] * len(seeds), seeds, 1, logits.shape[-1], logits.device)
    return chooser(logits.expand(len(seeds), -1))[0]


@pytest.mark.parametrize(
    "rules",
    [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 8, "top_p": 0.9, "min_p": 0.02}],
)
def test_draws_follow_the_distribution(rules: dict[str, float]) -> None:
    logits = torch.empty(12).normal_(generator=torch.Generator().manual_seed(2)) * 2
    config = GenerationConfig(temperature=1.0, **rules)  # type: ignore[arg-type]
    expected = sampling_probs(logits[None], config)[0]
    n = 4000
    counts = torch.bincount(choose(config, logits, list(range(n))), minlength=12) / n
    assert not counts[expected == 0].any()
    # Twelve cells of 4,000 draws: 0.02 is usual, 0.04 is beyond chance.
    assert float((counts - expected).abs().sum() / 2) < 0.04


def test_how_candidates_are_found_does_not_change_the_draw() -> None:
    """A top-k that cuts nothing, a top-p that cuts nothing and neither draw the same tokens."""
    logits = torch.empty(40).normal_(generator=torch.Generator().manual_seed(3))
    seeds = list(range(200))
    plain = GenerationConfig(temperature=1.0)
    tokens = choose(plain, logits, seeds)
    assert len(tokens.unique()) > 20
    logits[7] = -torch.inf  # ruled out, so that 39 of 40 are all
    tokens = choose(plain, logits, seeds)
    for rules in ({"top_k": 39}, {"top_p": 1 - 1e-7}):
        config = dataclasses.replace(plain, **rules)  # type: ignore[arg-type]
        assert torch.equal(choose(config, logits, seeds), tokens)


def test_each_step_draws_anew_from_the_seeds_own_stream() -> None:
    """With equal logits the drawn number itself says which token comes."""
    config, steps = GenerationConfig(temperature=1.0), 50
    chooser = Chooser(config, [[1], [2]], [5, 6], steps, 100, torch.device("cpu"))
    tokens = torch.stack([chooser(torch.zeros(2, 100))[0] for _ in range(steps)], 1)
    for row, seed in zip(tokens, (5, 6), strict=True):
        drawn = torch.rand(steps, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(row, (drawn.double() * 100).floor().long())


def test_greedy_is_the_likeliest_token_and_its_probability() -> None:
    logits = torch.empty(5, 60).normal_(generator=torch.Generator().manual_seed(4)) * 4
    tokens, probs = greedy(logits)
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(probs, logits.softmax(-1).amax(-1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("rules", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}])
def test_numbers_that_are_not_finite_show_in_the_probability(
    bad: float, rules: dict[str, float]
) -> None:
    logits = torch.zeros(2, 9)
    logits[1, 4] = bad
    config = GenerationConfig(repetition_penalty=1.1, **rules)  # type: ignore[arg-type]
    chooser = Chooser(config, [[1], [2]], [0, 0], 1, 9, logits.device)
    tokens, probs = chooser(logits)
    assert probs.isnan().tolist() == [False, True]
    assert (0 <= tokens).all() and (tokens < 9).all()  # the next step may be on its way already


def test_padding_rows_are_not_seen_at_all() -> None:
    logits = torch.zeros(1, 9)
    logits[0, 6:] = torch.nan
    for rules in ({}, {"temperature": 1.0}, {"repetition_penalty": 1.5}):
        config = GenerationConfig(num_valid_tokens=6, **rules)  # type: ignore[arg-type]
        chooser = Chooser(config, [[1, 8]], [0], 3, 9, logits.device)
        for _ in range(3):
            tokens, probs = chooser(logits)
            assert int(tokens) < 6 and float(probs) == pytest.approx(1 / 6)


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
        ("stop_strings", ("",)),
        ("prefill_chunk", 0),
        ("decode", "quick"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is .*; it must be"):
        GenerationConfig(**{name: value})  # type: ignore[arg-type]
