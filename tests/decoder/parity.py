"""transformers' model with a decoder's weights, and what is compared with it."""

from dataclasses import asdict

import pytest
import torch

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM

# A correct implementation reaches 0 to 6e-6; looser bounds hide real mistakes.
EXACT = {"atol": 2e-5, "rtol": 1e-4}
SPARSE_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "router_aux_loss_coef",
)


def reference(decoder: Qwen3ForCausalLM, attention: str = "eager", experts: str = "eager"):
    """Return transformers' model with the same weights.

    Args:
        attention: `eager` or `sdpa`.
        experts: `eager` is a loop over the experts, `grouped_mm` is what it does by default.
    """
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    values = asdict(decoder.config)
    sparse = {name: values.pop(name) for name in SPARSE_FIELDS}
    assert values.pop("mrope_section") is None
    scaling = values.pop("rope_scaling") or {"rope_type": "default"}
    rope = {name: value for name, value in scaling.items() if value is not None}
    values["rope_parameters"] = {**rope, "rope_theta": values.pop("rope_theta")}
    if decoder.config.num_experts:
        sparse["mlp_only_layers"] = list(sparse["mlp_only_layers"])
        config = transformers.Qwen3MoeConfig(**values, **sparse)
        config._experts_implementation = experts
        kind = transformers.Qwen3MoeForCausalLM
    else:
        config, kind = transformers.Qwen3Config(**values), transformers.Qwen3ForCausalLM
    config._attn_implementation = attention
    model = kind(config).eval()
    model.load_state_dict(decoder.state_dict(), strict=True)
    return model


def in_bfloat16(model):
    """Cast transformers' model as loading it in bfloat16 does: RoPE's frequencies stay float32."""
    inv_freq = model.model.rotary_emb.inv_freq.clone()
    model.to(torch.bfloat16).model.rotary_emb.inv_freq = inv_freq
    return model


def layer_outputs(decoder: Qwen3ForCausalLM, **inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return embeddings and every layer's output, the last one after the final norm."""
    outputs: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _args, output: outputs.append(output))
        for module in (decoder.model.embed_tokens, *decoder.model.layers, decoder.model.norm)
    ]
    decoder.hidden(**inputs)
    for hook in hooks:
        hook.remove()
    return outputs[:-2] + outputs[-1:]


def some_ids(decoder: Qwen3ForCausalLM, batch: int = 3, length: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(decoder.config.vocab_size, (batch, length), generator=generator)


def assert_every_layer_equal(decoder: Qwen3ForCausalLM, model, offset: int) -> None:
    """Compare the outputs of embeddings, layers and head, at positions from `offset` on."""
    ids = some_ids(decoder)
    positions = torch.arange(offset, offset + ids.shape[1]).expand(ids.shape)
    expected = model(ids, position_ids=positions, output_hidden_states=True)
    found = layer_outputs(decoder, input_ids=ids, position_ids=positions)
    assert len(found) == len(expected.hidden_states) == decoder.config.num_hidden_layers + 1
    for ours, theirs in zip(found, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    torch.testing.assert_close(decoder.logits(found[-1]), expected.logits, **EXACT)


def greedy(decoder: Qwen3ForCausalLM, ids: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Continue `ids` `[1, T]` by the likeliest tokens, with a cache; checks that none is a tie."""
    cache = KVCache(decoder.config, 1, ids.shape[1] + num_tokens, "cpu", torch.float32)
    new = ids
    for _ in range(num_tokens):
        best = decoder.logits(decoder.hidden(new, cache=cache)[0, -1]).topk(2)
        assert best.values[0] - best.values[1] > 2e-4, "a near tie: choose another seed"
        new = best.indices[None, :1]
        ids = torch.cat((ids, new), dim=1)
    return ids
