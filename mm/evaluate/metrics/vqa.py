"""VQA accuracy: an answer counts in full if three of ten people gave it.

Every person in turn is left out: the answer scores min(1, agreeing others / 3), and the scores are
averaged. Answers are compared in the official normal form, its quirks included: changing one would
change published figures.

Ref: Antol et al. 2015, section 4.1; visualqa.org/evaluation.html; the values are those of the
official `vqaEval.py`, version 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mm.evaluate.metrics import Metric as Base
from mm.evaluate.metrics import Scored

if TYPE_CHECKING:
    from mm.evaluate.questions import Answered

_NUMBERS = dict(
    zip("none zero one two three four five six seven eight nine ten".split(),
        "0 0 1 2 3 4 5 6 7 8 9 10".split(), strict=True)
)  # fmt: skip
_ARTICLES = ("a", "an", "the")
_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the official script removes no more
# Written with one apostrophe missing, a word gets it back.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


class Metric(Base):
    """Soft agreement with what people said."""

    def score(self, answers: Sequence[Answered]) -> list[Scored]:
        restored = _restored()
        return [Scored(agreement(a.said, a.question.accepted, restored)) for a in answers]


def agreement(said: str, people: Sequence[str], restored: dict[str, str] | None = None) -> float:
    """Return the accuracy 0..1 of an answer.

    Args:
        people: what each of them answered; ten in VQAv2.
        restored: of `_restored`, where many answers are scored.
    """
    said, people = _flat(said), [_flat(text) for text in people]
    if len(set(people)) > 1:  # officially, unanimous answers are compared as they are
        table = _restored() if restored is None else restored
        said, *people = (_articles_out(_signs_out(text), table) for text in (said, *people))
    agreeing = [text == said for text in people]
    total = sum(agreeing)
    return sum(min(1.0, (total - own) / 3) for own in agreeing) / len(people)


def normal_form(text: str) -> str:
    """The form in which answers that people disagree about are compared."""
    return _articles_out(_signs_out(_flat(text)), _restored())


def _flat(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _signs_out(text: str) -> str:
    found = text
    comma = _COMMA_IN_NUMBER.search(text)
    for sign in _SIGNS:
        gone = comma or f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if gone else " ")
    return _FULL_STOP.sub("", found, count=_MOST_STOPS)


def _articles_out(text: str, restored: dict[str, str]) -> str:
    kept: Iterable[str] = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(restored.get(word, word) for word in kept if word not in _ARTICLES)


def _restored() -> dict[str, str]:
    table = {"somebody'd": "somebodyd"}  # so in the official table
    for word in _CONTRACTIONS:
        for place, letter in enumerate(word):
            if letter == "'":
                table[word[:place] + word[place + 1 :]] = word
    return table
