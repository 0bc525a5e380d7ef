"""What a data set is made of, before anything is trained on it: counts, entropies, duplicates.

A tag's *effective number* of values is 2 to the power of its entropy: as many equally frequent
values would be as hard to guess. Pictures with a near duplicate are searched for among a sample of
the set, so that their share in the whole set is at least as large.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.contamination.pictures import PictureIndex, thumbnail
from mm.evaluate.intervals import Proportion

SHOWN = 8  # values of a tag in the table
_BATCH = 256


@dataclass(frozen=True)
class Diversity:
    """What was counted."""

    samples: int
    pictures: int
    turns: int
    tags: Mapping[str, Counter[str]]
    scripts: Counter[str]  # of turns: "hangul", "latin", ...
    repeated_turns: Proportion  # that are word for word another's
    near_duplicates: Proportion  # of the sampled pictures

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON and the run's card."""
        tags = {**self.tags, "(script)": self.scripts}
        return {
            "samples": self.samples,
            "pictures": self.pictures,
            "turns": self.turns,
            "tags": {
                tag: {
                    "counts": dict(counts.most_common()),
                    "entropy_bits": entropy(counts),
                    "effective_number": 2 ** entropy(counts),
                }
                for tag, counts in tags.items()
            },
            "repeated_turns": _share(self.repeated_turns),
            "near_duplicates": _share(self.near_duplicates),
        }

    def table(self) -> str:
        """As text."""
        lines = [f"{self.samples:,} samples, {self.pictures:,} pictures, {self.turns:,} turns"]
        for tag, counts in {**self.tags, "(script)": self.scripts}.items():
            shown = ", ".join(f"{value} {count:,}" for value, count in counts.most_common(SHOWN))
            more = f", {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else ""
            bits = entropy(counts)
            lines.append(
                f"  {tag}: {len(counts):,} values, as {2**bits:.1f} equal ones: {shown}{more}"
            )
        lines.append(f"turns that are another's word for word: {self.repeated_turns}")
        lines.append(f"pictures with a near duplicate: {self.near_duplicates}")
        return "\n".join(lines)


def entropy(counts: Mapping[str, int]) -> float:
    """Entropy of counts in bits."""
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values() if n)


def diversity(samples: Iterable[Sample], sampled: int = 5000) -> Diversity:
    """Count a data set.

    Args:
        sampled: how many pictures are searched for near duplicates of each other: the first ones.

    Raises:
        UsageError: there is nothing.
    """
    tags: dict[str, Counter[str]] = {}
    scripts, texts = Counter[str](), Counter[bytes]()
    thumbnails: list[Any] = []
    count = pictures = 0
    for sample in samples:
        count += 1
        pictures += len(sample.images)
        for tag, value in sample.tags.items():
            tags.setdefault(tag, Counter())[value] += 1
        for _, text in sample.turns:
            scripts[_script(text)] += 1
            texts[hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).digest()[:12]] += 1
        for data in sample.images[: max(0, sampled - len(thumbnails))]:
            thumbnails.append(thumbnail(data))
    if not count:
        raise UsageError("the data set is empty: there is nothing to count")
    turns = sum(scripts.values())
    repeated = sum(n for n in texts.values() if n > 1)
    return Diversity(
        count,
        pictures,
        turns,
        dict(sorted(tags.items())),
        scripts,
        Proportion(repeated, turns),
        Proportion(_with_duplicates(thumbnails), len(thumbnails)),
    )


def _with_duplicates(thumbnails: list[Any]) -> int:
    """How many pictures have another that is nearly the same."""
    if not thumbnails:
        return 0
    stacked = np.stack(thumbnails)
    index = PictureIndex(stacked)
    found: set[int] = set()
    for start in range(0, len(stacked), _BATCH):
        for match in index.search(stacked[start : start + _BATCH]):
            if start + match.looked_through != match.searched_for:
                found |= {start + match.looked_through, match.searched_for}
    return len(found)


def _script(text: str) -> str:
    """The script of most letters of a text."""
    letters = [letter for letter in text if letter.isalpha()]
    hangul = sum("\uac00" <= letter <= "\ud7a3" for letter in letters)
    latin = sum(letter.isascii() for letter in letters)
    if not letters:
        return "none"
    return (
        "hangul" if hangul > len(letters) / 3 else "latin" if 2 * latin > len(letters) else "other"
    )


def _share(share: Proportion) -> dict[str, Any]:
    value = share.value if share.n else None
    return {"value": value, "interval": share.interval, "n": share.n}
