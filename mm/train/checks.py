"""Combinations that can't work, named before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm.data.shard_stream import ShardStreamConfig
from mm.errors import ConfigError
from mm.registry import make_config, unknown_name_message
from mm.train.feeds import square_side
from mm.train.recipe import RecipeConfig
from mm.vlm import VisionLanguageModel

LEAST_ABOUT_A_PICTURE = 8  # tokens: the turns' own and a word each
KINDS = ("scenes", "shards")


def check_together(
    data: Mapping[str, Any], model: VisionLanguageModel, recipe: RecipeConfig
) -> None:
    """Look whether data, model and recipe fit each other; the model may be on the meta device.

    Raises:
        ConfigError: they do not; it says what to change.
    """
    if data["kind"] not in KINDS:
        raise ConfigError(unknown_name_message("data.kind", data["kind"], KINDS))
    side = square_side(model)
    if data["kind"] == "scenes" and (side is None or model.decoder.config.mrope_section):
        raise ConfigError(
            "data=scenes draws squares and has plain positions; this encoder's views or the"
            " decoder's mrope_section need more: use data=shards"
        )
    held_out = data.get("held_out", {})
    measured = [held_out.get(name) for name in (data["kind"], "task")]
    if recipe.evaluate_every and not any(measured):
        raise ConfigError(
            f"recipe.evaluate_every is {recipe.evaluate_every}, but there is nothing to evaluate:"
            f" set data.held_out.{data['kind']}, or recipe.evaluate_every=0"
        )
    if data["kind"] == "shards" and side is not None:
        stream: ShardStreamConfig = make_config(ShardStreamConfig, data["stream"], "data.stream")
        tokens = model.num_image_tokens(side, side)
        if tokens + LEAST_ABOUT_A_PICTURE > stream.row_length:
            raise ConfigError(
                f"data.stream.row_length is {stream.row_length}, but a picture alone takes {tokens}"
                " tokens: raise it, or choose a projector that leaves fewer"
            )
