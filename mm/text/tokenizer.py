"""Byte-level BPE as Qwen3 uses it: reads the published `tokenizer.json`, or trains a small one.

Ref: Qwen3 technical report, section 2 (byte-level BPE); `tokenizers` for the file format.
Deviations from `tokenizers`: added tokens written inside a text stay plain text unless the caller
allows them, so nobody can end a turn by typing `<|im_end|>`; ids without a token (the padding
rows of the model's embedding) decode to nothing.
"""

import codecs
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from mm.errors import CheckpointError

# Each digit alone, an optional leading non-letter with a word, line breaks together.
SPLIT_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Published order; the first group is "special" (left out of decoded text), the second is not.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
OTHER_ADDED_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
NUM_ADDED_TOKENS = len(SPECIAL_TOKENS) + len(OTHER_ADDED_TOKENS)
NUM_BYTES = 256


def _byte_of_char() -> dict[str, int]:
    """The GPT-2 table: every byte as one visible character."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(NUM_BYTES) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(NUM_BYTES + rank): byte for rank, byte in enumerate(hidden)}


class Tokenizer:
    """Text to ids and back.

    Args:
        backend: a `tokenizers` tokenizer with a byte-level BPE model.
        source: the JSON text it was read from, kept so that saving returns the same bytes.
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str | None = None) -> None:
        self._backend = backend
        self._source = source
        # The same model without the added tokens (shared, not copied): text can't name them.
        self._plain = tokenizers.Tokenizer(backend.model)
        self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        added = backend.get_added_tokens_decoder()
        self._added = {token.content: index for index, token in added.items()}
        self._special_ids = frozenset(index for index, token in added.items() if token.special)
        self._added_ids = frozenset(added)
        names = sorted(self._added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        self.vocab_size: int = max(backend.get_vocab_size(), max(added, default=-1) + 1)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a `tokenizer.json`.

        Raises:
            CheckpointError: the file is missing, isn't a tokenizer, or isn't byte-level BPE.
        """
        try:
            return cls.from_json(Path(path).read_bytes().decode("utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"cannot read the tokenizer {os.fspath(path)}: {error.strerror}"
            ) from None
        except (ValueError, CheckpointError) as error:
            reason = str(error) if isinstance(error, CheckpointError) else "not UTF-8 text"
            raise CheckpointError(f"{os.fspath(path)}: {reason}") from None

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Read the content of a `tokenizer.json`; raises CheckpointError as `from_file` does."""
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises bare Exception
            detail = " ".join(str(error).split())[:120]
            raise CheckpointError(f"not a tokenizer.json ({detail})") from None
        if not isinstance(backend.model, models.BPE):
            raise CheckpointError("not a byte-level BPE tokenizer: Qwen3's format is needed")
        for token in backend.get_added_tokens_decoder().values():
            if token.lstrip or token.rstrip or token.single_word:
                raise CheckpointError(
                    f"added token {token.content!r} uses lstrip, rstrip or single_word, "
                    "which Qwen3's format does not"
                )
        return cls(backend, text)

    def to_json(self) -> str:
        """The `tokenizer.json` content: byte for byte what was read, if it was read."""
        return self._source if self._source is not None else self._backend.to_str(pretty=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `tokenizer.json`."""
        Path(path).write_bytes(self.to_json().encode("utf-8"))

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            text: any text; lone surrogates (undecodable bytes of a command line) become U+FFFD.
            allow_special: read added tokens such as `<|im_end|>` as themselves. Only for text
                that this package wrote, never for what a user typed.
        """
        if not allow_special or self._split is None:
            return self._encode_plain(text)
        ids: list[int] = []
        for part in self._split.split(text):
            index = self._added.get(part)
            ids += self._encode_plain(part) if index is None else [index]
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            ids = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of every id; empty for ids that hold no token."""
        table = [b""] * self.vocab_size
        byte_of = _byte_of_char()
        for token, index in self._backend.get_vocab(with_added_tokens=False).items():
            table[index] = bytes(byte_of[char] for char in token)
        for token, index in self._added.items():
            table[index] = token.encode("utf-8")
        return table

    def token_bytes(self, index: int, skip_special: bool = True) -> bytes:
        """The bytes that one id stands for; empty for a padding row or a skipped special token."""
        if index < 0 or index >= self.vocab_size or (skip_special and index in self._special_ids):
            return b""
        return self._bytes[index]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids. Bytes that are no UTF-8 become U+FFFD; ids without a token become ''."""
        data = b"".join(self.token_bytes(index, skip_special) for index in ids)
        return data.decode("utf-8", "replace")

    def is_added(self, index: int) -> bool:
        """Whether an id is an added token, such as `<|im_end|>` or `<think>`."""
        return index in self._added_ids

    def token_id(self, token: str) -> int:
        """The id of one token, as `<|im_end|>`. Raises KeyError if there is none."""
        index = self._backend.token_to_id(token)
        if index is None:
            raise KeyError(f"the tokenizer has no token {token!r}")
        return int(index)


class StreamDecoder:
    """Turns ids that arrive one by one into text, never emitting half a character."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """Text that is complete now that this id has come; often '' in the middle of a letter."""
        return self._decoder.decode(self._tokenizer.token_bytes(index, self._skip_special))

    def flush(self) -> str:
        """What was held back: U+FFFD if the ids ended inside a character, else ''."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer of Qwen3's format on texts. The same texts in any order give the same one.

    Args:
        texts: the corpus, read once. Words that never occur in it later split into letters.
        vocab_size: ids in all: 256 bytes, the merges, and Qwen3's 26 added tokens at the end.
            A corpus with too few repeated pairs gives fewer (see `Tokenizer.vocab_size`).
    """
    if vocab_size < NUM_BYTES + NUM_ADDED_TOKENS:
        raise ValueError(
            f"vocab_size is {vocab_size}; {NUM_BYTES} bytes and {NUM_ADDED_TOKENS} added tokens "
            f"need at least {NUM_BYTES + NUM_ADDED_TOKENS}"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - NUM_ADDED_TOKENS,
        min_frequency=2,
        initial_alphabet=sorted(_byte_of_char()),
        special_tokens=[],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(t, normalized=False) for t in OTHER_ADDED_TOKENS])
    return Tokenizer(backend)
