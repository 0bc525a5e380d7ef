"""Pixel shuffle: fold each square of neighbouring patches into the channels of one token.

Ref: InternVL 1.5 (arXiv 2404.16821), section 3.2. With a factor of 2, where a to d are neighbours:

    a b . .          [a b c d] [. . . .]
    c d . .    ->    [. . . .] [. . . .]      four times the channels, a quarter of the tokens
    . . . .
    . . . .
"""

from __future__ import annotations

from torch import Tensor

from mm.projectors.checks import check_filled


def shuffled_grid(grid: tuple[int, int], factor: int) -> tuple[int, int]:
    """Return the grid of tokens that is left of a patch grid.

    Raises:
        ValueError: the grid has a side that `factor` does not divide.
    """
    if grid[0] % factor or grid[1] % factor:
        raise ValueError(
            f"patch grid {grid[0]}x{grid[1]} cannot be shuffled by {factor}: set the projector's"
            " shuffle to a divisor of both sides, or the encoder's image_size (of native"
            " resolution: its grid_multiple) to a multiple"
        )
    return grid[0] // factor, grid[1] // factor


def pixel_shuffle(tokens: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """Fold `factor` x `factor` neighbouring patches into one token, `[B, N / f², f² D]`.

    The channels of a token run over (row offset, column offset, D), as InternVL's do;
    `torch.nn.functional.pixel_unshuffle` would put D first.

    Raises:
        ValueError: the grid does not match the tokens, or `factor` does not divide it.
    """
    shuffled_grid(grid, factor)
    check_filled(tokens, grid)
    if factor == 1:
        return tokens
    B, _, D = tokens.shape
    x_BhfwfD = tokens.view(B, grid[0] // factor, factor, grid[1] // factor, factor, D)
    return x_BhfwfD.transpose(2, 3).flatten(3).flatten(1, 2)
