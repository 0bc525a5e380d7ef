"""Attention weights computed again from hooks: those that the layer used."""

import torch

from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.explain.attention import watched


def test_weights_times_values_are_what_the_heads_gave(tiny_decoder: Qwen3ForCausalLM) -> None:
    ids = torch.arange(2 * 7).view(2, 7)
    with watched(tiny_decoder) as layers:
        tiny_decoder.hidden(ids)
    assert len(layers) == tiny_decoder.config.num_hidden_layers
    for layer in layers:
        weights = layer.weights()
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
        values = layer.module.v_proj(layer.x).unflatten(-1, (-1, layer.module.head_dim))
        values = values.repeat_interleave(2, dim=2)
        heads = torch.einsum("bhts,bshd->bthd", weights, values).flatten(2)
        torch.testing.assert_close(heads, layer.heads)


def test_weight_gradients_are_those_of_autograd(tiny_decoder: Qwen3ForCausalLM) -> None:
    ids = torch.arange(6)[None]
    with watched(tiny_decoder) as layers:
        hidden = tiny_decoder.hidden(ids)
    layer = layers[-1]
    wanted = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad((hidden * wanted).sum(), layer.heads, retain_graph=True)

    weights = layer.weights().requires_grad_(True)
    values = layer.module.v_proj(layer.x).detach().unflatten(-1, (-1, layer.module.head_dim))
    heads = torch.einsum("bhts,bshd->bthd", weights, values.repeat_interleave(2, dim=2))
    (explicit,) = torch.autograd.grad((heads.flatten(2) * grad).sum(), weights)
    torch.testing.assert_close(layer.weight_gradients(grad), explicit)


def test_no_hook_stays(tiny_decoder: Qwen3ForCausalLM) -> None:
    with watched(tiny_decoder) as layers:
        pass
    tiny_decoder.hidden(torch.arange(4)[None])
    assert layers == []
