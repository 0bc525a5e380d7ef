"""Descriptions agree with published sizes and with the model that is really built."""

from typing import Any

import pytest

from mm import vlm
from mm.report.describe import count_parameters, describe

TINY: dict[str, Any] = {
    "encoder": {
        "name": "siglip",
        "config": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 4,
        },
    },
    "projector": {"name": "mlp", "config": {"input_size": 16, "output_size": 32, "shuffle": 3}},
    "decoder": {
        "name": "qwen3",
        "config": {
            "vocab_size": 99,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
    },
}


def test_description_agrees_with_the_model_that_is_built() -> None:
    model = vlm.build({**TINY, "image_token_id": 0})
    described = describe(TINY, picture_size=(50, 70))
    counted = [count_parameters(m) for m in (model.encoder, model.projector, model.decoder)]
    assert [row.num_parameters for row in described.parts] == counted
    assert described.num_image_tokens == model.num_image_tokens(50, 70) == 4


def test_tied_embeddings_count_once() -> None:
    untied = {**TINY["decoder"]["config"], "tie_word_embeddings": False}
    more = describe({**TINY, "decoder": {"name": "qwen3", "config": untied}})
    difference = more.parts[2].num_parameters - describe(TINY).parts[2].num_parameters
    assert difference == 99 * 32


def test_table_names_parts_sum_and_tokens() -> None:
    described = describe(TINY)
    table = described.table()
    assert f"{sum(row.num_parameters for row in described.parts):,}" in table
    assert "A picture of 640 x 480 takes 4 tokens." in table
    assert all(f"{row.num_parameters:,}" in table for row in described.parts)


def test_parts_that_do_not_meet_are_refused() -> None:
    narrow = {"name": "mlp", "config": {"input_size": 16, "output_size": 31}}
    with pytest.raises(ValueError, match="output_size is 31"):
        describe({**TINY, "projector": narrow})
