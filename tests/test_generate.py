"""Generation: batching and caching change nothing, sampling draws what it says it draws."""

import dataclasses
from typing import Any

import pytest
import torch

from mm.encoders import Pictures
from mm.errors import NotFiniteError, UsageError
from mm.generate import (
    Generated,
    GenerationConfig,
    TextStream,
    generate,
    sampling_probs,
    stream,
    stream_text,
)
from mm.text.tokenizer import Tokenizer
from mm.vlm import VisionLanguageModel
from tests import tiny_model
from tests.decoder.parity import reference
from tests.tiny_model import NUM_IMAGE_TOKENS, PADDING_ROWS, pixels, squares

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
    vlm: VisionLanguageModel, prompt: list[int], pictures: Pictures, steps: int
) -> tuple[list[int], list[float], float]:
    """Greedy without cache, batch or streaming; also the probabilities and the least margin."""
    ids, probs, margin = list(prompt), [], float("inf")
    for _ in range(steps):
        with torch.no_grad():
            logits = vlm(torch.tensor([ids]), pictures)[0, -1, :VALID].float()
        best = logits.topk(2).values
        margin = min(margin, float(best[0] - best[1]))
        ids.append(int(logits.argmax()))
        probs.append(float(logits.softmax(-1).max()))
    return ids[len(prompt) :], probs, margin


def test_greedy_batched_equals_single_equals_uncached(vlm: VisionLanguageModel) -> None:
    pictures = pixels(3)
    together = generate(vlm, PROMPTS, pictures, GREEDY)
    for row, prompt in enumerate(PROMPTS):
        picture = squares(pictures.pixel_values[row : row + 1])
        (alone,) = generate(vlm, [prompt], picture, GREEDY)
        ids, probs, margin = naive_greedy(vlm, prompt, picture, 9)
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
    each = [squares(values) for values in pictures.pixel_values.split(1)]
    reverse = Pictures.cat(each[::-1])
    back = generate(vlm, PROMPTS[::-1], reverse, SAMPLED, seeds[::-1])[::-1]
    alone = [generate(vlm, [PROMPTS[i]], each[i], SAMPLED, [seeds[i]])[0] for i in range(3)]
    assert [r.ids for r in rows] == [r.ids for r in back] == [r.ids for r in alone]
    other = generate(vlm, PROMPTS, pictures, SAMPLED, [30, 40, 50])
    assert all(a.ids != b.ids for a, b in zip(rows, other, strict=True))


def test_one_seed_for_all_rows_is_the_default(vlm: VisionLanguageModel) -> None:
    twins = generate(vlm, [PROMPTS[0]] * 2, Pictures.cat([pixels(1)] * 2), SAMPLED)
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
            Pictures.cat([pixels(1)] * 250),
            config,
            list(range(start, start + 250)),
        )
        rows += [row.ids[0] for row in found]
    counts = torch.bincount(torch.tensor(rows), minlength=VALID) / n
    assert int((expected > 0).sum()) == 6
    assert not counts[expected == 0].any()
    # Six cells of 2,000 draws: the expected distance is about 0.02, and 0.06 is beyond chance.
    assert float((counts - expected).abs().sum() / 2) < 0.06


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


