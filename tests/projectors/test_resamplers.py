"""Perceiver resampler, Q-Former and C-Abstractor: counts, gradients, parity, refusals."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm import projectors
from tests.conftest import redraw

SIZES = {
    "perceiver": {"num_latents": 9, "num_hidden_layers": 2, "num_attention_heads": 2},
    "qformer": {
        "num_query_tokens": 9,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 20,
    },
    "c_abstractor": {"num_queries": 9, "hidden_size": 24, "depth": 2},
}
KINDS = sorted(SIZES)
EXACT = {"atol": 2e-5, "rtol": 1e-4}


def make(kind: str, **changes: object) -> projectors.Projector:
    config = {"input_size": 16, "output_size": 14, **SIZES[kind], **changes}
    projector = projectors.build(kind, config).eval()
    redraw(projector)
    return projector


def some(grid: tuple[int, int], batch: int = 3, width: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, grid[0] * grid[1], width, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(grid=st.tuples(st.integers(0, 9), st.integers(0, 9)))
@torch.no_grad()
def test_promise_is_kept_on_every_grid_or_the_grid_refused_by_both(kind, grid):
    projector = make(kind)
    tokens = some(grid, batch=2)
    try:
        promised = projector.num_tokens(grid)
    except ValueError as error:
        assert f"patch grid {grid[0]}x{grid[1]} is smaller than" in str(error)
        assert "image_size larger" in str(error)
        assert min(grid) < (3 if kind == "c_abstractor" else 1)
        with pytest.raises(ValueError, match="is smaller than"):
            projector.project(tokens, grid)
    else:
        assert projector.project(tokens, grid).shape == (2, promised, 14) and promised == 9


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter_and_the_tokens(kind):
    projector = make(kind)
    tokens = some((4, 5)).requires_grad_()
    out = projector.project(tokens, (4, 5))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert tokens.grad is not None and bool((tokens.grad != 0).any(-1).all())
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_batch_gives_what_each_image_gives_alone_and_again(kind):
    projector, tokens = make(kind), some((4, 5))
    together = projector.project(tokens, (4, 5))
    assert torch.equal(projector.project(tokens, (4, 5)), together)
    for row in range(3):
        alone = projector.project(tokens[row : row + 1], (4, 5))
        torch.testing.assert_close(alone[0], together[row], **EXACT)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("kind", ["perceiver", "c_abstractor"])
@torch.no_grad()
def test_places_matter(kind):
    projector, tokens = make(kind), some((4, 5))
    turned = tokens.view(3, 4, 5, 16).flip(1).flatten(1, 2)
    assert not torch.allclose(
        projector.project(turned, (4, 5)), projector.project(tokens, (4, 5)), atol=1e-3
    )
    across = projector.project(tokens, (5, 4))
    assert not torch.allclose(across, projector.project(tokens, (4, 5)), atol=1e-3)


@torch.no_grad()
def test_c_abstractor_keeps_places_in_order_row_by_row():
    projector = make("c_abstractor", depth=1)
    tokens = some((9, 9), batch=1)
    changed = tokens.clone()
    changed.view(1, 9, 9, 16)[:, 0, 8] += 3  # the upper right corner
    moved = (
        (projector.project(changed, (9, 9)) - projector.project(tokens, (9, 9))).abs().sum(-1)[0]
    )
    assert int(moved.argmax()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_init_weights_depend_on_the_generator_alone_and_draw_everything(kind):
    states = []
    for noise in (1, 2):
        projector = make(kind)
        redraw(projector, seed=noise)
        projector.init_weights(torch.Generator().manual_seed(3))
        states.append(projector.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name, tensor in states[0].items():
        assert bool(tensor.any()) != name.endswith("bias"), name


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_do_not_fill_the_grid_are_refused(kind):
    with pytest.raises(ValueError, match="21 tokens do not fill a patch grid 4x5: leave class"):
        make(kind).project(torch.zeros(1, 21, 16), (4, 5))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("perceiver", {"num_attention_heads": 3}, "num_attention_heads is 3; it must divide the"),
        ("perceiver", {"num_latents": 0}, "num_latents is 0; it must be at least 1"),
        ("perceiver", {"input_size": 18}, "input_size is 18; it must be a multiple of 4"),
        ("qformer", {"num_attention_heads": 5}, "num_attention_heads is 5; it must divide the"),
        ("qformer", {"cross_attention_frequency": 0}, "cross_attention_frequency is 0; it must"),
        ("c_abstractor", {"num_queries": 10}, "num_queries is 10; it must be a square number.* 9"),
        ("c_abstractor", {"depth": 0}, "depth is 0; it must be at least 1"),
    ],
)
def test_config_that_makes_no_projector_is_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **changes)


@torch.no_grad()
def test_qformer_matches_blip2_in_transformers():
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    ours = make("qformer")
    redraw(ours, seed=5)
    fields = dataclasses.asdict(ours.config)
    for other in ("input_size", "output_size", "num_query_tokens"):
        fields.pop(other)
    config = transformers.Blip2QFormerConfig(**fields, encoder_hidden_size=16, vocab_size=10)
    config._attn_implementation = "eager"
    theirs = transformers.Blip2QFormerModel(config).eval()
    theirs.load_state_dict(ours.qformer.state_dict(), strict=True)
    tokens = some((4, 5))
    expected = theirs(
        query_embeds=ours.query_tokens.expand(3, -1, -1), encoder_hidden_states=tokens
    ).last_hidden_state
    assert float(expected.std()) > 0.5
    found = ours.qformer(ours.query_tokens.expand(3, -1, -1), tokens)
    torch.testing.assert_close(found, expected, **EXACT)
    projected = ours.project(tokens, (4, 5))
    torch.testing.assert_close(projected, ours.language_projection(expected), **EXACT)


@torch.no_grad()
def test_perceiver_places_tell_rows_from_columns():
    from mm.projectors.perceiver import grid_positions

    places = grid_positions((3, 4), 16, torch.device("cpu")).view(3, 4, 16)
    assert torch.equal(places[1, :, :8], places[1, :1, :8].expand(4, 8))  # a row shares its half
    assert torch.equal(places[:, 2, 8:], places[:1, 2, 8:].expand(3, 8))
    assert len({tuple(place) for place in places.flatten(0, 1).tolist()}) == 12


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Counted by hand: latents + layers x (3 norms + q, k, v, out + fc1, fc2) + norm + proj.
        ("perceiver", 64 * 256 + 2 * (3 * 512 + 4 * 256**2 + 2 * 4 * 256**2) + 512 + 257 * 128),
        # Query tokens, norm, 12 layers, cross-attention to 256 columns in every second one, and the
        # last matrix.
        (
            "qformer",
            32 * 768
            + 2 * 768
            + 12 * (4 * 769 * 768 + 769 * 3072 + 3073 * 768 + 2 * 2 * 768)
            + 6 * (2 * 769 * 768 + 2 * 257 * 768 + 2 * 768)
            + 769 * 128,
        ),
        # 6 bottlenecks, whose first maps 256 channels to 1024, and squeezes to a quarter.
        (
            "c_abstractor",
            (256 + 1024 * 5) * 1024
            + 256 * 1024
            + 6 * (9 * 1024 + 1024**2 + 3 * 2048)
            + 2048
            + (1025 * 64 + 65 * 1024)
            + 5 * (1025 * 256 + 257 * 1024)
            + 1025 * 128
            + 129 * 128,
        ),
    ],
)
def test_parameter_counts_of_the_defaults(kind, expected):
    with torch.device("meta"):
        projector = projectors.build(kind, {"input_size": 256, "output_size": 128})
    assert sum(parameter.numel() for parameter in projector.parameters()) == expected


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_whole_graph_is_traced(kind):
    projector, tokens = make(kind), some((4, 5))
    traced = torch.compile(projector.project, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(tokens, (4, 5)), projector.project(tokens, (4, 5)), **EXACT)
