"""The lists of names, read once: `data/*.txt`."""

from functools import lru_cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "data"


def _lines(name: str) -> list[str]:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@lru_cache(maxsize=1)
def first_names() -> dict[str, str]:
    """Return given names in lower case with their sign: ? is a word too, + is certain alone."""
    return {
        line.rstrip("?+"): line[-1] if line[-1] in "?+" else ""
        for line in _lines("first_names.txt")
    }


@lru_cache(maxsize=1)
def surnames() -> frozenset[str]:
    """Return frequent surnames in lower case."""
    return frozenset(_lines("surnames.txt"))


@lru_cache(maxsize=1)
def korean_given() -> frozenset[str]:
    """Return Korean given names of two syllables."""
    return frozenset(line[0] + char for line in _lines("korean_given.txt") for char in line[2:])


@lru_cache(maxsize=1)
def korean_syllables() -> tuple[frozenset[str], frozenset[str]]:
    """Return what the first and the second syllable of a Korean given name may be."""
    return frozenset(name[0] for name in korean_given()), frozenset(
        name[1] for name in korean_given()
    )


@lru_cache(maxsize=16)
def words(section: str) -> frozenset[str]:
    """Return a section of `words.txt`."""
    found: set[str] = set()
    here = False
    for line in _lines("words.txt"):
        if line.startswith("["):
            here = line == f"[{section}]"
        elif here:
            found.update(line.split())
    return frozenset(found)
