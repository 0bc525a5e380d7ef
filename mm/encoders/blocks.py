"""Parts that several vision transformers are made of.

B pictures, N patches, D width, H heads, Dh head width, F feed-forward width, P patch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.encoders.packed import Packed, attend_packed


def quick_gelu(x: Tensor) -> Tensor:
    """`x * sigmoid(1.702 x)`, the approximation that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


tanh_gelu = partial(F.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "quick_gelu": quick_gelu,
    "silu": F.silu,
}


def embed_patches(conv: nn.Conv2d, pixel_values: Tensor) -> Tensor:
    """Run a convolution whose stride is its kernel as one matrix product over flattened patches.

    Args:
        conv: kernel and stride `[P, P]`.
        pixel_values: `[B, C, height, width]`. A side that P does not divide loses its last pixels,
            as in the convolution.

    Returns:
        `[B, N, D]`, patches row by row, in the type of the weights.
    """
    P = conv.kernel_size[0]
    h, w = pixel_values.shape[-2] // P, pixel_values.shape[-1] // P
    cropped = pixel_values[:, :, : h * P, : w * P].to(conv.weight.dtype)
    x_BChPwP = cropped.reshape(*cropped.shape[:2], h, P, w, P)
    patches_BNp = x_BChPwP.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return F.linear(patches_BNp, conv.weight.flatten(1), conv.bias)


def resize_positions(
    table: Tensor, grid: tuple[int, int], *, mode: str = "bicubic", antialias: bool = False
) -> Tensor:
    """Resize learned position embeddings of a square grid, in float32.

    Args:
        table: `[1, side * side, D]`.
        grid: rows and columns wanted.
        mode: "bicubic" or "bilinear".
        antialias: whether shrinking averages; published models differ in this.

    Returns:
        `[1, rows * columns, D]` in the type of `table`; the table itself if it has that grid.
    """
    side = round(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    # Contiguous, as PyTorch 2.14 shrinks channels-last tables to one column wrongly.
    x_1Dhw = table.float().unflatten(1, (side, side)).permute(0, 3, 1, 2).contiguous()
    x_1Dhw = F.interpolate(x_1Dhw, grid, mode=mode, align_corners=False, antialias=antialias)
    return x_1Dhw.flatten(2).transpose(1, 2).to(table.dtype)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`[B, N, D]` to `[B, H, N, Dh]`."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def attend(
    q_BHNDh: Tensor, k_BHNDh: Tensor, v_BHNDh: Tensor, *, packed: Packed | None = None
) -> Tensor:
    """Every token attends to every token; heads are joined again: `[B, N, D]`.

    With `packed`, B is 1, and tokens attend to those of their own view.
    """
    if packed is not None:
        return attend_packed(q_BHNDh[0], k_BHNDh[0], v_BHNDh[0], packed)[None]
    out_BHNDh = F.scaled_dot_product_attention(q_BHNDh, k_BHNDh, v_BHNDh)
    return out_BHNDh.transpose(1, 2).flatten(2)


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Tanh gelu of a linear layer's `[N, F]` in one kernel of a GPU, from `[N, D]`."""
    return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


@torch.library.custom_op("mm::linear_gelu", mutates_args=())
def _linear_gelu_op(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as an operator that the compiler does not take apart again."""
    return _linear_gelu(x, weight, bias)


@_linear_gelu_op.register_fake
def _linear_gelu_shape(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class MLP(nn.Module):
    """Two layers, `fc1` and `fc2`."""

    def __init__(self, width: int, inner_width: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(width, inner_width)
        self.fc2 = nn.Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:
        half = x.is_cuda and x.dtype in (torch.bfloat16, torch.float16)
        if self.activation is tanh_gelu and half and not torch.is_grad_enabled():
            # The matrix product applies it before it writes: F values a token are not read again.
            fused = _linear_gelu_op if torch.compiler.is_compiling() else _linear_gelu
            inner = fused(x.flatten(0, -2), self.fc1.weight, self.fc1.bias)
            return self.fc2(inner).view(*x.shape[:-1], -1)  # type: ignore[no-any-return]
        return self.fc2(self.activation(self.fc1(x)))  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """Divides by the root mean square, in float32; the weight is applied in the input's type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class LayerScale(nn.Module):
    """One learned factor a channel, `lambda1`, on what a branch adds."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class Blocks(nn.Module):
    """A stack of blocks, named as most families publish theirs."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor, num_layers: int, *context: object) -> Tensor:
        """Run the first `num_layers` blocks on `[B, N, D]`, each with the same context."""
        for layer in self.layers[:num_layers]:
            x = layer(x, *context)
        return x
