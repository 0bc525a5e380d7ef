"""Attention over packed views: as each view alone, with values and gradients; on every device."""

import pytest
import torch
import torch.nn.functional as F

from mm.encoders.blocks import resize_positions
from mm.encoders.packed import Packed, attend_packed

GRIDS = {
    "several": [(2, 3), (1, 1), (5, 4), (2, 3)],
    "alike": [(2, 3), (3, 2), (1, 6)],
    "one": [(4, 4)],
}


def some_heads(grids, width=8, device="cpu", dtype=torch.float32):
    count = sum(h * w for h, w in grids)
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(3, 2, count, width, generator=generator)
    return made.to(device, dtype).requires_grad_()


def one_by_one(qkv, grids):
    """Attend view by view, the definition written out."""
    outs, start = [], 0
    for h, w in grids:
        q, k, v = qkv[:, :, start : start + h * w].double()
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        outs.append((weights @ v).transpose(0, 1).flatten(1))
        start += h * w
    return torch.cat(outs)


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_views_attend_to_themselves_alone(grids):
    qkv = some_heads(grids)
    packed = Packed.of(grids, qkv.device)
    found, wanted = attend_packed(*qkv, packed), one_by_one(qkv, grids)
    torch.testing.assert_close(found, wanted.float(), atol=1e-6, rtol=1e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((one * direction).sum(), qkv)[0] for one in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_patches_are_counted_in_order():
    assert Packed.of([(2, 3), (1, 1)], torch.device("cpu")) == Packed((6, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 72, 20])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_on_a_gpu_too(grids, width, dtype):
    qkv = some_heads(grids, width, "cuda", dtype)
    found = attend_packed(*qkv, Packed.of(grids, qkv.device))
    wanted = one_by_one(qkv, grids)
    bound = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    torch.testing.assert_close(found.double(), wanted, **bound)
    direction = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((one * direction).sum(), qkv)[0] for one in (found, wanted))
    torch.testing.assert_close(ours, theirs, **bound)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(40, 1), (3, 1), (1, 40), (1, 1), (8, 5)])
def test_positions_are_resized_one_channel_like_many(mode, antialias, grid):
    table = torch.randn(1, 25, 24, generator=torch.Generator().manual_seed(0))
    each = [
        F.interpolate(
            table[..., channel].view(1, 1, 5, 5), grid, mode=mode, antialias=antialias
        ).flatten()
        for channel in range(24)
    ]
    found = resize_positions(table, grid, mode=mode, antialias=antialias)
    torch.testing.assert_close(found[0], torch.stack(each, 1), atol=1e-5, rtol=1e-5)


def test_on_a_gpu_views_of_several_lengths_take_one_kernel(monkeypatch):
    # Shapes alone, so that this runs without a GPU; the values are compared above.
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import varlen

    calls = []
    right = varlen.varlen_attn
    monkeypatch.setattr(varlen, "varlen_attn", lambda *args: calls.append(args) or right(*args))
    with FakeTensorMode():
        for dtype, expected in ((torch.bfloat16, 1), (torch.float32, 0)):
            q, k, v = torch.empty(3, 2, 28, 72, device="cuda", dtype=dtype)
            ends = torch.empty(4, dtype=torch.int32, device="cuda")
            out = attend_packed(q, k, v, Packed((6, 2, 20), ends))
            assert out.shape == (28, 144) and out.dtype == dtype and out.is_cuda
            assert len(calls) == expected
            if expected:
                assert all(one.shape == (28, 2, 72) and one.is_contiguous() for one in calls[0][:3])
                assert calls.pop()[5:] == (20, 20)
