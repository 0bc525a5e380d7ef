"""What pictures cost, found by running encoder and projector on tensors without data.

Any encoder that keeps the contract is counted this way; there is no formula per family.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mm.encoders import Pictures
from mm.vlm import VisionLanguageModel

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class PictureCosts:
    """Costs of one picture: forward FLOPs, and bytes kept for the backward pass under autocast."""

    size: tuple[int, int]  # height and width
    pixels: tuple[int, ...]  # shape of what the encoder reads
    views: tuple[tuple[int, int], ...]  # the patch grid of each
    encoder_width: int
    encoder_layers: int | None  # where the encoder's config tells
    num_tokens: int
    encoder_flops: int
    projector_flops: int
    encoder_bytes: int
    projector_bytes: int

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid of a view: of the last, where they differ."""
        return self.views[-1]


class skipping_initialisation(TorchFunctionMode):
    """Make modules without drawing their weights, which have no data to draw into on meta.

    Even there `normal_` would import the decompositions of all operators: a second and 150 MB.
    """

    _DRAWING = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def trace_pictures(model: VisionLanguageModel, size: tuple[int, int]) -> PictureCosts:
    """Count what a picture of `size` (height, width) costs in `model`, made on the meta device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    views = model.encoder.views(*size)
    num_tokens = model.num_image_tokens(*size)  # raises where the parts do not fit
    seen_once = model.encoder.preprocess([torch.zeros(3, *size, dtype=torch.uint8)])
    encoder, projector = copy.deepcopy(model.encoder), copy.deepcopy(model.projector)
    with FakeTensorMode(allow_non_fake_inputs=True):
        # As if on the CPU, which has a fused attention kernel; the meta device has none.
        encoder, projector = encoder.to_empty(device="cpu"), projector.to_empty(device="cpu")
        counts = []
        for number in (1, 2):
            pictures = Pictures.cat([seen_once] * number)
            pictures = replace(pictures, pixel_values=torch.empty(pictures.pixel_values.shape))
            tokens, *seen = _trace(encoder.tokens, pictures)
            tokens = tokens.detach().requires_grad_()
            _, *projected = _trace(projector, tokens, pictures.grids)
            counts.append((*seen, *projected))
    # The second picture's share is free of what is kept once, as autocast's copies of the weights.
    flops, kept, projector_flops, projector_kept = (b - a for a, b in zip(*counts, strict=True))
    return PictureCosts(
        size=size,
        pixels=tuple(pictures.pixel_values.shape[1:]),
        views=views,
        encoder_width=model.encoder.hidden_size,
        encoder_layers=getattr(model.encoder.config, "num_hidden_layers", None),
        num_tokens=num_tokens,
        encoder_flops=flops,
        projector_flops=projector_flops,
        encoder_bytes=kept,
        projector_bytes=projector_kept,
    )


def _trace(run: Callable[..., Tensor], *inputs: Any) -> tuple[Tensor, int, int]:
    """Run a part; return its output, its FLOPs and the bytes it keeps for the backward pass."""
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), tensor)  # the tensor, to keep the number taken
        return tensor

    with (
        flop_counter() as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        output = run(*inputs)
    return output, counter.get_total_flops(), sum(size for size, _ in kept.values())


def flop_counter() -> FlopCounterMode:
    """Count FLOPs of what runs within, in fused kernels too."""
    from torch.utils.flop_counter import FlopCounterMode

    fused = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        torch.ops.aten._addmm_activation: _product_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=fused)


def _product_flops(bias: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """FLOPs of `bias + left @ right`."""
    return 2 * left[0] * left[1] * right[1]


def _attention_flops(
    query: torch.Size,
    key: torch.Size,
    *_: Any,
    **__: Any,  # what the kernel takes besides
) -> int:
    """FLOPs of scores and weighted sums, `[..., queries, width]` and `[..., keys, width]`."""
    return 4 * query.numel() * key[-2]
