"""Checks of what `forward` gives: shapes, order, batches, types, devices, projectors, speed."""

from __future__ import annotations

import copy
import time

import torch

from mm.encoders import VisionEncoder
from mm.encoders.conformance.base import (
    Broken,
    Skipped,
    Surroundings,
    deviations_off,
    device_of,
    picture,
    some_grid,
    some_pixels,
)

SIZES = ((1, 1), (37, 53), (53, 37), (20, 400), (400, 20), (480, 640))  # height, width


@torch.no_grad()
def check_shapes(encoder: VisionEncoder, around: Surroundings) -> str:
    images = [picture(*size) for size in SIZES]
    grids = [encoder.grid(*size) for size in SIZES]
    for (height, width), grid, image in zip(SIZES, grids, images, strict=True):
        ((tokens, found),) = encoder.encode([image])
        where = f"a picture of {height}x{width}"
        count = encoder.num_prefix_tokens + grid[0] * grid[1]
        if found != grid or tokens.shape != (count, encoder.hidden_size):
            raise Broken(
                f"{where} gives tokens {list(tokens.shape)}, for a grid of {grid[0]}x{grid[1]},"
                f" {encoder.num_prefix_tokens} prefix tokens and hidden_size"
                f" {encoder.hidden_size}",
                "make grid() and hidden_size say what forward gives; leave class token and"
                " registers out, or count them in num_prefix_tokens",
            )
        if not tokens.isfinite().all():
            raise Broken(
                f"{where} gives numbers that are not finite",
                "look for a division by zero, or an exponent that overflows",
            )
    return f"{len(SIZES)} sizes, grids {', '.join(sorted({f'{h}x{w}' for h, w in grids}))}"


