"""Rules that find personal data in English and Korean texts and take it out.

    clean, found = scrub_text("Call Jane Roe at 010-1234-5678")
    # ("Call [PERSON] at [PHONE]", {"person": 1, "phone": 1})

The text is looked at in a normal form (`view`), every kind's rules run over it (`kinds`), spans
that overlap are joined, and each is replaced in the original (`replace`). This goes on until
nothing is found, so that scrubbing twice equals scrubbing once. Where something could be personal
or not, a word before it decides, and without one it is taken out: one wrong removal is better than
one miss.

Ref: PRIVACY.md says what is found how reliably, and which command measured it.
"""

from mm.privacy.text.replace import ACTIONS, read_key
from mm.privacy.text.rules import (
    DEFAULT_REGIONS,
    DEFAULT_RULES,
    KINDS,
    Finding,
    check_rules,
    find,
    find_all,
    scrub_text,
)

__all__ = [
    "ACTIONS",
    "DEFAULT_REGIONS",
    "DEFAULT_RULES",
    "KINDS",
    "Finding",
    "check_rules",
    "find",
    "find_all",
    "read_key",
    "scrub_text",
]
