"""Checks of preprocessing, and of equality with another implementation."""

from __future__ import annotations

import torch

from mm.encoders import Pictures, VisionEncoder
from mm.encoders.conformance.base import (
    Broken,
    Skipped,
    Surroundings,
    device_of,
    hard_pictures,
    patches_of,
    picture,
    some_images,
)


@torch.no_grad()
def check_pixels(encoder: VisionEncoder, around: Surroundings) -> str:
    rgb = picture(50, 70)
    expected = encoder.preprocess([rgb])
    if expected.pixel_values.dtype != torch.float32 or len(expected) != 1:
        raise Broken(
            f"preprocess gives {expected.pixel_values.dtype} and {len(expected)} pictures for one",
            "return Pictures of float32, with the views of each picture, from preprocess",
        )
    flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    tensor = flat.view(50, 70, 3).permute(2, 0, 1).contiguous()
    kept = tensor.clone()
    for kind, given in (("a tensor", [tensor]), ("a batch", tensor[None])):
        found = encoder.preprocess(given)
        if not _same(found, expected):
            raise Broken(
                f"preprocess of {kind} differs from that of the same picture",
                "put tensors and pictures through the same steps: mm.encoders.pixels.to_uint8",
            )
    if not torch.equal(tensor, kept):
        raise Broken("preprocess changes the tensor it is given", "copy before changing in place")
    pair = torch.stack([tensor, 255 - tensor])
    both, first, second = (encoder.preprocess(pair[part]) for part in ([0, 1], [0], [1]))
    if not _same(both, Pictures.cat([first, second])):
        raise Broken(
            "preprocess of two pictures differs from that of each",
            "give the pictures in order, all views of one before those of the next",
        )
    for name, hard in hard_pictures().items():
        if not _same(encoder.preprocess([hard]), encoder.preprocess([hard.convert("RGB")])):
            raise Broken(
                f"preprocess of a picture with {name} differs from that of its RGB",
                'call convert("RGB") first, as mm.encoders.pixels.to_uint8 does',
            )
    try:
        encoder.preprocess([torch.rand(3, 8, 8)])
    except ValueError:
        return f"{len(hard_pictures())} hard pictures, tensors and batches"
    raise Broken(
        "preprocess takes a tensor of floats, which it scales as if from 0 to 255",
        "raise ValueError unless the tensor is uint8: mm.encoders.pixels.to_uint8",
    )


@torch.no_grad()
def check_reference_pixels(encoder: VisionEncoder, around: Surroundings) -> str:
    if around.reference is None:
        raise Skipped("no reference given")
    level = 1 / 255 / min(getattr(encoder.config, "image_std", None) or (0.225,))
    worst = 0.0
    for name, hard in hard_pictures().items():
        found = encoder.from_processor(**around.reference.inputs(hard.convert("RGB")))
        made = encoder.preprocess([hard])
        ours, theirs = made.pixel_values.cpu(), found.pixel_values.cpu()
        same = made.grids == found.grids and ours.shape == theirs.shape
        off = float((ours - theirs).abs().max()) / level if same else float("inf")
        mean = float((ours - theirs).abs().mean()) / level if same else float("inf")
        if not (off < 2.01 and mean < 0.1):
            raise Broken(
                f"a picture with {name} is {off:.3g} of 255 levels off the reference at most,"
                f" {mean:.2g} in the mean ({list(ours.shape)} on {made.grids} and"
                f" {list(theirs.shape)} on {found.grids})",
                "compare resize rule, resample, antialiasing, rounding, crop, image_mean and"
                " image_std with preprocessor_config.json",
            )
        worst = max(worst, off)
    return f"{len(hard_pictures())} hard pictures, {worst:.2g} levels off at most"


@torch.no_grad()
def check_reference_features(encoder: VisionEncoder, around: Surroundings) -> str:
    if around.reference is None:
        raise Skipped("no reference given")
    each, expected = [], []
    for image in some_images():
        inputs = around.reference.inputs(image)
        pictures = encoder.from_processor(**inputs).to(device_of(encoder))
        each.append(patches_of(encoder, pictures).cpu().float())
        expected.append(around.reference.features(inputs, pictures.grids).float())
    ours, theirs = torch.cat(each), torch.cat(expected)
    off = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")
    if not torch.allclose(ours, theirs, atol=2e-5, rtol=1e-4):
        raise Broken(
            f"tokens are {off:.2g} off the reference ({list(ours.shape)} and"
            f" {list(theirs.shape)}); 2e-5 + 1e-4 of the value is allowed",
            "compare layer by layer with feature_layer: activation, eps of the norms, final norm,"
            " positions, prefix tokens",
        )
    return f"{off:.1g} off at most"


def _same(a: Pictures, b: Pictures) -> bool:
    return a.views == b.views and torch.equal(a.pixel_values.cpu(), b.pixel_values.cpu())
