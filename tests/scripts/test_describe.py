"""scripts/describe.py: published sizes, and one clear line for what is wrong."""

import pytest

from scripts import describe


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder=qwen3_06b"], "did you mean 'qwen3_0_6b'?"),
        (["encoder=siglip_so400m", "projector=mlp"], "27x27"),
        (["decoder.config.hidden_size=wide"], "it must be a whole number"),
        (["decoder.config.no_such_field=1"], "no_such_field"),
        (["+decoder.config.no_such_field=1"], "unknown field"),
        (["decoder.config.hidden_size=[1"], "error:"),
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
