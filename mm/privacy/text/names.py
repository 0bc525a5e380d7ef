"""Person names by rules and lists: English and other Latin ones, Korean ones.

A name is found by what stands around it (a title, a label, 씨, "my name is") or because it is
in a list and stands where a name can. Names in no list and without such a sign are not found;
`mm.privacy.text.ner` adds the recognisers of Presidio or spaCy where they are installed.

Lists: the most frequent names of the US Census of 1990 (public domain) and common names of other
countries; Korean surnames and the syllables that Korean given names are made of.
"""

from collections.abc import Iterator

from mm.privacy.text import names_korean, names_latin
from mm.privacy.text.view import Span


def find_person(text: str) -> Iterator[Span]:
    """Find names of people by rules and lists."""
    if not text.isascii():
        yield from names_korean.find(text)
    yield from names_latin.find(text)
