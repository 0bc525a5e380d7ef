"""One safetensors file: damage is one clear line, and we take what the library takes, no more."""

import copy
import json
import math
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from mm.checkpoints import tensor_file
from mm.checkpoints.tensor_file import TensorFile, write_tensors
from mm.errors import CheckpointError


def draw() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(5, 3, generator=generator),
        "a.weight": torch.randn(7, generator=generator).to(torch.bfloat16),
        "a.count": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "글자": torch.arange(5, dtype=torch.uint8),
    }


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        write_tensors(file, draw())
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    return {name: stored.tensor() for name, stored in TensorFile(path).tensors.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        same = found[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)
        assert torch.equal(*same), name


# --- Reading and copying -------------------------------------------------------------------------


def test_mapped_tensors_outlive_their_file_and_never_write_to_it(path):
    before = path.read_bytes()
    tensors = read(path)
    path.unlink()
    assert_same(tensors, draw())
    tensors["b.weight"].zero_()
    path.write_bytes(before)
    assert_same(read(path), draw())


@pytest.mark.parametrize("piece", [1, 8, 24, 10**6])
def test_copying_in_pieces_casts_and_follows_strides(path, monkeypatch, piece):
    monkeypatch.setattr(tensor_file, "_PIECE_BYTES", piece)
    stored = TensorFile(path).tensors
    for name, tensor in draw().items():
        kind = torch.float64 if tensor.is_floating_point() else tensor.dtype
        place = torch.empty_like(tensor, dtype=kind)
        stored[name].copy_to(place)
        assert torch.equal(place, tensor.to(kind)), name
    turned = torch.empty(3, 5)
    stored["b.weight"].copy_to(turned.t())
    assert torch.equal(turned, draw()["b.weight"].t())


def test_forgetting_pages_does_not_touch_a_changed_neighbour(tmp_path):
    sizes = {"a": 3000, "b": 5000, "c": 3000}  # float32: no border lies between two pages
    tensors = {name: torch.full((size,), 1.0) for name, size in sizes.items()}
    with open(tmp_path / "f", "wb") as file:
        write_tensors(file, tensors)
    stored = TensorFile(tmp_path / "f").tensors
    kept = [stored["a"].tensor(), stored["c"].tensor()]
    for tensor in kept:
        tensor.fill_(2.0)
    place = torch.empty(5000)
    stored["b"].copy_to(place)
    assert place.eq(1).all() and all(tensor.eq(2).all() for tensor in kept)


@pytest.mark.parametrize("piece", [1, 7, 10**6])
def test_same_bytes_compares_kind_shape_and_every_byte(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(tensor_file, "_PIECE_BYTES", piece)
    a = torch.tensor([1.0, float("nan"), 3.0, -0.0])
    b = torch.tensor([1.0, float("nan"), 3.0, 0.0])
    tensors = {"a": a, "b": b, "c": a.clone(), "d": a.view(2, 2), "e": a.view(torch.int32)}
    with open(tmp_path / "f", "wb") as file:
        write_tensors(file, tensors)
    stored = TensorFile(tmp_path / "f").tensors
    assert [n for n in tensors if stored["a"].same_bytes(stored[n])] == ["a", "c"]


def test_unaligned_tensor_is_read(tmp_path):
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "wide": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    text = json.dumps(header).encode()
    body = b"\7" + struct.pack("<2f", 1.5, -2.0)
    (tmp_path / "f").write_bytes(struct.pack("<Q", len(text)) + text + body)
    found = read(tmp_path / "f")["wide"]
    assert found.tolist() == [1.5, -2.0] and found.data_ptr() % 4 == 0


def test_dtype_that_the_format_has_no_name_for_is_not_written(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        with pytest.raises(CheckpointError, match="x is torch.complex64, which is not stored"):
            write_tensors(file, {"x": torch.zeros(2, dtype=torch.complex64)})


@pytest.mark.parametrize("kind", ["F8_E4M3", "XF16"])
def test_quantised_tensor_is_told_when_it_is_read(tmp_path, kind):
    text = json.dumps({"w": {"dtype": kind, "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "f").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    stored = TensorFile(tmp_path / "f").tensors["w"]
    with pytest.raises(CheckpointError, match=f"w of .*f is stored as {kind}, which this does not"):
        stored.tensor()


# --- Damage --------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def keep_five_bytes(path):
    path.write_bytes(path.read_bytes()[:5])


def keep_half_of_the_header(path):
    path.write_bytes(path.read_bytes()[:60])


def declare_huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**63) + b"{" * 200)


def declare_header_over_the_limit(path):
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 200 * 10**6))
        file.truncate(300 * 10**6)  # sparse


def break_header(path):
    data = bytearray(path.read_bytes())
    data[8] = ord("!")
    path.write_bytes(bytes(data))


def list_as_header(path):
    path.write_bytes(struct.pack("<Q", 8) + b"[1,2,3] ")


def nest_deeply(path):
    path.write_bytes(struct.pack("<Q", 10**6) + b'{"a":' + b"[" * (10**6 - 5))


def shrink_a_shape(path):
    path.write_bytes(path.read_bytes().replace(b"[5,3]", b"[5,2]"))


def overlap(path):
    data = path.read_bytes()
    assert b'"data_offsets":[8,68]' in data
    path.write_bytes(data.replace(b'"data_offsets":[8,68]', b'"data_offsets":[0,60]'))


def name_twice(path):
    path.write_bytes(path.read_bytes().replace(b'"a.weight"', b'"b.weight"'))


def text_in_place_of_weights(path):
    path.write_text("this is a letter, not a model, and quite a long one")


def directory_in_place_of_weights(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is truncated: .* bytes of"),
        (lengthen, "is too long: .* bytes of"),
        (keep_five_bytes, "is truncated at 5 bytes"),
        (keep_half_of_the_header, "is truncated at 60 bytes"),
        (declare_huge_header, "is truncated at 208 bytes"),
        (declare_header_over_the_limit, "declares a header of 200000000 bytes, more than the"),
        (break_header, "no readable safetensors header"),
        (list_as_header, "no readable safetensors header"),
        (nest_deeply, "no readable safetensors header"),
        (shrink_a_shape, "no readable safetensors header"),
        (overlap, "no readable safetensors header"),
        (name_twice, "no readable safetensors header"),
        (text_in_place_of_weights, "is truncated at 51 bytes"),
        (directory_in_place_of_weights, "is no regular file"),
        (Path.unlink, "has no model.safetensors"),
    ],
)
def test_damaged_file_is_one_clear_line(path, damage, message):
    damage(path)
    with pytest.raises(CheckpointError, match=message) as error:
        TensorFile(path)
    assert path.name in str(error.value) and "\n" not in str(error.value)


# --- Against the library -------------------------------------------------------------------------

ITEM_BYTES = {"F32": 4, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1}


@st.composite
def written_by_a_stranger(draw) -> bytes:
    """A file that is valid, or wrong in one place or several."""
    header, position = {}, 0
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["a", "b.weight", "", "글", "__metadata__"]))
        kind = draw(st.sampled_from(sorted(ITEM_BYTES)))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        stop = position + math.prod(shape) * ITEM_BYTES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [position, stop]}
        position = stop
    odd = st.sampled_from([-1, 0, 1, 7, 2**63, 2**64, 1.0, True, None, "1", [], [[1]], {}])
    for entry in header.values():
        for key in draw(st.lists(st.sampled_from([*entry, "more"]), max_size=1)):
            entry[key] = copy.deepcopy(draw(odd))
        for key in ("shape", "data_offsets"):
            if isinstance(entry[key], list) and entry[key] and draw(st.integers(0, 9)) == 0:
                entry[key][draw(st.integers(0, len(entry[key]) - 1))] = draw(odd)
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.sampled_from([{}, {"a": "b"}, {"a": 1}, None, []]))
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode()
    text += b" " * draw(st.integers(0, 8))
    length = len(text) + draw(st.sampled_from([0] * 8 + [-1, 1]))
    body = bytes(draw(st.lists(st.integers(0, 255), min_size=position, max_size=position)))
    return struct.pack("<Q", length) + text + body + bytes(draw(st.sampled_from([0] * 8 + [1])))


