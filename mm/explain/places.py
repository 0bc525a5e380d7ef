"""Where on a picture an encoder's patches and a model's image tokens look.

How an encoder squashes, crops or cuts a picture is its own business. So it is asked, not told: it
preprocesses pictures whose colour is the place, and the pixel values say where each patch lies.

V views, N patches, P numbers of a patch; h rows and w columns of a view's grid, R side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm.encoders import Grid, VisionEncoder

Box = tuple[float, float, float, float]  # left, top, right, bottom; of the picture's sides
R = 64  # side of every map


def view_boxes(encoder: VisionEncoder, height: int, width: int) -> list[Box]:
    """Return the part of a picture that each of its views shows; outside 0..1 there is padding."""
    grids = encoder.views(height, width)
    values = encoder.preprocess(_coordinates(height, width)).pixel_values
    # Four pictures of the same views, one after the other: x, y, black and white.
    across, down, black, white = per_patch(values, grids * 4).double().chunk(4)
    span = white - black
    seen = span.abs() > 1e-6  # padding is the same in all
    span = torch.where(seen, span, 1.0)
    boxes = []
    counts = [rows * columns for rows, columns in grids]
    # A colour c of 0..255 stands for the places c / 256 to (c + 1) / 256.
    parts = [((255 * (part - black) / span + 0.5) / 256).split(counts) for part in (across, down)]
    for x, y, sees, grid in zip(*parts, seen.split(counts), grids, strict=True):
        left, right = _edges(x.view(grid), sees.view(grid))
        top, bottom = _edges(y.view(grid).T, sees.view(grid).T)
        boxes.append((left, top, right, bottom))
    return boxes


def per_patch(pixel_values: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Return the mean of each patch's numbers, `[ΣN]`: of squares, or of packed patches."""
    if pixel_values.ndim == 2:
        return pixel_values.mean(-1)
    planes = pixel_values.mean(1)
    rows, columns = grids[0]
    return torch.nn.functional.adaptive_avg_pool2d(planes[:, None], (rows, columns)).flatten()


def paint(values: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
    """Lay the values of views on the picture, each spread over its place; sums are kept.

    Args:
        values: `[..., h, w]` of each view.
        boxes: where the views lie.

    Returns:
        `[..., R, R]`; what lies on padding is lost.
    """
    painted = [
        _shares(view.shape[-2], top, bottom).to(view)
        @ view
        @ _shares(view.shape[-1], left, right).to(view).T
        for view, (left, top, right, bottom) in zip(values, boxes, strict=True)
    ]
    return torch.stack(painted).sum(0)


def cell_sums(maps: Tensor, cells: int) -> Tensor:
    """Sum maps `[..., R, R]` over `cells` x `cells` squares of equal size."""
    shares = _shares(maps.shape[-1], 0.0, 1.0, cells).to(maps)
    return shares @ maps @ shares.T


def peaks(heat: Tensor) -> Tensor:
    """Return where a map `[R, R]` is largest, bool: a coarse map has no single point."""
    top = heat.max()
    return heat >= top - 1e-6 * (top - heat.min())


def _shares(count: int, low: float, high: float, side: int = R) -> Tensor:
    """Return `[side, count]`: the share of each of `count` equal parts of low..high in each row."""
    edges = low + (high - low) * torch.arange(count + 1, dtype=torch.float64) / count
    rows = torch.arange(side + 1, dtype=torch.float64) / side
    ends = torch.minimum(edges[None, 1:], rows[1:, None])
    starts = torch.maximum(edges[None, :-1], rows[:-1, None])
    return (ends - starts).clamp(min=0) / (edges[1:] - edges[:-1])


def _edges(places: Tensor, seen: Tensor) -> tuple[float, float]:
    """Return where a view begins and ends along its columns, from the middles of `[h, w]`."""
    columns = [n for n in range(places.shape[1]) if bool(seen[:, n].any())]
    middles = [float(places[:, n][seen[:, n]].mean()) for n in columns]
    if not columns:
        return 0.0, 1.0
    if len(columns) == 1:
        half = min(middles[0], 1 - middles[0])
        return middles[0] - half, middles[0] + half
    # Inner columns alone, where there are any: padding mixes into the outer ones.
    inner = slice(1, -1) if len(columns) > 3 else slice(None)
    (first, *_, last), (start, *_, end) = columns[inner], middles[inner]
    step = (end - start) / (last - first)
    low = start - (first + 0.5) * step
    return low, low + places.shape[1] * step


def _coordinates(height: int, width: int) -> Tensor:
    """Return uint8 `[4, 3, height, width]`: columns as colour, rows as colour, black and white."""
    x = ((torch.arange(width) + 0.5) / width * 256).floor()
    y = ((torch.arange(height) + 0.5) / height * 256).floor()
    planes = [x.expand(height, width), y[:, None].expand(height, width)]
    planes += [torch.zeros(height, width), torch.full((height, width), 255.0)]
    return torch.stack(planes).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()