@torch.no_grad()
def check_order(encoder: VisionEncoder, around: Surroundings) -> str:
    h, w = some_grid(encoder)
    if min(h, w) < 2:
        raise Skipped(f"a grid of {h}x{w} has no corners")
    pixels = some_pixels(encoder, 1)
    changed = pixels.clone()
    height, width = pixels.shape[-2:]
    corner = changed[..., : height // 2, width - width // 2 :]
    corner.copy_(corner.flip(-1, -2) + 2)
    moved = (encoder(changed) - encoder(pixels)).float().norm(dim=-1)[0]
    grid = moved[encoder.num_prefix_tokens :].view(h, w)
    up, down = slice(0, h // 2), slice(h - h // 2, h)
    left, right = slice(0, w // 2), slice(w - w // 2, w)
    quarters = {
        "upper left": grid[up, left],
        "upper right": grid[up, right],
        "lower left": grid[down, left],
        "lower right": grid[down, right],
    }
    most = max(quarters, key=lambda name: float(quarters[name].mean()))
    if most != "upper right":
        raise Broken(
            f"a change in the upper right of a picture changes the tokens of the {most} most",
            "give tokens row by row: x_BDhw.flatten(2).transpose(1, 2), prefix tokens first",
        )
    return "row by row"


@torch.no_grad()
def check_batch(encoder: VisionEncoder, around: Surroundings) -> str:
    images = [picture(40, 60), picture(90, 30), picture(33, 33)]
    together = encoder.encode(images)
    worst = 0.0
    for image, (tokens, _) in zip(images, together, strict=True):
        worst = max(worst, deviations_off(encoder.encode([image])[0][0], tokens))
    if worst > 1e-3:
        raise Broken(
            f"a picture alone and in a batch differ by {worst:.2g} deviations",
            "let no statistic or mask run over the batch",
        )
    return f"differ by {worst:.1g} deviations at most"


@torch.no_grad()
def check_determinism(encoder: VisionEncoder, around: Surroundings) -> str:
    pixels = some_pixels(encoder)
    before = torch.get_rng_state()
    first, second = encoder(pixels), encoder(pixels)
    if not torch.equal(first, second) or not torch.equal(before, torch.get_rng_state()):
        raise Broken(
            "the same pixels give other tokens the second time, or a random number is drawn",
            "draw nothing in forward outside of training: nn.Dropout, not F.dropout(x)",
        )
    if not torch.equal(copy.deepcopy(encoder)(pixels), first):
        raise Broken(
            "a copy gives other tokens",
            "let copy.deepcopy(encoder) keep weights and modes, with a __deepcopy__ if need be",
        )
    return "same bits twice, and from a copy"


@torch.no_grad()
def check_dtypes(encoder: VisionEncoder, around: Surroundings) -> str:
    pixels = some_pixels(encoder)
    exact = copy.deepcopy(encoder).float()(pixels)
    seen = []
    for dtype, bound in ((torch.float64, 1e-3), (torch.bfloat16, 0.5)):
        tokens = copy.deepcopy(encoder).to(dtype)(pixels)
        mean = float((tokens.float() - exact).abs().mean() / exact.std().clamp(min=1e-12))
        if tokens.dtype != dtype or not mean < bound:
            raise Broken(
                f"as {dtype} it gives {tokens.dtype}, {mean:.2g} deviations off float32",
                "cast pixel values to the weights' dtype, and keep angles and statistics in"
                " float32",
            )
        seen.append(f"{str(dtype).removeprefix('torch.')} {mean:.1g} off")
    return ", ".join(seen)


@torch.no_grad()
def check_devices(encoder: VisionEncoder, around: Surroundings) -> str:
    fix = "make tensors on the pixels' device, and keep them as parameters or buffers"
    pixels = some_pixels(encoder)
    expected = encoder(pixels)
    try:
        tokens = copy.deepcopy(encoder).to("meta")(pixels.to("meta"))
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise Broken(f"after a move to another device it raises: {said}", fix) from None
    if not tokens.is_meta or tokens.shape != expected.shape:
        raise Broken(f"after a move the tokens are on {tokens.device}", fix)
    others = {"cuda", "cpu"} if torch.cuda.is_available() else {"cpu"}
    for device in sorted(others - {device_of(encoder).type}):
        off = deviations_off(
            copy.deepcopy(encoder).to(device)(pixels.to(device)).cpu(), expected.cpu()
        )
        if off > 0.05:
            raise Broken(f"on {device} it is {off:.2g} deviations off", fix)
    return f"shapes on meta, values on {' and '.join(sorted(others))}"


@torch.no_grad()
def check_projectors(encoder: VisionEncoder, around: Surroundings) -> str:
    if not around.projectors:
        raise Skipped("no projector given")
    grid = some_grid(encoder)
    tokens = encoder(some_pixels(encoder))[:, encoder.num_prefix_tokens :].float()
    counts = []
    for name, projector in around.projectors.items():
        try:
            promised = projector.num_tokens(grid)
        except ValueError:
            counts.append(f"{name} refuses {grid[0]}x{grid[1]}")
            continue
        found = projector(tokens, grid).shape[1]
        if found != promised:
            raise Broken(
                f"projector {name} promises {promised} tokens of a grid of {grid[0]}x{grid[1]}"
                f" and gives {found}",
                f"make num_tokens of {name} count what its forward gives",
            )
        counts.append(f"{name} {found}")
    return ", ".join(counts)


@torch.no_grad()
def check_compile(encoder: VisionEncoder, around: Surroundings) -> str:
    if around.compile_backend is None:
        raise Skipped("no backend asked for")
    pixels = some_pixels(encoder)
    traced = torch.compile(copy.deepcopy(encoder), fullgraph=True, backend=around.compile_backend)
    off = deviations_off(traced(pixels), encoder(pixels))
    if off > 0.01:
        raise Broken(
            f"compiled it is {off:.2g} deviations off",
            "let forward depend on its arguments and weights alone, not on how often it ran",
        )
    return f"one graph, {off:.1g} deviations off"


@torch.no_grad()
def check_throughput(encoder: VisionEncoder, around: Surroundings) -> str:
    pixels = some_pixels(encoder, around.batch_size)
    device = device_of(encoder)

    def once() -> float:
        start = time.perf_counter()
        encoder(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    times = sorted(once() for _ in range(5))
    rate = around.batch_size / times[2]
    if rate < around.least_per_second:
        raise Broken(
            f"{rate:.3g} pictures/s, fewer than {around.least_per_second:.3g}",
            "profile forward: attention through F.scaled_dot_product_attention, no loop over"
            " pictures or patches; or ask for less",
        )
    return f"{rate:,.3g} pictures/s in batches of {around.batch_size} on {device.type}"
