"""How fast a vision-language model trains in packed rows, beside transformers' Llava.

Every engine trains all its weights: float32 weights under bfloat16 autocast (ours with
`recipe.precision=bf16_residual`), AdamW, clipped gradients, pictures and conversations read from
scrubbed shards on disk by loader processes. Ours packs conversations into long rows; Llava has them
in rows of 1,024, one to a row, causal without a mask, which is the fastest way that it has. Weights
are random.

MFU is the decoder's share of the device's peak, by the two counts of `mm.train.flops`.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm.data.shard_stream import ShardBatch
from mm.errors import MMError, UsageError
from mm.registry import unknown_name_message
from mm.report import train_engines
from mm.report.bench import align, machine, say_on_stderr, write_json
from mm.report.bench_engines import wait
from mm.report.describe.choice import compose_parts
from mm.report.train_data import make_shards, packed_feed
from mm.text.tokenizer import Tokenizer
from mm.train.flops import Work, decoder_flops, peak_flops, work_of
from mm.train.progress import Progress
from mm.vlm import build

ENGINES = ("compiled", "hf-compiled", "eager", "hf-eager")
PARTS = ("encoder=siglip_base", "projector=mlp", "decoder=qwen3_0_6b")
# LLaVA 1.5's projector: a token a patch.
PLAIN = ("projector.config.shuffle=1", "+projector.config.layer_norm=false")
TOKENIZER = Path(__file__).parents[1] / "assets/scenes-12m/tokenizer.json"
WARM_UPS = 4  # steps; the number of pictures differs among them, which compiles again once


@dataclass(frozen=True)
class TrainSettings:
    """What to measure.

    Args:
        engines: names of `ENGINES`; by default all on a GPU, and those not compiled elsewhere.
        batch_sizes: tokens of a step; one row of ours.
        row_length: of Llava's rows, and the most that a conversation takes.
        steps: of a repeat.
        repeats: of each engine.
        conversations: on disk; each is read again when all are through.
        workers: loader processes.
        budget_s: start nothing after so many seconds; what is left out is said.
        device, dtype: as by default a GPU if there is one, and bfloat16 there.
        breakdown: also time each kernel of a step on a GPU.
        target: where what is measured so far is written after each engine.
    """

    engines: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (16_384, 8_192)
    row_length: int = 1024
    steps: int = 6
    repeats: int = 5
    conversations: int = 640
    workers: int = 8
    budget_s: float = 600.0
    device: str = ""
    dtype: str = ""
    seed: int = 0
    breakdown: bool = False
    target: Path | None = None

    def resolved(self) -> TrainSettings:
        """Fill in what depends on the machine.

        Raises:
            UsageError: an engine, device or dtype that is not known, or a number below 1.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        on_gpu = device.startswith("cuda")
        if on_gpu and not torch.cuda.is_available():
            raise UsageError(f"device is {device!r}, and this machine has no CUDA device: use cpu")
        dtype = self.dtype or ("bfloat16" if on_gpu else "float32")
        if dtype not in ("bfloat16", "float32"):
            raise UsageError(f"dtype is {dtype!r}; it must be bfloat16 or float32")
        for name in self.engines:
            if name not in ENGINES:
                raise UsageError(unknown_name_message("engine", name, ENGINES))
        if min((self.repeats, self.steps, *self.batch_sizes)) < 1:
            raise UsageError("repeats, steps and batch sizes must be at least 1")
        if any(size % self.row_length for size in self.batch_sizes):
            raise UsageError(f"batch sizes must be multiples of Llava's rows of {self.row_length}")
        usual = ENGINES if on_gpu else ("eager", "hf-eager")
        return replace(self, device=device, dtype=dtype, engines=self.engines or usual)


@dataclass
class Row:
    """An engine at a size: what each repeat measured, or why nothing was."""

    model: str
    engine: str
    tokens: int
    prepare_s: float = 0.0
    tokens_per_s: list[float] = field(default_factory=list)  # padding apart
    usual_flops: list[float] = field(default_factory=list)  # a second
    done_flops: list[float] = field(default_factory=list)
    data_wait: list[float] = field(default_factory=list)
    fill: float = 0.0
    label_share: float = 0.0
    keys: float = 0.0  # that a token attends to, mean
    memory_gib: float | None = None
    loss: float | None = None
    kernels: list[tuple[str, int, float]] = field(default_factory=list)
    left_out: str | None = None


