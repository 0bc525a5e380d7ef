"""mm.report.bench_encoder: the same tokens and work on both sides, and time that is up is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm.errors import ConfigError, UsageError
from mm.report import bench, bench_encoder
from mm.report.bench_encoder import EncoderSettings, bench_encoders, random_encoder, work

CONF = Path(__file__).resolve().parents[2] / "conf"
CPU = torch.device("cpu")
SHORT = EncoderSettings(engines=("eager", "hf-eager"), batch_sizes=(2,), repeats=3, device="cpu")
TINY = [
    "hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2", "image_size=32",
    "patch_size=8",
]  # fmt: skip
FAMILIES = {
    "siglip": ["intermediate_size=48", "feature_layer=-2", "use_final_norm=true"],
    "clip": ["intermediate_size=48", "shortest_edge=32"],
    "dinov2": ["picture_size=24", "shortest_edge=24"],
    "dinov2_base_registers": ["picture_size=24", "shortest_edge=24"],
    "dinov3": ["intermediate_size=48", "num_register_tokens=4"],
    "internvit": ["intermediate_size=48"],
    "aimv2": ["intermediate_size=48", "shortest_edge=32"],
}


@pytest.fixture(autouse=True)
def little_to_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = bench_encoder.matmul_rate
    monkeypatch.setattr(bench_encoder, "matmul_rate", lambda *where: rate(*where, side=64))
    monkeypatch.setattr(bench_encoder, "WINDOW_S", 0.001)


def test_both_sides_give_the_same_tokens_and_the_table_holds_them(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    words = [word for name, fields in FAMILIES.items() for word in (name, *TINY, *fields)]
    result = bench_encoders(words, SHORT, CONF)
    assert [row["left_out"] for row in result["rows"]] == [None] * 2 * len(FAMILIES)
    for row in result["rows"]:
        assert row["off"] < 1e-4  # standard deviations
        assert len(row["batch_s"]) == 3 and min(row["batch_s"]) > 0
    text = bench_encoder.table(result)
    assert text.count(" hf-eager ") == text.count(" eager ") == len(FAMILIES)
    assert text.count(" x  ") == len(FAMILIES)  # ours beside theirs
    bench.write_json(result, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text("utf-8")) == json.loads(
        json.dumps(result)
    )


def test_work_is_that_of_the_formula() -> None:
    encoder = random_encoder("siglip", [*TINY, "intermediate_size=48"], CONF, CPU, torch.float32)
    N, D, F, P = 16, 32, 48, 8
    layers = 2 * (2 * N * (4 * D * D + 2 * D * F) + 4 * N * N * D)
    found = work(encoder)
    assert found["flops"] == layers + 2 * N * 3 * P * P * D
    assert (found["tokens"], found["config"]["feature_layer"]) == (N, -1)


def test_batch_size_is_searched_where_none_is_given() -> None:
    result = bench_encoders(
        ["siglip", *TINY, "intermediate_size=48"],
        replace(SHORT, engines=("eager",), batch_sizes=(), repeats=1, budget_s=4),
        CONF,
    )
    (row,) = result["rows"]
    assert row["batch_size"] in [2**power for power in range(11)]


def test_a_compiled_engine_gives_the_tokens_of_the_eager_one() -> None:
    encoder = random_encoder("siglip", [*TINY, "intermediate_size=48"], CONF, CPU, torch.float32)
    pictures = bench_encoder.some_pictures(encoder, 2)
    found = bench_encoder.make_engine("eager", encoder, pictures)()
    assert not found.requires_grad
    assert torch.equal(found, encoder(pictures.pixel_values).flatten(0, 1))


def test_what_cannot_be_measured_is_said() -> None:
    words = ["siglip", *TINY, "intermediate_size=48"]
    result = bench_encoders(words, replace(SHORT, budget_s=0.0), CONF)
    assert [row["left_out"] for row in result["rows"]] == ["the time is up (0 s)"] * 2
    assert "eager x 2: left out, the time is up" in bench_encoder.table(result)
    words = ["siglip2_naflex", *TINY[:3], "patch_size=8", "intermediate_size=48"]
    ours, theirs = bench_encoders(words, SHORT, CONF)["rows"]
    assert ours["off"] == 0 and "native resolution" in theirs["left_out"]
    timm = pytest.importorskip("timm")
    assert timm
    words = ["timm", "model=resnet10t", "image_size=32"]
    rows = bench_encoders(words, replace(SHORT, engines=("hf-eager",)), CONF)["rows"]
    assert rows[0]["left_out"] == "transformers has no model of this kind"


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ([], {}, "no encoder is named"),
        (["image_size=3"], {}, "follows no encoder's name"),
        (["siglip"], {"engines": ("fused",)}, "unknown engine 'fused'; known: eager"),
        (["siglip"], {"device": "tpu"}, "device is 'tpu'"),
        (["siglip"], {"dtype": "int8"}, "dtype is 'int8'"),
        (["siglip"], {"batch_sizes": (0,)}, "must be at least 1"),
    ],
)
def test_mistakes_are_named(words: list[str], changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench_encoders(words, replace(SHORT, **changes), CONF)  # type: ignore[arg-type]


def test_unknown_encoder_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown encoder 'siglop'.*siglip_base"):
        bench_encoders(["siglop"], SHORT, CONF)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["compiled", "hf-compiled"])
def test_compiled_engines_agree(engine: str) -> None:
    words = ["siglip", *TINY, "intermediate_size=48"]
    (row,) = bench_encoders(words, replace(SHORT, engines=(engine,)), CONF)["rows"]
    assert row["left_out"] is None and row["off"] < 1e-4
