"""Reading a batch: prompts at once or in chunks, then one token a row and step.

Prompts of different lengths are padded on the left and masked, so that every row reads what it
would read alone. The steps after the prompt are computed by one of three engines, chosen here.

B rows, T prompt tokens, S cached + new tokens, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.decoder.cache import KVCache
from mm.errors import UsageError
from mm.sampling import Decode, GenerationConfig
from mm.vlm import ImageFeatures, Pictures, VisionLanguageModel

Prompts = Sequence[Sequence[int]]
Step = Callable[[Tensor], Tensor]  # tokens [B] -> logits [B, V]

# Answers from here on are worth the wait for an engine: seconds for the fused kernels, up to a
# minute for the compiler (less when it finds its files of an earlier run).
FUSED_FROM = 256
COMPILED_FROM = 512
GPU = "cuda"


@dataclass
class Batch:
    """A padded batch on its way: which cached tokens are real, and where each row stands."""

    cache: KVCache
    valid: Tensor | None  # bool [B, S at most], False at padding; None without padding
    next_position: Tensor  # [B, 1]


@torch.no_grad()
def prefill(
    model: VisionLanguageModel,
    prompts: Prompts,
    pictures: Pictures | None,
    image_features: ImageFeatures | None,
    max_length: int,
    chunk: int | None = None,
) -> tuple[Tensor, Batch]:
    """Read the prompts; return the last token's logits `[B, V]` and the batch.

    Args:
        pictures: as `mm.generate.generate`, and `image_features` too.
        max_length: slots of the cache.
        chunk: tokens to read at a time; None is all.
    """
    weight = model.decoder.model.embed_tokens.weight
    device, dtype = weight.device, weight.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    if pictures is not None:
        image_features = model.image_features(pictures.to(device))
    longest = max(map(len, prompts))
    # Which token pads does not matter, as nothing attends to it; 0 is no placeholder of an image.
    fill = 0 if model.image_token_id != 0 else 1
    missing = [longest - len(prompt) for prompt in prompts]
    rows = [[fill] * count + list(prompt) for count, prompt in zip(missing, prompts, strict=True)]
    ids = torch.tensor(rows, device=device)
    embeds = model.embed(ids, image_features)
    residuals = model.residuals(ids, image_features) or {}
    num_padded = torch.tensor(missing, device=device)[:, None]
    positions = (torch.arange(longest, device=device) - num_padded).clamp(min=0)
    next_position = positions[:, -1:] + 1
    if model.decoder.config.mrope_section:
        placed, following = model.place(prompts, image_features)
        filled = [F.pad(own, (count, 0)) for own, count in zip(placed, missing, strict=True)]
        positions = torch.stack(filled, dim=1).to(device)  # [3, B, T]
        next_position = torch.tensor(following, device=device)[:, None]
    cache = KVCache(model.decoder.config, len(prompts), max_length, device, dtype)
    valid = None
    if any(missing):
        valid = torch.arange(max_length, device=device) >= num_padded
    for start in range(0, longest, chunk or longest):
        end = min(start + (chunk or longest), longest)
        mask = None
        if valid is not None:
            keys = torch.arange(end, device=device)
            mask = (keys <= keys[start:, None]) & valid[:, None, None, :end]
        hidden = model.decoder.hidden(
            inputs_embeds=embeds[:, start:end],
            position_ids=positions[..., start:end],
            attention_mask=mask,
            cache=cache,
            residuals={layer: extra[:, start:end] for layer, extra in residuals.items()},
        )
    return model.logits(hidden[:, -1]), Batch(cache, valid, next_position)


@torch.no_grad()
def step(model: VisionLanguageModel, tokens: Tensor, batch: Batch) -> Tensor:
    """Read one new token a row `[B]`; return its logits `[B, V]`.

    A generated placeholder of an image is a token like any other.
    """
    mask = None
    if batch.valid is not None:
        mask = batch.valid[:, None, None, : batch.cache.length + 1]
    hidden = model.decoder.hidden(
        tokens[:, None], position_ids=batch.next_position, attention_mask=mask, cache=batch.cache
    )
    batch.next_position = batch.next_position + 1
    return model.logits(hidden[:, -1])


def check_length(model: VisionLanguageModel, prompt: Sequence[int]) -> None:
    """Raise UsageError unless the model can read this prompt and say at least one token."""
    limit = model.decoder.config.max_position_embeddings
    if not prompt:
        raise UsageError(f"the prompt is empty; this model reads 1 to {limit - 1} tokens")
    if len(prompt) >= limit:
        raise UsageError(
            f"the prompt takes {len(prompt)} tokens, pictures included; this model reads "
            f"1 to {limit - 1}: shorten the text"
        )


def budgets(model: VisionLanguageModel, prompts: Prompts, config: GenerationConfig) -> list[int]:
    """How many tokens each row may say; raises UsageError as `check_length`.

    Each row has its own limit, so that a long neighbour does not cut it short.
    """
    for prompt in prompts:
        check_length(model, prompt)
    limit = model.decoder.config.max_position_embeddings
    return [min(config.max_new_tokens, limit - len(prompt)) for prompt in prompts]


def choose_engine(
    model: VisionLanguageModel, batch_size: int, num_tokens: int, wanted: Decode
) -> Decode:
    """Which engine decodes: "eager", "compiled" or "fused".

    Args:
        batch_size: rows B.
        num_tokens: of the longest answer that is allowed.
        wanted: `GenerationConfig.decode`.

    Raises:
        UsageError: what was asked for does not apply here.
    """
    from mm.decoder.fused import unavailable_reason

    device = model.decoder.model.embed_tokens.weight.device
    under_autocast = torch.is_autocast_enabled(device.type)
    if wanted == "eager" or (wanted == "auto" and (device.type != GPU or under_autocast)):
        return "eager"
    if under_autocast:
        raise UsageError(f"decode is {wanted!r}, which does not run under autocast: use 'eager'")
    if wanted == "auto":
        if num_tokens >= FUSED_FROM and unavailable_reason(model.decoder, batch_size) is None:
            return "fused"
        return "compiled" if num_tokens >= COMPILED_FROM else "eager"
    reason = unavailable_reason(model.decoder, batch_size) if wanted == "fused" else None
    if reason is not None:
        raise UsageError(f"decode is 'fused', but {reason}: use 'auto'")
    return wanted


def start(
    model: VisionLanguageModel,
    prompts: Prompts,
    pictures: Pictures | None,
    image_features: ImageFeatures | None,
    config: GenerationConfig,
    num_tokens: int,
) -> tuple[Tensor, Step, Decode]:
    """Read the prompts and get ready to decode.

    Args:
        num_tokens: of the longest answer that is allowed.

    Returns:
        The last token's logits `[B, V]`; what maps each new token to the next ones; and by which
        engine. A step's logits may be overwritten by the next step.
    """
    engine = choose_engine(model, len(prompts), num_tokens, config.decode)
    longest = max(map(len, prompts))
    read = partial(prefill, model, prompts, pictures, image_features)
    if engine != "eager":
        kept = _kept(model, engine, len(prompts), longest + num_tokens)
        if kept.failure and config.decode != "auto":
            raise UsageError(f"decode {engine!r} does not work here ({kept.failure}): use 'eager'")
        if not kept.failure:
            logits, batch = read(longest, config.prefill_chunk)
            if engine == "compiled":
                kept.decoder.load(batch.cache, batch.next_position, batch.valid)
            else:
                kept.decoder.load(batch.cache, int(batch.next_position))
            return logits, kept.decoder.step, engine
        if not kept.told:
            kept.told = True
            warnings.warn(f"decoding eagerly: {engine!r} failed ({kept.failure})", stacklevel=2)
    logits, batch = read(longest + num_tokens, config.prefill_chunk)
    return logits, lambda tokens: step(model, tokens, batch), "eager"


@dataclass
class _Kept:
    """An engine that is kept with its model, as making it takes longer than an answer.

    A copy of the model starts without: recorded addresses are the original's.
    """

    key: tuple[object, ...]
    decoder: Any = None  # CompiledDecoder or FusedDecoder
    failure: str = ""  # why it could not be made; it is not tried again
    told: bool = False  # whether a warning has said so

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


def _kept(model: VisionLanguageModel, engine: Decode, batch_size: int, needed: int) -> _Kept:
    """The model's last engine if it fits this batch, else a new one."""
    from mm.decoder.compiled import CompiledDecoder, addresses, cache_length
    from mm.decoder.fused import FusedDecoder

    length = cache_length(needed, model.decoder.config.max_position_embeddings)
    key = (engine, batch_size, length, *addresses(model.decoder))
    if isinstance(model.engine, _Kept) and model.engine.key == key:
        return model.engine
    model.engine = None  # frees its memory first
    made = _Kept(key)
    try:
        if engine == "compiled":
            made.decoder = CompiledDecoder(model.decoder, batch_size, length)
        else:
            made.decoder = FusedDecoder(model.decoder, length)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise of every kind
        made.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    model.engine = made
    return made
