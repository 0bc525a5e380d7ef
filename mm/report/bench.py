"""How fast a decoder decodes: engines beside each other and beside the memory's read bandwidth.

A step reads all weights and the cache, so `batch / (bytes / bandwidth)` tokens a second is a
ceiling that no engine passes; each rate is given as a share of it. Weights are random: the speed of
a dense model does not depend on them.

B rows, T prompt tokens.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.errors import UsageError
from mm.registry import make_config, unknown_name_message
from mm.report.bench_engines import ENGINES, WARM_UPS, Engine, make_engine, unavailable, wait


@dataclass(frozen=True)
class DecodeSettings:
    """What to measure.

    Args:
        engines: names of `ENGINES`; by default those that are usual on the device.
        batch_sizes: by default 1 and 32 on a GPU, 1 elsewhere.
        prompt_tokens: T, random ids.
        new_tokens: after the first, a row.
        repeats: of each engine, taking turns in a new order each time.
        engine_s: end the repeats of an engine, after three, once they took so many seconds.
        budget_s: start no engine and no repeat after so many seconds; what is left out is said.
        device, dtype: by default a GPU if there is one, bfloat16 there and float32 elsewhere.
        seed: of the weights, the prompt and the order.
        breakdown: also time the fused step's kernels (`mm.report.bench_fused`).
        tune_s: also look for better cuts of its kernels, for so many seconds.
    """

    engines: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    prompt_tokens: int = 128
    new_tokens: int = 128
    repeats: int = 7
    engine_s: float = 8.0
    budget_s: float = 200.0
    device: str = ""
    dtype: str = ""
    seed: int = 0
    breakdown: bool = False
    tune_s: float = 0.0

    def resolved(self) -> DecodeSettings:
        """Fill in what depends on the machine.

        Raises:
            UsageError: an engine, device or dtype that is not known, or a number below 1.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device.split(":")[0] not in ("cpu", "cuda"):
            raise UsageError(f"device is {device!r}; it must be cpu or cuda")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"device is {device!r}, and this machine has no CUDA device: use cpu")
        on_gpu = device.startswith("cuda")
        dtype = self.dtype or ("bfloat16" if on_gpu else "float32")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise UsageError(f"dtype is {dtype!r}; it must be float32, bfloat16 or float16")
        usual = ENGINES if on_gpu else ("eager", "hf-dynamic")
        for name in self.engines:
            if name not in ENGINES:
                raise UsageError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
        batch_sizes = self.batch_sizes or ((1, 32) if on_gpu else (1,))
        for name, value in (
            ("prompt_tokens", self.prompt_tokens),
            ("new_tokens", self.new_tokens),
            ("repeats", self.repeats),
            ("batch_sizes", min(batch_sizes)),
        ):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        values = asdict(self) | {"device": device, "dtype": dtype, "batch_sizes": batch_sizes}
        return DecodeSettings(**values | {"engines": self.engines or usual})


@dataclass
class Row:
    """One engine at one batch size: raw seconds of each repeat, or why there are none."""

    engine: str
    batch_size: int
    prepare_s: float = 0.0
    first_s: list[float] = field(default_factory=list)
    rest_s: list[float] = field(default_factory=list)
    same_tokens: float | None = None  # share equal to those of the first engine of the batch size
    left_out: str | None = None


def named_config(overrides: Sequence[str], conf: Path) -> Qwen3Config:
    """Compose the sizes of a decoder, `decoder=NAME decoder.config.FIELD=VALUE ...`.

    Args:
        conf: the folder whose `decoder/` holds the names; 0.6B is taken where none is given.

    Raises:
        ValueError: an unknown name, field or value.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    known = [path.stem for path in (conf / "decoder").glob("*.yaml")]
    name, rest = "qwen3_0_6b", []
    for override in overrides:
        group, _, value = override.partition("=")
        if group != "decoder":
            rest.append(override)
        elif value in known:
            name = value
        else:
            raise UsageError(unknown_name_message("decoder configuration", value, known))
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = compose(overrides=[f"+decoder={name}", *rest])
    except HydraException as error:
        raise UsageError(" ".join(str(error).split())) from error
    values: Any = OmegaConf.to_container(composed, resolve=True)
    config: Qwen3Config = make_config(Qwen3Config, values["decoder"]["config"], f"decoder {name!r}")
    return config


def run(words: Sequence[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure with a command line's words, `decoder=NAME ...`, and fields of `DecodeSettings`."""
    config = named_config(words, conf)
    return bench_decode(config, DecodeSettings(**options), say_on_stderr)


