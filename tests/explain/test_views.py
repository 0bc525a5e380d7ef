"""Methods on pictures seen in squares, in tiles, and in their own proportions."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mm import encoders, projectors
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.encoders.conformance.base import tiny_values
from mm.errors import UsageError
from mm.explain.methods import METHODS, Settings, explain, lay_pixels
from mm.explain.places import R
from mm.explain.reading import Reading, blurred
from mm.vlm import VisionLanguageModel
from tests.conftest import IMAGE_TOKEN_ID, redraw

KINDS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "squares": ("siglip", {}, "mlp", {"shuffle": 2}),
    "tiles": ("internvit", {"max_tiles": 4, "shortest_edge": None}, "mlp", {"shuffle": 2}),
    "native": ("siglip2_naflex", {}, "linear", {}),
    "native, three positions, deeper features": (
        "qwen3_vl",
        {},
        "deepstack",
        {"num_residuals": 1},
    ),
}
SIZE = (64, 96)
SQUARE = (slice(32, 64), slice(72, 96))  # rows and columns of a bright square, lower right


def reading_of(kind: str, config: Qwen3Config) -> Reading:
    name, changes, joined, sizes = KINDS[kind]
    values = tiny_values(encoders.config_type(encoders.get(name)))
    encoder = encoders.build(name, {**values, **changes})
    widths = {"input_size": encoder.hidden_size, "output_size": config.hidden_size}
    projector = projectors.build(joined, {**widths, **sizes})
    if name == "qwen3_vl":
        config = replace(config, mrope_section=(4, 2, 2))
    decoder = Qwen3ForCausalLM(config)
    for seed, part in enumerate((encoder, projector, decoder)):
        redraw(part, seed)
    vlm = VisionLanguageModel(encoder, projector, decoder, IMAGE_TOKEN_ID).eval()
    image = torch.full((3, *SIZE), 90, dtype=torch.uint8)
    image[:, *SQUARE] = 250
    prompt = [5, *[IMAGE_TOKEN_ID] * vlm.num_image_tokens(*SIZE), 6]
    return Reading(vlm, image, prompt, [11, 12])


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_gives_maps(kind: str, decoder_config: Qwen3Config) -> None:
    reading = reading_of(kind, decoder_config)
    for method in METHODS:
        if method != "shapley":
            maps = explain(reading, method, Settings(steps=2, cells=2))
            assert maps.shape == (2, R, R), method
            assert maps.isfinite().all() and maps.abs().sum() > 0, method


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_pixels_sum_to_what_is_gained(kind: str, decoder_config: Qwen3Config) -> None:
    reading = reading_of(kind, decoder_config)
    maps = explain(reading, "integrated_gradients", Settings(steps=128))
    whole, soft = reading.log_odds(torch.stack([reading.image, blurred(reading.image)]))
    torch.testing.assert_close(maps.sum((1, 2)), whole - soft, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_pixels_lie_where_the_picture_changed(
    kind: str, decoder_config: Qwen3Config
) -> None:
    reading = reading_of(kind, decoder_config)
    both = torch.stack([reading.image, torch.full_like(reading.image, 90)])
    bright, plain = reading.preprocess(both).pixel_values.chunk(2)
    laid = lay_pixels(reading, (bright - plain)[None])[0]
    rows, columns = (
        slice(part.start * R // side, part.stop * R // side)
        for part, side in zip(SQUARE, SIZE, strict=True)
    )
    # Patches that it fills in part spread what is theirs.
    assert laid[rows, columns].sum() > 0.6 * laid.sum() > 0
    assert laid[: R // 4].sum() < 0.01 * laid.sum()
    assert laid[:, : R // 3].sum() < 0.01 * laid.sum()


def test_tokens_without_a_place_are_said_to_have_none(decoder_config: Qwen3Config) -> None:
    encoder = encoders.build("siglip", tiny_values(encoders.config_type(encoders.get("siglip"))))
    sizes = {"input_size": encoder.hidden_size, "output_size": decoder_config.hidden_size}
    projector = projectors.build("perceiver", {**sizes, "num_latents": 3, "num_attention_heads": 2})
    decoder = Qwen3ForCausalLM(decoder_config)
    for part in (encoder, projector, decoder):
        redraw(part)
    vlm = VisionLanguageModel(encoder, projector, decoder, IMAGE_TOKEN_ID).eval()
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, 4:9] = 200
    reading = Reading(vlm, image, [5, *[IMAGE_TOKEN_ID] * 3, 6], [11])
    with pytest.raises(UsageError, match="no place"):
        explain(reading, "rollout")
    assert explain(reading, "gradient_tokens").abs().sum() > 0
