"""The measure of methods: planted maps come out as they must, on the model that ships."""

import pytest
import torch

import mm
from mm.errors import UsageError
from mm.explain.measure import COLUMNS, PLANTED, measure
from mm.explain.scenes import cases
from tests.test_readme import needs_model


@needs_model
def test_correct_maps_are_told_from_random_and_inverted_ones_on_the_shipped_model() -> None:
    asked = [case for case in cases(1) if case.kind == "where"]
    steps: list[tuple[int, int]] = []
    found = measure(
        mm.load(device="cpu"),
        asked,
        ["gradient_attention"],
        budget=0,  # one case is measured, whatever the time
        step=lambda *step: steps.append(step),
    )
    assert list(found.rows) == [*PLANTED, "gradient_attention"]
    assert found.counts == {"asked": 2, "right": 2, "measured": 1, "scenes": 1}
    assert steps == [(1, 2)]
    gains = {method: found.rows[method]["all"]["gain"].value for method in PLANTED}
    assert gains["correct"] > 0.2 > gains["random"]
    assert gains["correct"] > gains["inverted"] + 0.2
    assert found.rows["correct"]["all"]["pointing"].value == 1
    assert found.rows["inverted"]["all"]["pointing"].value == 0

    table = found.table()
    assert all(name in table for name in (*PLANTED, *COLUMNS, "gradient_attention"))
    facts = found.facts()
    assert facts["kind"] == "faithfulness"
    cell = facts["measures"]["gradient_attention"]["all"]["gain"]
    assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]
    assert cell["n"] == 1


@needs_model
def test_a_model_that_knows_nothing_is_not_held_against_places() -> None:
    case = next(iter(cases(1)))
    blank = type(case)(**{**vars(case), "answer": "nothing that it says"})
    with pytest.raises(UsageError, match="none of 1 questions"):
        measure(mm.load(device="cpu"), [blank], ["rollout"])
    with pytest.raises(UsageError, match="take more scenes"):
        measure(mm.load(device="cpu"), [])
    assert torch.is_grad_enabled()
