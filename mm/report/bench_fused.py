"""Where a fused decode step spends its time, and a search for a better way to cut its kernels.

`docs/fused-decode.md` says how to read the numbers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from typing import Any

import torch

from mm.decoder.fused import KERNELS, FusedDecoder, Shape, Tuning, default_tuning
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.report.bench import align

STEPS = 50


def step_us(
    decoder: Qwen3ForCausalLM,
    context: int,
    tuning: Tuning | None = None,
    only: Collection[str] = KERNELS,
    repeats: int = 7,
) -> float:
    """Time a step over a random cache, microseconds: the median of `repeats` runs of 50 steps.

    Args:
        context: cached tokens at the first step.
        only: kernels in the step.
    """
    fused = FusedDecoder(decoder, context + STEPS + 1, tuning=tuning, only=only)
    # Zeros would compress and never round.
    for tensor in (fused.keys, fused.values):
        tensor.normal_(generator=torch.Generator(tensor.device).manual_seed(0))
    times: list[float] = []
    for repeat in range(repeats + 1):
        fused.reset(context)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        fused.greedy(STEPS)
        end.record()
        end.synchronize()
        if repeat:  # the first one warms up
            times.append(float(begin.elapsed_time(end)) * 1e3 / STEPS)
    return statistics.median(times)


def kernel_bytes(decoder: Qwen3ForCausalLM, context: int) -> dict[str, int]:
    """Bytes that each kernel must read in a step, all layers together: weights and cache."""
    config = decoder.config
    D, F, Dh = config.hidden_size, config.intermediate_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    layers, size = config.num_hidden_layers, decoder.lm_head.weight.element_size()
    numbers = {
        "qkv": layers * (H + 2 * K) * Dh * D,
        "attend": layers * 2 * K * Dh * context,
        "output": layers * H * Dh * D,
        "gate_up": layers * 2 * F * D,
        "down": layers * F * D,
        "head": config.vocab_size * D,
        "finish": 0,
    }
    return {name: count * size for name, count in numbers.items()}


def breakdown(
    decoder: Qwen3ForCausalLM, context: int, bandwidth: float, tuning: Tuning | None = None
) -> dict[str, Any]:
    """Time the whole step, each kernel alone, and the step without it; microseconds a step.

    Args:
        context: cached tokens.
        bandwidth: measured, bytes a second.
    """
    tuning = tuning or default_tuning(decoder)
    whole = step_us(decoder, context, tuning)
    rows = []
    for name, count in kernel_bytes(decoder, context).items():
        alone = step_us(decoder, context, tuning, only={name})
        without = step_us(decoder, context, tuning, only=set(KERNELS) - {name})
        rows.append(
            {
                "kernel": name,
                "launches": 1 if name in ("head", "finish") else decoder.config.num_hidden_layers,
                "bytes": count,
                "floor_us": 1e6 * count / bandwidth,
                "alone_us": alone,
                "saved_us": whole - without,
            }
        )
    return {
        "context": context,
        "tuning": asdict(tuning),
        "step_us": whole,
        "step_us_again": step_us(decoder, context, tuning),
        "no_overlap_us": step_us(decoder, context, replace(tuning, overlap=False)),
        "rows": rows,
    }


def breakdown_table(result: dict[str, Any]) -> str:
    """Lay a result of `breakdown` out."""
    cells = [
        ("kernel", "launches", "MB", "floor us", "alone us", "us each", "saved by leaving out")
    ]
    for row in result["rows"]:
        cells.append(
            (
                row["kernel"],
                str(row["launches"]),
                f"{row['bytes'] / 1e6:,.1f}",
                f"{row['floor_us']:,.1f}",
                f"{row['alone_us']:,.1f}",
                f"{row['alone_us'] / row['launches']:,.2f}",
                f"{row['saved_us']:,.1f}",
            )
        )
    step = result["step_us"]
    return "\n".join(
        [
            f"fused step at {result['context']} cached tokens: {step:,.1f} us"
            f" ({1e6 / step:,.0f} tok/s), again {result['step_us_again']:,.1f};"
            f" without overlap {result['no_overlap_us']:,.1f}",
            *align(cells, left=(0,)),
            f"cut as {result['tuning']}",
        ]
    )


def candidates(decoder: Qwen3ForCausalLM) -> list[tuple[str, dict[str, Any]]]:
    """Other ways to cut one kernel each: a label, and the changed fields of a `Tuning`."""
    config = decoder.config
    D, F, Dh = config.hidden_size, config.intermediate_size, config.head_dim
    default = default_tuning(decoder)
    columns = {
        "qkv": D,
        "gate_up": 2 * D,
        "down": F,
        "output": config.num_attention_heads * Dh,
        "head": D,
    }
    found: list[tuple[str, dict[str, Any]]] = []
    for name, width in columns.items():
        now: Shape = getattr(default, name)
        for rows in (now.rows, now.rows * 2, now.rows // 2, now.rows * 4):
            for warps in (now.num_warps, now.num_warps * 2, now.num_warps // 2):
                shape = Shape(rows, warps)
                # Bytes of weights a thread would hold: too few is latency, too many spill.
                held = 2 * rows * width / (32 * max(1, warps))
                if shape != now and 1 <= rows <= 16 and 2 <= warps <= 16 and 16 <= held <= 320:
                    found.append((f"{name} {rows} x {warps}", {name: shape}))
    for rows, warps in ((64, 4), (32, 4), (32, 8), (128, 8), (64, 16)):
        found.append((f"attend {rows} x {warps}", {"attend": Shape(rows, warps)}))
    found += [(f"steps_per_graph {number}", {"steps_per_graph": number}) for number in (1, 25)]
    found += [(f"splits {number}", {"splits": number}) for number in (4, 16)]
    found += [(f"head_programs {number}", {"head_programs": number}) for number in (4, 8, 12)]
    return found


def tune(
    decoder: Qwen3ForCausalLM,
    context: int,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
    measure: Callable[[Tuning], float] | None = None,
) -> tuple[Tuning, list[tuple[str, float]]]:
    """Try other ways to cut the kernels on whole steps and keep what is faster.

    A change is kept when it is found, so that the next ones are tried on top of it.

    Args:
        context: cached tokens.
        seconds: start no further try after so long.
        measure: microseconds a step of a tuning; by default `step_us`.

    Returns:
        The fastest found, and every try with its microseconds a step.
    """
    measure = measure or (lambda tuning: step_us(decoder, context, tuning, repeats=5))
    started = time.perf_counter()
    best = default_tuning(decoder)
    best_us = measure(best)
    tries = [("default", best_us)]
    say(f"default: {best_us:.1f} us")
    seen = {best}
    for label, changes in candidates(decoder):
        if time.perf_counter() - started > seconds:
            say("the time for tuning is up")
            break
        tuning = replace(best, **changes)
        if tuning in seen:
            continue
        seen.add(tuning)
        try:
            found_us = measure(tuning)
        except Exception as error:  # a cut that the card has no room for is no candidate
            say(f"{label}: {type(error).__name__}")
            continue
        tries.append((label, found_us))
        kept = found_us < 0.995 * best_us  # less is noise
        if kept:
            best, best_us = tuning, found_us
        say(f"{label}: {found_us:.1f} us{', kept' if kept else ''}")
    return best, tries
