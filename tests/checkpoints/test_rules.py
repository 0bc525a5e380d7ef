"""Name rules read both ways and never let two tensors become one."""

import pytest

from mm.checkpoints.rules import NameRules
from mm.errors import CheckpointError

RULES = NameRules(prefixes=(("head.", "head."), ("tower.", "")), ignored=(r"(tower\.)?pool\..*",))


def test_names_are_swapped_ignored_or_kept():
    stored = {"tower.a": 1, "head.b": 2, "tower.pool.c": 3, "pool.d": 4, "e": 5}
    assert RULES.apply(stored, "here") == {"a": 1, "head.b": 2, "e": 5}
    assert RULES.published("a") == "tower.a" and RULES.published("head.b") == "head.b"


def test_tensor_with_and_without_its_prefix_is_refused():
    with pytest.raises(CheckpointError, match="here stores a twice, with and without a prefix"):
        RULES.apply({"tower.a": 1, "a": 2}, "here")
