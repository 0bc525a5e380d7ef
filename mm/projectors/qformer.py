"""The Q-Former: learnt queries attend to one another and, in every second layer, to the image.

Ref: "BLIP-2" (arXiv 2301.12597), section 3.1; module names and the order of norms (after each sum)
as transformers' `Blip2QFormerModel`, to which it is held. Left out: the text branch and dropout.
`language_projection` then maps to the decoder's width.

B pictures, N patches, M queries, D hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm import projectors
from mm.projectors import Grid
from mm.projectors.attention import attend
from mm.projectors.checks import check_at_least_one, check_filled, check_grid, check_heads


@dataclass(frozen=True)
class Config:
    """`input_size` is the encoder's width, `output_size` the decoder's; the rest as published."""

    input_size: int
    output_size: int
    num_query_tokens: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    cross_attention_frequency: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_attention_heads)
        check_at_least_one(
            num_query_tokens=self.num_query_tokens,
            num_hidden_layers=self.num_hidden_layers,
            cross_attention_frequency=self.cross_attention_frequency,
        )


class SelfOutput(nn.Module):
    """One matrix, the sum with what came before, and the norm of it."""

    def __init__(self, input_size: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(input_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)  # type: ignore[no-any-return]


class Heads(nn.Module):
    def __init__(self, key_size: int, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(key_size, config.hidden_size)
        self.value = nn.Linear(key_size, config.hidden_size)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        return attend(self.query(x), self.key(read), self.value(read), self.num_heads)


class Attention(nn.Module):
    def __init__(self, key_size: int, config: Config) -> None:
        super().__init__()
        self.attention = Heads(key_size, config)
        self.output = SelfOutput(config.hidden_size, config)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        return self.output(self.attention(x, read), x)  # type: ignore[no-any-return]


class Intermediate(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, config: Config, sees: bool) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config)
        self.crossattention = Attention(config.input_size, config) if sees else None
        self.intermediate_query = Intermediate(config)
        self.output_query = SelfOutput(config.intermediate_size, config)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = self.attention(x, x)
        if self.crossattention is not None:
            x = self.crossattention(x, tokens)
        return self.output_query(self.intermediate_query(x), x)  # type: ignore[no-any-return]


class Layers(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            Layer(config, sees=index % config.cross_attention_frequency == 0)
            for index in range(config.num_hidden_layers)
        )

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, tokens)
        return x


class QFormer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Layers(config)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        return self.encoder(self.layernorm(queries), tokens)  # type: ignore[no-any-return]


class Projector(projectors.Projector):
    """`num_query_tokens` tokens from an image of any size."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.query_tokens = nn.Parameter(
            torch.zeros(1, config.num_query_tokens, config.hidden_size)
        )
        self.qformer = QFormer(config)
        self.language_projection = nn.Linear(config.hidden_size, config.output_size)

    def token_grid(self, grid: Grid) -> Grid:
        """Return one row of `num_query_tokens`, whatever the grid."""
        check_grid(grid)
        return 1, self.config.num_query_tokens

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices and queries from N(0, initializer_range); biases 0, norms 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.zeros(parameter.shape, device=generator.device)
            if "layernorm" in name.lower() and name.endswith("weight"):
                drawn.fill_(1.0)
            elif not name.endswith("bias"):
                drawn.normal_(0.0, self.config.initializer_range, generator=generator)
            parameter.copy_(drawn)

    def project(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens `[B, N, D_in]` to `[B, num_query_tokens, output_size]`."""
        check_grid(grid)
        check_filled(tokens, grid)
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self.language_projection(self.qformer(queries, tokens))  # type: ignore[no-any-return]
