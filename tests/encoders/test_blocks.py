"""What towers are made of: layers that run together, and the fast form of the MLP."""

import pytest
import torch
from torch import nn

from mm.encoders.blocks import MLP, project
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}


def layers(*biases: bool) -> nn.ModuleList:
    made = nn.ModuleList(nn.Linear(24, 8 * (i + 1), bias=bias) for i, bias in enumerate(biases))
    redraw(made)
    return made


@pytest.mark.parametrize("biases", [(True, True, True), (True, False, True), (False, False)])
def test_layers_together_give_values_and_gradients_of_each(biases):
    each = layers(*biases)
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))
    found = project(x, *each)
    assert [one.shape[-1] for one in found] == [layer.out_features for layer in each]
    torch.testing.assert_close(list(found), [layer(x) for layer in each], **EXACT)
    parameters = list(each.parameters())
    mine = torch.autograd.grad(sum(one.square().sum() for one in found), parameters)
    theirs = torch.autograd.grad(sum(layer(x).square().sum() for layer in each), parameters)
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


def test_what_has_taken_a_layers_place_is_called():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    plain, doubled = layers(True), Doubled(24, 8)
    x = torch.ones(1, 24)
    assert torch.equal(project(x, plain[0], doubled)[1], doubled(x))


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
