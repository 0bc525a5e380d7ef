"""mm.report.bench: what a step must read, the engines agree, and time that is up is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm.decoder.fused import KERNELS, Tuning
from mm.decoder.qwen3 import Qwen3Config
from mm.errors import UsageError
from mm.report import bench, bench_fused
from mm.report.bench import DecodeSettings, bench_decode, named_config, random_decoder, step_bytes

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = Qwen3Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
)
SHORT = DecodeSettings(
    engines=("eager", "loop", "hf-dynamic", "hf-static", "fused"),
    batch_sizes=(1, 3),
    prompt_tokens=7,
    new_tokens=5,
    repeats=3,
    device="cpu",
)


@pytest.fixture(autouse=True)
def little_memory_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.read_bandwidth
    monkeypatch.setattr(bench, "read_bandwidth", lambda device: whole(device, 2**20))


def test_engines_say_the_same_and_the_table_holds_them(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    result = bench_decode(TINY, SHORT)
    rows = {(row["engine"], row["batch_size"]): row for row in result["rows"]}
    assert len(rows) == 10
    for (engine, _), row in rows.items():
        if engine == "fused":
            assert not row["rest_s"] and row["left_out"]
        else:
            assert row["left_out"] is None
            assert row["same_tokens"] == 1.0
            assert len(row["first_s"]) == len(row["rest_s"]) == 3
            assert min(row["first_s"]) > 0
    text = bench.table(result)
    assert "batch 1 fused: left out, it needs a CUDA device" in text
    assert "batch 3 fused: left out, it decodes one sequence" in text
    assert all(text.count(f" {name} ") == 2 for name in ("eager", "loop", "hf-static"))
    bench.write_json(result, tmp_path / "made" / "bench.json")
    assert json.loads((tmp_path / "made" / "bench.json").read_text("utf-8")) == json.loads(
        json.dumps(result)
    )


def test_time_that_is_up_leaves_engines_out_and_says_so() -> None:
    result = bench_decode(TINY, replace(SHORT, engines=("eager",), budget_s=0.0))
    assert [row["left_out"] for row in result["rows"]] == ["the time is up (0 s)"] * 2


def test_an_engine_that_fails_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bench.make_engine

    def make(name: str, *rest: object) -> object:
        if name == "compiled":
            raise RuntimeError("no compiler here")
        return made(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "make_engine", make)
    rows = bench_decode(TINY, replace(SHORT, engines=("compiled", "eager"), batch_sizes=(1,)))[
        "rows"
    ]
    assert rows[0]["left_out"] == "RuntimeError: no compiler here"
    assert len(rows[1]["rest_s"]) == 3


def test_a_step_reads_the_weights_once_and_the_cache_of_every_row() -> None:
    tied = random_decoder(TINY, "cpu", "bfloat16", 0)
    bytes_of = step_bytes(tied, 3, 10)
    assert bytes_of["weights"] == 2 * sum(p.numel() for p in tied.parameters())
    assert bytes_of["cache"] == 3 * 10 * 2 * 2 * 2 * 16 * 2  # rows, tokens, k+v, layers, K, Dh
    untied = random_decoder(replace(TINY, tie_word_embeddings=False), "cpu", "bfloat16", 0)
    # Of the embedding, one row for each of the batch.
    assert step_bytes(untied, 3, 10)["weights"] == pytest.approx(bytes_of["weights"] + 3 * 32 * 2)


def test_a_step_reads_the_chosen_experts_only() -> None:
    sizes = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    decoder = random_decoder(replace(TINY, **sizes), "cpu", "float32", 0)  # type: ignore[arg-type]
    experts = sum(p.numel() for n, p in decoder.named_parameters() if ".experts." in n)
    rest = sum(p.numel() for p in decoder.parameters()) - experts
    assert experts > 0
    assert step_bytes(decoder, 1, 0)["weights"] == pytest.approx(4 * (rest + experts / 4))
    assert step_bytes(decoder, 1000, 0)["weights"] == pytest.approx(4 * (rest + experts))


def test_kernels_of_the_fused_step_read_every_matrix_once() -> None:
    decoder = random_decoder(TINY, "cpu", "bfloat16", 0)
    counted = bench_fused.kernel_bytes(decoder, 0)
    assert tuple(counted) == KERNELS
    assert sum(counted.values()) == 2 * sum(p.numel() for p in decoder.parameters() if p.ndim == 2)


def test_tuning_keeps_what_is_faster_and_goes_on_from_there() -> None:
    decoder = random_decoder(TINY, "cpu", "bfloat16", 0)
    asked: list[Tuning] = []

    def measure(tuning: Tuning) -> float:
        asked.append(tuning)
        if tuning.splits == 4:
            raise RuntimeError("no room")
        return 100 - 10 * (tuning.attend.rows == 32) - 10 * (tuning.head_programs == 12)

    best, tries = bench_fused.tune(decoder, 8, 60.0, measure=measure)
    assert (best.attend.rows, best.head_programs) == (32, 12)
    assert dict(tries)["default"] == 100
    assert min(time for _, time in tries) == 80
    assert len(set(asked)) == len(asked) == len(tries) + 1  # the one that failed is no try


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["decoder=qwen3_tinny"], "did you mean 'qwen3_tiny'?"),
        (["decoder.config.no_such_field=1"], "no_such_field"),
        (["decoder.config.hidden_size=wide"], "it must be a whole number"),
    ],
)
def test_sizes_that_are_not_known_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        named_config(overrides, CONF)


def test_sizes_come_by_name() -> None:
    assert named_config([], CONF).hidden_size == 1024
    config = named_config(["decoder=qwen3_4b", "decoder.config.num_hidden_layers=3"], CONF)
    assert (config.hidden_size, config.num_hidden_layers) == (2560, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ("eeger",)}, "unknown engine 'eeger'"),
        ({"device": "tpu"}, "it must be cpu or cuda"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"batch_sizes": (0,)}, "batch_sizes is 0"),
        ({"prompt_tokens": 60}, "prompt and answer take 66 tokens; this decoder reads 64"),
        ({"breakdown": True, "engines": ("eager",)}, "no fused step to look into: it needs a CUDA"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench_decode(TINY, replace(SHORT, **changes))  # type: ignore[arg-type]


@pytest.mark.gpu
def test_gpu_engines_say_the_same() -> None:
    config = replace(TINY, hidden_size=256, intermediate_size=512, head_dim=64)
    assert torch.cuda.is_available()
    result = bench_decode(
        config, replace(SHORT, engines=(), batch_sizes=(1,), device="cuda", breakdown=True)
    )
    assert all(row["left_out"] is None for row in result["rows"])
    assert result["fused"]["default"]["step_us"] > 0
