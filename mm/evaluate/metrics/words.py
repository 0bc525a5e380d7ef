"""Words as caption metrics count them, without Java.

The reference scorers take words from Stanford's PTBTokenizer (`-lowerCase`) and leave punctuation
out; brackets stay, as `-lrb-`. These rules give the same words for plain captions. Known to differ:
abbreviations other than of single letters and titles (`inc.` loses its full stop here), `'n'`,
fractions with a space, e-mail addresses and URLs.
"""

from __future__ import annotations

import re
import unicodedata

# Abbreviations keep their full stop; a word may hold some signs inside; all others stand apart.
_WORD = re.compile(r"(?:\b[a-z]\.){2,}|\b(?:mrs?|ms|dr)\.|\w+(?:[-.,/'&@*]\w+)*|[^\w\s]")
_NUMBERS_ONLY = re.compile(r"[.,]")
_APART = {
    "cannot": ["can", "not"],
    "gonna": ["gon", "na"],
    "gotta": ["got", "ta"],
    "wanna": ["wan", "na"],
}
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))$")
_QUOTES = {ord("’"): "'", ord("‘"): "'", ord("“"): '"', ord("”"): '"'}  # noqa: RUF001
_BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split(), strict=True))
_DROPPED = frozenset("'' ' `` ` . ? ! , : - -- ... ; …".split()) | {'"'}


def words(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation."""
    text = unicodedata.normalize("NFC", text).lower().translate(_QUOTES)
    found: list[str] = []
    for token in _WORD.findall(text):
        for part in _parts(token):
            if part not in _DROPPED:
                found += _APART.get(part, [_BRACKETS.get(part, part)])
    return found


def _parts(token: str) -> list[str]:
    """Take apart what is no number where stops and commas hold it together; and clitics."""
    if token.endswith("."):  # an abbreviation, or a full stop alone
        return [token]
    if _NUMBERS_ONLY.search(token) and not any(letter.isdigit() for letter in token):
        return [part for piece in re.split(r"[.,]", token) for part in _parts(piece) if piece]
    if clitic := _CLITIC.search(token):
        return [token[: clitic.start()], clitic.group()]
    return [token]
