"""The decoders that a benchmark compares, behind one call: read a prompt, then say n tokens.

All of them share one set of weights, decode greedily and never stop early. "eager", "compiled" and
"fused" are ours without a loop around them: they wait for the device only at the end. "loop" is
`mm.generate` over the fastest of them, and transformers runs its own `generate`, as users do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.sampling import Decode, GenerationConfig

ENGINES = ("eager", "compiled", "fused", "loop", "hf-dynamic", "hf-static")
# Calls before the first that counts: transformers compiles in the first and records in the next.
WARM_UPS = {"eager": 1, "compiled": 1, "fused": 1, "loop": 1, "hf-dynamic": 1, "hf-static": 3}


@dataclass(frozen=True)
class Timing:
    """Seconds until the first token, and for the tokens after it; and what was said, `[B, n]`."""

    first_s: float
    rest_s: float
    tokens: Tensor


class Engine(Protocol):
    """Reads prompts `[B, T]` and says `1 + num_tokens` tokens a row."""

    def __call__(self, prompt: Tensor, num_tokens: int) -> Timing: ...


def unavailable(name: str, decoder: Qwen3ForCausalLM, batch_size: int) -> str | None:
    """Say in one line why an engine can't run here; None if it can."""
    if name == "fused":
        from mm.decoder.fused import unavailable_reason

        return unavailable_reason(decoder, batch_size)
    if name.startswith("hf-"):
        from importlib.util import find_spec

        if find_spec("transformers") is None:
            return "it needs transformers: pip install transformers"
    return None


def make_engine(
    name: str, decoder: Qwen3ForCausalLM, batch_size: int, prompt_tokens: int, num_tokens: int
) -> Engine:
    """Make an engine for batches of one shape; compiling may take a minute.

    Raises:
        ValueError: an engine that is not in ENGINES.
    """
    max_length = prompt_tokens + num_tokens
    if name == "eager":
        return _Eager(decoder)
    if name == "compiled":
        from mm.decoder.compiled import CompiledDecoder

        compiled = CompiledDecoder(decoder, batch_size, max_length)

        def load_compiled(cache: KVCache) -> Callable[[Tensor], Tensor]:
            device = decoder.model.embed_tokens.weight.device
            position = torch.full((batch_size, 1), cache.length, device=device)
            compiled.load(cache, position, None)
            return compiled.step

        return _Ours(decoder, load_compiled)
    if name == "fused":
        from mm.decoder.fused import FusedDecoder

        return _Fused(decoder, FusedDecoder(decoder, max_length))
    if name == "loop":
        return _Loop(decoder, batch_size)
    if name in ("hf-dynamic", "hf-static"):
        return _Transformers(decoder, "static" if name == "hf-static" else None)
    raise ValueError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Ours:
    """Prefill by the readable file, then a step function over the cache that prefill left."""

    def __init__(
        self,
        decoder: Qwen3ForCausalLM,
        load: Callable[[KVCache], Callable[[Tensor], Tensor]],
    ) -> None:
        self.decoder = decoder
        self.load = load

    @torch.no_grad()
    def __call__(self, prompt: Tensor, num_tokens: int) -> Timing:
        wait(prompt.device)
        start = time.perf_counter()
        weight = self.decoder.model.embed_tokens.weight
        B, T = prompt.shape
        cache = KVCache(self.decoder.config, B, T + num_tokens, weight.device, weight.dtype)
        hidden = self.decoder.hidden(prompt, cache=cache)
        token = self.decoder.logits(hidden[:, -1]).argmax(-1)
        wait(prompt.device)
        first = time.perf_counter()
        rest = self.say(cache, token, num_tokens)
        wait(prompt.device)
        end = time.perf_counter()
        return Timing(first - start, end - first, torch.cat((token[:, None], rest), 1))

    def say(self, cache: KVCache, token: Tensor, num_tokens: int) -> Tensor:
        step = self.load(cache)
        tokens = []
        for _ in range(num_tokens):
            token = step(token).argmax(-1)
            tokens.append(token)
        return torch.stack(tokens, 1)


