"""The fused decode path: the kernels in Triton's interpreter on the CPU, the whole on a GPU.

The interpreter has to be chosen before Triton is imported, so the tests that need it run in a
second process, which `test_kernels_in_the_interpreter` starts.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mm.decoder.cache import KVCache
from mm.decoder.fused import (
    KERNELS,
    FusedDecoder,
    Shape,
    Tuning,
    default_tuning,
    is_available,
    unavailable_reason,
)
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from tests.no_waiting import no_waiting

ROOT = Path(__file__).resolve().parents[2]
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
has_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
interpreted = pytest.mark.skipif(
    not INTERPRETING, reason="runs with TRITON_INTERPRET=1, in the process of another test"
)
# Tiny matrices in few programs, as the interpreter takes milliseconds for each.
TINY = Tuning(
    qkv=Shape(16, 4),
    output=Shape(16, 1),
    gate_up=Shape(16, 4),
    down=Shape(16, 4),
    head=Shape(16, 4),
    attend=Shape(8, 4),
    splits=3,
    head_programs=3,
)


def make(
    dtype: torch.dtype, device: str = "cpu", seed: int = 0, **sizes: object
) -> Qwen3ForCausalLM:
    """A random decoder, every parameter redrawn, sharp enough that greedy choices are clear."""
    values = {
        "vocab_size": 99,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        **sizes,
    }
    decoder = Qwen3ForCausalLM(Qwen3Config(**values)).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif "embed" in name and decoder.config.tie_word_embeddings:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    return decoder.to(device, dtype)


def prefilled(
    decoder: Qwen3ForCausalLM, num_tokens: int, max_length: int
) -> tuple[KVCache, Tensor]:
    """The cache of a random prompt, and the likeliest token after it, `[1]`."""
    weight = decoder.model.embed_tokens.weight
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, decoder.config.vocab_size, (1, num_tokens), generator=generator)
    cache = KVCache(decoder.config, 1, max_length, weight.device, weight.dtype)
    with torch.no_grad():
        hidden = decoder.hidden(ids.to(weight.device), cache=cache)
        return cache, decoder.logits(hidden[:, -1]).argmax(-1)


@torch.no_grad()
def eager_steps(
    decoder: Qwen3ForCausalLM, cache: KVCache, token: Tensor, count: int
) -> tuple[list[int], Tensor]:
    """Greedy tokens and their logits `[count, V]`, by the readable file."""
    tokens, rows = [], []
    for _ in range(count):
        logits = decoder.logits(decoder.hidden(token[None], cache=cache)[:, -1])
        token = logits.argmax(-1)
        tokens.append(int(token))
        rows.append(logits[0])
    return tokens, torch.stack(rows)


# --- In the interpreter ---------------------------------------------------------------------------


@has_triton
@pytest.mark.skipif(INTERPRETING, reason="this is the second process")
def test_kernels_in_the_interpreter() -> None:
    """Run this file's interpreted tests, none of them skipped."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "kernels"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted to Python scalars" in done.stdout:
        pytest.skip("the interpreter of this Triton does not work with this NumPy: upgrade Triton")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"{NUM_INTERPRETED} passed" in done.stdout


