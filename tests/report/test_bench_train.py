"""mm.report.bench_train: both sides train on the same data, and time that is up is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mm.errors import ConfigError, UsageError
from mm.report import bench_train, train_data, train_engines
from mm.report.bench_train import run
from mm.vlm import build

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = ["encoder=siglip_tiny", "decoder=qwen3_tiny", "decoder.config.vocab_size=8192"]
SHORT: dict[str, Any] = {
    "device": "cpu", "batch_sizes": (384, 192), "row_length": 192, "conversations": 8,
    "steps": 1, "repeats": 2, "workers": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    make = train_data.make_pictures
    monkeypatch.setattr(
        train_data,
        "make_pictures",
        lambda where, n, size, profile: make(where, n, (64, 48), profile),
    )


def test_both_sides_train_and_the_table_holds_them(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    target = tmp_path / "bench.json"
    result = run(TINY, CONF, **SHORT, target=target)
    rows = result["rows"]
    assert [(row["engine"], row["tokens"]) for row in rows] == [
        ("eager", 384), ("hf-eager", 384), ("eager", 192), ("hf-eager", 192),
    ]  # fmt: skip
    assert [row["left_out"] for row in rows] == [None] * 4
    for row in rows:
        assert len(row["tokens_per_s"]) == 2 and min(row["tokens_per_s"]) > 0
        assert 8 < row["loss"] < 10 and 0.2 < row["label_share"] < 0.8  # ln 8192 is 9.0
        assert row["done_flops"][0] < row["usual_flops"][0]
        assert 0.6 < row["fill"] <= 1 and 0 <= row["data_wait"][0] <= 1
        assert 40 < row["keys"] < 96
    text = bench_train.table(result)
    assert text.count(" hf-eager ") == text.count(" eager ") == 2
    assert json.loads(target.read_text("utf-8"))["rows"] == rows
    rows[0]["kernels"] = [("a product", 3, 1.5), ("a sum", 1, 0.25)]
    text = bench_train.table(result)
    assert "eager x 384: 1.8 ms a step in kernels" in text and "1.50  3x  a product" in text


def test_time_that_is_up_and_what_cannot_be_compared_are_said() -> None:
    result = run(TINY, CONF, **SHORT, budget_s=-1.0)
    assert all("the time is up" in row["left_out"] for row in result["rows"])
    assert "left out, the time is up" in bench_train.table(result)
    words = [*TINY, "projector=mlp"]
    result = run(words, CONF, **{**SHORT, "batch_sizes": (192,)}, engines=("hf-eager",))
    assert "shuffle=1" in result["rows"][0]["left_out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engines": ("fast",)}, "engine"),
        ({"batch_sizes": (1000,)}, "multiples"),
        ({"steps": 0}, "at least 1"),
        ({"device": "cuda", "dtype": "int8"}, "cuda|dtype"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(TINY, CONF, **{**SHORT, **options})


def test_a_small_vocabulary_or_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="vocab_size"):
        run(TINY[:2], CONF, **SHORT)
    with pytest.raises(ConfigError, match="qwen3_tiny"):
        run(["decoder=qwen3_tinny"], CONF, **SHORT)


def test_llava_is_the_same_network() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        parts, _, _ = bench_train.compose_parts(
            [*bench_train.PARTS[:2], *TINY, *bench_train.PLAIN], CONF
        )
        shape = build({**parts, "image_token_id": 5})
        theirs = train_engines.llava_model(shape)
    # The head is the embedding, on both sides.
    ours = sum(p.numel() for p in shape.parameters())
    assert sum(p.numel() for p in theirs.parameters()) == ours
