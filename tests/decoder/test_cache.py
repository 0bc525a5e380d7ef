"""The static cache holds what the plain one holds, and the compiled step refuses to overrun it."""

import pytest
import torch

from mm.decoder.cache import KVCache, StaticCache
from mm.decoder.compiled import CompiledDecoder
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM


@torch.no_grad()
def test_static_cache_gives_the_same_hidden_states(tiny_decoder: Qwen3ForCausalLM) -> None:
    config = tiny_decoder.config
    ids = torch.randint(0, 99, (2, 9), generator=torch.Generator().manual_seed(0))
    plain = KVCache(config, 2, 9, "cpu", torch.float32)
    tiny_decoder.hidden(ids[:, :5], cache=plain)
    static = StaticCache(config, 2, 12, "cpu", torch.float32)
    static.load(plain)
    for token in range(5, 9):
        positions = torch.full((2, 1), token)
        mask = (torch.arange(12) <= static.length)[None, None, None]
        ours = tiny_decoder.hidden(
            ids[:, token, None], position_ids=positions, attention_mask=mask, cache=static
        )
        theirs = tiny_decoder.hidden(ids[:, token, None], cache=plain)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert int(static.length) == plain.length == 9
    for mine, other in zip(static.keys, plain.keys, strict=True):
        torch.testing.assert_close(mine[:, :, :9], other, atol=2e-5, rtol=1e-4)
    before = static.keys[0].clone()
    static.reorder(torch.tensor([1, 0]))
    assert torch.equal(static.keys[0], before.flip(0))
    static.reset()
    assert int(static.length) == 0


def test_what_does_not_fit_is_refused(decoder_config: Qwen3Config) -> None:
    static = StaticCache(decoder_config, 2, 4, "cpu", torch.float32)
    long = KVCache(decoder_config, 2, 9, "cpu", torch.float32)
    long.advance(5)
    with pytest.raises(ValueError, match="2 rows of 5 tokens do not fit .* 2 rows of 4"):
        static.load(long)
    with pytest.raises(ValueError, match="3 rows of 0 tokens do not fit"):
        static.load(KVCache(decoder_config, 3, 4, "cpu", torch.float32))


def test_a_full_compiled_decoder_says_so(tiny_decoder: Qwen3ForCausalLM) -> None:
    decoder = CompiledDecoder(tiny_decoder, 1, 6, backend="eager")
    cache = KVCache(tiny_decoder.config, 1, 5, "cpu", torch.float32)
    with torch.no_grad():
        tiny_decoder.hidden(torch.tensor([[1, 2, 3, 4, 5]]), cache=cache)
    for _ in range(2):  # used again, it starts from what is loaded
        decoder.load(cache, torch.tensor([[5]]), None)
        logits = decoder.step(torch.tensor([6]))
        with torch.no_grad():
            expected = tiny_decoder(torch.tensor([[1, 2, 3, 4, 5, 6]]))[:, -1]
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
        with pytest.raises(ValueError, match="holds 6 tokens and is full"):
            decoder.step(torch.tensor([7]))
