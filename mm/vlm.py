"""Where image tokens meet text tokens, and nothing else.

B rows, T text and image tokens of a row, M tokens of an image, R those of all of a batch's images,
D decoder width, K layers of the decoder that get image features too (DeepStack).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mm import decoder as decoders
from mm import encoders, projectors
from mm.decoder.attention import Mask
from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.encoders import Grid, VisionEncoder
from mm.encoders import Pictures as Pictures
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


@dataclass(frozen=True)
class ImageFeatures:
    """What encoder and projector made of pictures, picture after picture.

    Args:
        values: `[R, (1 + K) D]`: what stands in for the placeholders' embeddings, and then what
            the decoder's first K layers are given besides.
        grids: for each picture, the grids on which the tokens of its views lie.
    """

    values: Tensor
    grids: tuple[tuple[Grid, ...], ...]

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def counts(self) -> list[int]:
        """How many tokens M each picture has."""
        return [sum(rows * columns for rows, columns in views) for views in self.grids]

    def pick(self, numbers: Sequence[int]) -> ImageFeatures:
        """Return those of the pictures of these numbers, which may repeat."""
        images = self.values.split(self.counts)
        return ImageFeatures(
            torch.cat([images[n] for n in numbers]), tuple(self.grids[n] for n in numbers)
        )


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
        return sum(map(self.projector.num_tokens, self.encoder.views(height, width)))

    def image_features(self, pictures: Pictures) -> ImageFeatures:
        """Run encoder and projector.

        Raises:
            ValueError: a text-only model.
        """
        if not self.sees:
            raise ValueError("this model reads text only: leave the pictures out")
        values = self.projector(self.encoder.tokens(pictures), pictures.grids)
        return ImageFeatures(values, self.token_grids(pictures))

    def token_grids(self, pictures: Pictures) -> tuple[tuple[Grid, ...], ...]:
        """Return the grids of the image tokens of each picture's views."""
        return tuple(tuple(map(self.projector.token_grid, views)) for views in pictures.views)

    def embed(
        self, input_ids: Tensor, image_features: ImageFeatures | None = None, check: bool = True
    ) -> Tensor:
        """Embed tokens `[B, T]`, and put image features at their placeholders, row by row.

        Args:
            input_ids: `[B, T]`, with `image_token_id` where an image token belongs.
            image_features: in the order of the placeholders.
            check: compare the counts, which waits for the device; leave out only where the counts
                are known to match, as in a compiled training step over checked data.

        Raises:
            ValueError: the placeholders and the image tokens differ in number, so that text would
                be read as image or an image be left out.
        """
        text = self.decoder.model.embed_tokens(input_ids)
        if self.image_token_id is None:
            return text  # type: ignore[no-any-return]
        is_image = input_ids == self.image_token_id
        num_rows = 0 if image_features is None else image_features.values.shape[0]
        if check and int(is_image.sum()) != num_rows:
            images = 0 if image_features is None else len(image_features)
            raise ValueError(
                f"the text has {int(is_image.sum())} image placeholders (token"
                f" {self.image_token_id}) for {num_rows} image tokens of {images} images: give each"
                " image one marker of num_image_tokens(height, width) placeholders, and cut no row"
                " inside an image"
            )
        if image_features is None or num_rows == 0:
            return text  # type: ignore[no-any-return]
        return merge(text, image_features.values[:, : text.shape[-1]], is_image)

    def residuals(
        self, input_ids: Tensor, image_features: ImageFeatures | None
    ) -> dict[int, Tensor] | None:
        """Return what the decoder's first K layers get besides, `[B, T, D]` each by layer.

        None where the projector has no such features, or there is no picture.
        """
        D = self.decoder.config.hidden_size
        if image_features is None or image_features.values.shape[1] == D:
            return None
        assert self.image_token_id is not None  # for the type checker: there are features
        is_image = input_ids.eq(self.image_token_id)
        values = image_features.values
        zeros = values.new_zeros(*input_ids.shape, D)
        further = values[:, D:].split(D, dim=1)
        return {layer: merge(zeros, extra, is_image) for layer, extra in enumerate(further)}

    def place(
        self, rows: Sequence[Sequence[int]], image_features: ImageFeatures | None
    ) -> tuple[list[Tensor], list[int]]:
        """Place each token in time, rows and columns, as a decoder with `mrope_section` reads them.

        Text counts on in all three. An image's tokens share one time, and lie in rows and columns
        from there; text goes on after the longer side. Ref: M-RoPE, "Qwen2-VL" (arXiv 2409.12191),
        section 2.1.

        Args:
            rows: token ids of each row, without padding.

        Returns:
            For each row positions `[3, T]`, and the next one.
        """
        grids = () if image_features is None else image_features.grids
        views = (view for picture in grids for view in picture)
        placed = [_placed(row, self.image_token_id, views) for row in rows]
        return [positions for positions, _ in placed], [following for _, following in placed]

    def hidden(
        self,
        input_ids: Tensor,
        pictures: Pictures | None = None,
        image_features: ImageFeatures | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Mask = None,
        cache: KVCache | None = None,
        check: bool = True,
        router_logits: list[Tensor] | None = None,
    ) -> Tensor:
        """Return hidden states `[B, T, D]`.

        Args:
            input_ids: `[B, T]`, with placeholders for the image tokens.
            pictures: in the order of the placeholders; or give what `image_features` made of them.
            position_ids: as `Qwen3Model.forward`; by default those of whole rows from their start.
            attention_mask: as `Qwen3Model.forward`.
            cache: as `Qwen3Model.forward`.
            check: as `embed`.
            router_logits: as `Qwen3Model.forward`.

        Raises:
            ValueError: both `pictures` and `image_features`, or counts that differ.
        """
        if pictures is not None:
            if image_features is not None:
                raise ValueError("give pictures or image_features, not both")
            image_features = self.image_features(pictures)
        embeds = self.embed(input_ids, image_features, check)
        if (
            position_ids is None
            and image_features is not None
            and self.decoder.config.mrope_section
        ):
            positions, _ = self.place(input_ids.tolist(), image_features)
            position_ids = torch.stack(positions, dim=1).to(input_ids.device)
        return self.decoder.hidden(
            inputs_embeds=embeds,
            position_ids=position_ids,
            attention_mask=attention_mask,
            cache=cache,
            residuals=self.residuals(input_ids, image_features),
            router_logits=router_logits,
        )

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Map hidden states `[..., D]` to next-token logits `[..., V]`."""
        return self.decoder.logits(hidden_states)

    def forward(self, input_ids: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Map tokens `[B, T]` and their pictures to logits `[B, T, V]`."""
        return self.logits(self.hidden(input_ids, pictures))


def _placed(
    row: Sequence[int], image_token_id: int | None, views: Iterator[Grid]
) -> tuple[Tensor, int]:
    """Return the positions `[3, T]` of a row's tokens, and the next one."""
    parts: list[Tensor] = []
    number, position = 0, 0
    while number < len(row):
        if row[number] != image_token_id:
            length = 1
            while number + length < len(row) and row[number + length] != image_token_id:
                length += 1
            parts.append(torch.arange(position, position + length).expand(3, -1))
            number, position = number + length, position + length
            continue
        rows, columns = next(views)
        place = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
        parts.append(position + place.view(-1, 3).T)
        number, position = number + rows * columns, position + max(rows, columns)
    return torch.cat(parts, dim=1), position


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
