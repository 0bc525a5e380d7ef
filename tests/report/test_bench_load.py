"""The measuring of loading: both readers, sizes that are true, a random model that both take."""

from argparse import Namespace

import pytest

from mm.errors import MMError
from mm.report import bench_load

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def in_this_process(reader, directory, dtype):
    return bench_load.measure(reader, str(directory), dtype)


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_readers_are_measured_on_the_same_weights(tmp_path, monkeypatch, apart):
    pytest.importorskip("transformers", reason="the reference is not installed")
    if not apart:
        monkeypatch.setattr(bench_load, "_in_a_child", in_this_process)
    bench_load.write_random(tmp_path / "model", max_shard_bytes=10**4, **SIZES)
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 3
    result = bench_load.bench_load(Namespace(directory=tmp_path / "model", dtype="float32", runs=1))
    assert result["file_bytes"] == sum(path.stat().st_size for path in files)
    layer = 2 * 32 * 64 + 2 * 32 * 32 + 2 * 16 + 3 * 32 * 48 + 2 * 32
    assert result["weights_bytes"] == 4 * (300 * 32 + 2 * layer + 32)
    kinds = [(case["reader"], case["cache"]) for case in result["cases"]]
    readers = ("mm", "transformers")
    assert kinds == [(reader, cache) for cache in ("cold", "warm") for reader in readers]
    for case in result["cases"]:
        assert 0 < case["load_s"]["median"] <= case["load_and_touch_s"]["median"]
        # A Python process with PyTorch in it (and with all the tests before this one), in bytes.
        assert 10**8 < case["peak_bytes"]["median"] < 10**10
    lines = bench_load.table(result).splitlines()
    assert len(lines) == 5 and lines[0].split()[0] == "reader"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"directory": "{tmp}/nowhere"}, "nowhere does not exist"),
        ({"directory": "{tmp}"}, "has no config.json"),
        ({"directory": "{tmp}", "dtype": "int4"}, "unknown dtype 'int4'"),
        ({"directory": "{tmp}/own"}, "is mm's own, which transformers does not read"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(tmp_path, given, message):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").write_text('{"format": "mm"}')
    filled = given | {"directory": given["directory"].format(tmp=tmp_path)}
    with pytest.raises(MMError, match=message):
        bench_load.bench_load(Namespace(**filled))


def test_reader_that_fails_is_named_with_its_reason(tmp_path):
    bench_load.write_random(tmp_path, **SIZES)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(MMError, match="loading with mm failed, status 1: .*truncated at 3 bytes"):
        bench_load.bench_load(Namespace(directory=tmp_path, runs=1))
