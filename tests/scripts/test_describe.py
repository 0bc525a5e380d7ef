"""scripts/describe.py: published sizes, and one clear line for what is wrong."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mm.checkpoints.qwen3_config import published_config
from mm.decoder.qwen3 import Qwen3Config
from mm.registry import make_config
from mm.report.describe.choice import compose_parts
from scripts import describe

ROOT = Path(__file__).resolve().parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["describe.py", *arguments])
    return describe.main()


def test_published_parts_have_published_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("decoder=qwen3_0_6b", "encoder=siglip_base", "projector=mlp")
    assert run(monkeypatch, *parts) == 0
    out = capsys.readouterr().out
    # The published Qwen3-0.6B and siglip-base-patch16-256, the latter without its pooling head.
    assert "596,049,920" in out
    assert "85,843,200" in out
    assert "takes 64 tokens" in out


def test_decoder_alone_is_a_text_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "decoder=qwen3_0_6b", "gpu=rtx4090") == 0
    out = capsys.readouterr().out
    assert out.startswith("Qwen3-0.6B\n")
    assert "114,688 bytes a token" in out
    assert "decoding in bf16 fits" in out
    assert "picture" not in out


def test_shipped_parts_stand_in_where_an_encoder_is_chosen_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "encoder=siglip_base") == 0
    assert capsys.readouterr().out.startswith("siglip_base + mlp_scenes + qwen3_scenes\n")
    assert run(monkeypatch, "decoder.config.num_hidden_layers=3") == 0
    out = capsys.readouterr().out
    assert out.startswith("siglip_scenes + mlp_scenes + qwen3_scenes\n")
    assert " 3 layers " in out


def test_json_and_svg(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    drawn = tmp_path / "model.svg"
    words = ("decoder=qwen3_30b_a3b", "gpu=36GB@400GB/s", "dtype=4-bit", "context=1000", "batch=2")
    assert run(monkeypatch, *words, "--json", "--svg", str(drawn)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["title"] == "Qwen3-30B-A3B"
    assert found["parameters"]["active"] == 3_353_032_704
    assert found["kv_cache"]["bytes"] == 2 * 1000 * 98_304
    assert found["gpu"]["decoding_bytes"] == 30_532_122_624 // 2 + 2 * 1000 * 98_304
    assert found["gpu"]["decoding_fits"] is True
    assert "<svg " in drawn.read_text(encoding="utf-8")


def test_stored_models_are_described_by_their_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = ROOT / "mm/assets/scenes-12m"
    assert run(monkeypatch, f"model={own}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["title"] == "scenes-12m"
    assert found["picture"]["tokens"] == 16
    parts, _, _ = compose_parts(["decoder=qwen3_30b_a3b"], ROOT / "conf")
    config = make_config(Qwen3Config, parts["decoder"]["config"], "decoder")
    published = json.dumps(published_config(config, torch.bfloat16))
    (tmp_path / "config.json").write_text(published, encoding="utf-8")
    assert run(monkeypatch, f"model={tmp_path}", "gpu=h100", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["active"] == 3_353_032_704
    assert found["gpu"]["name"] == "h100"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder=qwen3_06b"], "did you mean 'qwen3_0_6b'?"),
        (["encoder=siglip_so400m", "projector=mlp"], "27x27"),
        (["decoder.config.hidden_size=wide"], "it must be a whole number"),
        (["decoder.config.no_such_field=1"], "no_such_field"),
        (["+decoder.config.no_such_field=1"], "unknown field"),
        (["decoder.config.hidden_size=[1"], "describe:"),
        (["contxt=3"], "did you mean 'context'?"),
        (["decoder"], "'decoder' is no KEY=VALUE"),
        (["gpu=h10"], "did you mean 'h100'?"),
        (["gpu=24"], "gpu=24GB"),
        (["batch=0"], "batch is 0"),
        (["batch=many"], "it must be a whole number"),
        (["frozen=encodr"], "it must be 'encoder'"),
        (["frozen=encoder,projector,decoder"], "nothing would be trained"),
        (["decoder=qwen3_0_6b", "context=131072"], "positions reach to 40,960"),
        (["model=no/such/folder"], "no/such/folder"),
        (["model=tests"], "config.json"),
        (["model=tests", "decoder=qwen3_tiny"], "has its own parts, leave one out"),
        (["--height", "0"], "a picture of 640 x 0"),
        (["--svg", "/"], "cannot write /: Is a directory"),
    ],
)
def test_wrong_usage_gets_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.slow
def test_the_largest_model_takes_seconds_and_no_memory() -> None:
    command = [sys.executable, "scripts/describe.py", "decoder=qwen3_coder_480b_a35b"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert time.perf_counter() - start < 10
    assert done.returncode == 0
    assert "480,154,875,392" in done.stdout
    # Kilobytes, the largest of all children of this process: an upper bound.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_000_000
