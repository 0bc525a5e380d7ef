"""The formulas agree with published figures and with what PyTorch counts on small models."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM, set_experts_path
from mm.report.describe import costs
from mm.train.optimizer import build_optimizer
from mm.train.recipe import RecipeConfig

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
}
CONFIGS = {
    "tied": Qwen3Config(**SIZES),
    "untied": Qwen3Config(**SIZES, tie_word_embeddings=False),
    "mixture": Qwen3Config(**SIZES, **EXPERTS, tie_word_embeddings=False),
    "mixed": Qwen3Config(**SIZES, **EXPERTS, mlp_only_layers=(1,)),
}
ROW = 40  # tokens
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def model_of(config: Qwen3Config, path: Any = "loop") -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(config)
    model.init_weights(torch.Generator().manual_seed(0))
    set_experts_path(model, path)
    return model


def token_ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 200, (batch, length), generator=torch.Generator().manual_seed(1))


@each_config
def test_parameters_by_task_are_those_of_the_modules(config: Qwen3Config) -> None:
    counted = costs.count_decoder(config)
    parameters = dict(Qwen3ForCausalLM(config).named_parameters())

    def held(*words: str) -> int:
        found = [p for name, p in parameters.items() if any(word in name for word in words)]
        return sum(p.numel() for p in found)

    assert counted.total == held("")
    assert counted.embedding == held("embed_tokens")
    assert counted.attention == held("self_attn")
    assert counted.router == held("mlp.gate.")
    assert counted.experts == held("experts")
    assert counted.feed_forward == held("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert counted.norms == held("layernorm", "model.norm")
    assert counted.head == held("lm_head")
    idle = 0.0 if not config.num_experts else 1 - 2 / 8
    assert counted.active == counted.total - idle * counted.experts


@each_config
def test_flops_are_those_that_pytorch_counts(config: Qwen3Config) -> None:
    model, T = model_of(config), 12
    # The unfused kernel's matrix products are counted; it computes the masked half too.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(token_ids(1, T))
    expected = T * (costs.matmul_flops(config) + costs.attention_flops(config, T))
    assert counter.get_total_flops() == expected


def test_flops_of_a_decoding_step_count_the_cache() -> None:
    config = CONFIGS["untied"]
    model, cache = model_of(config), KVCache(config, 1, 20, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        model.hidden(token_ids(1, 19), cache=cache)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.logits(model.hidden(token_ids(1, 1), cache=cache))
    expected = costs.matmul_flops(config) + costs.attention_flops(config, 20)
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_cache_bytes_are_those_of_the_cache(dtype: torch.dtype) -> None:
    config = CONFIGS["tied"]
    cache = KVCache(config, 2, 5, torch.device("cpu"), dtype)
    held = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    assert held == 2 * 5 * costs.kv_bytes_per_token(config, dtype.itemsize)


def hidden(model: Qwen3ForCausalLM, batch: int, length: int) -> Tensor:
    """Run as training does: with a mask, under autocast."""
    mask = torch.ones(batch, 1, length, length, dtype=torch.bool).tril()
    with torch.autocast("cpu", torch.bfloat16):
        return model.hidden(token_ids(batch, length), attention_mask=mask)


def kept_bytes(model: Qwen3ForCausalLM, batch: int) -> int:
    """Bytes of the tensors that the backward pass needs, besides the parameters themselves."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = hidden(model, batch, ROW)
        with torch.autocast("cpu", torch.bfloat16):
            model.logits(output)
    storages = {place: t.untyped_storage() for place, t in kept.items() if place not in parameters}
    return sum(storage.nbytes() for storage in storages.values())


@each_config
def test_activations_are_the_tensors_that_backward_keeps(config: Qwen3Config) -> None:
    # The difference of two batches is free of autocast's copies of the weights. What is left out,
    # and the reason for the 1 %: the token ids.
    model = model_of(config, "grouped")
    measured = kept_bytes(model, 5) - kept_bytes(model, 2)
    assert costs.activation_bytes(config, 3 * ROW, ROW, False) == pytest.approx(measured, rel=0.01)


def test_loop_over_experts_keeps_a_tenth_more() -> None:
    config = CONFIGS["mixture"]
    model = model_of(config, "loop")
    measured = kept_bytes(model, 5) - kept_bytes(model, 2)
    formula = costs.activation_bytes(config, 3 * ROW, ROW, False)
    assert formula < measured < 1.15 * formula


def test_checkpointed_layers_keep_their_input_alone() -> None:
    from torch.utils.checkpoint import checkpoint

    config = CONFIGS["tied"]
    model, inputs = model_of(config), []
    for layer in model.model.layers:
        forward = layer.forward

        def recorded(x: Tensor, *rest: Any, forward: Any = forward) -> Tensor:
            inputs.append(weakref.ref(x))
            return checkpoint(forward, x, *rest, use_reentrant=False)

        layer.forward = recorded
    output = hidden(model, 1, ROW)
    alive = sum(x.nbytes for ref in inputs if (x := ref()) is not None)
    layers = [costs.layer_activation_bytes(config, i, ROW) for i in range(3)]
    last = costs.activation_bytes(config, ROW, ROW, False) - ROW * sum(layers)
    assert output.requires_grad and alive > 0
    formula = costs.activation_bytes(config, ROW, ROW, True)
    assert formula == alive + ROW * max(layers) + last


def test_optimizer_state_is_what_a_step_leaves() -> None:
    config = CONFIGS["untied"]
    model = model_of(config)
    optimizer = build_optimizer(model, RecipeConfig())
    with torch.autocast("cpu", torch.bfloat16):
        model(token_ids(1, 4)).float().sum().backward()
    optimizer.step()
    total = costs.count_decoder(config).total
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert sum(p.nbytes for p in model.parameters()) == 4 * total
    assert sum(p.grad.nbytes for p in model.parameters() if p.grad is not None) == 4 * total
    assert sum(t.nbytes for t in moments) == 8 * total


def reads(config: Qwen3Config) -> Iterator[float]:
    for batch in (1, 2, 16, 10**6):
        weights = costs.decode_read_bytes(config, batch, 0, 2.0, 2.0)
        yield weights - 2.0 * batch * config.hidden_size  # less the embedding's rows


def test_decoding_reads_each_weight_once() -> None:
    tied, untied = CONFIGS["tied"], CONFIGS["untied"]
    assert set(reads(tied)) == {2.0 * costs.count_decoder(tied).total}
    counted = costs.count_decoder(untied)
    assert set(reads(untied)) == {2.0 * (counted.total - counted.embedding)}
    longer = costs.decode_read_bytes(tied, 3, 7, 2.0, 2.0) - costs.decode_read_bytes(
        tied, 3, 0, 2.0, 2.0
    )
    assert longer == 3 * 7 * costs.kv_bytes_per_token(tied)


def test_decoding_reads_the_experts_that_are_chosen() -> None:
    config = CONFIGS["mixture"]
    counted = costs.count_decoder(config)
    one, two, many, all_of_them = reads(config)
    assert one == pytest.approx(2.0 * (counted.active - counted.embedding))
    assert one < two < many < all_of_them
    assert all_of_them == pytest.approx(2.0 * (counted.total - counted.embedding))
    # Two tokens that choose 2 of 8 at random meet 3.5 different ones on average.
    rest = counted.total - counted.embedding - counted.experts
    assert two == pytest.approx(2.0 * (rest + 3.5 / 8 * counted.experts))
