"""What can be seen in a picture: faces, codes, number plates and written personal data.

Detectors find boxes; boxes are covered with one solid colour (a blur can be undone), or the picture
is dropped, as the policy says. A covered picture is looked at again until nothing is found in it.
A detector that the policy asks for and that is not installed is an error, never a pass.

Detectors miss some; PRIVACY.md has the measured shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version as version_of
from typing import Protocol

from PIL import Image

from mm.privacy.errors import ScrubError
from mm.privacy.visible import codes, faces, plates, reading, words
from mm.privacy.visible.boxes import Finding, cover

ACTIONS = ("cover", "drop", "keep")
FIELDS = ("faces", "codes", "plates", "text_in_pictures")
_LOOKS = 4  # at one picture; what is still found in it then makes it go


class Wanted(Protocol):
    """What a policy has to say: for each of `FIELDS` one of `ACTIONS`, and the text rules."""

    @property
    def faces(self) -> str: ...
    @property
    def codes(self) -> str: ...
    @property
    def plates(self) -> str: ...
    @property
    def text_in_pictures(self) -> str: ...
    @property
    def text_rules(self) -> tuple[str, ...]: ...
    @property
    def phone_regions(self) -> tuple[str, ...]: ...


def check(policy: Wanted) -> None:
    """Make sure that every detector which the policy asks for is there.

    Raises:
        ScrubError: one is missing; the message names the field and the install command.
    """
    checks: dict[str, Callable[[], object]] = {
        "faces": faces.model_path,
        "codes": codes.check,
        "plates": reading.check,
        "text_in_pictures": reading.check,
    }
    for field in FIELDS:
        action = getattr(policy, field)
        if action not in ACTIONS:
            raise ScrubError(f"policy.{field} is {action!r}; known: {', '.join(ACTIONS)}")
        if action != "keep":
            try:
                checks[field]()
            except ScrubError as error:
                raise ScrubError(f"policy.{field} is {action}, but {error}") from None


def versions(policy: Wanted) -> dict[str, str]:
    """Name the detectors that the policy asks for, for the ledger."""
    check(policy)
    asked = {field for field in FIELDS if getattr(policy, field) != "keep"}
    named: dict[str, str] = {}
    if "faces" in asked:
        named["faces"] = faces.version()
    if "codes" in asked:
        named["codes"] = f"zxing-cpp {version_of('zxing-cpp')}"
    if asked & {"plates", "text_in_pictures"}:
        named["reading"] = reading.version()
    return named


def clean(image: Image.Image, policy: Wanted) -> tuple[Image.Image | None, Counter[str]]:
    """Cover what the policy does not want to be seen.

    Args:
        image: a door image, RGB, in the size in which it will be kept.
        policy: what to look for and what to do.

    Returns:
        The picture, which is `image` itself if nothing was found and a covered copy otherwise, or
        None if it has to be dropped; and how many of each kind were found: `face`, `code`,
        `plate`, `text_` and a text rule, `still_visible` if covering did not end it.

    Raises:
        ScrubError: a detector is missing.
        DoorError: reading the text took too long.
    """
    found: Counter[str] = Counter()
    for _ in range(_LOOKS):
        findings: list[Finding] = []
        for field, batch in _look(image, policy):
            found.update(finding.kind for finding in batch)
            findings += batch
            if batch and getattr(policy, field) == "drop":
                return None, found
        if not findings:
            return image, found
        image = cover(image, [finding.box for finding in findings])
    found["still_visible"] += 1
    return None, found


def _look(image: Image.Image, policy: Wanted) -> Iterator[tuple[str, Sequence[Finding]]]:
    """Yield (policy field, findings), the cheapest detector first."""
    if policy.codes != "keep":
        yield "codes", codes.find(image)
    if policy.faces != "keep":
        yield "faces", faces.find(image)
    if policy.plates == "keep" and policy.text_in_pictures == "keep":
        return
    lines = reading.read(image)
    if policy.plates != "keep":
        yield "plates", plates.find(lines, image)
    if policy.text_in_pictures != "keep":
        spans = words.spans_of(policy.text_rules, policy.phone_regions)
        yield "text_in_pictures", words.find(lines, spans, image.size)