KINDS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "experts": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_64_greedy_tokens_are_those_of_transformers(kind: str) -> None:
    """Alone and in a padded batch, on a decoder without encoder or projector."""
    pytest.importorskip("transformers")
    decoder = tiny_model.model(seed=2, **KINDS[kind]).decoder
    theirs = reference(decoder)
    model = VisionLanguageModel(None, None, decoder, None)
    prompts = [[3, 14, 15, 92, 65], [35], [8, 9, 79, 32, 38, 46, 264]]
    rows = generate(model, prompts, config=GenerationConfig(max_new_tokens=64))
    for prompt, row in zip(prompts, rows, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = torch.cat(out.scores).topk(2).values
        assert float((best[:, 0] - best[:, 1]).min()) > 1e-4  # else a near tie would decide
        expected = out.sequences[0, len(prompt) :].tolist()
        assert len(set(expected)) > 5
        assert row.ids == expected
        (alone,) = generate(model, [prompt], config=GenerationConfig(max_new_tokens=64))
        assert alone.ids == expected
    with pytest.raises(ValueError, match="reads text only"):
        generate(model, prompts[:1], pixels(1))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
def test_prompts_in_chunks_are_read_as_whole(vlm: VisionLanguageModel, chunk: int) -> None:
    """Pictures are cut anywhere, and rows that are padded have chunks of padding alone."""
    prompts = [*PROMPTS, [80]]
    for config in (GREEDY, SAMPLED, dataclasses.replace(GREEDY, num_beams=2)):
        whole = generate(vlm, prompts, pixels(3), config)
        parts = generate(vlm, prompts, pixels(3), dataclasses.replace(config, prefill_chunk=chunk))
        for a, b in zip(whole, parts, strict=True):
            assert a.ids == b.ids
            assert a.token_probs == pytest.approx(b.token_probs, rel=1e-4, abs=1e-6)


def test_numbers_that_are_not_finite_stop_with_what_to_do() -> None:
    broken = tiny_model.model()
    with torch.no_grad():
        broken.decoder.lm_head.weight[3] = torch.nan
    for config in (GREEDY, SAMPLED, dataclasses.replace(GREEDY, num_beams=2)):
        with pytest.raises(NotFiniteError, match="NaN or infinity: use dtype 'bfloat16'"):
            generate(broken, PROMPTS, pixels(3), config)
    with pytest.raises(NotFiniteError):
        list(stream(broken, PROMPTS[0], pixels(1), GREEDY))


# --- Text: whole characters, and stop strings ---------------------------------------------------

TEXT = "Das ist 한국어 👩‍👩‍👧 문장, naïve — café\n끝."


def bytewise(text: str) -> list[int]:
    """Ids of one byte each, so that letters come in up to four parts."""
    words = tiny_model.tokenizer()
    of_byte = {words.token_bytes(index): index for index in range(words.vocab_size)}
    return [of_byte[bytes([byte])] for byte in text.encode()]


def pushed(text: str, *stops: str) -> tuple[list[str], TextStream]:
    out = TextStream(tiny_model.tokenizer(), stops)
    parts = [out.push(token) for token in bytewise(text)]
    return [*parts, out.flush()], out


def test_streamed_text_never_holds_half_a_character() -> None:
    parts, out = pushed(TEXT)
    assert "".join(parts) == out.text == TEXT
    assert "\ufffd" not in "".join(parts)
    assert [part for part in parts if part] == list(TEXT)  # each letter as soon as it is whole
    parts, _ = pushed("가")
    out = TextStream(tiny_model.tokenizer())
    assert [out.push(token) for token in bytewise("가")[:2]] == ["", ""]
    assert out.flush() == "\ufffd"  # ended inside a letter


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["four"], "one two three"),
        ("one twotwo", ["twotwo", "two"], "one "),
        ("aab", ["ab"], "a"),
        ("aaab", ["aab"], "a"),
        ("abcabd", ["abd"], "abc"),
        ("abc", ["abc", "b"], "a"),  # the first to be complete
        ("abc", ["bc", "abc"], ""),  # both at once: the longer
        ("끝났습니다", ["났"], "끝"),
        ("👩‍👧!", ["👧"], "👩‍"),
        ("stop", ["stop"], ""),
        ("sto", ["stop"], "sto"),  # held back, and given out in the end
    ],
)
def test_stop_strings_cut_the_text_and_are_never_half_emitted(
    text: str, stops: list[str], expected: str
) -> None:
    parts, out = pushed(text, *stops)
    assert "".join(parts) == out.text == expected
    assert out.stopped == (expected != text)
    whole = TextStream(tiny_model.tokenizer(), stops)
    words = tiny_model.tokenizer()
    for token in words.encode(text):
        whole.push(token)
    whole.flush()
    assert whole.text == expected  # however the text falls into tokens


def test_text_in_front_of_a_stop_string_is_not_held_longer_than_needed() -> None:
    out = TextStream(tiny_model.tokenizer(), ["\nUser:"])
    said = [out.push(token) for token in bytewise("a\nUsual")]
    assert said == ["a", "", "", "", "\nUsu", "a", "l"]


def speaking(
    vlm: VisionLanguageModel, config: GenerationConfig, words: Tokenizer
) -> tuple[list[str], Generated]:
    run = stream_text(vlm, PROMPTS[0], pixels(1), config, tokenizer=words)
    parts = []
    while True:
        try:
            parts.append(next(run))
        except StopIteration as end:
            return parts, end.value


def test_stop_strings_end_a_row_alone_in_a_batch_and_streamed(vlm: VisionLanguageModel) -> None:
    words = tiny_model.tokenizer()
    config = dataclasses.replace(SAMPLED, max_new_tokens=30)
    plain = generate(vlm, PROMPTS, pixels(3), config, [0, 1, 2], tokenizer=words)
    text = plain[0].text
    assert text is not None and text == words.decode(plain[0].ids)
    middle = next(  # letters of row 0 that no other row says
        text[i : i + 3]
        for i in range(8, len(text))
        if text.index(text[i : i + 3]) == i
        and all(text[i : i + 3] not in (row.text or "") for row in plain[1:])
    )
    stopping = dataclasses.replace(config, stop_strings=(middle,), seed=0)
    rows = generate(vlm, PROMPTS, pixels(3), stopping, [0, 1, 2], tokenizer=words)
    assert rows[0].text == text[: text.index(middle)]
    assert rows[0].finish_reason == "stop" and rows[0].stop_prob is None
    assert rows[0].ids == plain[0].ids[: len(rows[0].ids)]
    assert middle in words.decode(rows[0].ids)
    assert middle not in words.decode(rows[0].ids[:-1])
    assert rows[1:] == plain[1:]
    parts, streamed = speaking(vlm, stopping, words)
    assert "".join(parts) == rows[0].text
    assert streamed.ids == rows[0].ids and streamed.text == rows[0].text
    with pytest.raises(ValueError, match="give the tokenizer too"):
        generate(vlm, PROMPTS, pixels(3), stopping)


def test_streamed_text_is_the_text(vlm: VisionLanguageModel) -> None:
    words = tiny_model.tokenizer()
    for config in (GREEDY, SAMPLED, dataclasses.replace(SAMPLED, max_new_tokens=40)):
        parts, streamed = speaking(vlm, config, words)
        (whole,) = generate(vlm, PROMPTS[:1], pixels(1), config, tokenizer=words)
        assert "".join(parts) == whole.text == words.decode(whole.ids)
        assert streamed == whole


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
        for row, other in zip(rows, exact, strict=True):
            assert row.token_probs[0] == pytest.approx(other.token_probs[0], rel=0.2)


def test_the_head_has_padding_rows_in_these_tests(vlm: VisionLanguageModel) -> None:
    assert vlm.decoder.config.vocab_size - VALID == PADDING_ROWS
