"""What a model would be made of: parameters per part and tokens per picture, without making it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mm import vlm


@dataclass(frozen=True)
class PartRow:
    """A part, its registered name, its parameters (tied ones once) and a line on its shape."""

    part: str
    name: str
    num_parameters: int
    shape: str


@dataclass(frozen=True)
class Description:
    """The parts in the order in which a picture passes them."""

    parts: tuple[PartRow, ...]
    picture_size: tuple[int, int]
    num_image_tokens: int

    def table(self) -> str:
        """Lay the description out as lines of text."""
        total = sum(row.num_parameters for row in self.parts)
        rows = [("part", "name", "parameters", "bf16", "shape")]
        rows += [
            (r.part, r.name, f"{r.num_parameters:,}", _megabytes(r.num_parameters), r.shape)
            for r in self.parts
        ]
        rows.append(("together", "", f"{total:,}", _megabytes(total), ""))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}"
            f"  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
            for row in rows
        ]
        height, width = self.picture_size
        lines.append(f"\nA picture of {width} x {height} takes {self.num_image_tokens} tokens.")
        return "\n".join(lines)


def describe(config: Mapping[str, Any], picture_size: tuple[int, int] = (480, 640)) -> Description:
    """Build the parts on the meta device, where they take no memory, and describe them.

    Args:
        config: `encoder`, `projector` and `decoder` as `mm.vlm.build` takes them, plain values.
        picture_size: height and width of the picture to count tokens for.

    Raises:
        ValueError: an unknown name or field, a wrong value, or parts that do not fit each other.
    """
    with torch.device("meta"):
        model = vlm.build({**config, "image_token_id": 0})
    rows, columns = model.encoder.grid(*picture_size)
    num_tokens = model.num_image_tokens(*picture_size)
    decoder = model.decoder.config
    shapes = (
        ("encoder", model.encoder, f"{rows} x {columns} patches, {model.encoder.hidden_size} wide"),
        ("projector", model.projector, f"{num_tokens} tokens, {decoder.hidden_size} wide"),
        (
            "decoder",
            model.decoder,
            f"{decoder.num_hidden_layers} layers, {decoder.vocab_size:,} ids",
        ),
    )
    return Description(
        parts=tuple(
            PartRow(part, str(config[part]["name"]), count_parameters(module), shape)
            for part, module, shape in shapes
        ),
        picture_size=picture_size,
        num_image_tokens=num_tokens,
    )


def count_parameters(module: nn.Module) -> int:
    """Count the parameters of a module; one that is used in two places counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _megabytes(num_parameters: int) -> str:
    return f"{2 * num_parameters / 1e6:,.1f} MB"
