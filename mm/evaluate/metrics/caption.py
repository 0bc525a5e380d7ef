"""Captions: CIDEr-D as the score, and BLEU-1..4 and ROUGE-L beside it, of the same words.

Ref: Vedantam et al. 2015 (CIDEr-D); Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L). The values are
those of pycocoevalcap for the same words, its conventions included: CIDEr compares lengths by the
number of word pairs, and an n-gram that is in one picture's references only weighs log N. For the
words see `words.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mm.evaluate.intervals import Array
from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored
from mm.evaluate.metrics.words import words

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

ORDERS = range(1, 5)
SIGMA = 6.0  # of CIDEr-D's penalty of lengths
BETA = 1.2  # of ROUGE-L: recall counts more
_SMALL, _TINY = 1e-9, 1e-15  # as the reference keeps BLEU from dividing by zero
Grams = Counter[tuple[str, ...]]


class Metric(Base):
    """CIDEr-D, 0..10."""

    bounded = False
    joined = True

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        said = [words(a.said) for a in answers]
        wanted = [[words(text) for text in a.question.accepted] for a in answers]
        scores = cider(said, wanted)
        return [
            Scored(score, {**bleu_counts(own, references), "rouge_l": rouge_l(own, references)})
            for score, own, references in zip(scores, said, wanted, strict=True)
        ]

    def measures(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        return bleu(sums)


def grams(text: Sequence[str]) -> Grams:
    """Count the 1- to 4-grams of a text."""
    return Counter(
        tuple(text[start : start + size])
        for size in ORDERS
        for start in range(len(text) - size + 1)
    )


def cider(said: Sequence[Sequence[str]], wanted: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """CIDEr-D of every caption; how rare an n-gram is comes from all references given.

    Args:
        said: words of each caption.
        wanted: words of each picture's references.
    """
    own = [grams(text) for text in said]
    references = [[grams(text) for text in texts] for texts in wanted]
    pictures: Counter[tuple[str, ...]] = Counter()
    for counted in references:
        pictures.update(set().union(*counted))
    log_n = math.log(len(said)) if said else 0.0

    def weighed(counts: Grams) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in ORDERS]
        for gram, count in counts.items():
            rarity = log_n - math.log(max(1, pictures[gram]))
            vectors[len(gram) - 1][gram] = count * rarity
        lengths = [math.sqrt(math.fsum(x * x for x in vector.values())) for vector in vectors]
        return vectors, lengths, sum(n for gram, n in counts.items() if len(gram) == 2)

    scores = []
    for counts, all_references in zip(own, references, strict=True):
        vectors, lengths, size = weighed(counts)
        total = 0.0
        for reference in all_references:
            others, other_lengths, other_size = weighed(reference)
            penalty = math.exp(-((size - other_size) ** 2) / (2 * SIGMA**2))
            for a, b, long_a, long_b in zip(vectors, others, lengths, other_lengths, strict=True):
                shared = math.fsum(min(x, b[gram]) * b[gram] for gram, x in a.items() if gram in b)
                if long_a and long_b:
                    shared /= long_a * long_b
                total += shared * penalty
        scores.append(10 * total / len(ORDERS) / len(all_references))
    return scores


def bleu_counts(said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """What a caption adds to BLEU's sums."""
    own, most = grams(said), Grams()
    for reference in references:
        most |= grams(reference)
    right = own & most
    length = len(said)
    closest = min((abs(len(text) - length), len(text)) for text in references)[1]
    found = {"words": float(length), "reference_words": float(closest)}
    for size in ORDERS:
        found[f"right_{size}"] = float(sum(n for gram, n in right.items() if len(gram) == size))
        found[f"said_{size}"] = float(max(0, length - size + 1))
    return found


def bleu(sums: Mapping[str, Array]) -> dict[str, Array]:
    """BLEU-1..4 of sums of `bleu_counts`."""
    product: Array = np.ones_like(sums["words"])
    ratio = (sums["words"] + _TINY) / (sums["reference_words"] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    found = {}
    for size in ORDERS:
        product = product * (sums[f"right_{size}"] + _TINY) / (sums[f"said_{size}"] + _SMALL)
        found[f"bleu_{size}"] = product ** (1 / size) * brevity
    return found


def rouge_l(said: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L: the longest common subsequence, best precision and best recall over references."""
    said = said or [""]  # no words count as one empty word
    common = [(_common(said, text), len(text)) for text in references]
    precision = max(length for length, _ in common) / len(said)
    recall = max(length / max(size, 1) for length, size in common)
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    lengths = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            above = lengths[place]
            lengths[place] = before + 1 if word == other else max(above, lengths[place - 1])
            before = above
    return lengths[-1]
