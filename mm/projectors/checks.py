"""What projectors check of their configs, of patch grids and of tokens: one error each."""

from __future__ import annotations

from torch import Tensor


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    """Check that heads share the width evenly.

    Raises:
        ValueError: they do not.
    """
    if num_attention_heads < 1 or hidden_size % num_attention_heads:
        raise ValueError(
            f"num_attention_heads is {num_attention_heads}; it must divide the width {hidden_size}"
        )


def check_at_least_one(**counts: int) -> None:
    """Check config fields that count something.

    Raises:
        ValueError: one is below 1.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1")


def check_grid(grid: tuple[int, int], least: int = 1) -> None:
    """Check that both sides of a patch grid have at least `least` patches.

    Raises:
        ValueError: a side is shorter.
    """
    if min(grid) < least:
        raise ValueError(
            f"patch grid {grid[0]}x{grid[1]} is smaller than {least}x{least}: set the encoder's"
            " image_size larger, or have the projector make fewer tokens"
        )


def check_filled(tokens: Tensor, grid: tuple[int, int]) -> None:
    """Check that tokens `[B, N, D]` are as many as the grid has places.

    Raises:
        ValueError: they are more or fewer.
    """
    if tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(
            f"{tokens.shape[1]} tokens do not fill a patch grid {grid[0]}x{grid[1]}: leave class"
            " tokens and registers out (the encoder's keep_prefix)"
        )
