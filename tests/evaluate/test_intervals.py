import math

import pytest

from mm.evaluate.intervals import Proportion


def test_wilson_interval_of_known_cases() -> None:
    # Values of Wilson's formula worked out by hand for z = 1.959964.
    low, high = Proportion(8, 10).interval
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert Proportion(0, 10).interval[0] == 0.0
    assert Proportion(10, 10).interval[1] == 1.0
    assert Proportion(10, 10).interval[0] == pytest.approx(0.7225, abs=1e-4)


def test_no_cases_say_nothing() -> None:
    nothing = Proportion(0, 0)
    assert math.isnan(nothing.value) and nothing.interval == (0.0, 1.0)
    assert "n=0" in str(nothing)
