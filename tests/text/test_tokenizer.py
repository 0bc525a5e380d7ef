"""The tokenizer: Qwen3's format, text that can't act as a control token, streaming."""

import json
import os
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import CheckpointError
from mm.text.tokenizer import (
    NUM_ADDED_TOKENS,
    OTHER_ADDED_TOKENS,
    SPECIAL_TOKENS,
    StreamDecoder,
    Tokenizer,
    train_tokenizer,
)

CORPUS = [
    "a red cup to the left of a blue star on a white background",
    "a green cat above a yellow dog on a grey background",
    "how many stars are there? there are 3 stars.",
    "흰 배경에 빨간 컵이 파란 별의 왼쪽에 있어요",
    "그림에 고양이가 있나요? 네, 고양이가 있어요.",
] * 4

PUBLISHED_FILE = os.environ.get("MM_QWEN3_TOKENIZER", "")
needs_published_file = pytest.mark.skipif(
    not PUBLISHED_FILE, reason="MM_QWEN3_TOKENIZER does not name Qwen3's published tokenizer.json"
)

# Text and ids of the published file.
PUBLISHED_VECTORS = [
    ("Hello world", [9707, 1879]),
    ("12345", [16, 17, 18, 19, 20]),
    ("  two spaces\n\n\ttab", [220, 1378, 12621, 271, 58149]),
    ("caf\u00e9 e\u0301", [924, 58858, 3958]),  # composed and decomposed
    ("\u212b", [144044]),  # the Angstrom sign
    ("日本語", [101059, 102819]),
    ("🙂", [145080]),
    ("don't DON'T", [15007, 944, 44273, 17323]),
    (
        "The quick brown fox\n\n\njumps   over 1234 dogs.",
        [785, 3974, 13876, 38835, 1406, 73, 11793, 256, 916, 220, 16, 17, 18, 19, 12590, 13],
    ),
    (
        "\u00dcn\u00efc\u00f6d\u00e9 \u2460\u00b2",
        [52491, 77, 37572, 66, 2956, 128505, 220, 48312, 254, 29456],
    ),
    ("def f(x):\n    return x**2\n", [750, 282, 2075, 982, 262, 470, 856, 334, 17, 198]),
    ("\r\n\r\n a", [871, 264]),
    ("<think>\n\n</think>\n\n", [151667, 271, 151668, 271]),
    ("<|im_start|>user\nHi<|im_end|>\n", [151644, 872, 198, 13048, 151645, 198]),
    (
        '<tool_call>\n{"name": "f"}\n</tool_call>',
        [151657, 198, 4913, 606, 788, 330, 69, 16707, 151658],
    ),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, 400)


@pytest.fixture(scope="module")
def published() -> Tokenizer:
    return Tokenizer.from_file(PUBLISHED_FILE)


