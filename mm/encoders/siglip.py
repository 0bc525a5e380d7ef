"""SigLIP and SigLIP 2 (fixed resolution): a plain vision transformer without a class token.

Ref: "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343) and "SigLIP 2"
(arXiv 2502.14786); names, sizes and preprocessing follow the published checkpoints as transformers'
`SiglipVisionModel` and `SiglipImageProcessor` run them. Left out: the attention-pooling head, which
no vision-language model reads, and resized position embeddings. The patch convolution runs as one
matrix product over flattened patches, which is the same sum.

B pictures, N patches, D width, H heads, Dh head width, P patch size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.encoders import VisionEncoder
from mm.encoders.pixels import normalize, resize_uint8, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Config:
    """Sizes of the tower, and how it wants its pictures; published names.

    `feature_layer` counts from the end as -1 for the last block, -2 for the one before, or from
    the start as 0 for the embeddings; `use_final_norm` applies `post_layernorm` to it.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    hidden_act: Literal["gelu_pytorch_tanh", "gelu"] = "gelu_pytorch_tanh"
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    feature_layer: int = -1
    use_final_norm: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of"
                f" num_attention_heads {self.num_attention_heads}"
            )
        if not 1 <= self.patch_size <= self.image_size:
            raise ValueError(
                f"patch_size is {self.patch_size}; it must be between 1 and"
                f" image_size {self.image_size}"
            )
        if len(self.image_mean) != self.num_channels or len(self.image_std) != self.num_channels:
            raise ValueError(
                f"image_mean has {len(self.image_mean)} and image_std {len(self.image_std)} values;"
                f" both need num_channels = {self.num_channels}"
            )
        lowest, highest = -self.num_hidden_layers - 1, self.num_hidden_layers
        if not lowest <= self.feature_layer <= highest:
            raise ValueError(
                f"feature_layer is {self.feature_layer}; with {self.num_hidden_layers} layers it"
                f" must be between {lowest} and {highest}"
            )


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        P = config.patch_size
        self.patch_size = P
        self.grid_size = config.image_size // P
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, P, stride=P)
        self.position_embedding = nn.Embedding(self.grid_size**2, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        P, g = self.patch_size, self.grid_size
        conv = self.patch_embedding
        # A picture side that P does not divide loses its last pixels, as a strided convolution.
        cropped = pixel_values[:, :, : g * P, : g * P].to(conv.weight.dtype)
        x_BCgPgP = cropped.reshape(*cropped.shape[:2], g, P, g, P)
        patches_BNp = x_BCgPgP.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x = F.linear(patches_BNp, conv.weight.flatten(1), conv.bias)
        return x + self.position_embedding.weight


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(D, D)
        self.v_proj = nn.Linear(D, D)
        self.q_proj = nn.Linear(D, D)
        self.out_proj = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        heads = (self.num_heads, -1)
        q_BHNDh, k_BHNDh, v_BHNDh = (
            project(x).unflatten(-1, heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out_BHNDh = F.scaled_dot_product_attention(q_BHNDh, k_BHNDh, v_BHNDh)
        return self.out_proj(out_BHNDh.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.approximate = "tanh" if config.hidden_act == "gelu_pytorch_tanh" else "none"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Blocks(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, num_layers: int) -> Tensor:
        for layer in self.layers[:num_layers]:
            x = layer(x)
        return x


class Encoder(VisionEncoder):
    """The SigLIP vision tower, with its preprocessing."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @property
    def hidden_size(self) -> int:
        """Width D of a token."""
        return self.config.hidden_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the patch grid: the same for every picture, as all are squashed to one size."""
        side = self.config.image_size // self.config.patch_size
        return side, side

    def preprocess(self, images: Sequence[Image | Tensor] | Tensor) -> Tensor:
        """Squash each picture to the square, on 8-bit values with antialiasing, and normalise."""
        config = self.config
        size = (config.image_size, config.image_size)
        if isinstance(images, Tensor):
            pixels = resize_uint8(images, size, config.resample)
        else:
            resized = [
                resize_uint8(to_uint8(image)[None], size, config.resample) for image in images
            ]
            pixels = torch.cat(resized)
        return normalize(pixels, config.image_mean, config.image_std)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Xavier-uniform blocks, LeCun-normal patches, positions of norm 1; biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.empty(parameter.shape, device=generator.device)
            if name.endswith("bias"):
                drawn.zero_()
            elif "norm" in name:
                drawn.fill_(1.0)
            elif name == "embeddings.position_embedding.weight":
                drawn.normal_(0.0, 1.0 / math.sqrt(self.config.hidden_size), generator=generator)
            elif name == "embeddings.patch_embedding.weight":
                fan_in = parameter[0].numel()
                drawn.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            else:
                bound = math.sqrt(6.0 / sum(parameter.shape))
                drawn.uniform_(-bound, bound, generator=generator)
            parameter.copy_(drawn)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: another size than the position embeddings were made for.
        """
        config = self.config
        wanted = (config.num_channels, config.image_size, config.image_size)
        if pixel_values.shape[1:] != wanted:
            raise ValueError(
                f"pixel values are {tuple(pixel_values.shape)}; this encoder needs [B, "
                f"{', '.join(map(str, wanted))}]: use its preprocess()"
            )
        layer = config.feature_layer
        num_layers = layer if layer >= 0 else config.num_hidden_layers + 1 + layer
        x = self.encoder(self.embeddings(pixel_values), num_layers)
        return self.post_layernorm(x) if config.use_final_norm else x  # type: ignore[no-any-return]
