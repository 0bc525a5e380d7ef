"""Damaged files of every format are cleaned or refused: no crash, no hang, no leak."""

import pytest

from tests.privacy import fuzz


def test_damaged_files_are_cleaned_or_refused() -> None:
    """As below with fewer files, in this process: a crash would end the test run."""
    files = [(number, *fuzz.damaged(number)) for number in range(330)]
    outcomes = [fuzz.clean((number, data)) for number, _, data in files]
    reasons = {reason for reason, _, _ in outcomes}
    assert {"clean", "truncated", "corrupt"} <= reasons
    assert "LEAK" not in reasons
    assert {kind for _, kind, _ in files} == set(fuzz.bases())
    assert max(seconds for _, seconds, _ in outcomes) < fuzz.SECONDS


def test_damage_is_repeatable_and_damages() -> None:
    assert fuzz.damaged(7) == fuzz.damaged(7)
    whole = {data for group in fuzz.bases().values() for data in group}
    assert sum(fuzz.damaged(number)[1] in whole for number in range(100)) < 10


@pytest.mark.slow
def test_20000_damaged_files_in_workers() -> None:
    outcomes, slowest, largest = fuzz.run(range(20_000), workers=2)
    assert outcomes.total() == 20_000
    assert outcomes["LOST"] == outcomes["LEAK"] == 0
    assert outcomes["clean"] > 2000
    assert slowest < fuzz.SECONDS
    assert largest < fuzz.MEMORY
