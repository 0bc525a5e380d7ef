import pytest
import torch
import torch.nn.functional as F

from mm.train.objective import CHUNK, PatchClassifier, chunk_of, linear_cross_entropy
from mm.train.optimizer import build_optimizer
from mm.train.recipe import RecipeConfig
from mm.train.schedule import learning_rate_at


@pytest.mark.parametrize("chunk", [3, 7, 100])
def test_chunked_loss_equals_the_plain_one_forward_and_backward(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 8, generator=generator, requires_grad=True)
    weight = torch.randn(11, 8, generator=generator, requires_grad=True)
    labels = torch.randint(0, 11, (20,), generator=generator)
    plain = F.cross_entropy(hidden @ weight.T, labels)
    wanted = torch.autograd.grad(plain, [hidden, weight])
    chunked = linear_cross_entropy(hidden, weight, labels, chunk)
    found = torch.autograd.grad(chunked, [hidden, weight])
    torch.testing.assert_close(chunked, plain)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("learns", ["hidden", "weight"])
def test_chunks_give_gradients_to_what_learns_alone_under_autocast(learns: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(20, 8, generator=generator),
        torch.randn(11, 8, generator=generator),
    )
    labels = torch.randint(0, 11, (20,), generator=generator)
    learning = (hidden if learns == "hidden" else weight).requires_grad_()
    found = []
    for chunk in (6, 100):
        with torch.autocast("cpu", torch.bfloat16):
            loss = linear_cross_entropy(hidden, weight, labels, chunk)
        found.append((loss.detach(), *torch.autograd.grad(3 * loss, learning)))
    for chunked, plain in zip(*found, strict=True):
        assert chunked.dtype == plain.dtype
        torch.testing.assert_close(chunked, plain, atol=3e-3, rtol=2e-2)
    with torch.no_grad():
        torch.testing.assert_close(
            linear_cross_entropy(hidden, weight, labels, 6),
            F.cross_entropy(hidden @ weight.T, labels),
        )


def test_a_large_vocabulary_has_fewer_logits_at_once() -> None:
    assert chunk_of(4096) == CHUNK and chunk_of(2**30) == 256
    assert chunk_of(151_936) * 151_936 <= 2**29 < 2 * chunk_of(151_936) * 151_936


def test_patch_loss_falls_when_the_head_learns_the_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    head = PatchClassifier(8, num_classes=(3, 2), cells=2)
    head.init_weights(generator)
    tokens = torch.randn(2, 16, 8, generator=generator)
    what = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 2]]])
    fact = torch.where(what == 2, -100, torch.tensor([[0, 1], [1, 1]]))
    labels = torch.stack([what, fact], 1)
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    first = head(tokens, (4, 4), labels)
    for _ in range(50):
        optimizer.zero_grad()
        loss = head(tokens, (4, 4), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * first
    only_ground = torch.stack([torch.full_like(what, 2), torch.full_like(what, -100)], 1)
    assert torch.isfinite(head(tokens, (4, 4), only_ground))


def test_learning_rate_warms_up_stays_and_decays_to_nearly_zero() -> None:
    rates = [learning_rate_at(s, 100, 1.0, warmup=10, decay_share=0.5) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0
    assert set(rates[10:51]) == {1.0}
    assert rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)


def test_cosine_warms_up_and_falls_in_half_a_wave_to_its_final_share() -> None:
    rates = [learning_rate_at(s, 110, 2.0, 10, 0.5, "cosine", 0.1) for s in range(111)]
    assert rates[4] == pytest.approx(1.0) and rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.1) and rates[110] == pytest.approx(0.2)
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_adamw_decays_matrices_only_and_skips_what_is_frozen() -> None:
    model = torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(4, 3), "linear": torch.nn.Linear(3, 3)}
    )
    model["linear"].bias.requires_grad_(False)
    groups = build_optimizer(model, RecipeConfig(weight_decay=0.1)).param_groups
    assert [p.shape for p in groups[0]["params"]] == [torch.Size([3, 3])]
    assert groups[0]["weight_decay"] == 0.1 and groups[1]["weight_decay"] == 0.0
    assert [p.shape for p in groups[1]["params"]] == [torch.Size([4, 3])]