@st.composite
def damaged_on_the_way(draw_one) -> bytes:
    """A valid file with some bytes changed, inserted or cut off."""
    data = bytearray(save({k: v for k, v in draw().items()}, metadata={"format": "pt"}))
    end_of_header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(draw_one(st.integers(0, 3))):
        place = draw_one(st.integers(0, min(end_of_header, len(data) - 1)))
        how = draw_one(st.sampled_from(["change", "insert", "remove"]))
        byte = draw_one(st.sampled_from(list(b'0123456789",:[]{}-.eE \\tu\0\xff')))
        if how == "change":
            data[place] = byte
        elif how == "insert":
            data.insert(place, byte)
        else:
            del data[place]
    return bytes(data)


def by_the_library(data: bytes) -> dict[str, torch.Tensor] | None:
    try:
        return load(data)
    except (SafetensorError, TypeError):  # the latter where a size is beyond PyTorch's
        return None


@settings(max_examples=300, deadline=None)
@given(st.one_of(written_by_a_stranger(), damaged_on_the_way(), st.binary(max_size=40)))
def test_what_we_accept_is_what_the_library_accepts(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(data)
        expected = by_the_library(data)
        try:
            found = read(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            assert expected is None
            return
        assert expected is not None
        assert_same(found, expected)


NOTHING = '{"dtype": "F32", "shape": %s, "data_offsets": [0, 0]}'


@pytest.mark.parametrize(
    "header",
    [
        f'{{"\\ud800": {NOTHING % [0]}}}',
        f'{{"a": {NOTHING % [0, 2**63]}}}',
        f'{{"a": {NOTHING % [2**32, 2**32, 0]}}}',
        f"[{NOTHING % [0]}]",
    ],
)
def test_rare_nonsense_is_taken_by_neither(tmp_path, header):
    data = struct.pack("<Q", len(header)) + header.encode()
    (tmp_path / "f").write_bytes(data)
    assert by_the_library(data) is None
    with pytest.raises(CheckpointError, match="no readable safetensors header"):
        TensorFile(tmp_path / "f")


def test_name_that_stands_twice_is_refused_where_the_library_takes_the_last(tmp_path):
    header = f'{{"a": {NOTHING % [0]}, "a": {NOTHING % [0, 7]}}}'
    data = struct.pack("<Q", len(header)) + header.encode()
    (tmp_path / "f").write_bytes(data)
    assert by_the_library(data) is not None
    with pytest.raises(CheckpointError, match="no readable safetensors header"):
        TensorFile(tmp_path / "f")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(
            st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    )
)
def test_we_write_what_the_library_writes_and_read_it_back(kinds):
    tensors = {
        name: torch.arange(math.prod(shape)).to(dtype).view(shape)
        for name, (dtype, shape) in kinds.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        with open(path, "wb") as file:
            write_tensors(file, tensors)
        assert path.read_bytes() == save(tensors, metadata={"format": "pt"})
        assert_same(read(path), tensors)
