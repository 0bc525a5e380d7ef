"""What is not answered: hooks around every answer, and the rule that scripts use by default.

A policy looks at a question before the model does, and at an answer before a person does. The
default one refuses to say who somebody in a picture is: asked for a name, an account, an address,
a comparison of faces, or whether it is a person who is named. What people wear, do or hold is
answered, and so is every question without a picture. `docs/misuse.md` says how often the rules
are wrong and which command measured it; they look at words alone, so a paraphrase can pass them.

A policy of your own is a class like these: `--policy MODULE:CLASS`, or `model.policy = ...`.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

from mm.errors import UsageError
from mm.refusal import english, korean
from mm.registry import unknown_name_message

_HANGUL = re.compile("[ㄱ-ㆎ가-힣]")
_TEXTS = {
    "en": "I don't say who people in pictures are. Ask me what can be seen, such as what they do.",
    "ko": "사진 속 사람이 누구인지는 말하지 않습니다. 무엇을 하는지처럼 보이는 것을 물어봐 주세요.",
}


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer.

    Args:
        kind: a short word for programs, such as `identify_person`.
        text: what a person reads instead of the answer.
    """

    kind: str
    text: str


class Policy:
    """Refuses nothing; the base of those that do.

    `reads_answers` says that `after` does something: answers are then not streamed word by word.
    """

    reads_answers = False

    def before(self, question: str, pictures: int) -> Refusal | None:
        """Look at what a user asks about so many pictures, those of the whole chat."""
        return None

    def after(self, question: str, answer: str, pictures: int) -> Refusal | None:
        """Look at what the model would say."""
        return None


class PeoplePolicy(Policy):
    """Refuses to say who somebody in a picture is, in English and Korean."""

    def before(self, question: str, pictures: int) -> Refusal | None:
        """Refuse if the words ask for that and there is a picture."""
        return _refusal(question) if pictures and asks_who(question) else None


class NamesPolicy(PeoplePolicy):
    """Refuses besides every answer that holds a person's name, as the lists of mm.privacy know it.

    A name that can be read in the picture is withheld as well.
    """

    reads_answers = True

    def after(self, question: str, answer: str, pictures: int) -> Refusal | None:
        """Refuse if somebody is named."""
        return _refusal(question) if pictures and _people_named(answer) else None


POLICIES: dict[str, type[Policy]] = {
    "people": PeoplePolicy,
    "names": NamesPolicy,
    "none": Policy,
}


def make_policy(name: str) -> Policy:
    """A policy by name, or `MODULE:CLASS` of the user's own.

    Raises:
        UsageError: there is none of that name.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        if name not in POLICIES:
            known = (*POLICIES, "MODULE:CLASS")
            raise UsageError(unknown_name_message("--policy", name, known))
        return POLICIES[name]()
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"--policy {name}: {error}") from None
    if not isinstance(made, Policy):
        raise UsageError(f"--policy {name}: it must derive from mm.refusal.Policy")
    return made


def asks_who(question: str) -> bool:
    """Whether words ask who somebody is, or for what would single a person out."""
    text = " ".join(question.replace("’", "'").split())
    if (_HANGUL.search(text) and korean.asks_who(text)) or english.asks_who(text):
        return True
    claims = english.CLAIM.search(text) or korean.CLAIM.search(text)
    return bool(claims) and _names_somebody(text)


def _names_somebody(text: str) -> bool:
    for start, end in _people_named(text):
        before, after = text[:start].lower(), text[end:]
        if not before.endswith((" a ", " an ", " by ")) and not after.startswith("'s"):
            return True
    return False


def _people_named(text: str) -> list[tuple[int, int]]:
    from mm.privacy.text import DEFAULT_REGIONS, find_all  # its lists take a moment

    return [(found.start, found.end) for found in find_all(text, ("person",), DEFAULT_REGIONS)]


def _refusal(question: str) -> Refusal:
    return Refusal("identify_person", _TEXTS["ko" if _HANGUL.search(question) else "en"])
