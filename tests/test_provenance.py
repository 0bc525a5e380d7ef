"""Marks of generated text: which model, which software."""

import shutil
from pathlib import Path

import pytest

from mm.provenance import marks, model_hash
from tests import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("models") / "tiny", tiny_model.model(1))


def test_marks_name_model_and_software(folder: Path) -> None:
    found = marks(folder)
    assert found["generated"] is True and found["model"] == "tiny"
    assert found["software"].startswith("mm ") and len(found["model_hash"]) == 64


def test_the_hash_belongs_to_the_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("another card")
    assert model_hash(copy) == model_hash(folder)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_hash(copy) != model_hash(folder)


def test_large_files_are_hashed_by_blocks_up_to_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = bytearray(10 << 20)
    path.write_bytes(data)
    before = model_hash(tmp_path)
    for place in (0, len(data) - 1):
        data[place] = 1
        path.write_bytes(data)
        assert model_hash(tmp_path) != before
        data[place] = 0
