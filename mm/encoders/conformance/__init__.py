"""What every vision encoder must do, as checks that run on any of them.

A check passes, or fails with what was seen and what to change. What lies outside encoders (how a
model is saved, projectors, another implementation to compare with) is handed in as `Surroundings`.

N patches of a view, D width, h w rows and columns of patches.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from mm.encoders import VisionEncoder
from mm.encoders.conformance.base import (
    Broken,
    Reference,
    Skipped,
    Surroundings,
    TakesTokens,
    disturb,
    hard_pictures,
    picture,
    tiny_values,
)
from mm.encoders.conformance.pixels import (
    check_pixels,
    check_reference_features,
    check_reference_pixels,
)
from mm.encoders.conformance.tokens import (
    check_batch,
    check_compile,
    check_determinism,
    check_devices,
    check_dtypes,
    check_order,
    check_projectors,
    check_shapes,
    check_throughput,
)
from mm.encoders.conformance.weights import (
    check_contract,
    check_freezing,
    check_gradients,
    check_saved,
    check_state,
    check_weights,
)

__all__ = [
    "Broken",
    "CHECKS",
    "Reference",
    "Result",
    "Surroundings",
    "TakesTokens",
    "disturb",
    "hard_pictures",
    "picture",
    "run",
    "tiny_values",
]


@dataclass(frozen=True)
class Result:
    """How a check went; `fix` says what to change where it failed."""

    check: str
    status: Literal["pass", "fail", "skip"]
    detail: str
    fix: str = ""
    seconds: float = 0.0


# Each with what to change where the encoder raises something by itself.
CHECKS: dict[str, tuple[Callable[[VisionEncoder, Surroundings], str], str]] = {
    "contract": (check_contract, "build from config alone, on any device, without reading files"),
    "weights": (check_weights, "make init_weights(generator) set every parameter"),
    "shapes": (check_shapes, "take pictures of any size, or say in the error what to change"),
    "order": (check_order, "make tokens give [ΣN, D], row by row"),
    "batch": (check_batch, "take a list of pictures of several sizes in preprocess"),
    "determinism": (check_determinism, "make forward depend on pixels and weights alone"),
    "pixels": (check_pixels, "take pictures, uint8 tensors and a uint8 batch in preprocess"),
    "gradients": (check_gradients, "keep forward differentiable, in eval() too"),
    "freezing": (check_freezing, "let forward run in train() with requires_grad_(False)"),
    "dtypes": (check_dtypes, "cast pixel values to the weights' dtype in forward"),
    "devices": (check_devices, "make tensors on the pixels' device in forward"),
    "state": (check_state, "make type(encoder)(encoder.config) an encoder of the same shape"),
    "saved": (check_saved, 'register it: one file, or an entry point in group "mm.encoders"'),
    "projectors": (check_projectors, "give projectors [ΣN, D] tokens that fill the grids"),
    "compile": (check_compile, "keep .item(), prints and data-dependent Python out of forward"),
    "reference pixels": (check_reference_pixels, "give both the same pictures"),
    "reference features": (check_reference_features, "give both the same pixel values"),
    "throughput": (check_throughput, "let forward take a batch"),
}


def run(encoder: VisionEncoder, around: Surroundings | None = None) -> Iterator[Result]:
    """Run all checks, one after the other; the encoder is left as it was.

    Args:
        encoder: with weights that are not the initial ones (see `disturb`), as zero biases and
            unit norms hide mistakes.
        around: what lies outside encoders.

    Raises:
        ValueError: a name in `around.skip` is no check's.
    """
    around = around or Surroundings()
    unknown = sorted(set(around.skip) - set(CHECKS))
    if unknown:
        raise ValueError(f"no check is named {', '.join(unknown)}; known: {', '.join(CHECKS)}")
    encoder.eval()
    for name, (check, fix) in CHECKS.items():
        start = time.perf_counter()
        result = Result(name, "skip", "left out as asked")
        if name not in around.skip:
            try:
                result = Result(name, "pass", check(encoder, around))
            except Skipped as reason:
                result = Result(name, "skip", str(reason))
            except Broken as broken:
                result = Result(name, "fail", str(broken), broken.fix)
            except Exception as error:  # whatever an encoder raises is a finding about it
                said = " ".join(f"{type(error).__name__}: {error}".split())
                result = Result(name, "fail", said[:300], fix)
        yield dataclasses.replace(result, seconds=time.perf_counter() - start)
