"""Words as caption metrics count them, without Java.

The reference scorers take words from Stanford's PTBTokenizer (`-lowerCase`) and leave punctuation
out. These rules give the same words for plain captions. Known to differ: an abbreviation's full
stop (`mr.` and `u.s.` lose theirs here), `cannot` and `gonna` (which it splits), fractions with a
space, e-mail addresses and URLs.
"""

from __future__ import annotations

import re
import unicodedata

# A word may hold these inside; else they stand apart, as all other signs do.
_WORD = re.compile(r"\w+(?:[-.,/'&@*]\w+)*|[^\w\s]")
_NUMBERS_ONLY = re.compile(r"[.,]")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))$")
_QUOTES = {ord("’"): "'", ord("‘"): "'", ord("“"): '"', ord("”"): '"'}  # noqa: RUF001
# What the reference scorers drop, and brackets, which PTB writes as -LRB- and the like.
_DROPPED = frozenset("'' ' `` ` . ? ! , : - -- ... ; ( ) { } [ ] …".split()) | {'"'}


def words(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation."""
    text = unicodedata.normalize("NFC", text).lower().translate(_QUOTES)
    found: list[str] = []
    for token in _WORD.findall(text):
        for part in _parts(token):
            if part not in _DROPPED:
                found.append(part)
    return found


def _parts(token: str) -> list[str]:
    """Take apart what is no number where stops and commas hold it together; and clitics."""
    if _NUMBERS_ONLY.search(token) and not any(letter.isdigit() for letter in token):
        return [part for piece in re.split(r"[.,]", token) for part in _parts(piece) if piece]
    if clitic := _CLITIC.search(token):
        return [token[: clitic.start()], clitic.group()]
    return [token]
