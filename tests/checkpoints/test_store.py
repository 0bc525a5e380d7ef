"""Folders of tensors: the same bytes each time, shards that are what the index says."""

import json
import os

import pytest
import torch

from mm.checkpoints import store
from mm.checkpoints.tensor_file import TensorFile
from mm.errors import CheckpointError


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(5, 3, generator=generator),
        "a.weight": torch.randn(7, generator=generator).to(torch.bfloat16),
        "a.count": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "turned": torch.randn(4, 6, generator=generator).t(),
        "글자": torch.arange(5, dtype=torch.uint8),
    }


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100, 1])
def test_saved_equals_loaded_in_one_file_or_in_shards(tmp_path, tensors, max_shard_bytes):
    store.save_tensors(tensors, tmp_path / "model", max_shard_bytes)
    assert_same(store.load_tensors(tmp_path / "model"), tensors)
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert (files == ["model.safetensors"]) == (max_shard_bytes == 10**9)
    shards = [path for path in (tmp_path / "model").iterdir() if path.suffix == ".safetensors"]
    assert all(TensorFile(path).tensors for path in shards)


def test_file_is_stored_in_another_dtype_if_asked(tmp_path, tensors):
    store.save_tensors(tensors, tmp_path, max_shard_bytes=30, dtype=torch.float16)
    halves = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    assert_same(store.load_tensors(tmp_path), halves)
    index = json.loads((tmp_path / store.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in halves.values())


def test_file_is_byte_for_byte_what_the_library_writes(tmp_path, tensors):
    from safetensors.torch import save

    store.save_tensors(tensors, tmp_path)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    expected = save(contiguous, metadata={"format": "pt"})
    assert (tmp_path / store.SINGLE).read_bytes() == expected


def test_bytes_do_not_depend_on_the_order_of_tensors_or_metadata(tmp_path, tensors):
    metadata = {str(number): "x" for number in range(9)}
    store.save_tensors(tensors, tmp_path / "a", metadata=metadata)
    turned = dict(reversed(tensors.items()))
    store.save_tensors(turned, tmp_path / "b", metadata=dict(reversed(metadata.items())))
    first, second = (tmp_path / name / store.SINGLE for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_writing_again_in_another_form_leaves_no_stale_index_or_file(tmp_path, tensors):
    store.save_tensors(tensors, tmp_path, max_shard_bytes=1)
    smaller = {"only": torch.ones(2)}
    store.save_tensors(smaller, tmp_path)
    assert_same(store.load_tensors(tmp_path), smaller)
    store.save_tensors(tensors, tmp_path, max_shard_bytes=1)
    assert_same(store.load_tensors(tmp_path), tensors)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_missing_folder_or_weights_say_which(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist: check the path"):
        store.load_tensors(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file is not a folder"):
        store.load_tensors(tmp_path / "file")
    with pytest.raises(CheckpointError, match="has no weights"):
        store.load_tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="pytorch_model.bin can run code when it is read"):
        store.load_tensors(tmp_path)


def fill_folder(folder):
    (folder / "new").write_text("new")


def test_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    store.replace_folder(folder, fill_folder, {"new"})
    assert [path.name for path in folder.iterdir()] == ["new"]
    (folder / "new").write_text("old")
    (folder / "model-9.safetensors").touch()

    def fail(scratch):
        fill_folder(scratch)
        raise OSError("disk full")

    with pytest.raises(CheckpointError, match="cannot write .*model: disk full"):
        store.replace_folder(folder, fail, {"new"})
    assert (folder / "new").read_text() == "old" and list(tmp_path.iterdir()) == [folder]
    store.replace_folder(folder, fill_folder, {"new"})
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("new", "new")]
    assert list(tmp_path.iterdir()) == [folder]


def test_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    store.replace_folder(folder, fill_folder, {"new"})
    (folder / "new").write_text("old")
    rename = os.replace

    def refuse_new(source, target):
        if str(source).endswith(".saving"):
            raise OSError("no such luck")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(CheckpointError, match="cannot write .*model: no such luck"):
        store.replace_folder(folder, fill_folder, {"new"})
    assert (folder / "new").read_text() == "old" and list(tmp_path.iterdir()) == [folder]


def test_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis.tex\)"):
        store.replace_folder(tmp_path, fill_folder, {"new"})
    with pytest.raises(CheckpointError, match="thesis.tex is a file: name a folder"):
        store.replace_folder(tmp_path / "thesis.tex", fill_folder, {"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture
def sharded(tmp_path, tensors):
    store.save_tensors(tensors, tmp_path, max_shard_bytes=1)
    return tmp_path


def test_listed_shard_that_is_absent_is_named(sharded):
    gone = sorted(sharded.glob("*.safetensors"))[2]
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"has no {gone.name}, which .*index.json lists"):
        store.load_tensors(sharded)


def test_index_wins_over_file_order_and_must_be_true(sharded, tensors):
    index = json.loads((sharded / store.INDEX).read_text())
    extra = sharded / "model-99999-of-99999.safetensors"
    extra.write_bytes(b"not listed, not read")
    assert_same(store.load_tensors(sharded), tensors)
    index["weight_map"]["b.weight"] = index["weight_map"]["flags"]
    (sharded / store.INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has no tensor 'b.weight', which"):
        store.load_tensors(sharded)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", "..", ""])
def test_index_cannot_lead_out_of_the_folder(sharded, place):
    (sharded / store.INDEX).write_text(json.dumps({"weight_map": {"a": place}}))
    with pytest.raises(CheckpointError, match="which is no file beside it"):
        store.load_tensors(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"a": 1}}', "no weight_map"),
        ("[" * 100000, "not valid JSON"),
    ],
)
def test_broken_index_is_one_clear_line(sharded, text, message):
    (sharded / store.INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        store.load_tensors(sharded)
