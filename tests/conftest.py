"""Tiny random models, made from the real config classes.

Their sizes are chosen so that mistakes show: query heads times head width is not the model's width,
there are two key/value heads with two query heads each, and every parameter is drawn anew, norms
and biases too, as default ones hide where a norm or a bias is applied.
"""

import pytest
import torch

from mm import projectors, vlm
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.encoders import siglip

IMAGE_TOKEN_ID = 7


def redraw(module: torch.nn.Module, seed: int = 0) -> None:
    """Draw every parameter: norms around 1, embeddings small, matrices to keep the scale."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                drawn = 1 + 0.3 * noise
            elif "embed" in name:
                drawn = 0.03 * noise
            elif name.endswith("bias"):
                drawn = 0.3 * noise
            else:
                drawn = noise * parameter[0].numel() ** -0.5
            parameter.copy_(drawn)


@pytest.fixture
def decoder_config() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rope_theta=1e4,
        max_position_embeddings=128,
    )


@pytest.fixture
def tiny_decoder(decoder_config: Qwen3Config) -> Qwen3ForCausalLM:
    decoder = Qwen3ForCausalLM(decoder_config).eval()
    redraw(decoder)
    return decoder


@pytest.fixture
def encoder_config() -> siglip.Config:
    return siglip.Config(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )


@pytest.fixture
def tiny_encoder(encoder_config: siglip.Config) -> siglip.Encoder:
    encoder = siglip.Encoder(encoder_config).eval()
    redraw(encoder, seed=1)
    return encoder


@pytest.fixture
def tiny_vlm(
    tiny_encoder: siglip.Encoder, tiny_decoder: Qwen3ForCausalLM
) -> vlm.VisionLanguageModel:
    """A whole model of 2x2 = 4 tokens an image, whose placeholder is token 7."""
    sizes = {"input_size": tiny_encoder.hidden_size, "output_size": tiny_decoder.config.hidden_size}
    projector = projectors.build("mlp", {**sizes, "shuffle": 2})
    redraw(projector, seed=2)
    return vlm.VisionLanguageModel(tiny_encoder, projector, tiny_decoder, IMAGE_TOKEN_ID).eval()
