"""How fast an encoder is: ours and transformers' of the same sizes, beside a matrix product's rate.

Both run on the same pixel values and weights, forward only; preprocessing is not counted. Nearly
all work of a vision transformer is matrix products, so the rate of a large one, measured in the
same run, is a ceiling; each engine is given as a share of it.

B pictures, N tokens, D width.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mm.checkpoints.fill import unfilled
from mm.encoders import Pictures, VisionEncoder
from mm.encoders.native import NativeEncoder
from mm.errors import UsageError
from mm.report.bench import align, machine, say_on_stderr
from mm.report.bench_engines import wait
from mm.report.check_encoder import named_encoder
from mm.report.describe.pictures import flop_counter

# How `torch.compile` is asked; transformers' engines have the same, after "hf-".
MODES = {
    "eager": None,
    "compiled": "default",
    "graphs": "reduce-overhead",
    "tuned": "max-autotune",
}
ENGINES = (*MODES, *(f"hf-{mode}" for mode in MODES))
USUAL = {"cuda": ("compiled", "hf-compiled", "eager", "hf-eager"), "cpu": ("eager", "hf-eager")}
OWN = (  # fields of ours that say how pictures are prepared and which tokens are given
    "resample", "image_mean", "image_std", "shortest_edge", "picture_size", "feature_layer",
    "use_final_norm", "keep_prefix",
)  # fmt: skip
WINDOW_S = 0.1  # a repeat runs the batch as often as this takes, so that starting is not measured


@dataclass(frozen=True)
class EncoderSettings:
    """What to measure.

    Args:
        engines: names of `ENGINES`; by default eager, and on a GPU compiled too.
        batch_sizes: by default the smallest that is within 3 % of the best rate of ours, eager.
        repeats: of each engine, taking turns in a new order each time.
        budget_s: start no engine and no repeat after so many seconds, shared out between encoders;
            what is left out is said.
        device, dtype: by default a GPU if there is one, bfloat16 there and float32 elsewhere.
        seed: of weights, pixels and the order.
    """

    engines: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    repeats: int = 9
    budget_s: float = 200.0
    device: str = ""
    dtype: str = ""
    seed: int = 0

    def resolved(self) -> EncoderSettings:
        """Fill in what depends on the machine.

        Raises:
            UsageError: an engine, device or dtype that is not known, or a number below 1.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = device.partition(":")[0]
        if kind not in USUAL:
            raise UsageError(f"device is {device!r}; it must be cpu or cuda")
        if kind == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"device is {device!r}, and this machine has no CUDA device: use cpu")
        dtype = self.dtype or ("bfloat16" if kind == "cuda" else "float32")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise UsageError(f"dtype is {dtype!r}; it must be float32, bfloat16 or float16")
        for name in self.engines:
            if name not in ENGINES:
                raise UsageError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
        if min((self.repeats, *self.batch_sizes)) < 1:
            raise UsageError("repeats and batch sizes must be at least 1")
        return dataclasses.replace(
            self, device=device, dtype=dtype, engines=self.engines or USUAL[kind]
        )


@dataclass
class Row:
    """One engine on one encoder: seconds a batch in each repeat, or why there are none."""

    encoder: str
    engine: str
    batch_size: int
    prepare_s: float = 0.0
    batch_s: list[float] = field(default_factory=list)
    off: float | None = None  # largest difference to ours, eager; in its standard deviations
    left_out: str | None = None