def random_decoder(config: Qwen3Config, device: str, dtype: str, seed: int) -> Qwen3ForCausalLM:
    """A decoder with random weights, made where it will run."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device("meta"):
            decoder = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(kept)
    decoder = decoder.to_empty(device=device)
    decoder.tie_weights()
    decoder.init_weights(torch.Generator(device).manual_seed(seed))
    return decoder.eval()


def bench_decode(
    config: Qwen3Config,
    settings: DecodeSettings,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure engines on a random decoder; everything that was measured, as JSON takes it.

    Args:
        config: sizes of the decoder.
        say: told a line of progress now and then.

    Raises:
        UsageError: settings that make no sense.
    """
    started = time.perf_counter()
    settings = settings.resolved()
    longest = settings.prompt_tokens + settings.new_tokens + 1
    if longest > config.max_position_embeddings:
        raise UsageError(
            f"prompt and answer take {longest} tokens; this decoder reads"
            f" {config.max_position_embeddings}: ask for fewer"
        )
    device = torch.device(settings.device)
    bandwidth = read_bandwidth(device)
    say(f"read bandwidth {bandwidth / 1e9:,.0f} GB/s")
    decoder = random_decoder(config, settings.device, settings.dtype, settings.seed)
    reason = unavailable("fused", decoder, 1)
    if reason is not None and (settings.breakdown or settings.tune_s):
        raise UsageError(f"there is no fused step to look into: {reason}")
    rows: list[Row] = []

    def left_s() -> float:
        return settings.budget_s - (time.perf_counter() - started)

    for batch_size in settings.batch_sizes:
        rows += _measure(decoder, settings, batch_size, left_s, say)
    return {
        "settings": asdict(settings),
        "config": asdict(config),
        "machine": machine(device),
        "read_bandwidth": bandwidth,
        "bytes_per_step": {
            str(size): step_bytes(decoder, size, settings.prompt_tokens + settings.new_tokens // 2)
            for size in settings.batch_sizes
        },
        "rows": [asdict(row) for row in rows],
        "fused": _look_inside(decoder, settings, bandwidth, say),
        "seconds": time.perf_counter() - started,
    }


def _measure(
    decoder: Qwen3ForCausalLM,
    settings: DecodeSettings,
    batch_size: int,
    left_s: Callable[[], float],
    say: Callable[[str], None],
) -> list[Row]:
    """Make the engines of one batch size, then let them take turns."""
    device = decoder.model.embed_tokens.weight.device
    generator = torch.Generator().manual_seed(settings.seed)
    prompt = torch.randint(
        decoder.config.vocab_size, (batch_size, settings.prompt_tokens), generator=generator
    ).to(device)
    rows: list[Row] = []
    ready: list[tuple[Row, Engine]] = []
    said: Tensor | None = None
    for name in settings.engines:
        row = Row(name, batch_size)
        rows.append(row)
        row.left_out = unavailable(name, decoder, batch_size)
        if row.left_out is None and left_s() <= 0:
            row.left_out = f"the time is up ({settings.budget_s:g} s)"
        if row.left_out is None:
            begin = time.perf_counter()
            try:
                engine = make_engine(
                    name, decoder, batch_size, settings.prompt_tokens, settings.new_tokens
                )
                for _ in range(WARM_UPS[name]):
                    tokens = engine(prompt, settings.new_tokens).tokens
            except Exception as error:  # one engine that fails must not take the others along
                row.left_out = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            else:
                said = tokens if said is None else said
                row.same_tokens = (tokens == said).float().mean().item()
                ready.append((row, engine))
            row.prepare_s = time.perf_counter() - begin
        say(f"batch {batch_size} {name}: {row.left_out or f'ready in {row.prepare_s:.1f} s'}")
    order = random.Random(settings.seed)
    for repeat in range(settings.repeats):
        order.shuffle(ready)
        for row, engine in ready:
            enough = len(row.rest_s) >= 3 and sum(row.rest_s) + sum(row.first_s) > settings.engine_s
            if repeat and (enough or left_s() <= 0):
                continue
            timing = engine(prompt, settings.new_tokens)
            row.first_s.append(timing.first_s)
            row.rest_s.append(timing.rest_s)
    return rows


def _look_inside(
    decoder: Qwen3ForCausalLM,
    settings: DecodeSettings,
    bandwidth: float,
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Time the fused step's kernels, after a search for better cuts of them if that is wanted."""
    if not settings.breakdown and not settings.tune_s:
        return None
    from mm.report import bench_fused

    context = settings.prompt_tokens + settings.new_tokens // 2
    found: dict[str, Any] = {"default": bench_fused.breakdown(decoder, context, bandwidth)}
    if settings.tune_s:
        tuning, tries = bench_fused.tune(decoder, context, settings.tune_s, say)
        found["tries"] = tries
        found["tuned"] = bench_fused.breakdown(decoder, context, bandwidth, tuning)
    return found


def read_bandwidth(device: torch.device, num_bytes: int = 0) -> float:
    """Measure how fast memory is read, bytes a second: the best of sums over a large tensor."""
    num_bytes = num_bytes or (2**31 if device.type == "cuda" else 2**28)
    values = torch.ones(num_bytes // 4, device=device)
    best = 0.0
    for _ in range(8):
        wait(device)
        start = time.perf_counter()
        values.sum()
        wait(device)
        best = max(best, num_bytes / (time.perf_counter() - start))
    return best


def step_bytes(decoder: Qwen3ForCausalLM, batch_size: int, context: int) -> dict[str, float]:
    """Bytes that a step must read at least: weights (for experts, those chosen) and cache.

    With experts, rows choose independently: `E (1 - (1 - k / E)^B)` of E are expected to be read.
    """
    config = decoder.config
    weights = 0.0
    for name, parameter in decoder.named_parameters():
        share = 1.0
        if ".experts." in name:
            missed = (1 - config.num_experts_per_tok / config.num_experts) ** batch_size
            share = 1 - missed
        elif name == "model.embed_tokens.weight" and not config.tie_word_embeddings:
            share = batch_size / config.vocab_size
        weights += share * parameter.numel() * parameter.element_size()
    size = decoder.model.embed_tokens.weight.element_size()
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size
    return {"weights": weights, "cache": float(batch_size * context * per_token)}


def machine(device: torch.device) -> dict[str, Any]:
    """What a number depends on: device, threads, versions."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "triton", "transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "versions": versions}
    return {
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": versions,
    }


def table(result: Mapping[str, Any]) -> str:
    """Lay a result of `bench_decode` out: medians, smallest and largest, share of the ceiling."""
    settings = result["settings"]
    bandwidth = result["read_bandwidth"]
    versions = ", ".join(f"{k} {v}" for k, v in result["machine"]["versions"].items())
    lines = [
        f"{result['machine']['device']}; {versions}",
        f"random weights in {settings['dtype']}; {settings['prompt_tokens']} prompt tokens,"
        f" {settings['new_tokens']} new; medians (smallest to largest) of n repeats",
    ]
    for size, parts in result["bytes_per_step"].items():
        needed = parts["weights"] + parts["cache"]
        lines.append(
            f"batch {size}: a step reads {parts['weights'] / 1e6:,.1f} MB of weights and"
            f" {parts['cache'] / 1e6:,.1f} MB of cache; at {bandwidth / 1e9:,.0f} GB/s the ceiling"
            f" is {int(size) * bandwidth / needed:,.0f} tok/s"
        )
    header = ("batch", "engine", "tok/s", "", "ceiling", "first token", "", "n", "ready in", "same")
    cells = [header]
    left_out = []
    for row in result["rows"]:
        if row["left_out"] or not row["rest_s"]:
            reason = row["left_out"] or "the time was up"
            left_out.append(f"batch {row['batch_size']} {row['engine']}: left out, {reason}")
            continue
        parts = result["bytes_per_step"][str(row["batch_size"])]
        ceiling = row["batch_size"] * bandwidth / (parts["weights"] + parts["cache"])
        tokens = row["batch_size"] * settings["new_tokens"]
        rates = [tokens / seconds for seconds in row["rest_s"]]
        firsts = [1e3 * seconds for seconds in row["first_s"]]
        cells.append(
            (
                str(row["batch_size"]),
                row["engine"],
                f"{statistics.median(rates):,.1f}",
                f"({min(rates):,.1f} to {max(rates):,.1f})",
                f"{statistics.median(rates) / ceiling:.1%}",
                f"{statistics.median(firsts):,.1f} ms",
                f"({min(firsts):,.1f} to {max(firsts):,.1f})",
                str(len(rates)),
                f"{row['prepare_s']:.1f} s",
                "" if row["same_tokens"] is None else f"{row['same_tokens']:.0%}",
            )
        )
    lines += ["", *align(cells), *left_out]
    if result["fused"] is not None:
        from mm.report.bench_fused import breakdown_table

        for kind in ("default", "tuned"):
            if kind in result["fused"]:
                lines += ["", f"{kind} cuts", breakdown_table(result["fused"][kind])]
    return "\n".join(lines)


def align(cells: Sequence[Sequence[str]], left: Sequence[int] = (1,)) -> list[str]:
    """Lay rows of text out in columns, to the right but for those in `left`."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, making the folder it goes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def say_on_stderr(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
