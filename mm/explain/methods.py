"""Ways to ask where a model looked, behind one interface: a reading goes in, maps come out.

A map says, for one token of the answer, what each place of the picture has to do with it: the
larger, the more. Where a method can tell, below 0 speaks against the token. What methods ask of the
model is the token's log-odds.

A answer tokens, T tokens of the prompt and answer, N patches, D width, R side of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from mm.errors import UsageError
from mm.explain.attention import Attended, watched
from mm.explain.places import R, paint, view_boxes
from mm.explain.reading import Reading, blurred, shown
from mm.registry import unknown_name_message


@dataclass(frozen=True)
class Settings:
    """How finely methods look.

    Args:
        steps: of integrated gradients.
        cells: side of the grid that pictures are covered by.
        samples: orders of cells that Shapley values are the mean of.
        seed: of what is drawn at random.
    """

    steps: int = 16
    cells: int = 8
    samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "cells", "samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.cells > R:
            raise UsageError(f"cells is {self.cells}; a map has {R} rows, so {R} at most")


Method = Callable[[Reading, Settings], Tensor]


def rollout(reading: Reading, settings: Settings) -> Tensor:
    """Follow attention through the decoder's layers, the mean of heads and residual half and half.

    Ref: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3. It looks
    at the decoder alone, so a map is as fine as the grid of image tokens, and it does not know
    what the attention was for.
    """
    with torch.no_grad(), watched(reading.vlm.decoder) as layers:
        pictures = reading.preprocess(reading.image[None])
        reading.of_features(reading.vlm.image_features(pictures))
    flow = _own_rows(reading)
    for layer in reversed(layers):
        flow = 0.5 * flow + 0.5 * flow @ layer.weights()[0].mean(0)
    return _image_tokens(reading, flow)


def gradient_attention(reading: Reading, settings: Settings) -> Tensor:
    """Follow attention, each weight counted by how much the token's log-odds hang on it.

    Ref: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", equations 5 and 6.
    As fine as the grid of image tokens.
    """
    pictures = reading.preprocess(reading.image[None])
    with torch.no_grad():
        features = reading.vlm.image_features(pictures)
    with torch.enable_grad(), watched(reading.vlm.decoder) as layers:
        values = features.values.detach().requires_grad_(True)
        told = reading.of_features(type(features)(values, features.grids))[0]
        heads = [layer.heads for layer in layers]
        flows = [
            _counted(layers, torch.autograd.grad(one, heads, retain_graph=True), row)
            for one, row in zip(told, _own_rows(reading), strict=True)
        ]
    return _image_tokens(reading, torch.stack(flows))


def gradient_tokens(reading: Reading, settings: Settings) -> Tensor:
    """Ask the gradient what replacing a patch's token by the picture's mean token would change.

    To first order, and of the encoder's tokens, so a map is as fine as its patches. Ref: gradient
    times input, Shrikumar et al. 2016 (arXiv 1605.01713), with the mean as its reference.
    """
    pictures = reading.preprocess(reading.image[None])
    with torch.no_grad():
        tokens = reading.vlm.encoder.tokens(pictures)
    with torch.enable_grad():
        tokens = tokens.detach().requires_grad_(True)
        told = reading.of_tokens(tokens, pictures)[0]
        grads = [torch.autograd.grad(one, tokens, retain_graph=True)[0] for one in told]
    change = torch.stack(grads).float() * (tokens - tokens.mean(0)).detach().float()
    return _patches(reading, change.sum(-1))


def integrated_gradients(reading: Reading, settings: Settings) -> Tensor:
    """Sum the gradient of the pixels on the straight way from a blurred picture to the picture.

    A map sums to what the token's log-odds gain on that way, but for the steps' error.
    Ref: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", section 3.
    """
    both = reading.preprocess(torch.stack([reading.image, blurred(reading.image)]))
    values, start = both.pixel_values.chunk(2)
    views = both.views[:1]
    total = torch.zeros(len(reading), *values.shape, dtype=torch.float32, device=values.device)
    middles = (torch.arange(settings.steps, dtype=values.dtype) + 0.5) / settings.steps
    for some in middles.split(reading.batch_size):
        shares = some.to(values.device).view(-1, *[1] * values.ndim)
        with torch.enable_grad():
            mixed = (start + shares * (values - start)).flatten(0, 1).requires_grad_(True)
            pictures = type(both)(mixed, views * len(some))
            told = reading.of_tokens(reading.vlm.encoder.tokens(pictures), pictures)
            for number, one in enumerate(told.sum(0)):
                (grad,) = torch.autograd.grad(one, mixed, retain_graph=True)
                total[number] += grad.unflatten(0, (len(some), -1)).sum(0)
    change = total / settings.steps * (values - start)
    return lay_pixels(reading, change)


def occlusion(reading: Reading, settings: Settings) -> Tensor:
    """Blur a window of the picture, two cells wide, and see what the token's log-odds lose.

    The window goes over the picture cell by cell; a place's value is the mean of the windows on it.
    Ref: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.
    """
    g = settings.cells
    corners = torch.cartesian_prod(torch.arange(-1, g), torch.arange(-1, g))
    windows = torch.zeros(len(corners), g, g)
    for window, (row, column) in zip(windows, corners.tolist(), strict=True):
        window[max(row, 0) : row + 2, max(column, 0) : column + 2] = 1
    lost = _log_odds(reading, torch.ones(1, g, g)) - _log_odds(reading, 1 - windows)
    maps = torch.einsum("na,nij->aij", lost, windows) / windows.sum(0)
    return paint([maps], [(0.0, 0.0, 1.0, 1.0)])


def shapley(reading: Reading, settings: Settings) -> Tensor:
    """Share the gain over the blurred picture fairly among the cells: sampled Shapley values.

    Computed by captum. Ref: Castro, Gómez and Tejada 2009, "Polynomial calculation of the Shapley
    value based on sampling". Cells are twice as wide as those of occlusion.

    Raises:
        UsageError: captum is not installed.
    """
    try:
        from captum.attr import ShapleyValueSampling
    except ImportError:
        raise UsageError("method 'shapley' needs captum: pip install 'mm[explain]'") from None
    g = max(1, settings.cells // 2)
    known: dict[bytes, Tensor] = {}

    def told(cells: Tensor, token: int) -> Tensor:  # each token asks for the same cells
        keys = [row.to(torch.uint8).numpy().tobytes() for row in cells]
        fresh = {key: row for key, row in zip(keys, cells, strict=True) if key not in known}
        if fresh:
            masks = torch.stack(list(fresh.values())).view(-1, g, g)
            known.update(zip(fresh, _log_odds(reading, masks), strict=True))
        return torch.stack([known[key][token] for key in keys])

    method, maps = ShapleyValueSampling(told), []
    with torch.random.fork_rng(devices=[]):
        for token in range(len(reading)):
            torch.manual_seed(settings.seed)
            maps.append(
                method.attribute(
                    torch.ones(1, g * g),
                    baselines=0,
                    additional_forward_args=token,
                    n_samples=settings.samples,
                    perturbations_per_eval=reading.batch_size,
                )[0]
            )
    return paint([torch.stack(maps).view(-1, g, g)], [(0.0, 0.0, 1.0, 1.0)])


METHODS: dict[str, Method] = {
    "rollout": rollout,
    "gradient_attention": gradient_attention,
    "gradient_tokens": gradient_tokens,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "shapley": shapley,
}
DEFAULT_METHOD = "occlusion"


def explain(reading: Reading, method: str, settings: Settings | None = None) -> Tensor:
    """Return a map for each token of the answer, float32 `[A, R, R]` on the CPU.

    The map of several tokens together is their sum.

    Raises:
        UsageError: an unknown method, or one whose library is not installed.
    """
    if method not in METHODS:
        raise UsageError(unknown_name_message("method", method, tuple(METHODS)))
    return METHODS[method](reading, settings or Settings()).float().cpu()


def lay_pixels(reading: Reading, change: Tensor) -> Tensor:
    """Sum changes of the picture's pixel values by patch, and lay them on the picture.

    Args:
        reading: of the picture.
        change: `[A, V, 3, S, S]` of V squares, or `[A, N, p]` of packed patches.
    """
    if change.ndim == 3:
        return _patches(reading, change.sum(-1))
    planes, ((rows, columns), *_) = change.sum(2), reading.vlm.encoder.views(*reading.size)
    share = planes.shape[-2] * planes.shape[-1] / (rows * columns)
    means = torch.nn.functional.adaptive_avg_pool2d(planes, (rows, columns))
    return _patches(reading, means.flatten(1) * share)


def available() -> list[str]:
    """Name the methods whose libraries are installed."""
    return [name for name in METHODS if name != "shapley" or find_spec("captum") is not None]


def _log_odds(reading: Reading, masks: Tensor) -> Tensor:
    """Return `[n, A]`, on the CPU, of the picture shown where masks `[n, g, g]` are 1."""
    filling = blurred(reading.image)
    parts = [
        reading.log_odds(shown(reading.image, some, filling)).cpu()
        for some in masks.split(reading.batch_size)
    ]
    return torch.cat(parts)


def _own_rows(reading: Reading) -> Tensor:
    """Return `[A, T]`: for each answer token a 1 at the row that told it."""
    T = reading.input_ids.shape[1]
    rows = torch.arange(T, device=reading.answer.device)[reading.rows]
    return torch.nn.functional.one_hot(rows, T).float()


def _counted(layers: Sequence[Attended], grads: Sequence[Tensor], flow: Tensor) -> Tensor:
    """Carry a row `[T]` back through the layers by attention times its gradient."""
    for layer, grad in zip(reversed(layers), reversed(grads), strict=True):
        counted = (layer.weights()[0] * layer.weight_gradients(grad)[0]).clamp(min=0).mean(0)
        flow = flow + flow @ counted
    return flow


def _image_tokens(reading: Reading, flow: Tensor) -> Tensor:
    """Lay what flows to the image tokens, of `[A, T]`, on the picture.

    Raises:
        UsageError: image tokens that have no place, as those of learnt queries.
    """
    projector, grids = reading.vlm.projector, reading.vlm.encoder.views(*reading.size)
    tokens = [projector.token_grid(grid) for grid in grids]
    for patches, own in zip(grids, tokens, strict=True):
        if own[0] == 1 < patches[0]:
            raise UsageError(
                "this model's image tokens have no place on the picture: take a method that looks"
                " at patches or pixels, as 'gradient_tokens' or 'occlusion'"
            )
    counts = [rows * columns for rows, columns in tokens]
    views = flow[:, reading.is_image].split(counts, dim=1)
    laid = [view.unflatten(1, own) for view, own in zip(views, tokens, strict=True)]
    return paint(laid, view_boxes(reading.vlm.encoder, *reading.size))


def _patches(reading: Reading, values: Tensor) -> Tensor:
    """Lay the values `[A, N]` of patches on the picture."""
    grids = reading.vlm.encoder.views(*reading.size)
    views = values.split([rows * columns for rows, columns in grids], dim=1)
    laid = [view.unflatten(1, grid) for view, grid in zip(views, grids, strict=True)]
    return paint(laid, view_boxes(reading.vlm.encoder, *reading.size))
