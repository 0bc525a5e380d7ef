"""Whether an answer depends on what it should not: groups of yes/no answers, and swapped pairs."""

from __future__ import annotations

from collections.abc import Iterable

from mm.errors import UsageError
from mm.evaluate.intervals import Estimate
from mm.evaluate.records import Record
from mm.evaluate.statistics import interval

_YES, _NO = ("yes", "네"), ("no", "아니요")


def changed_answers(
    original: Iterable[Record], swapped: Iterable[Record], level: float = 0.95
) -> Estimate:
    """Share of answers that change when one attribute of the scene is swapped.

    Args:
        original, swapped: the same items and questions about pictures that differ by the attribute
            alone, asked only what it has nothing to do with.

    Raises:
        UsageError: they have no question in common.
    """
    said = {(r.item, r.question): r.said for r in original}
    pairs = [
        (r.item, said[key] != r.said) for r in swapped if (key := (r.item, r.question)) in said
    ]
    if not pairs:
        raise UsageError(
            "the pairs have no question in common: ask the same of both pictures of each pair"
        )
    changed = [float(is_other) for _, is_other in pairs]
    return interval(changed, [item for item, _ in pairs], level, bounded=True)


def group_differences(records: Iterable[Record], tag: str) -> dict[str, float]:
    """fairlearn's measures of yes/no answers between the values of a tag; 0 is the best.

    Raises:
        UsageError: fairlearn is missing, or fewer than two groups have yes/no questions.
    """
    try:
        from fairlearn import metrics
    except ImportError as error:
        raise UsageError("these measures need fairlearn: pip install 'mm[fairness]'") from error
    rows = [
        (r.wanted[0] in _YES, r.said.strip().casefold() in _YES, r.tags[tag])
        for r in records
        if tag in r.tags and r.wanted and r.wanted[0] in _YES + _NO
    ]
    if len({group for _, _, group in rows}) < 2:
        raise UsageError(f"fewer than two values of the tag {tag!r} have yes/no questions")
    wanted, said, groups = (list(column) for column in zip(*rows, strict=True))
    return {
        name: float(getattr(metrics, name)(wanted, said, sensitive_features=groups))
        for name in (
            "demographic_parity_difference",
            "equalized_odds_difference",
            "equal_opportunity_difference",
        )
    }
