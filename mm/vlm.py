"""Where image tokens meet text tokens, and nothing else.

B rows, T text and image tokens of a row, I images, N patches, M tokens of an image, K images
in a batch, D decoder width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mm import decoder as decoders
from mm import encoders, projectors
from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.encoders import VisionEncoder
from mm.projectors import Projector
from mm.registry import make_config


@dataclass(frozen=True)
class Part:
    """A part's registered name and its plain config values."""

    name: str
    config: dict[str, Any]  # JSON or YAML values; the part's own dataclass checks them


@dataclass(frozen=True)
class VLMConfig:
    """What `config.json` says about the model itself; a text-only one has a decoder alone."""

    decoder: Part
    encoder: Part | None = None
    projector: Part | None = None
    image_token_id: int | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> VLMConfig:
        """Read the entries out of a larger dict, such as a checkpoint's `config.json`."""
        known = [field.name for field in dataclasses.fields(cls)]
        if not set(config) & set(known[1:]):
            known = known[:1]
        missing = [name for name in known if name not in config]
        if missing:
            raise ValueError(f"the model's config needs {', '.join(missing)}")
        parts = {}
        for name in (name for name in known if name != "image_token_id"):
            entry = config[name]
            if not isinstance(entry, Mapping):
                raise ValueError(f"{name} is {entry!r}; it must have a name and a config")
            entry = {**entry, "config": dict(entry.get("config", {}))}
            parts[name] = make_config(Part, entry, name)
        token = config["image_token_id"] if len(known) > 1 else None
        if len(known) > 1 and (not isinstance(token, int) or isinstance(token, bool)):
            raise ValueError(f"image_token_id is {token!r}; it must be a whole number")
        return cls(**parts, image_token_id=token)


def merge(text: Tensor, image: Tensor, is_image: Tensor) -> Tensor:
    """Put image rows, in order, where `is_image` is true, without asking the device for a count.

    Args:
        text: `[B, T, D]`.
        image: `[R, D]`.
        is_image: bool `[B, T]` with exactly R true.
    """
    flags = is_image.flatten()
    num_rows = image.shape[0]
    # Invert "token -> its image row": every text token writes to a slot of its own kind, the last.
    # Then the gradient is a plain gather, without the atomics of a gather's gradient.
    row = torch.where(flags, flags.cumsum(0) - 1, num_rows).clamp(max=num_rows)
    token = torch.arange(flags.numel(), device=flags.device)
    place = torch.zeros(num_rows + 1, dtype=token.dtype, device=token.device)
    place = place.scatter(0, row, token)[:num_rows]
    return text.flatten(0, 1).index_copy(0, place, image.to(text.dtype)).view_as(text)


