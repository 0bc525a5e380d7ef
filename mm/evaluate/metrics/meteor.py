"""METEOR of equal words and equal stems: kinder to other word orders and endings than CIDEr.

nltk computes it (`pip install 'mm[eval]'`); no Java and no WordNet are needed, so synonyms don't
count, and values are not those of METEOR 1.5, which also knows paraphrases.

Ref: Banerjee and Lavie 2005; nltk.translate.meteor_score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mm.errors import UsageError
from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored
from mm.evaluate.metrics.words import words

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered


class _NoSynonyms:
    """Stands where nltk asks WordNet."""

    def synsets(self, word: str) -> list[Any]:
        return []


class Metric(Base):
    """The best score over the accepted captions, 0..1."""

    joined = True

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        try:
            from nltk.translate.meteor_score import meteor_score
        except ImportError as error:
            raise UsageError("task.metric=meteor needs nltk: pip install 'mm[eval]'") from error
        found = []
        for answered in answers:
            references = [words(text) for text in answered.question.accepted]
            value = meteor_score(references, words(answered.said), wordnet=_NoSynonyms())
            found.append(Scored(float(value)))
        return found
