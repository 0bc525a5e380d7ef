"""What towers are made of: the fast form of the MLP."""

import pytest
import torch

from mm.encoders.blocks import MLP, _linear_gelu_op
from tests.conftest import redraw


@torch.no_grad()
def test_operator_is_what_the_compiler_takes_it_for():
    mlp = MLP(96, 384, "gelu_pytorch_tanh")
    given = (torch.randn(6, 96), mlp.fc1.weight, mlp.fc1.bias)
    torch.library.opcheck(_linear_gelu_op, given, test_utils=("test_schema", "test_faketensor"))
    assert _linear_gelu_op(*given).shape == (6, 384)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mlp_without_gradients_is_that_with_them(dtype):
    mlp = MLP(96, 384, "gelu_pytorch_tanh")
    redraw(mlp)
    x = torch.randn(3, 50, 96, generator=torch.Generator().manual_seed(1))
    expected = mlp(x)
    mlp, x = mlp.to("cuda", dtype), x.to("cuda", dtype)
    with torch.no_grad():
        found = mlp(x)
    assert found.shape == x.shape
    loose = {"atol": 0.05, "rtol": 0.02}  # three significant digits
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else loose
    torch.testing.assert_close(found.float().cpu(), expected, **close)
    torch.testing.assert_close(found, mlp(x), **close)
