"""Checks of what `forward` gives: shapes, order, batches, types, devices, projectors, speed."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

import torch

from mm.encoders import VisionEncoder
from mm.encoders.conformance.base import (
    Broken,
    Skipped,
    Surroundings,
    deviations_off,
    device_of,
    patches_of,
    picture,
    some_pictures,
)

if TYPE_CHECKING:
    from PIL.Image import Image

SIZES = ((1, 1), (37, 53), (53, 37), (20, 400), (400, 20), (480, 640))  # height, width


@torch.no_grad()
def check_shapes(encoder: VisionEncoder, around: Surroundings) -> str:
    taken, grids = 0, set()
    for height, width in SIZES:
        where = f"a picture of {height}x{width}"
        try:
            views = encoder.views(height, width)
        except ValueError as reason:
            _check_refused(encoder, height, width, str(reason))
            continue
        taken += 1
        ((tokens, found),) = encoder.encode([picture(height, width)])
        count = sum(encoder.num_prefix_tokens + h * w for h, w in views)
        if found != views or tokens.shape != (count, encoder.hidden_size):
            raise Broken(
                f"{where} gives tokens {list(tokens.shape)} on grids {found}, for"
                f" views {views}, {encoder.num_prefix_tokens} prefix tokens and hidden_size"
                f" {encoder.hidden_size}",
                "make views() and hidden_size say what preprocess and forward give; leave class"
                " token and registers out, or count them in num_prefix_tokens",
            )
        if not tokens.isfinite().all():
            raise Broken(
                f"{where} gives numbers that are not finite",
                "look for a division by zero, or an exponent that overflows",
            )
        grids |= set(views)
    if not taken:
        raise Broken("no size of picture is taken", "let views() refuse only extremes")
    listed = ", ".join(sorted(f"{h}x{w}" for h, w in grids))
    return f"{taken} of {len(SIZES)} sizes, grids {listed}"


def _check_refused(encoder: VisionEncoder, height: int, width: int, reason: str) -> None:
    """A size that `views` refuses is refused by `preprocess` in the same words."""
    try:
        encoder.preprocess([picture(height, width)])
    except ValueError as error:
        if str(error) == reason:
            return
    raise Broken(
        f"views refuses a picture of {height}x{width} ({reason}), and preprocess does not",
        "let both call one check of the size",
    )


@torch.no_grad()
def check_order(encoder: VisionEncoder, around: Surroundings) -> str:
    image = picture(160, 240).point(lambda value: value // 2)
    h, w = encoder.preprocess([image]).grids[-1]  # the last view is of the whole picture
    if h * w < 2:
        raise Skipped(f"a grid of {h}x{w} has no order")
    least = float("inf")
    for axis, (count, kind) in enumerate(((h, "row"), (w, "column"))):
        # Those in the middle, which are in the middle of a picture that is cut too.
        near = range(max(0, count // 2 - 2), min(count, count // 2 + 2))
        pictures = encoder.preprocess([image, *(_lit(image, n, count, axis) for n in near)])
        tokens = patches_of(encoder, pictures.to(device_of(encoder))).float()
        views = tokens.unflatten(0, (len(pictures), -1))[:, -h * w :].unflatten(1, (h, w))
        moved = (views[1:] - views[:1]).norm(dim=-1).mean(2 - axis)[:, near.start : near.stop]
        for n in range(len(near) - 1):
            (here, next_to), (before, there) = moved[n : n + 2, n : n + 2].tolist()
            ratio = (here + there) / max(next_to + before, 1e-12)
            if ratio < 1.02:
                raise Broken(
                    f"light on {kind} {near[n]} or {near[n + 1]} of the patches changes the"
                    f" tokens of its own {kind} {ratio:.2f} times as much as the other's",
                    "give tokens row by row: x_BDhw.flatten(2).transpose(1, 2), prefix tokens"
                    " first; undo any order by blocks",
                )
            least = min(least, ratio)
    return f"row by row, {least:.2g} times as clear as another order"


def _lit(image: Image, n: int, count: int, axis: int) -> Image:
    """Light up the n-th of `count` rows (axis 0) or columns (1) of a dark picture.

    A little, as much light would draw the attention of all patches to itself.
    """
    side = image.width if axis else image.height
    start, end = round(side * n / count), round(side * (n + 1) / count)
    box = (start, 0, end, image.height) if axis else (0, start, image.width, end)
    lit = image.copy()
    lit.paste(image.crop(box).point(lambda value: value + 16), box)
    return lit


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
    pictures = some_pictures(encoder)
    before = torch.get_rng_state()
    first, second = encoder.tokens(pictures), encoder.tokens(pictures)
    if not torch.equal(first, second) or not torch.equal(before, torch.get_rng_state()):
        raise Broken(
            "the same pixels give other tokens the second time, or a random number is drawn",
            "draw nothing in forward outside of training: nn.Dropout, not F.dropout(x)",
        )
    if not torch.equal(copy.deepcopy(encoder).tokens(pictures), first):
        raise Broken(
            "a copy gives other tokens",
            "let copy.deepcopy(encoder) keep weights and modes, with a __deepcopy__ if need be",
        )
    return "same bits twice, and from a copy"


@torch.no_grad()
def check_dtypes(encoder: VisionEncoder, around: Surroundings) -> str:
    pictures = some_pictures(encoder)
    exact = copy.deepcopy(encoder).float().tokens(pictures)
    seen = []
    for dtype, bound in ((torch.float64, 1e-3), (torch.bfloat16, 0.5)):
        tokens = copy.deepcopy(encoder).to(dtype).tokens(pictures)
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
    pictures = some_pictures(encoder)
    expected = encoder.tokens(pictures)
    try:
        tokens = copy.deepcopy(encoder).to("meta").tokens(pictures.to("meta"))
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise Broken(f"after a move to another device it raises: {said}", fix) from None
    if not tokens.is_meta or tokens.shape != expected.shape:
        raise Broken(f"after a move the tokens are on {tokens.device}", fix)
    others = {"cuda", "cpu"} if torch.cuda.is_available() else {"cpu"}
    for device in sorted(others - {device_of(encoder).type}):
        moved = copy.deepcopy(encoder).to(device).tokens(pictures.to(device))
        off = deviations_off(moved.cpu(), expected.cpu())
        if off > 0.05:
            raise Broken(f"on {device} it is {off:.2g} deviations off", fix)
    return f"shapes on meta, values on {' and '.join(sorted(others))}"


@torch.no_grad()
def check_projectors(encoder: VisionEncoder, around: Surroundings) -> str:
    if not around.projectors:
        raise Skipped("no projector given")
    pictures = some_pictures(encoder, 1)
    tokens, grids = patches_of(encoder, pictures).float(), pictures.grids
    told = " and ".join(sorted({f"{h}x{w}" for h, w in grids}))
    counts = []
    for name, projector in around.projectors.items():
        try:
            promised = sum(projector.num_tokens(grid) for grid in grids)
        except ValueError:
            counts.append(f"{name} refuses {told}")
            continue
        found = projector(tokens, grids).shape[0]
        if found != promised:
            raise Broken(
                f"projector {name} promises {promised} tokens of grids of {told} and gives {found}",
                f"make token_grid of {name} say what its project gives",
            )
        counts.append(f"{name} {found}")
    return ", ".join(counts)


@torch.no_grad()
def check_compile(encoder: VisionEncoder, around: Surroundings) -> str:
    if around.compile_backend is None:
        raise Skipped("no backend asked for")
    pictures = some_pictures(encoder)
    tokens = copy.deepcopy(encoder).tokens
    traced = torch.compile(tokens, fullgraph=True, backend=around.compile_backend)
    off = deviations_off(traced(pictures), encoder.tokens(pictures))
    if off > 0.01:
        raise Broken(
            f"compiled it is {off:.2g} deviations off",
            "let forward depend on its arguments and weights alone, not on how often it ran",
        )
    return f"one graph, {off:.1g} deviations off"


@torch.no_grad()
def check_throughput(encoder: VisionEncoder, around: Surroundings) -> str:
    pictures = some_pictures(encoder, around.batch_size)
    device = device_of(encoder)

    def once() -> float:
        start = time.perf_counter()
        encoder.tokens(pictures)
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