CASES = [
    # groups of 2, rows that end within a tile, an untied head, several blocks a split
    ({}, 21),
    # groups of 1 and tied; an empty cache
    ({"num_attention_heads": 2, "tie_word_embeddings": True, "num_hidden_layers": 1}, 0),
    # groups of 5, heads of 32, one block in all
    ({"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32}, 5),
]
NUM_INTERPRETED = len(CASES) + 3


@interpreted
@pytest.mark.parametrize(("sizes", "prompt"), CASES)
def test_kernels_equal_the_readable_file_in_float32(sizes: dict[str, object], prompt: int) -> None:
    decoder = make(torch.float32, **sizes)
    if prompt:
        cache, token = prefilled(decoder, prompt, 32)
    else:
        cache, token = KVCache(decoder.config, 1, 32, "cpu", torch.float32), torch.tensor([7])
    fused = FusedDecoder(decoder, 32, tuning=TINY)
    fused.load(cache)
    tokens, logits = eager_steps(decoder, cache, token, 3)
    for expected in logits:
        found = fused.step(token)
        torch.testing.assert_close(found[0], expected, atol=2e-5, rtol=1e-4)
        token = found.argmax(-1)
    assert fused.length == prompt + 3
    assert fused._history[prompt : prompt + 3].tolist() == tokens
    for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
        torch.testing.assert_close(
            fused.keys[layer][None, :, : prompt + 3], keys[:, :, : prompt + 3]
        )
        torch.testing.assert_close(
            fused.values[layer][None, :, : prompt + 3], values[:, :, : prompt + 3]
        )


@interpreted
def test_kernels_are_as_close_to_float32_as_the_readable_file_in_bfloat16() -> None:
    wide = make(torch.float32)
    narrow = make(torch.bfloat16)
    for exact, rounded in zip(wide.parameters(), narrow.parameters(), strict=True):
        exact.data.copy_(rounded.data)
    cache, token = prefilled(narrow, 21, 32)
    wide_cache, _ = prefilled(wide, 21, 32)
    fused = FusedDecoder(narrow, 32, tuning=TINY)
    fused.load(cache)
    ours = fused.step(token).float()
    eager = eager_steps(narrow, cache, token, 1)[1].float()
    exact = eager_steps(wide, wide_cache, token, 1)[1]
    assert (ours - exact).square().mean() <= 1.5 * (eager - exact).square().mean()
    assert (ours - eager).abs().max() <= 2 * (eager - exact).abs().max()


@interpreted
def test_kernels_never_choose_a_padding_row_and_count_on_from_any_position() -> None:
    decoder = make(torch.float32)
    with torch.no_grad():
        decoder.lm_head.weight[90:] *= 100  # far likelier than any real token
    cache, token = prefilled(decoder, 9, 32)
    fused = FusedDecoder(decoder, 32, num_valid_tokens=90, tuning=TINY)
    fused.load(cache, next_position=5)
    with torch.no_grad():
        hidden = decoder.hidden(token[None], position_ids=torch.tensor([[5]]), cache=cache)
    expected = decoder.logits(hidden[:, -1])
    (chosen,) = fused.greedy(1, token).tolist()
    torch.testing.assert_close(fused.logits, expected, atol=2e-5, rtol=1e-4)
    assert expected.argmax() >= 90
    assert chosen == expected[0, :90].argmax()


@interpreted
def test_kernels_say_when_no_logit_is_a_number() -> None:
    decoder = make(torch.float32, num_hidden_layers=1)
    with torch.no_grad():
        decoder.model.norm.weight.fill_(torch.nan)
    fused = FusedDecoder(decoder, 8, tuning=TINY)
    assert fused.greedy(1, torch.tensor([3])).tolist() == [-1]
    with pytest.raises(ValueError, match="the sequence holds 8 tokens and has 1; 8 more"):
        fused.greedy(8)


# --- Where it applies -----------------------------------------------------------------------------


def test_reason_names_what_is_missing() -> None:
    decoder = make(torch.bfloat16)
    assert unavailable_reason(decoder, 4) == "it decodes one sequence, and the batch has 4"
    assert unavailable_reason(decoder) == "it needs a CUDA device, and the device is cpu"
    assert "the weights are on cpu" in str(unavailable_reason(decoder, 1, "cuda"))
    assert not is_available(decoder)


@pytest.mark.skipif(INTERPRETING, reason="the interpreter can run on the CPU")
def test_making_one_where_it_does_not_apply_says_why() -> None:
    with pytest.raises(ValueError, match="can't be fused: it needs a CUDA device"):
        FusedDecoder(make(torch.bfloat16), 8)


@pytest.mark.parametrize(
    ("hidden", "intermediate", "heads"),
    [(1024, 3072, 16), (2048, 6144, 16), (2560, 9728, 32), (4096, 12288, 32), (5120, 17408, 40)],
)
def test_default_tuning_fits_every_published_size(
    hidden: int, intermediate: int, heads: int
) -> None:
    with torch.device("meta"):
        decoder = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=151936,
                hidden_size=hidden,
                intermediate_size=intermediate,
                num_hidden_layers=1,
                num_attention_heads=heads,
                num_key_value_heads=8,
            )
        )
    tuning = default_tuning(decoder)
    for shape, rows, columns in (
        (tuning.qkv, (heads + 16) * 128, hidden),
        (tuning.output, hidden, heads * 128),
        (tuning.gate_up, intermediate, 2 * hidden),
        (tuning.down, hidden, intermediate),
    ):
        assert rows % shape.rows == 0
        # A program's weights fit its registers, 255 of 4 bytes a thread, with room to compute.
        assert 2 * shape.rows * columns <= 32 * shape.num_warps * 512