def run(words: Sequence[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure with a command line's words: parts as `scripts/describe.py` takes them, and several
    `decoder=NAME`."""
    settings = TrainSettings(**options).resolved()
    decoders = [word for word in words if word.startswith("decoder=")] or [PARTS[2]]
    others = [*PARTS[:2], *(word for word in words if not word.startswith("decoder="))]
    plain = PLAIN if not any(word.startswith("projector") for word in words) else ()
    composed = [compose_parts([*others, word, *plain], conf) for word in decoders]
    models = {title: parts for parts, _, title in composed}
    return bench_train(models, settings, say_on_stderr)


def bench_train(
    models: Mapping[str, Mapping[str, Any]], settings: TrainSettings, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure each model (its parts as plain data, by title) with each engine at each size."""
    started = time.perf_counter()
    device = torch.device(settings.device)
    result: dict[str, Any] = {
        "settings": asdict(replace(settings, target=None)),
        "machine": machine(device),
        "peak_flops": peak_flops(device),
        "rows": [],
    }
    tokenizer = Tokenizer.from_file(TOKENIZER)
    for title, parts in models.items():
        if parts["decoder"]["config"]["vocab_size"] < tokenizer.vocab_size:
            raise UsageError(f"{title} needs a vocab_size of {tokenizer.vocab_size} at least")
    token = tokenizer.token_id("<|image_pad|>")
    with tempfile.TemporaryDirectory(prefix="mm-bench-") as folder:
        shards: dict[int, Path] = {}
        for title, parts in models.items():
            config = {**parts, "image_token_id": token}
            for size in settings.batch_sizes:
                for engine in settings.engines:
                    row = Row(title, engine, size)
                    left = settings.budget_s - (time.perf_counter() - started)
                    try:
                        if left < 0:
                            raise UsageError(f"the time is up ({settings.budget_s:g} s)")
                        _measure(row, config, settings, tokenizer, Path(folder), shards)
                    except (
                        MMError,
                        RuntimeError,
                        ImportError,
                    ) as error:  # memory, or no such class
                        row.left_out = " ".join(str(error).split())[:200]
                    torch.compiler.reset()
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
                    result["rows"].append(asdict(row))
                    result["seconds"] = time.perf_counter() - started
                    say(row.left_out or _line(result, result["rows"][-1]))
                    if settings.target is not None:
                        write_json(result, settings.target)
    return result


def _measure(
    row: Row,
    config: Mapping[str, Any],
    settings: TrainSettings,
    tokenizer: Tokenizer,
    folder: Path,
    shards: dict[int, Path],
) -> None:
    """Prepare an engine, warm it up, and time its repeats."""
    began = time.perf_counter()
    device = torch.device(settings.device)
    with torch.device("meta"):
        shape = build(config)
    side = shape.encoder.config.image_size
    image_tokens = shape.num_image_tokens(side, side)
    if image_tokens not in shards:
        place = folder / str(image_tokens)
        place.mkdir()
        shards[image_tokens] = make_shards(
            place,
            tokenizer,
            conversations=settings.conversations,
            tokens=settings.row_length,
            image_tokens=image_tokens,
        )
    apart = row.engine.startswith("hf-")
    length = settings.row_length if apart else row.tokens
    feed = packed_feed(shards[image_tokens], tokenizer, shape, row.tokens // length, length)
    loader = DataLoader(
        feed.dataset,
        batch_size=None,
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=8 if settings.workers else None,
    )
    make = train_engines.llava if apart else train_engines.ours
    half = settings.dtype == "bfloat16"
    where = train_engines.Setting(device, half, settings.seed, folder / "run")
    step = make(config, where, row.engine.endswith("compiled"))
    total = WARM_UPS + settings.steps * settings.repeats
    progress = Progress(total, 0, 0, device)
    batches: Iterator[ShardBatch] = progress.watch(loader)
    for _ in range(WARM_UPS):
        step(next(batches))
    wait(device)
    row.prepare_s = time.perf_counter() - began
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    everything = Work()
    for _ in range(settings.repeats):
        progress.forget()
        work, start = Work(), time.perf_counter()
        for _ in range(settings.steps):
            batch = next(batches)
            work += work_of(batch.packed)
            loss = step(batch)
        wait(device)
        took = time.perf_counter() - start
        flops = decoder_flops(shape.decoder.config, work)
        row.tokens_per_s.append(work.tokens / took)
        row.usual_flops.append(flops["usual"] / took)
        row.done_flops.append(flops["done"] / took)
        row.data_wait.append(progress.measure(total)["data_wait"])
        everything += work
        row.loss = float(loss)
        if not math.isfinite(row.loss):
            raise UsageError(f"the loss became {row.loss}")
    row.fill = everything.tokens / (settings.steps * settings.repeats * row.tokens)
    row.label_share = everything.labels / everything.tokens
    row.keys = everything.pairs / everything.tokens
    if device.type == "cuda":
        row.memory_gib = torch.cuda.max_memory_allocated(device) / 2**30
        if settings.breakdown:
            row.kernels = train_engines.kernels(step, next(batches))


def _line(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """One engine's figures for the person who waits."""
    memory = "" if row["memory_gib"] is None else f", {row['memory_gib']:.1f} GiB"
    rate = statistics.median(row["tokens_per_s"])
    shares = [_share(result, row, count) for count in ("usual_flops", "done_flops")]
    return (
        f"{row['model']} {row['engine']} x {row['tokens']}: {rate:,.0f} tok/s, MFU"
        f" {' / '.join(shares)}{memory}, waits {max(row['data_wait']):.1%}, loss {row['loss']:.2f},"
        f" ready in {row['prepare_s']:.0f} s"
    )


def _share(result: Mapping[str, Any], row: Mapping[str, Any], count: str) -> str:
    """Of the peak; of a device without a known one, TFLOP/s."""
    flops = statistics.median(row[count])
    peak = result["peak_flops"]
    return f"{flops / peak:.1%}" if peak else f"{flops / 1e12:.3g} TFLOP/s"


def table(result: Mapping[str, Any]) -> str:
    """Lay a result of `bench_train` out: medians of repeats, smallest and largest."""
    settings, about = result["settings"], result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        f"{about['device']}; {versions}",
        f"all weights trained, {settings['dtype']} over float32 (ours: the decoder's sums between"
        f" layers, too), AdamW, data from scrubbed shards"
        f" on disk; medians (smallest to largest) of n repeats of {settings['steps']} steps",
        "MFU: FLOPs of the decoder alone, of the peak"
        + (f" of {result['peak_flops'] / 1e12:,.0f} TFLOP/s" if result["peak_flops"] else ""),
        "  usual: (6 x parameters + 12 x layers x heads x head_dim x keys) a token",
        "  done:  the same without the embedding, and with the head on labelled tokens only",
        "keys: that a token attends to, mean; labels: share of the tokens; both without padding",
    ]
    heads = ("model", "engine", "tokens", "tok/s", "", "MFU usual", "done", "memory", "waits")
    cells = [(*heads, "fill", "labels", "keys", "n", "ready in")]
    left_out = []
    for row in result["rows"]:
        if row["left_out"] or not row["tokens_per_s"]:
            name = f"{row['model']} {row['engine']} x {row['tokens']}"
            left_out.append(f"{name}: left out, {row['left_out']}")
            continue
        rates = row["tokens_per_s"]
        cells.append(
            (
                row["model"],
                row["engine"],
                f"{row['tokens']:,}",
                f"{statistics.median(rates):,.0f}",
                f"({min(rates):,.0f} to {max(rates):,.0f})",
                _share(result, row, "usual_flops"),
                _share(result, row, "done_flops"),
                "" if row["memory_gib"] is None else f"{row['memory_gib']:.1f} GiB",
                f"{max(row['data_wait']):.1%}",
                f"{row['fill']:.1%}",
                f"{row['label_share']:.0%}",
                f"{row['keys']:.0f}",
                str(len(rates)),
                f"{row['prepare_s']:.0f} s",
            )
        )
    lines += ["", *align(cells, left=(0, 1)), *left_out]
    for row in result["rows"]:
        if row["kernels"]:
            spent = sum(took for _, _, took in row["kernels"])
            name = f"{row['model']} {row['engine']} x {row['tokens']}"
            lines += ["", f"{name}: {spent:.1f} ms a step in kernels"]
            longest = [
                (f"{took:.2f}", f"{n}x", kernel[:110]) for kernel, n, took in row["kernels"][:40]
            ]
            lines += align(longest, left=(2,))
    return "\n".join(lines)
