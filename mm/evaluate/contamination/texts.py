"""Finding texts again: the same thirteen words in a row, or nearly the same text.

S shingles of a text, P permutations, Q texts.

Texts are compared in lower case without punctuation. One of fewer than eight words ("what is
this?") proves nothing and is not searched for.

Ref: Brown et al. 2020, Language models are few-shot learners, appendix C on 13-grams; Broder 1997,
On the resemblance and containment of documents; Indyk and Motwani 1998 on bands.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

GRAM, LEAST_WORDS = 13, 8
ALIKE = 0.7  # share of common shingles
_SHINGLE, _PERMUTATIONS, _ROWS = 5, 128, 4  # letters; signatures; of a band
_WORD = re.compile(r"\w+")
Signature = npt.NDArray[np.uint64]


class TextIndex:
    """Texts to be searched for, each of an owner (a number)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._factors = rng.integers(1 << 63, size=_PERMUTATIONS, dtype=np.uint64) * 2 + 1
        self._letters = rng.integers(1 << 63, size=_SHINGLE, dtype=np.uint64) * 2 + 1
        self._grams: dict[int, set[int]] = defaultdict(set)
        self._bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._texts: list[tuple[int, Signature]] = []

    def add(self, text: str, owner: int) -> bool:
        """Search for a text; False if it is too short to prove anything."""
        words = _words(text)
        if len(words) < LEAST_WORDS:
            return False
        for gram in _grams(words):
            self._grams[gram].add(owner)
        signature = self._signature(words)
        for band in _bands(signature):
            self._bands[band].append(len(self._texts))
        self._texts.append((owner, signature))
        return True

    def search(self, text: str) -> tuple[set[int], set[int]]:
        """Owners of thirteen words in a row of a text, and owners of a text nearly like it."""
        words = _words(text)
        if len(words) < LEAST_WORDS:
            return set(), set()
        same = set[int]().union(*(self._grams.get(gram, ()) for gram in _grams(words)))
        signature = self._signature(words)
        near = {number for band in _bands(signature) for number in self._bands.get(band, ())}
        texts = [self._texts[number] for number in near]
        return same, {owner for owner, other in texts if (other == signature).mean() >= ALIKE}

    def _signature(self, words: list[str]) -> Signature:
        """The least of every permutation of the text's shingles: `[P]`."""
        letters = np.frombuffer(
            " ".join(words).encode("utf-32-le", "surrogatepass"), np.uint32
        ).astype(np.uint64)
        letters = np.pad(letters, (0, max(0, _SHINGLE - len(letters))))
        shingles = np.lib.stride_tricks.sliding_window_view(letters, _SHINGLE)
        hashes = (shingles * self._letters).sum(1, dtype=np.uint64)  # modulo 2 ** 64
        hashes ^= hashes >> np.uint64(29)
        least: Signature = ((hashes[:, None] * self._factors) >> np.uint64(20)).min(0)
        return least


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _grams(words: list[str]) -> Iterator[int]:
    for start in range(len(words) - GRAM + 1):
        yield hash(tuple(words[start : start + GRAM]))


def _bands(signature: Signature) -> Iterator[tuple[int, bytes]]:
    for start in range(0, _PERMUTATIONS, _ROWS):
        yield start, signature[start : start + _ROWS].tobytes()
