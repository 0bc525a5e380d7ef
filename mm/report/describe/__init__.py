"""What a model would be made of, cost and need, without making it.

`describe` builds the parts on the meta device, where they take no memory. `costs` is arithmetic on
a decoder's config, `pictures` counts encoder and projector, `figures` puts the numbers together;
`text` and `drawing` show them in a terminal and as an SVG file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from mm import vlm
from mm.decoder.qwen3 import Qwen3Config
from mm.errors import ConfigError, MMError
from mm.report.describe import costs
from mm.report.describe.gpus import GPU, find_gpu
from mm.report.describe.pictures import PictureCosts, skipping_initialisation, trace_pictures

MOST_PIXELS = 100_000_000
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class Plan:
    """What the model is to be used for: decoding, and a training step on one GPU."""

    gpu: str | None = None
    dtype: Literal["fp32", "bf16", "8-bit", "4-bit"] = "bf16"  # of the weights when decoding
    context: int | None = None  # tokens in the cache per sequence; None: 32,768 if positions do
    batch: int = 1  # sequences decoded at once
    tokens: int = 8192  # tokens of a training step, image tokens included
    length: int = 1024  # of a row of them
    pictures: int | None = None  # of a training step; None: one per row
    checkpointing: bool = False
    frozen: tuple[Literal["encoder", "projector", "decoder"], ...] = ()

    def __post_init__(self) -> None:
        for name in ("context", "batch", "tokens", "length"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**12:
                raise ConfigError(f"{name} is {value}; it must be between 1 and 10^12")
        if self.pictures is not None and not 0 <= self.pictures <= 10**9:
            raise ConfigError(f"pictures is {self.pictures}; it must be between 0 and 10^9")
        if self.length > self.tokens:
            raise ConfigError(
                f"length is {self.length}, longer than the {self.tokens} tokens of a step: lower it"
                " or raise tokens"
            )


@dataclass(frozen=True)
class PartRow:
    """A part, its registered name, its parameters (tied ones once) and a line on its shape."""

    part: str
    name: str
    num_parameters: int
    shape: str


@dataclass(frozen=True)
class Description:
    """The parts in the order in which a picture passes them, and what they are planned for."""

    title: str
    parts: tuple[PartRow, ...]
    decoder: Qwen3Config
    pictures: PictureCosts | None  # None: a decoder alone
    plan: Plan
    gpu: GPU | None

    @property
    def num_image_tokens(self) -> int:
        """Tokens a picture takes; 0 without an encoder."""
        return self.pictures.num_tokens if self.pictures else 0

    @property
    def num_parameters(self) -> int:
        """Parameters of all parts, a tied weight once."""
        return sum(row.num_parameters for row in self.parts)

    @property
    def context(self) -> int:
        """Tokens per sequence that the cache is planned for."""
        return self.plan.context or min(32_768, costs.longest_context(self.decoder))


def describe(
    config: Mapping[str, Any],
    picture_size: tuple[int, int] = (480, 640),
    plan: Plan | None = None,
    title: str = "",
) -> Description:
    """Build the parts on the meta device, where they take no memory, and describe them.

    Args:
        config: `decoder`, and for a model that sees `encoder` and `projector`, as `mm.vlm.build`
            takes them, plain values.
        picture_size: height and width of the picture to count tokens for.
        plan: what to count for.
        title: of the drawings; by default the parts' names.

    Raises:
        ConfigError: an unknown name or field, a wrong value, parts that do not fit each other, or a
            plan that does not fit the model.
    """
    plan = plan or Plan()
    gpu = find_gpu(plan.gpu) if plan.gpu else None
    if min(picture_size) < 1 or math.prod(picture_size) > MOST_PIXELS:
        raise ConfigError(
            f"a picture of {picture_size[1]} x {picture_size[0]}: width and height must be at least"
            f" 1, and the picture at most {MOST_PIXELS:,} pixels"
        )
    pictures = None
    modules: list[tuple[str, nn.Module, str]] = []
    with _buildable(config), torch.device("meta"), skipping_initialisation():
        sees = config.get("encoder") is not None
        parts = ("encoder", "projector", "decoder") if sees else ("decoder",)
        chosen = {part: config[part] for part in parts if part in config}
        model = vlm.build({**chosen, "image_token_id": 0} if sees else chosen)
    sizes: object = model.decoder.config
    if not isinstance(sizes, Qwen3Config):
        name = config["decoder"]["name"]
        raise ConfigError(f"decoder {name!r} is no Qwen3, whose costs are all that is known here")
    if sees:
        with _buildable(config, "encoder and projector cannot be run to count"):
            pictures = trace_pictures(model, picture_size)
        grid = f"{pictures.grid[0]} x {pictures.grid[1]} patches, {pictures.encoder_width:,} wide"
        tokens = f"{pictures.num_tokens:,} tokens, {sizes.hidden_size:,} wide"
        modules = [("encoder", model.encoder, grid), ("projector", model.projector, tokens)]
    shape = f"{sizes.num_hidden_layers} layers, {sizes.vocab_size:,} ids"
    modules.append(("decoder", model.decoder, shape))
    _check_plan(plan, sizes, [part for part, *_ in modules])
    rows = tuple(
        PartRow(part, str(config[part]["name"]), count_parameters(module), shape)
        for part, module, shape in modules
    )
    return Description(
        title=title or " + ".join(row.name for row in rows),
        parts=rows,
        decoder=sizes,
        pictures=pictures,
        plan=plan,
        gpu=gpu,
    )


def count_parameters(module: nn.Module) -> int:
    """Count the parameters of a module; one that is used in two places counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _buildable(
    config: Mapping[str, Any], problem: str = "no tensors can be made in these sizes"
) -> Iterator[None]:
    """Turn what is wrong with parts, or sizes that no tensor can have, into a ConfigError."""
    for part in ("encoder", "decoder"):
        layers = ((config.get(part) or {}).get("config") or {}).get("num_hidden_layers")
        if isinstance(layers, int) and layers > MOST_LAYERS:
            raise ConfigError(
                f"num_hidden_layers of the {part} is {layers:,}; at most {MOST_LAYERS:,} can be"
                " described"
            )
    try:
        yield
    except MMError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{problem}: {reason}") from error


def _check_plan(plan: Plan, config: Qwen3Config, parts: list[str]) -> None:
    longest = costs.longest_context(config)
    if plan.context is not None and plan.context > longest:
        raise ConfigError(
            f"context is {plan.context:,}, but the decoder's positions reach to {longest:,}: lower"
            " it, or raise decoder.config.max_position_embeddings"
        )
    for part in plan.frozen:
        if part not in parts:
            raise ConfigError(f"frozen names the {part}, but this model is a decoder alone")
    if set(parts) == set(plan.frozen):
        raise ConfigError("frozen names every part, so nothing would be trained")