# --- On a GPU -------------------------------------------------------------------------------------

GPU_CASES = [
    # 0.6B's layers; then the widths, groups and heads of 1.7B, 4B and 8B, two layers each
    ({"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16}, 300, 1),
    ({"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16}, 37, 2),
    ({"hidden_size": 2560, "intermediate_size": 9728, "num_attention_heads": 32}, 1000, 3),
    ({"hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 64}, 5, 4),
]


@pytest.mark.gpu
@has_triton
@pytest.mark.parametrize(("sizes", "prompt", "seed"), GPU_CASES)
@pytest.mark.parametrize("overlap", [True, False])
def test_gpu_tokens_equal_eager_and_logits_are_as_close_to_float32(
    sizes: dict[str, object], prompt: int, seed: int, overlap: bool
) -> None:
    shared = {"vocab_size": 4096, "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 1e6}
    tied = {"tie_word_embeddings": seed % 2 == 1}
    narrow = make(torch.bfloat16, "cuda", seed, **{**shared, **sizes, **tied})
    wide = make(torch.bfloat16, "cuda", seed, **{**shared, **sizes, **tied}).float()
    assert is_available(narrow)
    cache, token = prefilled(narrow, prompt, prompt + 80)
    wide_cache, _ = prefilled(wide, prompt, prompt + 80)
    fused = FusedDecoder(
        narrow, prompt + 80, tuning=replace(default_tuning(narrow), overlap=overlap)
    )
    fused.load(cache)
    expected, eager = eager_steps(narrow, cache, token, 64)
    # Both are told the same tokens, so that one near tie does not part them for good.
    told = [int(token), *expected[:-1]]
    ours = torch.stack([fused.step(torch.tensor([t], device="cuda"))[0].clone() for t in told])
    exact = torch.stack(
        [eager_steps(wide, wide_cache, torch.tensor([t], device="cuda"), 1)[1][0] for t in told]
    )
    eager_error = (eager.float() - exact).square().mean()
    assert (ours.float() - exact).square().mean() <= 1.1 * eager_error
    # The same 64 tokens, but where the readable file itself can't tell two apart in bfloat16.
    noise = 4 * eager_error.sqrt()
    for row, chosen in enumerate(ours.float().argmax(-1).tolist()):
        best = eager[row].float().max()
        assert chosen == expected[row] or best - eager[row, chosen].float() <= noise, row


@pytest.mark.gpu
@has_triton
def test_gpu_greedy_needs_no_host_and_repeats_itself() -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16}
    decoder = make(
        torch.bfloat16, "cuda", vocab_size=4096, num_key_value_heads=8, head_dim=128, **sizes
    )
    cache, token = prefilled(decoder, 60, 200)
    fused = FusedDecoder(decoder, 200)
    fused.load(cache)
    torch.cuda.synchronize()
    with no_waiting():
        first = fused.greedy(64, token)
    fused.load(cache)
    stepped = []
    for _ in range(64):
        token = fused.step(token).argmax(-1)
        stepped.append(int(token))
    assert first.tolist() == stepped
    for _ in range(20):  # a race would show as another answer now and then
        fused.load(cache)
        again = fused.greedy(64, torch.tensor([int(prefilled(decoder, 60, 200)[1])], device="cuda"))
        assert torch.equal(again, first)


@pytest.mark.gpu
@has_triton
def test_gpu_leaving_a_kernel_out_changes_the_result() -> None:
    """What `only` leaves out is measured by its absence, so it must be absent."""
    sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16}
    decoder = make(
        torch.bfloat16, "cuda", vocab_size=4096, num_key_value_heads=8, head_dim=128, **sizes
    )
    token = torch.tensor([3], device="cuda")
    whole = FusedDecoder(decoder, 16).step(token).clone()
    for name in KERNELS[:-1]:
        without = FusedDecoder(decoder, 16, only=set(KERNELS) - {name}).step(token)
        assert not torch.equal(without, whole), name
