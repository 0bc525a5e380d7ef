from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from mm import encoders
from mm.encoders import conformance
from mm.train.blocks import recompute_blocks
from mm.train.distributed import World, join
from mm.train.sharding import Statistics, Whole, piece, shard
from tests.train.together import together

MODELS = {
    "timm": {"model": "vit_tiny_patch16_224", "image_size": 64},
    "torchvision": {"model": "resnet18", "image_size": 64, "shortest_edge": 64},
}
CPU = torch.device("cpu")


class Score(nn.Module):
    """A number that depends on every token of an encoder."""

    def __init__(self, name: str) -> None:
        super().__init__()
        values = conformance.tiny_values(encoders.config_type(encoders.get(name)))
        self.encoder: Any = encoders.build(name, {**values, **MODELS.get(name, {})})
        self.encoder.init_weights(torch.Generator().manual_seed(0))

    def forward(self, pictures: list[torch.Tensor]) -> torch.Tensor:
        tokens = self.encoder.tokens(self.encoder.preprocess(pictures)).float().flatten()
        return (tokens * torch.linspace(-1, 1, len(tokens))).mean()


def compare_gradients(names: list[str]) -> None:
    """Both processes see the same pictures and give half of the loss each."""
    draw = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, 60, 44), generator=draw, dtype=torch.uint8)] * 2
    with join(CPU) as world:
        for name in names:
            plain, cut = Score(name), Score(name)
            recompute_blocks([cut.encoder])
            shard(cut, world, CPU)
            plain(pictures).backward()
            (cut(pictures) / world.size).backward()
            wanted = {path: p.grad for path, p in plain.named_parameters() if p.numel()}
            largest = max(float(grad.abs().max()) for grad in wanted.values() if grad is not None)
            held = 0
            for path, parameter in cut.named_parameters():
                if path not in wanted:
                    continue
                assert isinstance(parameter, DTensor), f"{name}: {path} is whole"
                held += parameter.to_local().numel()
                found = parameter.grad.full_tensor() if parameter.grad is not None else None
                assert (found is None) == (wanted[path] is None), f"{name}: {path}"
                if found is not None:
                    torch.testing.assert_close(found, wanted[path], rtol=1e-4, atol=1e-5 * largest)
            assert held < 0.55 * sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize(
    "names",
    [
        ["dinov3"],  # without registers: a parameter that has no element
        pytest.param([n for n in encoders.names() if n != "dinov3"], marks=pytest.mark.slow),
    ],
)
def test_encoders_learn_the_same_in_pieces(names: list[str], tmp_path: Path) -> None:
    codes = together(2, compare_gradients, names, log=tmp_path / "log")
    assert codes == [0, 0], (tmp_path / "log-0").read_text() + (tmp_path / "log-1").read_text()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.norm = nn.BatchNorm1d(3)
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("table", torch.arange(3.0), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x) + self.table)


def check_whole_and_statistics() -> None:
    """Batches 0 and 1 in the first process, 2 and 3 in the second; then the model whole again."""
    batches = [torch.tensor([0, 1, n, n]) for n in (2, 3, 4, 0)]
    with join(CPU) as world:
        models = []
        for _ in range(2):
            torch.manual_seed(0)
            models.append(Tied())
        plain, cut = models
        for _ in range(2):
            for batch in batches:
                plain(batch)
        whole = Whole(cut, world)
        shard(cut, world, CPU)
        statistics = Statistics(cut, 2, world)
        for _ in range(2):
            statistics.before()
            for batch in batches[2 * world.rank : 2 * world.rank + 2]:
                cut(batch)
            statistics.join()
        again = whole.of(cut)
        assert (again is None) == (world.rank == 1)
        for name, wanted in plain.named_buffers():
            torch.testing.assert_close(dict(cut.named_buffers())[name], wanted)
        if again is not None:
            for name, wanted in plain.state_dict().items():
                torch.testing.assert_close(again.state_dict()[name], wanted)
            assert again.head.weight is again.embedding.weight
            assert not isinstance(again.head.weight, DTensor)
            torch.testing.assert_close(again(batches[0]), plain(batches[0]))


def test_statistics_are_those_of_all_batches_and_the_whole_is_what_it_was(tmp_path: Path) -> None:
    codes = together(2, check_whole_and_statistics, log=tmp_path / "log")
    assert codes == [0, 0], (tmp_path / "log-0").read_text() + (tmp_path / "log-1").read_text()


def test_one_process_is_its_own_whole() -> None:
    model = nn.Linear(2, 2)
    assert Whole(model, World()).of(model) is model


@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_pieces_cover_every_row_once(length: int) -> None:
    pieces = [piece(length, rank, 4) for rank in range(4)]
    assert [row for first, end in pieces for row in range(first, end)] == list(range(length))
    chunks = torch.arange(length).chunk(4) if length else ()
    assert [len(chunk) for chunk in chunks] == [b - a for a, b in pieces if b > a]
