"""SigLIP and SigLIP 2 (fixed resolution): a plain vision transformer without a class token.

Ref: "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343) and "SigLIP 2"
(arXiv 2502.14786); names, sizes and preprocessing follow the published checkpoints as transformers'
`SiglipVisionModel` and `SiglipImageProcessor` run them. Left out: the attention-pooling head, which
no vision-language model reads, and resized position embeddings. SigLIP 2's networks are those of
SigLIP; its pictures are resized bilinearly.

B pictures, N patches, D width, H heads, Dh head width, P patch size, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import MLP, Blocks, attend, embed_patches, split_heads
from mm.encoders.packed import Packed
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
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


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        P = config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, P, stride=P)
        self.position_embedding = nn.Embedding((config.image_size // P) ** 2, config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return embed_patches(self.patch_embedding, pixel_values) + self.position_embedding.weight


class Attention(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(D, D)
        self.v_proj = nn.Linear(D, D)
        self.q_proj = nn.Linear(D, D)
        self.out_proj = nn.Linear(D, D)

    def forward(self, x: Tensor, packed: Packed | None = None) -> Tensor:
        q_BHNDh, k_BHNDh, v_BHNDh = (
            split_heads(project(x), self.num_heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q_BHNDh, k_BHNDh, v_BHNDh, packed=packed))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor, packed: Packed | None = None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), packed)
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


@torch.no_grad()
def draw_weights(tower: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter of a SigLIP tower from `generator` alone, in a fixed order."""
    for name, parameter in tower.named_parameters():
        drawn = torch.empty(parameter.shape, device=generator.device)
        if name.endswith("bias"):
            drawn.zero_()
        elif "norm" in name:
            drawn.fill_(1.0)
        elif name == "embeddings.position_embedding.weight":
            drawn.normal_(0.0, 1.0 / math.sqrt(parameter.shape[1]), generator=generator)
        elif name == "embeddings.patch_embedding.weight":
            drawn.normal_(0.0, 1.0 / math.sqrt(parameter[0].numel()), generator=generator)
        else:
            bound = math.sqrt(6.0 / sum(parameter.shape))
            drawn.uniform_(-bound, bound, generator=generator)
        parameter.copy_(drawn)


class Encoder(SquareEncoder):
    """The SigLIP vision tower, with its preprocessing."""

    config: Config
    published = Published(
        model_types=("siglip_vision_model",),
        whole=("siglip",),
        prefixes=(("vision_model.", ""),),
        ignored=(
            r"(vision_model\.)?head\..*",  # attention pooling: one vector for a picture
            r"(vision_model\.)?embeddings\.position_ids",  # 0, 1, 2, ...: older files stored it
            r"text_model\..*",
            r"logit_(scale|bias)",
        ),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def init_weights(self, generator: torch.Generator) -> None:
        """Xavier-uniform blocks, LeCun-normal patches, positions of norm 1; biases 0, norms 1."""
        draw_weights(self, generator)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: another size than the position embeddings were made for.
        """
        x = self.encoder(self.embeddings(self.checked(pixel_values)), self.num_layers)
        return self.post_layernorm(x) if self.config.use_final_norm else x  # type: ignore[no-any-return]