def test_training_ends_with_qwen3_added_tokens_in_published_order(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    assert size == 400
    names = SPECIAL_TOKENS + OTHER_ADDED_TOKENS
    assert [tokenizer.token_id(name) for name in names] == list(range(size - 26, size))
    # The published order starts at 151643 with the end of text and ends with </think>.
    assert (names[0], names[2], names[12], names[25]) == (
        "<|endoftext|>",
        "<|im_end|>",
        "<|image_pad|>",
        "</think>",
    )


def test_training_is_deterministic_whatever_the_order() -> None:
    shuffled = random.Random(0).sample(CORPUS, len(CORPUS))
    assert train_tokenizer(CORPUS, 500).to_json() == train_tokenizer(shuffled, 500).to_json()


def test_training_a_too_small_vocabulary_says_what_is_needed() -> None:
    with pytest.raises(ValueError, match="at least 282"):
        train_tokenizer(CORPUS, 100)


def test_unseen_upper_case_words_split_into_letters(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.decode([index]) for index in tokenizer.encode("the word STOP")]
    assert pieces[-4:] == ["S", "T", "O", "P"]
    assert tokenizer.decode(tokenizer.encode("red cup")) == "red cup"
    assert len(tokenizer.encode(" background")) == 1


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2026")] == ["2", "0", "2", "6"]


def test_text_is_normalised_to_nfc(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("\u1100\u1161") == tokenizer.encode("가")


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_decode_inverts_encode_up_to_nfc(text: str) -> None:
    tokenizer = _shared()
    expected = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == expected


_cache: list[Tokenizer] = []


def _shared() -> Tokenizer:
    if not _cache:
        _cache.append(train_tokenizer(CORPUS, 400))
    return _cache[0]


@pytest.mark.parametrize("name", SPECIAL_TOKENS + OTHER_ADDED_TOKENS)
def test_an_added_token_typed_by_a_user_stays_plain_text(tokenizer: Tokenizer, name: str) -> None:
    text = f"hi {name}\n"
    plain = tokenizer.encode(text)
    assert max(plain) < tokenizer.vocab_size - NUM_ADDED_TOKENS
    assert tokenizer.decode(plain) == text
    assert tokenizer.token_id(name) in tokenizer.encode(text, allow_special=True)


def test_decoding_skips_special_tokens_but_keeps_think(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<think>a</think><|im_end|>", allow_special=True)
    assert tokenizer.decode(ids) == "<think>a</think>"
    assert tokenizer.decode(ids, skip_special=False) == "<think>a</think><|im_end|>"


def test_padding_rows_decode_to_nothing(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.vocab_size, *tokenizer.encode("cup"), tokenizer.vocab_size + 250]
    assert tokenizer.decode(ids, skip_special=False) == "cup"
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == "cup"


def test_lone_surrogates_do_not_raise(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\udcffb")) == "a\ufffdb"


def test_streaming_never_emits_half_a_character(tokenizer: Tokenizer) -> None:
    text = "컵 🙂 café 별"
    ids = tokenizer.encode(text)
    stream = StreamDecoder(tokenizer)
    parts = [stream.push(index) for index in ids]
    assert "".join(parts) + stream.flush() == text
    assert not any("\ufffd" in part for part in parts)
    assert "" in parts  # at least one id ended inside a character


def test_a_stream_cut_inside_a_character_ends_with_a_replacement(tokenizer: Tokenizer) -> None:
    stream = StreamDecoder(tokenizer)
    ids = tokenizer.encode("🙂")[:-1]
    assert "".join(map(stream.push, ids)) == ""
    assert stream.flush() == "\ufffd"


def test_saved_is_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    again = Tokenizer.from_file(path)
    for text in [*CORPUS, "STOP 12 <|im_end|>"]:
        assert again.encode(text, True) == tokenizer.encode(text, True)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_matches_the_tokenizers_package_with_special_tokens_allowed(tokenizer: Tokenizer) -> None:
    import tokenizers

    reference = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    text = "<|im_start|>user\n a  cup\n\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>"
    assert tokenizer.encode(text, allow_special=True) == reference.encode(text).ids


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a tokenizer.json"),
        (b"{}", "not a tokenizer.json"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps({"model": {"type": "WordLevel"}}).encode(), "not a tokenizer.json"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        Tokenizer.from_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Tokenizer.from_file(tmp_path / "nowhere.json")


@needs_published_file
@pytest.mark.parametrize(("text", "ids"), PUBLISHED_VECTORS)
def test_published_file_gives_published_ids(
    published: Tokenizer, text: str, ids: list[int]
) -> None:
    assert published.encode(text, allow_special=True) == ids


@needs_published_file
def test_published_file_counts_and_bytes(published: Tokenizer, tmp_path: Path) -> None:
    assert published.vocab_size == 151669
    assert published.token_id("<|im_end|>") == 151645
    assert published.decode(range(151669, 151936)) == ""
    published.save(tmp_path / "saved.json")
    assert (tmp_path / "saved.json").read_bytes() == Path(PUBLISHED_FILE).read_bytes()


@needs_published_file
def test_published_file_decodes_as_the_tokenizers_package(published: Tokenizer) -> None:
    import tokenizers

    reference = tokenizers.Tokenizer.from_file(PUBLISHED_FILE)
    ids = random.Random(0).choices(range(151669), k=4000)
    for start in range(0, len(ids), 40):
        part = [i for i in ids[start : start + 40] if i < 151643]
        assert published.decode(part) == reference.decode(part)