class _Eager(_Ours):
    def __init__(self, decoder: Qwen3ForCausalLM) -> None:
        def load(cache: KVCache) -> Callable[[Tensor], Tensor]:
            return lambda token: decoder.logits(decoder.hidden(token[:, None], cache=cache)[:, -1])

        super().__init__(decoder, load)


class _Fused(_Ours):
    def __init__(self, decoder: Qwen3ForCausalLM, fused: Any) -> None:  # Any: needs no import
        super().__init__(decoder, lambda cache: fused.step)
        self.fused = fused

    def say(self, cache: KVCache, token: Tensor, num_tokens: int) -> Tensor:
        self.fused.load(cache)
        tokens: Tensor = self.fused.greedy(num_tokens, token)
        return tokens[None]


class _Loop:
    """`mm.generate`; the time of the tokens after the first as in `_Transformers`."""

    def __init__(self, decoder: Qwen3ForCausalLM, batch_size: int) -> None:
        from mm.vlm import VisionLanguageModel

        self.model = VisionLanguageModel(None, None, decoder, None).eval()
        self.decode: Decode = "eager"
        if decoder.model.embed_tokens.weight.is_cuda:
            fused = unavailable("fused", decoder, batch_size) is None
            self.decode = "fused" if fused else "compiled"

    def __call__(self, prompt: Tensor, num_tokens: int) -> Timing:
        # The first token needs no engine, and asking for one of another length would replace it.
        first_s, _ = self._generate(prompt, 1, "eager")
        all_s, tokens = self._generate(prompt, 1 + num_tokens, self.decode)
        return Timing(first_s, all_s - first_s, tokens)

    def _generate(self, prompt: Tensor, num_tokens: int, decode: Decode) -> tuple[float, Tensor]:
        from mm.generate import generate

        wait(prompt.device)
        start = time.perf_counter()
        config = GenerationConfig(max_new_tokens=num_tokens, decode=decode)
        results = generate(self.model, prompt.tolist(), config=config)
        wait(prompt.device)
        tokens = torch.tensor([result.ids for result in results], device=prompt.device)
        return time.perf_counter() - start, tokens


class _Transformers:
    """The time of the tokens after the first is that of a whole answer less that of one token."""

    def __init__(self, decoder: Qwen3ForCausalLM, cache: str | None) -> None:
        self.model = transformers_model(decoder)
        self.options = {"cache_implementation": cache} if cache else {}

    @torch.no_grad()
    def __call__(self, prompt: Tensor, num_tokens: int) -> Timing:
        first_s, _ = self._generate(prompt, 1)
        all_s, tokens = self._generate(prompt, 1 + num_tokens)
        return Timing(first_s, all_s - first_s, tokens)

    def _generate(self, prompt: Tensor, num_tokens: int) -> tuple[float, Tensor]:
        wait(prompt.device)
        start = time.perf_counter()
        ids: Tensor = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=num_tokens,
            **self.options,
        )
        wait(prompt.device)
        return time.perf_counter() - start, ids[:, prompt.shape[1] :]


def transformers_model(decoder: Qwen3ForCausalLM) -> Any:  # Any: transformers' own class
    """Make transformers' model of the same sizes over the very same weights."""
    import transformers

    from mm.checkpoints.qwen3_config import published_config

    weight = decoder.model.embed_tokens.weight
    published = published_config(decoder.config, weight.dtype)
    auto: Any = transformers  # its classes are typed in part
    config = auto.AutoConfig.for_model(published.pop("model_type"), **published)
    with torch.device("meta"):
        model = auto.AutoModelForCausalLM.from_config(config, dtype=weight.dtype)
    model.load_state_dict(decoder.state_dict(), assign=True)
    model.tie_weights()
    with weight.device:  # no parameter, so still on the meta device
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    # No token ends an answer, and padding is not asked for.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()
