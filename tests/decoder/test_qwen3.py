"""Qwen3 against transformers, and against itself: cached, batched, padded, compiled."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from mm.decoder.attention import attend, attend_unfused
from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import (
    Qwen3Config,
    Qwen3ForCausalLM,
    RMSNorm,
    RopeScaling,
)
from mm.registry import make_config
from tests.conftest import redraw
from tests.decoder.parity import (
    EXACT,
    assert_every_layer_equal,
    greedy,
    in_bfloat16,
    reference,
    some_ids,
)


@pytest.mark.parametrize("offset", [0, 30000])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"rope_theta": 1e6, "head_dim": 8},
        {"num_attention_heads": 6, "num_key_value_heads": 3},
        {"num_key_value_heads": 4},
        {"rms_norm_eps": 1e-5},
    ],
    ids=str,
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_qwen3_every_layer_and_the_logits_match_transformers(
    decoder_config, changes, attention, offset
):
    decoder = Qwen3ForCausalLM(replace(decoder_config, **changes)).eval()
    redraw(decoder)
    assert_every_layer_equal(decoder, reference(decoder, attention), offset)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@torch.no_grad()
def test_qwen3_64_greedy_tokens_are_those_of_transformers(decoder_config, tied):
    decoder = Qwen3ForCausalLM(replace(decoder_config, tie_word_embeddings=tied)).eval()
    redraw(decoder, seed=3)
    prompt = some_ids(decoder, batch=1)
    theirs = reference(decoder).generate(
        prompt, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert theirs.shape == (1, 13 + 64)
    assert torch.equal(greedy(decoder, prompt, 64), theirs)


@torch.no_grad()
def test_qwen3_tiny_embeddings_show_the_norms_epsilon(decoder_config):
    decoder = Qwen3ForCausalLM(decoder_config).eval()
    redraw(decoder)
    decoder.model.embed_tokens.weight.mul_(0.01)
    ids = some_ids(decoder)
    theirs = reference(decoder)(ids).logits
    torch.testing.assert_close(decoder(ids), theirs, **EXACT)
    wrong = Qwen3ForCausalLM(replace(decoder_config, rms_norm_eps=1e-5)).eval()
    wrong.load_state_dict(decoder.state_dict())
    assert not torch.allclose(wrong(ids), theirs, **EXACT)


@torch.no_grad()
def test_qwen3_left_padding_matches_transformers_on_real_tokens(tiny_decoder):
    ids = some_ids(tiny_decoder)
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[0, :5] = False
    keep[2, :1] = False
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    theirs = reference(tiny_decoder)(ids, attention_mask=keep.long(), position_ids=positions)
    causal = torch.ones(13, 13, dtype=torch.bool).tril()
    mask = causal & keep[:, None, None, :]
    hidden = tiny_decoder.hidden(ids, position_ids=positions, attention_mask=mask)
    ours = tiny_decoder.logits(hidden)
    torch.testing.assert_close(ours[keep], theirs.logits[keep], **EXACT)
    assert ours.isfinite().all()  # rows that may attend nothing must not spread NaN


@torch.no_grad()
def test_qwen3_batch_with_left_padding_equals_one_by_one(tiny_decoder):
    ids = some_ids(tiny_decoder)
    batch = torch.full((3, 13), 0)
    keep = torch.zeros((3, 13), dtype=torch.bool)
    for row, length in enumerate((13, 4, 9)):
        batch[row, 13 - length :] = ids[row, :length]
        keep[row, 13 - length :] = True
    mask = torch.ones(13, 13, dtype=torch.bool).tril() & keep[:, None, None, :]
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    together = tiny_decoder.hidden(batch, position_ids=positions, attention_mask=mask)
    for row, length in enumerate((13, 4, 9)):
        alone = tiny_decoder.hidden(ids[row : row + 1, :length])
        torch.testing.assert_close(together[row, 13 - length :], alone[0], **EXACT)


@pytest.mark.parametrize("chunks", [[1] * 13, [13], [6, 7], [5, 1, 4, 3]], ids=str)
@torch.no_grad()
def test_qwen3_cached_in_any_chunks_equals_uncached(tiny_decoder, chunks):
    ids = some_ids(tiny_decoder)
    cache = KVCache(tiny_decoder.config, 3, 16, "cpu", torch.float32)
    pieces = [tiny_decoder.hidden(piece, cache=cache) for piece in ids.split(chunks, dim=1)]
    assert cache.length == 13
    torch.testing.assert_close(torch.cat(pieces, dim=1), tiny_decoder.hidden(ids), **EXACT)


@torch.no_grad()
def test_qwen3_cached_with_left_padding_equals_uncached(tiny_decoder):
    ids = some_ids(tiny_decoder)
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[1, :6] = False
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    mask = torch.ones(13, 13, dtype=torch.bool).tril() & keep[:, None, None, :]
    whole = tiny_decoder.hidden(ids, position_ids=positions, attention_mask=mask)
    cache = KVCache(tiny_decoder.config, 3, 13, "cpu", torch.float32)
    pieces = []
    for start, end in ((0, 8), (8, 9), (9, 10), (10, 13)):
        pieces.append(
            tiny_decoder.hidden(
                ids[:, start:end],
                position_ids=positions[:, start:end],
                attention_mask=mask[:, :, start:end, :end],
                cache=cache,
            )
        )
    torch.testing.assert_close(torch.cat(pieces, dim=1)[keep], whole[keep], **EXACT)


def test_cache_that_is_full_says_how_long_it_must_be(tiny_decoder):
    cache = KVCache(tiny_decoder.config, 3, 12, "cpu", torch.float32)
    with pytest.raises(ValueError, match=r"holds 12 tokens and has 0; 13 more .* max_length >= 13"):
        tiny_decoder.hidden(some_ids(tiny_decoder), cache=cache)


@torch.no_grad()
def test_cache_reset_is_as_good_as_new(tiny_decoder):
    ids = some_ids(tiny_decoder)
    cache = KVCache(tiny_decoder.config, 3, 13, "cpu", torch.float32)
    first = tiny_decoder.hidden(ids, cache=cache)
    cache.reset()
    assert torch.equal(tiny_decoder.hidden(ids, cache=cache), first)


@torch.no_grad()
def test_embeddings_in_place_of_ids_change_nothing(tiny_decoder):
    ids = some_ids(tiny_decoder)
    embeds = tiny_decoder.model.embed_tokens(ids)
    assert torch.equal(tiny_decoder.hidden(inputs_embeds=embeds), tiny_decoder.hidden(ids))


def test_ids_and_embeddings_together_or_neither_are_refused(tiny_decoder):
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        tiny_decoder.hidden()
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        tiny_decoder.hidden(some_ids(tiny_decoder), torch.zeros(3, 13, 32))


def test_rms_norm_in_bfloat16_is_bit_equal_to_transformers():
    modeling = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    ours, theirs = RMSNorm(64, 1e-6), modeling.Qwen3RMSNorm(64, 1e-6)
    generator = torch.Generator().manual_seed(0)
    weight = 1 + 0.3 * torch.randn(64, generator=generator)
    for norm in (ours, theirs):
        norm.weight.data.copy_(weight)
        norm.to(torch.bfloat16)
    x = torch.randn(500, 64, generator=generator).to(torch.bfloat16)
    assert torch.equal(ours(x), theirs(x))
    other_order = torch.nn.functional.rms_norm(x, (64,), ours.weight, 1e-6)
    assert not torch.equal(ours(x), other_order)  # the input tells the two orders apart


@torch.no_grad()
def test_qwen3_in_bfloat16_is_as_near_transformers_as_its_attentions_are_to_each_other(
    tiny_decoder,
):
    # A RoPE rounded to bfloat16 would be off by several units at these positions.
    ids = some_ids(tiny_decoder)
    positions = torch.arange(30000, 30013).expand(ids.shape)
    eager, sdpa = (
        in_bfloat16(reference(tiny_decoder, attention))(ids, position_ids=positions).logits.float()
        for attention in ("eager", "sdpa")
    )
    narrow = tiny_decoder.to(torch.bfloat16)
    ours = narrow.logits(narrow.hidden(ids, position_ids=positions)).float()
    own = (eager - sdpa).abs()
    assert 0 < own.max() < 0.05
    for theirs in (eager, sdpa):
        difference = (ours - theirs).abs()
        assert difference.max() <= own.max() and difference.mean() <= own.mean()


def test_frequencies_stay_float32_through_casts_and_empty_materialisation(decoder_config):
    plain = Qwen3ForCausalLM(decoder_config).model.rotary_emb.inv_freq
    assert plain.dtype == torch.float32
    cast = Qwen3ForCausalLM(decoder_config).to(torch.bfloat16).model.rotary_emb.inv_freq
    with torch.device("meta"):
        skeleton = Qwen3ForCausalLM(decoder_config)
    made = skeleton.to_empty(device="cpu").model.rotary_emb.inv_freq
    assert torch.equal(cast, plain) and torch.equal(made, plain)


def test_meta_device_gives_shapes_without_memory(decoder_config):
    with torch.device("meta"):
        decoder = Qwen3ForCausalLM(decoder_config)
        assert decoder(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 99)
    assert all(parameter.is_meta for parameter in decoder.parameters())


@torch.no_grad()
def test_autocast_keeps_float32_weights_and_stays_near(tiny_decoder):
    ids = some_ids(tiny_decoder)
    wide = tiny_decoder(ids)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = tiny_decoder(ids)
        mask = torch.ones(13, 13, dtype=torch.bool).tril().expand(3, 1, 13, 13)
        masked = tiny_decoder.logits(tiny_decoder.hidden(ids, attention_mask=mask))
    assert narrow.dtype == torch.bfloat16
    assert (narrow - wide).abs().max() < 0.05 and (masked - wide).abs().max() < 0.05


def test_init_weights_depend_on_the_generator_alone(decoder_config):
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        decoder = Qwen3ForCausalLM(decoder_config)
        decoder.init_weights(torch.Generator().manual_seed(3))
        states.append(decoder.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    matrix = states[0]["model.layers.0.mlp.gate_proj.weight"]
    assert 0.015 < matrix.std() < 0.025
    assert torch.equal(states[0]["model.norm.weight"], torch.ones(32))


def test_tied_head_is_one_parameter_and_untied_two(decoder_config):
    tied = Qwen3ForCausalLM(decoder_config)
    untied = Qwen3ForCausalLM(replace(decoder_config, tie_word_embeddings=False))
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1


@pytest.mark.parametrize("masked", [False, True])
def test_whole_graph_is_traced_and_equals_eager(tiny_decoder, masked):
    ids = some_ids(tiny_decoder)
    mask = torch.ones(13, 13, dtype=torch.bool).tril().expand(3, 1, 13, 13) if masked else None
    traced = torch.compile(tiny_decoder.hidden, fullgraph=True, backend="aot_eager")
    found, expected = (run(ids, attention_mask=mask) for run in (traced, tiny_decoder.hidden))
    torch.testing.assert_close(found, expected, **EXACT)
    found.square().mean().backward()
    gradient = tiny_decoder.model.layers[0].self_attn.q_proj.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


@torch.no_grad()
def test_traced_for_any_length_equals_eager(decoder_config):
    torch.compiler.reset()
    decoder = Qwen3ForCausalLM(replace(decoder_config, num_hidden_layers=1)).eval()
    redraw(decoder)
    traced = torch.compile(decoder.hidden, fullgraph=True, dynamic=True, backend="eager")
    for length in (5, 13, 1):
        ids = some_ids(decoder, length=length)
        torch.testing.assert_close(traced(ids), decoder.hidden(ids), **EXACT)


@pytest.mark.slow  # a C++ compiler run
def test_compiled_equals_eager(tiny_decoder):
    ids = some_ids(tiny_decoder)
    compiled = torch.compile(tiny_decoder, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids), tiny_decoder(ids), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attend_unfused_equals_the_fused_one_over_a_cache_with_free_slots(dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, length, 8, generator=generator, dtype=dtype) for length in (2, 9, 9)
    )
    used = torch.tensor([[True] * 5 + [False] * 4, [False] * 2 + [True] * 4 + [False] * 3])
    bias = torch.zeros(2, 1, 1, 9, dtype=dtype)
    bias.masked_fill_(~used[:, None, None], torch.finfo(dtype).min / 2)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    bounds = EXACT if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    torch.testing.assert_close(attend_unfused(q, k, v, bias), fused, **bounds)
    v = v.masked_fill(~used[:, None, :, None], 1e4)  # what a free slot holds is not seen
    torch.testing.assert_close(attend_unfused(q, k, v, bias), fused, **bounds)


def test_attend_rows_without_any_key_get_the_mean_not_nan():
    q, k, v = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    mask[..., 0, :] = False
    out = attend(q, k, v, mask, causal=False)
    torch.testing.assert_close(out[:, :, 0], v.mean(2))
    lowest = torch.full((1, 1, 1, 4), torch.finfo(q.dtype).min / 2)
    single = attend_unfused(q[:, :, :1], k, v, lowest)
    torch.testing.assert_close(single[:, :, 0], v.mean(2))


@torch.no_grad()
def test_residuals_are_added_after_the_layers_they_name(tiny_decoder):
    ids = some_ids(tiny_decoder)
    generator = torch.Generator().manual_seed(1)
    added = {0: torch.randn(3, 13, 32, generator=generator), 2: torch.ones(3, 13, 32)}
    hooks = [
        tiny_decoder.model.layers[layer_idx].register_forward_hook(
            lambda _module, _args, output, extra=extra: output + extra
        )
        for layer_idx, extra in added.items()
    ]
    expected = tiny_decoder.hidden(ids)
    for hook in hooks:
        hook.remove()
    assert torch.equal(tiny_decoder.hidden(ids, residuals=added), expected)
    assert not torch.allclose(tiny_decoder.hidden(ids), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_key_value_heads": 3},
            "num_attention_heads is 4; it must be a multiple of num_key_value_heads 3",
        ),
        ({"head_dim": 15}, "head_dim is 15"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_experts": -1}, r"num_experts is -1; it must be 0 \(dense\) or at"),
        ({"num_experts": 4}, "moe_intermediate_size is 0"),
        ({"num_experts": 4, "moe_intermediate_size": 8}, "num_experts is 4; .* at least num_exp"),
        ({"mlp_only_layers": (3,)}, r"mlp_only_layers is \(3,\); .* layers, 0 to 2"),
    ],
)
def test_config_that_makes_no_model_is_refused(decoder_config: Qwen3Config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(decoder_config, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_type": "linear"}, "rope_type of rope_scaling is 'linear'; it must be 'yarn'"),
        ({"factor": 0.5}, "factor of rope_scaling is 0.5; it must be at least 1"),
        ({"factor": float("nan")}, "factor of rope_scaling is nan"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings .* is 0"),
        ({"attention_factor": -1.0}, "attention_factor of rope_scaling is -1.0"),
        ({"beta_fast": 0.5}, "beta_slow of rope_scaling is 1.0; .* at most beta_fast"),
    ],
)
def test_rope_scaling_that_scales_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RopeScaling(**{"rope_type": "yarn", "factor": 4.0, **changes})


def test_config_with_rope_scaling_survives_plain_data(decoder_config):
    config = replace(decoder_config, rope_scaling=RopeScaling("yarn", 4.0), mlp_only_layers=(1,))
    assert make_config(Qwen3Config, json.loads(json.dumps(asdict(config))), "decoder") == config


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_on_a_gpu_padded_batches_cached_steps_and_the_cpu_agree(tiny_decoder, dtype):
    ids = some_ids(tiny_decoder)
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[0, :7] = False
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    mask = torch.ones(13, 13, dtype=torch.bool).tril() & keep[:, None, None, :]
    expected = tiny_decoder.hidden(ids, position_ids=positions, attention_mask=mask)
    decoder = tiny_decoder.to("cuda", dtype)
    ids, positions, mask = ids.cuda(), positions.cuda(), mask.cuda()
    bounds = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    whole = decoder.hidden(ids, position_ids=positions, attention_mask=mask)
    assert whole.isfinite().all()
    torch.testing.assert_close(whole.cpu().float()[keep], expected[keep], **bounds)
    cache = KVCache(decoder.config, 3, 13, "cuda", dtype)
    pieces = []
    for start, end in ((0, 8), (8, 9), (9, 10), (10, 13)):
        piece = {"position_ids": positions[:, start:end], "cache": cache}
        piece["attention_mask"] = mask[:, :, start:end, :end]
        pieces.append(decoder.hidden(ids[:, start:end], **piece))
    found = torch.cat(pieces, dim=1).cpu().float()
    torch.testing.assert_close(found[keep], expected[keep], **bounds)
    unpadded = decoder.hidden(ids[1:])
    torch.testing.assert_close(unpadded.cpu().float(), expected[1:], **bounds)


@pytest.mark.gpu
def test_on_a_gpu_compiled_training_under_autocast_is_as_close_to_float32_as_eager(tiny_decoder):
    decoder = tiny_decoder.cuda()
    ids = some_ids(decoder).cuda()
    mask = torch.ones(13, 13, dtype=torch.bool, device="cuda").tril().repeat(3, 1, 1, 1)
    mask[0, :, :4] = False  # rows that may attend nothing

    def loss(narrow=True):
        with torch.autocast("cuda", torch.bfloat16, enabled=narrow):
            logits = decoder.logits(decoder.hidden(ids, attention_mask=mask))
        return logits[:, 4:].float().square().mean()

    gradients = []
    for run in (lambda: loss(narrow=False), loss, torch.compile(loss, fullgraph=True)):
        decoder.zero_grad()
        run().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in decoder.parameters()]))
    exact, eager, compiled = gradients
    assert compiled.isfinite().all()
    noise = (eager - exact).norm()
    assert noise < 0.05 * exact.norm() and (compiled - exact).norm() < 1.2 * noise
