"""Patches through two layers, without attention: an encoder that lives outside of mm."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mm.encoders.blocks import embed_patches
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
    """Sizes, and how pictures become squares (see `mm.encoders.square`)."""

    hidden_size: int = 32
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    image_size: int = 64
    patch_size: int = 16
    num_channels: int = 3
    resample: str = "bilinear"
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    feature_layer: int = -1


class Encoder(SquareEncoder):
    """Two layers on each patch."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        D, P = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, D, P, stride=P)
        self.norm = nn.LayerNorm(D)
        self.fc = nn.Linear(D, D)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]`, row by row."""
        x = embed_patches(self.patch_embedding, self.checked(pixel_values))
        return x + self.fc(torch.tanh(self.norm(x)))
