"""Texts as the rules see them, with each character's place in the original.

Rules are written for plain characters. A `View` is the text in NFKC, with invisible characters
dropped, dashes, spaces and foreign digits made plain, digits that were written out as words
("공일공", "five five five") made digits, and placeholders blanked so that nothing matches in them.
A span that a rule finds in the view is mapped back to the text it stands for.

Ref: Unicode Standard Annex 15 (normalisation forms); UTS 39 (confusable characters).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

Span = tuple[int, int]
BLANK = "\x00"  # stands where a placeholder was; no rule matches it

_ODD = re.compile(
    "[^\x00-\x7f\uac00-\ud7a3\u3131-\u318e\u2018\u2019\u201c\u201d\u2026\u3001\u3002]"
)
_DROPPED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_PLACEHOLDER = re.compile(r"\[[A-Z]+(?:_[A-Z]+)*(?:-[B-DF-HJ-NP-TV-XZ]{8})?\]")

_ENGLISH = {
    word: digit
    for digit, words in enumerate(
        ("zero oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
    for word in words.split()
}
_WORD = "|".join([*_ENGLISH, "double", "triple"])
_ENGLISH_RUN = re.compile(
    rf"\b(?:{_WORD})(?:[ ,.\-]{{1,3}}(?:{_WORD}|\d{{1,4}})){{4,40}}\b", re.IGNORECASE
)
_ENGLISH_TOKEN = re.compile(rf"({_WORD})|(\d)|([,.\-])", re.IGNORECASE)
_SPOKEN = "공영령 일 이 삼 사 오 육륙 칠 팔 구".split()
_HANGUL = {char: digit for digit, chars in enumerate(_SPOKEN) for char in chars}
_HANGUL_DIGITS = "".join(_HANGUL)
_HANGUL_RUN = re.compile(
    rf"(?<![가-힣])(?:[{_HANGUL_DIGITS}][ \-.,]{{0,2}}|\d[\-.]?){{7,40}}(?<![ \-.,])"
    rf"|(?<=\d-)[{_HANGUL_DIGITS}]{{3,4}}"
)
_HANGUL_TRIPLE = re.compile(rf"[{_HANGUL_DIGITS}](?:[ \-.]?[{_HANGUL_DIGITS}]){{2}}")
# The letter O for zero and l or I for one, as in O1O-1234-5678.
_LETTERS = re.compile(r"(?<![A-Za-z0-9])(?=[0O]*[Oo]|0[lI])[0Oo][1lI][0Oo16789](?=[ \-.)]?\d{3})")
_DIGITS = re.compile(r"\d{3}")
_LIKE = {ord("O"): "0", ord("o"): "0", ord("l"): "1", ord("I"): "1"}


@dataclass(frozen=True, slots=True)
class View:
    """A normalised text; `starts[i]`, `ends[i]` bound the original of character i (None:"
    " itself)."""

    text: str
    starts: list[int] | None = None
    ends: list[int] | None = None

    def original(self, span: Span) -> Span:
        """Map a non-empty span of the view to the span of the original text."""
        if self.starts is None or self.ends is None:
            return span
        return self.starts[span[0]], self.ends[span[1] - 1]


def has_any(text: str, words: Iterable[str]) -> bool:
    """Tell whether one of some words is in a text; far quicker than a pattern that starts so."""
    for word in words:
        if word in text:
            return True
    return False


def view_of(text: str) -> View:
    """Return `text` as the rules should see it."""
    view = View(text)
    if not text.isascii() and _ODD.search(text):
        view = _normalised(text)
    if "[" in view.text:
        plain = _PLACEHOLDER.sub(lambda match: BLANK * len(match.group()), view.text)
        view = View(plain, view.starts, view.ends)
    if has_any(view.text.lower(), _ENGLISH) and (match := _ENGLISH_RUN.search(view.text)):
        view = _rewritten(view, _ENGLISH_RUN, _english_digits, match.start())
    if not view.text.isascii() and _HANGUL_TRIPLE.search(view.text):
        view = _rewritten(view, _HANGUL_RUN, _hangul_digits, 0)
    if _DIGITS.search(view.text) and _LETTERS.search(view.text):
        plain = _LETTERS.sub(lambda match: match.group().translate(_LIKE), view.text)
        view = View(plain, view.starts, view.ends)
    return view


def _normalised(text: str) -> View:
    """Apply NFKC to each character with the marks and jamo that combine with it."""
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    place, length = 0, len(text)
    while place < length:
        stop = place + 1
        if text[place] >= "\u0300":
            if _DROPPED.match(text[place]):
                place = stop
                continue
        while stop < length and text[stop] >= "\u0300" and _combines(text[stop]):
            stop += 1
        plain = _plain(text[place:stop])
        for char in plain:
            out.append(char)
            starts.append(place)
            ends.append(stop)
        place = stop
    return View("".join(out), starts, ends)


@lru_cache(maxsize=65536)
def _combines(char: str) -> bool:
    return (
        unicodedata.combining(char) != 0
        or "\u1160" <= char <= "\u11ff"
        or "\uff9e" <= char <= "\uff9f"
        or _DROPPED.match(char) is not None
    )


@lru_cache(maxsize=65536)
def _plain(cluster: str) -> str:
    if len(cluster) == 1 and cluster < "\x80":
        return cluster
    kept = _DROPPED.sub("", cluster)
    out = []
    for char in unicodedata.normalize("NFKC", kept):
        category = unicodedata.category(char)
        if category == "Nd":
            out.append(str(unicodedata.digit(char)))
        elif category == "Pd" or char in "\u2212\u30fc":
            out.append("-")
        elif category == "Zs":
            out.append(" ")
        elif category in ("Mn", "Me") and len(out) > 0:
            continue  # marks that hide an address: e followed by a combining dot
        else:
            out.append(char)
    return "".join(out)


Placed = tuple[str, int, int]  # a character and the span it stands for
_Rewrite = Callable[[str], list[Placed] | None]


def _rewritten(view: View, pattern: re.Pattern[str], rewrite: "_Rewrite", start: int) -> View:
    text = view.text
    pieces: list[str] = []
    spans: list[Span] = []  # of each character, in view.text
    at = 0
    for match in pattern.finditer(text, start):
        digits = rewrite(match.group())
        if digits is None:
            continue
        pieces.append(text[at : match.start()])
        spans.extend((i, i + 1) for i in range(at, match.start()))
        for char, first, last in digits:
            pieces.append(char)
            spans.append((match.start() + first, match.start() + last))
        at = match.end()
    if not pieces:
        return view
    pieces.append(text[at:])
    spans.extend((i, i + 1) for i in range(at, len(text)))
    mapped = [view.original(span) for span in spans]
    return View("".join(pieces), [s for s, _ in mapped], [e for _, e in mapped])


def _english_digits(words: str) -> list[Placed] | None:
    """Make "oh two, double five" 02-55; None for a list or for too few digits."""
    placed: list[Placed] = []
    times, first, spelled = 1, None, 0
    for match in _ENGLISH_TOKEN.finditer(words):
        word, digit, mark = match.groups()
        start = match.start() if first is None else first
        if mark:
            if placed and placed[-1][0] != "-":
                placed.append(("-", *match.span()))
            continue
        if word and word.lower() in ("double", "triple"):
            times, first = (2 if word.lower() == "double" else 3), match.start()
            continue
        value = digit or str(_ENGLISH[word.lower()])
        spelled += bool(word)
        placed += [(value, start, match.end())] * times
        times, first = 1, None
    digits = [item for item in placed if item[0] != "-"]
    marks = len(placed) - len(digits)
    if spelled < 3 or len(digits) < 7 or marks > len(digits) // 2:
        return None
    if marks == 0 and len(digits) == 10 and digits[0][0] not in "01":
        for place in (6, 3):  # 212-555-0142, as it would be written
            _, start, _ = digits[place]
            digits.insert(place, ("-", start, start + 1))
        return digits
    return placed


def _hangul_digits(words: str) -> list[Placed] | None:
    """Make 공일공-일이삼사 010-1234; None where the words are few among digits."""
    if _HANGUL_TRIPLE.search(words) is None:
        return None
    placed: list[Placed] = []
    for place, char in enumerate(words):
        if char in _HANGUL or char.isdigit():
            placed.append((str(_HANGUL.get(char, char)), place, place + 1))
        elif char in "-.," and placed and placed[-1][0] != "-":
            placed.append(("-", place, place + 1))
    return placed
