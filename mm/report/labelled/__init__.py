"""Made-up lines with every kind of personal data, labelled, and lines that only look like it.

`values` makes the values, `development` and `held_out` hold the sentences that they stand in: the
rules were written with the first in view and never changed for the second. Nothing in here is
anybody's: numbers are random, names are common ones put together at random.
"""

from dataclasses import dataclass

Label = tuple[int, int, str]  # start, end, kind


@dataclass(frozen=True)
class Line:
    """A line of text with its labels; a clean one has none."""

    text: str
    language: str
    labels: tuple[Label, ...] = ()
