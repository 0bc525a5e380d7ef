"""Find and replace: all rules over one text, overlaps joined, originals replaced."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mm.privacy.text.kinds import FINDERS, MIN_DIGITS
from mm.privacy.text.replace import ACTIONS, check_key, placeholder, pseudonym
from mm.privacy.text.view import BLANK, Span, View, view_of

KINDS = tuple(sorted(FINDERS))
DEFAULT_RULES = KINDS
DEFAULT_REGIONS = ("KR", "US", "GB")
NAME_FINDERS = ("rules", "presidio", "spacy")
_RANK = {kind: rank for rank, kind in enumerate(FINDERS)}
_NOTHING: Mapping[str, str] = {}
_DIGIT = re.compile(r"\d")


class Finding(NamedTuple):
    """Where something personal stands in a text: characters `start` up to `end`."""

    start: int
    end: int
    kind: str


def scrub_text(
    text: str,
    rules: Sequence[str] = DEFAULT_RULES,
    regions: Sequence[str] = DEFAULT_REGIONS,
    *,
    actions: Mapping[str, str] = _NOTHING,
    key: bytes | None = None,
    names: str = "rules",
) -> tuple[str, Counter[str]]:
    """Replace personal data by placeholders or pseudonyms.

    Args:
        text: any text.
        rules: kinds among `KINDS`; their order does not matter.
        regions: countries (ISO 3166 letters) whose national phone formats are known.
        actions: what to do by kind: mask (where nothing is said), pseudonym, keep (it is not looked
            for), drop (masked and counted; the caller leaves the whole record out).
        key: for pseudonyms, 16 bytes or more.
        names: what finds people: the rules and lists here, or these and Presidio or spaCy.

    Returns:
        The text and the number of replacements by kind.

    Raises:
        ValueError: an unknown kind, region, action or finder of names; a pseudonym without a key.
    """
    wanted = _wanted(rules, actions, names, key)
    found: Counter[str] = Counter()
    while True:  # ends: what was replaced is blank to the rules, so that each round has less text
        view = view_of(text)
        findings = _find(view, wanted, tuple(regions), names)
        if not findings:
            return text, found
        pieces, at = [], 0
        for (start, end), (first, last), kind in findings:
            if actions.get(kind) == "pseudonym" and key is not None:
                new = pseudonym(kind, view.text[first:last], key)
            else:
                new = placeholder(kind)
            pieces += [text[at:start], new]
            at = end
            found[kind] += 1
        text = "".join(pieces) + text[at:]


def find_all(
    text: str,
    rules: Sequence[str] = DEFAULT_RULES,
    regions: Sequence[str] = DEFAULT_REGIONS,
    *,
    names: str = "rules",
) -> list[Finding]:
    """Return what the rules find, in order of place, without overlaps."""
    wanted = _wanted(rules, _NOTHING, names, None)
    findings = _find(view_of(text), wanted, tuple(regions), names)
    return [Finding(start, end, kind) for (start, end), _, kind in findings]


def find(text: str, rule: str, regions: Sequence[str] = DEFAULT_REGIONS) -> list[Span]:
    """Return the (start, end) spans that one rule finds in `text`.

    Raises:
        ValueError: unknown rule; a detector that does not exist is no pass.
    """
    return [(start, end) for start, end, _ in find_all(text, [rule], regions)]


def check_rules(
    rules: Iterable[str],
    regions: Iterable[str],
    *,
    actions: Mapping[str, str] = _NOTHING,
    names: str = "rules",
) -> None:
    """Raise `ValueError` for a kind, phone region, action or finder of names that does not exist.

    What finds names has to be installed too: a detector that cannot run is an error.
    """
    import phonenumbers

    for rule in [*rules, *actions]:
        _check_rule(rule)
    for region in regions:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"unknown phone region {region!r}; use two letters such as KR")
    for kind, action in actions.items():
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r} for {kind}; known: {', '.join(ACTIONS)}")
    if names not in NAME_FINDERS:
        raise ValueError(f"unknown finder of names {names!r}; known: {', '.join(NAME_FINDERS)}")
    if names != "rules":
        from mm.privacy.text import ner

        ner.check(names)


def _check_rule(rule: str) -> None:
    if rule not in FINDERS:
        raise ValueError(f"unknown text rule {rule!r}; known: {', '.join(KINDS)}")


def _wanted(
    rules: Sequence[str], actions: Mapping[str, str], names: str, key: bytes | None
) -> tuple[str, ...]:
    for rule in rules:
        _check_rule(rule)
    if actions or names != "rules":
        check_rules((), (), actions=actions, names=names)
        if "pseudonym" in actions.values():
            check_key(key)
    return tuple(kind for kind in dict.fromkeys(rules) if actions.get(kind) != "keep")


def _trimmed(text: str, start: int, end: int, kind: str) -> tuple[int, int, str]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end, kind


def _find(
    view: View, kinds: tuple[str, ...], regions: tuple[str, ...], names: str
) -> list[tuple[Span, Span, str]]:
    """Return (span in the original, span in the view, kind), sorted, overlaps joined."""
    text = view.text
    digits = len(_DIGIT.findall(text))
    spans: list[tuple[int, int, str]] = []
    for kind in kinds:
        if digits >= MIN_DIGITS.get(kind, 0):
            spans += [(start, end, kind) for start, end in FINDERS[kind](text, regions)]
    if names != "rules" and "person" in kinds:
        from mm.privacy.text import ner

        spans += [(start, end, "person") for start, end in ner.find_person(text, names)]
    if not spans:
        return []
    joined: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(_trimmed(text, *span) for span in spans):
        if BLANK in text[start:end] or start >= end:
            continue  # a rule ran over a placeholder: what is left there is no such thing
        if joined and start < joined[-1][1]:
            first, last, other = joined[-1]
            joined[-1] = (first, max(last, end), min(other, kind, key=_RANK.__getitem__))
        else:
            joined.append((start, end, kind))
    out: list[tuple[Span, Span, str]] = []
    for start, end, kind in joined:
        original = view.original((start, end))
        if out and original[0] < out[-1][0][1]:  # two digits of one character, as in ½
            original = (out[-1][0][1], max(original[1], out[-1][0][1]))
            if original[0] == original[1]:
                continue
        out.append((original, (start, end), kind))
    return out
