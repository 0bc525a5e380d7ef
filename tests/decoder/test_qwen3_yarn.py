"""YaRN against transformers, and against what it is for."""

import math
from dataclasses import replace

import pytest
import torch

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import (
    Qwen3Config,
    Qwen3ForCausalLM,
    RopeScaling,
    RotaryEmbedding,
    rope_frequencies,
)
from tests.conftest import redraw
from tests.decoder.parity import (
    EXACT,
    assert_every_layer_equal,
    greedy,
    reference,
    some_ids,
)

# Of 16 pairs, these leave some as they are, stretch some in part and the rest wholly.
PUBLISHED = RopeScaling("yarn", 4.0, 4096)
SCALINGS = [
    PUBLISHED,
    RopeScaling("yarn", 3.0, 4096, truncate=False),
    RopeScaling("yarn", 4.0, 2048, attention_factor=1.3, beta_fast=20.0, beta_slow=2.0),
    RopeScaling("yarn", 2.5),  # of max_position_embeddings
]


@pytest.fixture
def yarn_config(decoder_config: Qwen3Config) -> Qwen3Config:
    return replace(
        decoder_config, head_dim=32, max_position_embeddings=16384, rope_scaling=PUBLISHED
    )


@pytest.mark.parametrize("offset", [0, 4090, 100_000], ids=str)
@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@torch.no_grad()
def test_yarn_every_layer_and_the_logits_match_transformers(yarn_config, scaling, offset):
    decoder = Qwen3ForCausalLM(replace(yarn_config, rope_scaling=scaling)).eval()
    redraw(decoder)
    assert_every_layer_equal(decoder, reference(decoder), offset)


@torch.no_grad()
def test_yarn_64_greedy_tokens_are_those_of_transformers(yarn_config):
    # A trained length of 32, so that most of the tokens are beyond it.
    scaling = RopeScaling("yarn", 4.0, 32)
    decoder = Qwen3ForCausalLM(replace(yarn_config, rope_scaling=scaling)).eval()
    redraw(decoder)
    prompt = some_ids(decoder, batch=1)
    theirs = reference(decoder).generate(
        prompt, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert torch.equal(greedy(decoder, prompt, 64), theirs)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_yarn_frequencies_are_bit_equal_to_transformers(yarn_config, scaling):
    # At position 100,000, one unit in a frequency's last place turns a pair by 1e-2 too far.
    decoder = Qwen3ForCausalLM(replace(yarn_config, rope_scaling=scaling))
    theirs = reference(decoder).model.rotary_emb
    assert torch.equal(decoder.model.rotary_emb.inv_freq, theirs.inv_freq)
    assert decoder.model.rotary_emb.factor == theirs.attention_scaling


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones(yarn_config):
    plain = rope_frequencies(replace(yarn_config, rope_scaling=None))
    ratio = plain / rope_frequencies(yarn_config)
    turns = plain * 4096 / (2 * math.pi)  # within the trained length
    fast, slow = turns >= 32, turns <= 1
    assert fast.sum() == 6 and (ratio[fast] == 1).all()
    assert slow.sum() == 4 and (ratio[slow] == 4).all()
    between = ratio[~fast & ~slow]
    assert (between.diff() > 0).all() and 1 < between[0] < between[-1] < 4


def test_yarn_factor_of_the_published_advice(yarn_config):
    rotary = RotaryEmbedding(yarn_config)
    cos, sin = rotary(torch.arange(5)[None], torch.float32)
    assert rotary.factor == pytest.approx(1.1386294361)
    torch.testing.assert_close(cos.square() + sin.square(), torch.full_like(cos, 1.1386294361**2))


@torch.no_grad()
def test_yarn_cached_past_the_trained_length_equals_uncached(yarn_config):
    decoder = Qwen3ForCausalLM(
        replace(yarn_config, rope_scaling=RopeScaling("yarn", 4.0, 8))
    ).eval()
    redraw(decoder)
    ids = some_ids(decoder)
    cache = KVCache(decoder.config, 3, 13, "cpu", torch.float32)
    pieces = [decoder.hidden(piece, cache=cache) for piece in ids.split([6, 1, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), decoder.hidden(ids), **EXACT)


def test_yarn_survives_casts_and_empty_materialisation(yarn_config):
    plain = RotaryEmbedding(yarn_config)
    with torch.device("meta"):
        made = RotaryEmbedding(yarn_config)
    for other in (RotaryEmbedding(yarn_config).to(torch.bfloat16), made.to_empty(device="cpu")):
        assert torch.equal(other.inv_freq, plain.inv_freq) and other.factor == plain.factor
