"""M-RoPE and residuals after the first layers, against transformers' Qwen3-VL decoders."""

from dataclasses import asdict, replace

import pytest
import torch

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM, RotaryEmbedding
from tests.conftest import redraw
from tests.decoder.parity import EXACT, SPARSE_FIELDS, some_ids

SECTION = (4, 2, 2)
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@pytest.fixture(params=["dense", "experts"])
def decoder(decoder_config: Qwen3Config, request: pytest.FixtureRequest) -> Qwen3ForCausalLM:
    sparse = {**EXPERTS, "norm_topk_prob": True} if request.param == "experts" else {}
    config = replace(decoder_config, mrope_section=SECTION, **sparse)
    decoder = Qwen3ForCausalLM(config).eval()
    redraw(decoder)
    return decoder


def reference(decoder: Qwen3ForCausalLM):
    """Return transformers' text model of Qwen3-VL with the decoder's weights."""
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    values = asdict(decoder.config)
    sparse = {name: values.pop(name) for name in SPARSE_FIELDS}
    del values["rope_scaling"]
    section = list(values.pop("mrope_section"))
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": section}
    values["rope_parameters"] = {**rope, "rope_theta": values.pop("rope_theta")}
    if decoder.config.num_experts:
        kept = (*EXPERTS, "decoder_sparse_step", "router_aux_loss_coef")
        values |= {name: sparse[name] for name in kept}
        config = transformers.Qwen3VLMoeTextConfig(**values, mlp_only_layers=[])
        model = transformers.Qwen3VLMoeTextModel._from_config(config, attn_implementation="eager")
    else:
        config = transformers.Qwen3VLTextConfig(**values)
        model = transformers.Qwen3VLTextModel._from_config(config, attn_implementation="eager")
    model.load_state_dict(decoder.model.state_dict(), strict=True)
    return model.eval()


def some_positions(batch: int = 3, length: int = 13) -> torch.Tensor:
    """Positions `[3, B, T]` of which every row is another."""
    generator = torch.Generator().manual_seed(8)
    return torch.randint(0, 60, (3, batch, length), generator=generator)


@torch.no_grad()
def test_three_rows_of_positions_and_residuals_match_transformers(decoder):
    ids, positions = some_ids(decoder), some_positions()
    generator = torch.Generator().manual_seed(9)
    is_image = torch.rand(ids.shape, generator=generator) < 0.4
    width = decoder.config.hidden_size
    extra = torch.randn(2, int(is_image.sum()), width, generator=generator)
    residuals = {}
    for layer, rows in enumerate(extra):
        residuals[layer] = torch.zeros(*ids.shape, width)
        residuals[layer][is_image] = rows
    expected = reference(decoder)(
        input_ids=ids,
        position_ids=positions,
        visual_pos_masks=is_image,
        deepstack_visual_embeds=list(extra),
    )
    found = decoder.hidden(ids, position_ids=positions, residuals=residuals)
    torch.testing.assert_close(found, expected.last_hidden_state, **EXACT)
    without = decoder.hidden(ids, position_ids=positions)
    assert (found - without).abs().max() > 0.1


@torch.no_grad()
def test_each_row_of_positions_counts(decoder):
    ids, positions = some_ids(decoder), some_positions()
    found = decoder.hidden(ids, position_ids=positions)
    for row in range(3):
        moved = positions.clone()
        moved[row] += 1 + torch.arange(ids.shape[1])
        assert (decoder.hidden(ids, position_ids=moved) - found).abs().max() > 1e-2


@torch.no_grad()
def test_equal_rows_are_one_row(decoder):
    ids = some_ids(decoder)
    positions = torch.arange(5, 18).expand(3, -1)
    three = decoder.hidden(ids, position_ids=positions.expand(3, -1, -1))
    assert torch.equal(three, decoder.hidden(ids, position_ids=positions))
    plain = Qwen3ForCausalLM(replace(decoder.config, mrope_section=None)).eval()
    plain.load_state_dict(decoder.state_dict())
    assert torch.equal(three, plain.hidden(ids, position_ids=positions))


@torch.no_grad()
def test_cached_steps_with_one_row_continue_a_prompt_with_three(decoder):
    ids, positions = some_ids(decoder, batch=2), some_positions(batch=2)
    tail = positions[0, :, 9:] = positions.amax() + 1 + torch.arange(4)
    positions[:, :, 9:] = tail
    whole = decoder.hidden(ids, position_ids=positions)
    cache = KVCache(decoder.config, 2, 13, "cpu", torch.float32)
    parts = [decoder.hidden(ids[:, :9], position_ids=positions[:, :, :9], cache=cache)]
    for i in range(9, 13):
        step = decoder.hidden(ids[:, i : i + 1], position_ids=tail[None, i - 9, None], cache=cache)
        parts.append(step)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **EXACT)


def test_pairs_take_turns_as_published():
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    axes = Qwen3Config(**sizes, **heads, mrope_section=(24, 20, 20)).rope_axes
    assert axes == [0, 1, 2] * 20 + [0] * 4
    assert Qwen3Config(**sizes, **heads).rope_axes == [0] * 64


def test_frequencies_of_each_row_are_those_of_one_row(decoder):
    rope = RotaryEmbedding(decoder.config)
    positions = torch.tensor([[[3]], [[70_000]], [[11]]])
    one_each = [rope(row, torch.float32) for row in positions]
    for kind, found in enumerate(rope(positions, torch.float32)):
        for pair, axis in enumerate([0, 1, 2, 0, 1, 2, 0, 0]):
            assert found[0, 0, 0, pair] == one_each[axis][kind][0, 0, 0, pair]


@pytest.mark.parametrize("section", [(2, 3, 3), (4, 4, 0), (3, 2, 2), (6, 4, -2), (9, 0, -1)])
def test_section_that_does_not_share_the_pairs_is_refused(decoder_config, section):
    with pytest.raises(ValueError, match=r"mrope_section is .* shares of the 8 pairs"):
        replace(decoder_config, mrope_section=section)


def test_three_rows_without_a_section_are_refused(tiny_decoder):
    with pytest.raises(ValueError, match="three rows, but mrope_section is not set"):
        tiny_decoder.hidden(some_ids(tiny_decoder), position_ids=some_positions())
