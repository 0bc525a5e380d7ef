import math

import pytest
import torch

from mm.errors import ConfigError, UsageError
from mm.generate import GenerationConfig, generate
from mm.vlm import VisionLanguageModel
from tests import tiny_model

PROMPTS = [[3, 5, 8], [20, 21, 22, 23, 24, 25], [40]]
STOPS = (17, 60)


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return tiny_model.model()


def score(model: VisionLanguageModel, prompt: list[int], answer: list[int]) -> float:
    """Log probability of an answer, by reading it whole; padding rows of the head do not count."""
    valid = tiny_model.tokenizer().vocab_size
    with torch.no_grad():
        # An answer may hold the picture's placeholder; generated, it is a token like any other.
        hidden = model.hidden(torch.tensor([[*prompt, *answer]]), check=False)
        logits = model.logits(hidden)[0, len(prompt) - 1 : -1, :valid]
    return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())


def config(**values: object) -> GenerationConfig:
    known = {"max_new_tokens": 6, "num_valid_tokens": tiny_model.tokenizer().vocab_size}
    return GenerationConfig(**{**known, "stop_token_ids": STOPS, **values})  # type: ignore[arg-type]


def test_reported_probabilities_are_those_of_the_answer(model: VisionLanguageModel) -> None:
    for prompt, out in zip(
        PROMPTS, generate(model, PROMPTS, config=config(num_beams=3)), strict=True
    ):
        probs = out.token_probs + ([] if out.stop_prob is None else [out.stop_prob])
        if out.finish_reason == "length":
            assert math.log(math.prod(probs)) == pytest.approx(
                score(model, prompt, out.ids), abs=1e-3
            )
        else:
            totals = [score(model, prompt, [*out.ids, stop]) for stop in STOPS]
            assert math.log(math.prod(probs)) == pytest.approx(max(totals), abs=1e-3)


def test_a_wide_search_finds_the_likeliest_answer_of_all(model: VisionLanguageModel) -> None:
    """Of two tokens at most: with every token as a beam the search is exhaustive."""
    valid = tiny_model.tokenizer().vocab_size
    (found,) = generate(
        model, [PROMPTS[0]], config=config(num_beams=valid, max_new_tokens=2, stop_token_ids=(17,))
    )
    best = max(
        ([17] if stop_first else [first, 17] for first in range(valid) for stop_first in (0, 1)),
        key=lambda answer: score(model, PROMPTS[0], answer),
    )
    assert found.finish_reason == "stop"
    assert [*found.ids, 17] == best


@pytest.mark.parametrize("beams", [2, 4])
def test_several_prompts_at_once_answer_as_one_by_one(
    model: VisionLanguageModel, beams: int
) -> None:
    together = generate(model, PROMPTS, config=config(num_beams=beams))
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = generate(model, [prompt], config=config(num_beams=beams))
        assert alone.ids == row.ids
        assert alone.token_probs == pytest.approx(row.token_probs, rel=1e-4)


def test_the_search_is_never_worse_than_greedy(model: VisionLanguageModel) -> None:
    for prompt in PROMPTS:
        (greedy,) = generate(model, [prompt], config=config(stop_token_ids=()))
        (wide,) = generate(model, [prompt], config=config(stop_token_ids=(), num_beams=8))
        assert score(model, prompt, wide.ids) >= score(model, prompt, greedy.ids) - 1e-4


@pytest.mark.parametrize("values", [{"temperature": 0.5}, {"repetition_penalty": 1.2}])
def test_beams_and_sampling_exclude_each_other(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="num_beams"):
        config(num_beams=2, **values)


def test_beams_keep_the_limits_of_greedy_decoding(model: VisionLanguageModel) -> None:
    limit = model.decoder.config.max_position_embeddings
    with pytest.raises(UsageError, match="shorten the text"):
        generate(model, [[3] * limit], config=config(num_beams=2))
    rows = generate(model, [[3] * (limit - 2), [5]], config=config(num_beams=2, stop_token_ids=()))
    assert [len(row.ids) for row in rows] == [2, 6]