@torch.no_grad()
def bench_encoders(
    names: Sequence[str],
    settings: EncoderSettings,
    conf: Path,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure engines on encoders with random weights; all that was measured, as JSON takes it.

    Args:
        names: of encoders, as in conf/encoder; each may be followed by FIELD=VALUE of its config.
        conf: the folder conf.
        say: told a line of progress now and then.

    Raises:
        UsageError: settings that make no sense, or no name.
        ConfigError: an encoder that is not known.
    """
    started = time.perf_counter()
    settings = settings.resolved()
    wanted = _named(names)
    for name, fields in wanted:  # what is misspelt is said before anything is measured
        with unfilled():
            named_encoder(name, fields, conf)
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    ceiling = matmul_rate(device, dtype)
    say(f"matrix products {ceiling / 1e12:,.3g} TFLOP/s")
    encoders: dict[str, Any] = {}
    rows: list[Row] = []
    for number, (name, fields) in enumerate(wanted, 1):
        encoder = random_encoder(name, fields, conf, device, dtype, settings.seed)
        encoders[name] = work(encoder)
        until = started + settings.budget_s * number / len(wanted)
        rows += _measure(name, encoder, settings, until, say)
        del encoder
        torch.compiler.reset()
    return {
        "settings": asdict(settings),
        "machine": machine(device),
        "matmul_flops": ceiling,
        "encoders": encoders,
        "rows": [asdict(row) for row in rows],
        "seconds": time.perf_counter() - started,
    }


def run(words: Sequence[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure with a command line's words, `NAME ...`, and fields of `EncoderSettings`."""
    return bench_encoders(words, EncoderSettings(**options), conf, say_on_stderr)


def _named(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Take `NAME FIELD=VALUE ... NAME ...` apart."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            found.append((word, []))
        elif not found:
            raise UsageError(f"{word!r} follows no encoder's name")
        else:
            found[-1][1].append(word)
    if not found:
        raise UsageError("no encoder is named; try siglip_base")
    return found


def random_encoder(
    name: str,
    fields: Sequence[str],
    conf: Path,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> VisionEncoder:
    """An encoder with random weights, made where it will run; all its layers are run."""
    with torch.device(device):
        encoder = named_encoder(name, fields, conf)
        if hasattr(encoder.config, "feature_layer") and encoder.config.feature_layer != -1:
            encoder = named_encoder(name, [*fields, "feature_layer=-1"], conf)
    encoder.init_weights(torch.Generator(device).manual_seed(seed))
    return encoder.to(device, dtype).eval()


def some_pictures(encoder: VisionEncoder, batch_size: int, seed: int = 0) -> Pictures:
    """Pictures of noise, prepared, where the encoder is and of its type."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch_size, 3, 64, 64), generator=generator, dtype=torch.uint8)
    weight = next(encoder.parameters())
    pictures = encoder.preprocess(images)
    pixel_values = pictures.pixel_values.to(weight.device, weight.dtype)
    return dataclasses.replace(pictures, pixel_values=pixel_values)


def work(encoder: VisionEncoder) -> dict[str, Any]:
    """What a picture takes: FLOPs, tokens; and how many parameters do it."""
    picture = some_pictures(encoder, 1)
    with flop_counter() as counter:
        tokens = encoder.tokens(picture)
    return {
        "flops": counter.get_total_flops(),
        "tokens": len(tokens),
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "config": asdict(encoder.config),
    }


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int = 0) -> float:
    """Measure how fast large matrices are multiplied, FLOPs a second: the best of several."""
    side = side or (8192 if device.type == "cuda" else 1024)
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(8))


def seconds(call: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Time a call, from done to done; the mean of some in a row."""
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait(device)
    return (time.perf_counter() - start) / times


def best_batch_size(encoder: VisionEncoder, until: float) -> int:
    """Search the smallest batch whose eager rate is within 3 % of the best; doubling."""
    device = next(encoder.parameters()).device
    rates: dict[int, float] = {}
    size = 8 if device.type == "cuda" else 1
    while size <= 512 and time.perf_counter() < until:
        try:
            run = make_engine("eager", encoder, some_pictures(encoder, size))
            run()
            took = min(seconds(run, device) for _ in range(2))
        except torch.OutOfMemoryError:
            break
        rates[size] = size / took
        if rates[size] < 1.02 * rates.get(size // 2, 0.0) or took > 1.0:
            break
        size *= 2
    best = max(rates.values(), default=0.0)
    return min((size for size, rate in rates.items() if rate >= 0.97 * best), default=size)


def _measure(
    name: str,
    encoder: VisionEncoder,
    settings: EncoderSettings,
    until: float,
    say: Callable[[str], None],
) -> list[Row]:
    """Make the engines of one encoder, then let them take turns, one batch size after the other."""
    device = next(encoder.parameters()).device
    begin = time.perf_counter()
    sizes = settings.batch_sizes or (best_batch_size(encoder, begin + (until - begin) / 5),)
    rows: list[Row] = []
    for size in sizes:
        pictures = some_pictures(encoder, size, settings.seed)
        expected = encoder.tokens(pictures)
        ready: list[tuple[Row, Callable[[], Tensor], int]] = []
        for engine in settings.engines:
            row = Row(name, engine, size)
            rows.append(row)
            begin = time.perf_counter()
            if begin >= until:
                row.left_out = f"the time is up ({settings.budget_s:g} s)"
                continue
            try:
                call = make_engine(engine, encoder, pictures)
                for _ in range(3):  # compiles, records, and once as it will be
                    tokens = call()
                row.off = _off(tokens, expected)
                times = max(1, round(WINDOW_S / seconds(call, device)))
            except Exception as error:  # one engine that fails must not take the others along
                said = " ".join(str(error).split())[:160]
                row.left_out = said if isinstance(error, UsageError) else f"it failed: {said}"
            else:
                ready.append((row, call, times))
            row.prepare_s = time.perf_counter() - begin
            say(f"{name} {engine} x {size}: {row.left_out or f'ready in {row.prepare_s:.1f} s'}")
        order = random.Random(settings.seed)
        for repeat in range(settings.repeats):
            order.shuffle(ready)
            for row, call, times in ready:
                if repeat < 3 or time.perf_counter() < until:
                    row.batch_s.append(seconds(call, device, times))
    return rows


def _off(found: Tensor, expected: Tensor) -> float:
    """Largest difference to what is expected, in its standard deviations."""
    if found.ndim == 3:  # with class token and registers, which may have been dropped
        each = len(expected) // len(found)
        found = found[:, -each:].flatten(0, 1)
    return float((found.float() - expected.float()).abs().max() / expected.float().std())


def make_engine(name: str, encoder: VisionEncoder, pictures: Pictures) -> Callable[[], Tensor]:
    """Make what runs a batch and gives tokens, `[ΣN, D]` or `[B, N, D]`; it may compile first.

    Raises:
        UsageError: transformers is missing, or has no such model.
    """
    mode, given = MODES[name.removeprefix("hf-")], pictures
    forward: Any = encoder.tokens
    if name.startswith("hf-"):
        forward, given = transformers_model(encoder), pictures.pixel_values  # type: ignore[assignment]
    if mode is not None:
        forward = torch.compile(forward, mode=mode, dynamic=False)

    def run() -> Tensor:
        with torch.no_grad():
            found = forward(given)
        return found if isinstance(found, Tensor) else found.last_hidden_state

    return run


def transformers_model(encoder: VisionEncoder) -> nn.Module:
    """transformers' model of the same sizes and weights, with PyTorch's attention.

    Without a head that pools patches, which ours does not have either.

    Raises:
        UsageError: transformers is missing, or has no such model.
    """
    try:
        import transformers
    except ImportError:
        raise UsageError("it needs transformers: pip install transformers") from None
    from mm.checkpoints.vision import names_of

    published = encoder.published
    if published is None:
        raise UsageError("transformers has no model of this kind")
    if isinstance(encoder, NativeEncoder):
        raise UsageError("transformers takes pictures of native resolution in other ways")
    auto: Any = transformers  # not typed throughout
    renamed = {ours: theirs for theirs, ours in published.fields}
    fields = {renamed.get(n, n): v for n, v in asdict(encoder.config).items() if n not in OWN}
    registers = bool(fields.get("num_register_tokens")) and len(published.model_types) > 1
    kinds = [kind for kind in published.model_types if ("registers" in kind) == registers]
    config = auto.AutoConfig.for_model(kinds[-1], **fields, vision_use_head=False, use_head=False)
    kind = auto.AutoModel._model_mapping[type(config)]
    with unfilled():
        names = kind(config).state_dict().keys()
    stored_as = published.stored_as or (
        lambda name: [name if name in names else names_of(published).published(name)]
    )
    tensors: dict[str, Tensor] = {}
    for name, tensor in encoder.state_dict().items():
        parts = stored_as(name)
        tensors |= dict(zip(parts, tensor.chunk(len(parts)), strict=True))
    auto.logging.disable_progress_bar()
    weight = next(encoder.parameters())
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=weight.dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    if report["missing_keys"] or report["unexpected_keys"]:
        raise UsageError(f"transformers' {kinds[-1]} has other tensors")
    return model.to(weight.device).eval()  # type: ignore[no-any-return]


def table(result: Mapping[str, Any]) -> str:
    """Lay a result of `bench_encoders` out: medians, smallest and largest, share of the ceiling."""
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    ceiling = result["matmul_flops"]
    lines = [
        f"{machine['device']}; {versions}",
        f"random weights in {settings['dtype']}, forward only; medians (smallest to largest) of n"
        f" repeats; large matrix products run at {ceiling / 1e12:,.3g} TFLOP/s",
    ]
    for name, facts in result["encoders"].items():
        lines.append(
            f"{name}: {facts['parameters'] / 1e6:,.3g}M parameters; a picture becomes"
            f" {facts['tokens']} tokens and takes {facts['flops'] / 1e9:,.3g} GFLOP"
        )
    header = ("encoder", "engine", "batch", "pictures/s", "", "tokens/s", "of products")
    cells = [(*header, "to transformers", "n", "ready in", "off")]
    left_out = []
    medians = {
        (row["encoder"], row["batch_size"], row["engine"]): statistics.median(row["batch_s"])
        for row in result["rows"]
        if row["batch_s"]
    }
    for row in result["rows"]:
        name, engine, size = row["encoder"], row["engine"], row["batch_size"]
        if not row["batch_s"]:
            left_out.append(f"{name} {engine} x {size}: left out, {row['left_out']}")
            continue
        facts, took = result["encoders"][name], medians[name, size, engine]
        rates = [size / one for one in row["batch_s"]]
        theirs = medians.get((name, size, f"hf-{engine}"))
        cells.append(
            (
                name,
                engine,
                str(size),
                f"{size / took:,.1f}",
                f"({min(rates):,.1f} to {max(rates):,.1f})",
                f"{size / took * facts['tokens']:,.0f}",
                f"{size / took * facts['flops'] / ceiling:.1%}",
                f"{theirs / took:.2f} x" if theirs else "",
                str(len(rates)),
                f"{row['prepare_s']:.1f} s",
                f"{row['off']:.1g}",
            )
        )
    return "\n".join([*lines, "", *align(cells, left=(0, 1)), *left_out])
