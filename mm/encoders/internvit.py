"""InternViT: the tower of InternVL, with layer scales and without a norm at its end.

Ref: "InternVL" (arXiv 2312.14238); names follow the published `OpenGVLab/InternViT-*` checkpoints,
where query, key and value are one matrix; what transformers' `InternVLVisionModel` saves is read
too. The 6B size has root-mean-square norms, also of queries and keys over the full width. Pictures
are squashed to one square, or to several tiles as InternVL does it (`mm.encoders.tiles`), or their
middle is cut out, as the towers' own files say.

B pictures, N patches, D width, P patch size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mm.encoders import Published
from mm.encoders.blocks import (
    MLP,
    Blocks,
    RMSNorm,
    attend,
    embed_patches,
    resize_positions,
    split_heads,
)
from mm.encoders.tiles import TiledConfig, TiledEncoder


@dataclass(frozen=True)
class Config(TiledConfig):
    """Sizes of the tower, and how it wants its pictures; named as transformers' config.

    `image_size` is that of the position embeddings, `picture_size` that of the pictures given, if
    another. `feature_layer` counts from the end as -1 for the last block, or from the start as 0
    for the embeddings. There is no final norm, so `use_final_norm` can only be false. `keep_prefix`
    gives the class token too. With `max_tiles` above 1 a picture is cut into `min_tiles` to
    `max_tiles` tiles of `picture_size`, and with `use_thumbnail` seen as a whole too.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    num_channels: int = 3
    attention_bias: bool = False
    use_qk_norm: bool = False
    norm_type: Literal["layer_norm", "rms_norm"] = "layer_norm"
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float = 0.1
    hidden_act: Literal["gelu"] = "gelu"
    picture_size: int | None = None
    min_tiles: int = 1
    max_tiles: int = 1
    use_thumbnail: bool = True
    shortest_edge: int | None = None
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    feature_layer: int = -1
    use_final_norm: Literal[False] = False
    keep_prefix: bool = False

    def norm(self) -> nn.Module:
        """Make one of the blocks' norms."""
        kind = nn.LayerNorm if self.norm_type == "layer_norm" else RMSNorm
        return kind(self.hidden_size, eps=self.layer_norm_eps)


class Embeddings(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, P = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, D))
        self.patch_embedding = nn.Conv2d(config.num_channels, D, P, stride=P)
        self.position_embedding = nn.Parameter(torch.zeros(1, (config.image_size // P) ** 2 + 1, D))

    def forward(self, pixel_values: Tensor) -> Tensor:
        B, _, height, width = pixel_values.shape
        P = self.patch_embedding.kernel_size[0]
        of_class, of_patches = self.position_embedding.tensor_split([1], dim=1)
        first = (self.class_embedding + of_class).expand(B, -1, -1)
        positions = resize_positions(of_patches, (height // P, width // P))
        return torch.cat([first, embed_patches(self.patch_embedding, pixel_values) + positions], 1)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(D, 3 * D, bias=config.attention_bias)
        self.proj = nn.Linear(D, D)
        # Over the full width, before it is split into heads; the epsilon is not the blocks'.
        self.q_norm = RMSNorm(D, eps=1e-6) if config.use_qk_norm else nn.Identity()
        self.k_norm = RMSNorm(D, eps=1e-6) if config.use_qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        each = (self.q_norm(q), self.k_norm(k), v)
        return self.proj(attend(*(split_heads(one, self.num_heads) for one in each)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        D, value = config.hidden_size, config.layer_scale_init_value
        self.attn = Attention(config)
        self.mlp = MLP(D, config.intermediate_size, config.hidden_act)
        self.norm1 = config.norm()
        self.norm2 = config.norm()
        self.ls1 = nn.Parameter(torch.full((D,), value))
        self.ls2 = nn.Parameter(torch.full((D,), value))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1 * self.attn(self.norm1(x))
        return x + self.ls2 * self.mlp(self.norm2(x))  # type: ignore[no-any-return]


_TRANSFORMERS_NAMES = (
    (r"class_embedding", "cls_token"),
    (r"position_embedding", "position_embeddings"),
    (r"patch_embedding", "patch_embeddings.projection"),
    (r"encoder\.layers", "encoder.layer"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.ls(\d)", r".lambda_\1"),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
)


def transformers_names(name: str) -> list[str]:
    """Return which of transformers' tensors make one of ours; three make `qkv`."""
    for ours, theirs in _TRANSFORMERS_NAMES:
        name = re.sub(ours, theirs, name)
    parts = ("q_proj", "k_proj", "v_proj") if ".qkv." in name else ("qkv",)
    return [name.replace("qkv", part) for part in parts]


class Encoder(TiledEncoder):
    """The InternViT tower, with its preprocessing; `forward` takes any size from one patch on."""

    config: Config
    num_special_tokens = 1
    any_size = True
    published = Published(
        model_types=("intern_vit_6b", "internvl_vision"),  # the former is said by every size
        whole=("internvl",),
        prefixes=(("vision_tower.", ""),),
        ignored=(r"(language_model|multi_modal_projector)\..*",),
        fields=(
            ("qkv_bias", "attention_bias"),
            ("qk_normalization", "use_qk_norm"),
        ),
        fixed=(
            ("use_mask_token", False),
            ("use_absolute_position_embeddings", True),
            ("use_mean_pooling", True),  # otherwise there is a norm at the end
        ),
        stored_as=transformers_names,
    )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layer_scale = config.layer_scale_init_value
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[B, 3, height, width]` to patch tokens `[B, N, D]` of the chosen layer.

        Raises:
            ValueError: less than one patch, or another number of channels.
        """
        x = self.encoder(self.embeddings(self.checked(pixel_values)), self.num_layers)
        return self.without_prefix(x)
