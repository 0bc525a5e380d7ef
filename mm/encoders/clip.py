"""CLIP: a vision transformer with a class token, whose blocks are SigLIP's.

Ref: "Learning Transferable Visual Models From Natural Language Supervision" (arXiv 2103.00020);
names, sizes and preprocessing follow the published checkpoints as transformers' `CLIPVisionModel`
and `CLIPImageProcessor` run them. Left out: the projection of the class token, and resized position
embeddings. The published model does not normalise its last layer (`post_layernorm` is for the class
token alone), hence `use_final_norm` is false; LLaVA reads `feature_layer` -2.

B pictures, N patches, D width, P patch size, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import Blocks, embed_patches
from mm.encoders.siglip import EncoderLayer
from mm.encoders.square import SquareConfig, SquareEncoder


@dataclass(frozen=True)
class Config(SquareConfig):
    """Sizes of the tower, and how it wants its pictures; published names.

    `feature_layer` counts from the end as -1 for the last block, or from the start as 0 for the
    embeddings; `use_final_norm` applies `post_layernorm` to it. `shortest_edge` is that of the
    picture before its centre is cut out, None squashes; `keep_prefix` gives the class token too.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3
    layer_norm_eps: float = 1e-5
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    shortest_edge: int | None = 224
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    feature_layer: int = -1
    use_final_norm: bool = False
    keep_prefix: bool = False


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, P = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(D))
        self.patch_embedding = nn.Conv2d(config.num_channels, D, P, stride=P, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // P) ** 2 + 1, D)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = embed_patches(self.patch_embedding, pixel_values)
        first = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Encoder(SquareEncoder):
    """The CLIP vision tower, with its preprocessing."""

    config: Config
    num_special_tokens = 1
    published = Published(
        model_types=("clip_vision_model",),
        whole=("clip",),
        prefixes=(("vision_model.", ""),),
        ignored=(
            r"(vision_model\.)?embeddings\.position_ids",  # 0, 1, 2, ...: older files stored it
            r"text_model\..*",
            r"(visual|text)_projection\.weight",
            r"logit_scale",
        ),
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # sic
        self.encoder = Blocks(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, S, S]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: another size than the position embeddings were made for.
        """
        x = self.pre_layrnorm(self.embeddings(self.checked(pixel_values)))
        x = self.encoder(x, self.num_layers)
        return self.without_prefix(self.post_layernorm(x) if self.config.use_final_norm else x)