class VisionLanguageModel(nn.Module):
    """An encoder and a projector turn pixels into tokens; a decoder reads them with the text.

    With a decoder alone it is a text-only model: `sees` is False, and pictures are refused.
    """

    # Typed as if always there: who handles pictures has a model that sees them.
    encoder: VisionEncoder
    projector: Projector

    def __init__(
        self,
        encoder: VisionEncoder | None,
        projector: Projector | None,
        decoder: Qwen3ForCausalLM,
        image_token_id: int | None,
    ) -> None:
        super().__init__()
        if not (encoder is None) == (projector is None) == (image_token_id is None):
            raise ValueError(
                "give an encoder, a projector and image_token_id together, or none of them"
            )
        self.encoder = encoder  # type: ignore[assignment]
        self.projector = projector  # type: ignore[assignment]
        self.decoder = decoder
        self.image_token_id = image_token_id
        self.engine: object = None  # the last one that `mm.steps` made to decode faster

    @property
    def sees(self) -> bool:
        """Whether this model takes pictures."""
        return self.image_token_id is not None

    @property
    def config(self) -> dict[str, Any]:
        """The plain data that `build` makes this model from: registered names and numbers."""
        if not self.sees:
            name, config = decoders.name_of(type(self.decoder)), self.decoder.config
            return {"decoder": {"name": name, "config": dataclasses.asdict(config)}}
        parts = (
            ("encoder", encoders.name_of(type(self.encoder)), self.encoder.config),
            ("projector", projectors.name_of(type(self.projector)), self.projector.config),
            ("decoder", decoders.name_of(type(self.decoder)), self.decoder.config),
        )
        described: dict[str, Any] = {
            part: {"name": name, "config": dataclasses.asdict(config)}
            for part, name, config in parts
        }
        return {**described, "image_token_id": self.image_token_id}

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator` alone, in a fixed order."""
        if self.sees:
            self.encoder.init_weights(generator)
            self.projector.init_weights(generator)
        self.decoder.init_weights(generator)

    def num_image_tokens(self, height: int, width: int) -> int:
        """Return how many tokens M a picture of this size takes, before running."""
        return self.projector.num_tokens(self.encoder.grid(height, width))

    def image_tokens(self, pixel_values: Tensor) -> Tensor:
        """Map pixel values `[I, 3, S, S]` to image tokens `[I, M, D]`.

        Raises:
            ValueError: a text-only model.
        """
        if not self.sees:
            raise ValueError("this model reads text only: leave the pictures out")
        grid = self.encoder.grid(pixel_values.shape[-2], pixel_values.shape[-1])
        return self.projector(self.encoder(pixel_values), grid)  # type: ignore[no-any-return]

    def embed(
        self,
        input_ids: Tensor,
        image_features: Tensor | None = None,
        check: bool = True,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Embed tokens `[B, T]`, and put image features at their placeholders, row by row.

        Args:
            input_ids: `[B, T]`, with `image_token_id` where an image token belongs.
            image_features: `[K, M, D]`, in the order of the placeholders.
            pixel_values: `[K, 3, S, S]` instead, which `image_tokens` makes the features of.
            check: compare the counts, which waits for the device; leave out only where the counts
                are known to match, as in a compiled training step over checked data.

        Raises:
            ValueError: the placeholders and the image tokens differ in number, so that text would
                be read as image or an image be left out; or both kinds of picture are given.
        """
        if pixel_values is not None:
            if image_features is not None:
                raise ValueError("give pixel_values or image_features, not both")
            image_features = self.image_tokens(pixel_values)
        text = self.decoder.model.embed_tokens(input_ids)
        if self.image_token_id is None:
            return text  # type: ignore[no-any-return]
        is_image = input_ids == self.image_token_id
        num_rows = 0 if image_features is None else image_features.shape[:2].numel()
        if check and int(is_image.sum()) != num_rows:
            images = 0 if image_features is None else image_features.shape[0]
            raise ValueError(
                f"the text has {int(is_image.sum())} image placeholders (token"
                f" {self.image_token_id}) for {num_rows} image tokens of {images} images: give each"
                " image one marker of num_image_tokens(height, width) placeholders, and cut no row"
                " inside an image"
            )
        if image_features is None or num_rows == 0:
            return text  # type: ignore[no-any-return]
        return merge(text, image_features.flatten(0, 1), is_image)

    def hidden(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        check: bool = True,
    ) -> Tensor:
        """Return hidden states `[B, T, D]`.

        Args:
            input_ids: `[B, T]`, with placeholders for the image tokens.
            pixel_values: `[K, 3, S, S]`, in the order of the placeholders; or give
                `image_features` `[K, M, D]`, which `image_tokens` made.
            position_ids: as `Qwen3Model.forward`.
            attention_mask: as `Qwen3Model.forward`.
            cache: as `Qwen3Model.forward`.
            check: as `embed`.

        Raises:
            ValueError: both `pixel_values` and `image_features`, or counts that differ.
        """
        embeds = self.embed(input_ids, image_features, check, pixel_values)
        return self.decoder.hidden(
            inputs_embeds=embeds,
            position_ids=position_ids,
            attention_mask=attention_mask,
            cache=cache,
        )

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Map hidden states `[..., D]` to next-token logits `[..., V]`."""
        return self.decoder.logits(hidden_states)

    def forward(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """Map tokens `[B, T]` and their pictures to logits `[B, T, V]`."""
        return self.logits(self.hidden(input_ids, pixel_values))


def build(config: Mapping[str, Any]) -> VisionLanguageModel:
    """Make a model from plain data, as `config.json` holds it; the weights are not set.

    Args:
        config: `encoder`, `projector` and `decoder` with name and config, and `image_token_id`;
            or `decoder` alone for a text-only model. Other keys are left to others.

    Raises:
        ValueError: an unknown name or field, a bad value, or parts whose widths do not meet.
    """
    parsed = VLMConfig.from_dict(config)
    decoder = decoders.build(parsed.decoder.name, parsed.decoder.config)
    if parsed.encoder is None or parsed.projector is None or parsed.image_token_id is None:
        return VisionLanguageModel(None, None, decoder, None)
    encoder = encoders.build(parsed.encoder.name, parsed.encoder.config)
    projector = projectors.build(parsed.projector.name, parsed.projector.config)
    widths = (
        ("input_size", "the encoder's hidden_size", encoder.hidden_size),
        ("output_size", "the decoder's hidden_size", decoder.config.hidden_size),
    )
    for field, where, wanted in widths:
        found = getattr(projector.config, field, wanted)
        if found != wanted:
            raise ValueError(f"the projector's {field} is {found}, but {where} is {wanted}")
    if not 0 <= parsed.image_token_id < decoder.config.vocab_size:
        raise ValueError(
            f"image_token_id is {parsed.image_token_id}; it must be below the decoder's vocab_size"
            f" {decoder.config.vocab_size}"
        )
    return VisionLanguageModel(encoder, projector, decoder, parsed.image_token_id)
