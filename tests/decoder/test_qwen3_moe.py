"""Mixtures of experts: against transformers, and the ways to compute them against each other."""

from dataclasses import replace

import pytest
import torch

from mm.decoder import experts as fast
from mm.decoder.cache import KVCache
from mm.decoder.compiled import CompiledDecoder
from mm.decoder.experts import load_balancing_loss
from mm.decoder.qwen3 import (
    Experts,
    MixtureOfExperts,
    Qwen3Config,
    Qwen3ForCausalLM,
    SwiGLU,
    set_experts_path,
)
from tests.conftest import redraw
from tests.decoder.parity import (
    EXACT,
    assert_every_layer_equal,
    greedy,
    in_bfloat16,
    reference,
    some_ids,
)
from tests.no_waiting import no_waiting

PATHS = ["loop", "grouped", "gathered"]


@pytest.fixture
def moe_config(decoder_config: Qwen3Config) -> Qwen3Config:
    return replace(
        decoder_config,
        tie_word_embeddings=False,
        num_experts=8,
        num_experts_per_tok=3,
        moe_intermediate_size=24,
        norm_topk_prob=True,
    )


@pytest.fixture
def tiny_moe(moe_config: Qwen3Config) -> Qwen3ForCausalLM:
    decoder = Qwen3ForCausalLM(moe_config).eval()
    redraw(decoder)
    return decoder


def one_layer(config: Qwen3Config, num_tokens: int, dtype: torch.dtype = torch.float32):
    """Return drawn experts, tokens `[N, D]`, their experts and weights `[N, A]`."""
    experts = Experts(config)
    redraw(experts)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num_tokens, config.hidden_size, generator=generator)
    scores = torch.rand(num_tokens, config.num_experts, generator=generator)
    weights, chosen = scores.topk(config.num_experts_per_tok)
    return experts.to(dtype), x.to(dtype).requires_grad_(), chosen, weights.requires_grad_()


@pytest.mark.parametrize("offset", [0, 30000])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_topk_prob": False},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 8},
        {"tie_word_embeddings": True},
        {"num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": (3,)},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_moe_every_layer_and_the_logits_match_transformers(moe_config, changes, path, offset):
    decoder = Qwen3ForCausalLM(replace(moe_config, **changes)).eval()
    redraw(decoder)
    set_experts_path(decoder, path)
    # Its two ways of computing experts and of attending are seen once each.
    theirs = ("eager", "eager") if path == "loop" else ("sdpa", "grouped_mm")
    assert_every_layer_equal(decoder, reference(decoder, *theirs), offset)


@pytest.mark.parametrize("path", ["loop", "grouped"])
@torch.no_grad()
def test_moe_64_greedy_tokens_are_those_of_transformers(tiny_moe, path):
    set_experts_path(tiny_moe, path)
    prompt = some_ids(tiny_moe, batch=1)
    theirs = reference(tiny_moe).generate(
        prompt, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert torch.equal(greedy(tiny_moe, prompt, 64), theirs)


def test_moe_layers_are_those_that_the_config_names(moe_config):
    config = replace(moe_config, num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=(3, 4))
    layers = Qwen3ForCausalLM(config).model.layers
    kinds = [MixtureOfExperts if index in (1, 5) else SwiGLU for index in range(6)]
    assert [type(layer.mlp) for layer in layers] == kinds
    assert [config.is_moe_layer(index) for index in range(6)] == [
        kind is MixtureOfExperts for kind in kinds
    ]
    assert layers[0].mlp.gate_proj.weight.shape == (48, 32)  # intermediate_size, as published


def test_moe_tensors_have_the_published_names_and_the_fused_shapes(tiny_moe):
    names = {name: list(t.shape) for name, t in tiny_moe.state_dict().items() if "1.mlp" in name}
    assert names == {
        "model.layers.1.mlp.gate.weight": [8, 32],
        "model.layers.1.mlp.experts.gate_up_proj": [8, 48, 32],
        "model.layers.1.mlp.experts.down_proj": [8, 32, 24],
    }


@pytest.mark.parametrize("normalised", [True, False])
@torch.no_grad()
def test_router_in_bfloat16_is_bit_equal_to_transformers(moe_config, normalised):
    # Among 128 experts, a softmax in bfloat16 would choose others for some of these tokens.
    modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
    config = replace(moe_config, num_experts=128, num_experts_per_tok=8, norm_topk_prob=normalised)
    ours, theirs = MixtureOfExperts(config), modeling.Qwen3MoeTopKRouter(config)
    redraw(ours)
    theirs.weight.copy_(ours.gate.weight)
    x = torch.randn(500, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    logits, weights, chosen = theirs.to(torch.bfloat16)(x)
    given: list[torch.Tensor] = []
    ours.experts.register_forward_pre_hook(lambda _module, args: given.extend(args))
    ours.to(torch.bfloat16)(x[None])
    assert torch.equal(given[1], chosen)
    assert torch.equal(given[2].to(torch.bfloat16), weights)
    narrow = logits.softmax(-1).topk(8).indices
    assert not torch.equal(narrow, chosen)  # the input tells the two apart


@pytest.mark.parametrize("path", ["auto", *PATHS])
@pytest.mark.parametrize("chunks", [[1] * 13, [6, 7], [5, 1, 4, 3]], ids=str)
@torch.no_grad()
def test_moe_cached_in_any_chunks_equals_uncached(tiny_moe, chunks, path):
    ids = some_ids(tiny_moe)
    whole = tiny_moe.hidden(ids)
    set_experts_path(tiny_moe, path)
    cache = KVCache(tiny_moe.config, 3, 16, "cpu", torch.float32)
    pieces = [tiny_moe.hidden(piece, cache=cache) for piece in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **EXACT)


@torch.no_grad()
def test_moe_batch_equals_one_by_one(tiny_moe):
    ids = some_ids(tiny_moe)
    alone = torch.cat([tiny_moe.hidden(row[None]) for row in ids])
    torch.testing.assert_close(tiny_moe.hidden(ids), alone, **EXACT)


@pytest.mark.parametrize("num_tokens", [1, 2, 37])
@pytest.mark.parametrize("path", ["grouped", "gathered"])
def test_experts_paths_agree_forwards_and_backwards(moe_config, path, num_tokens):
    results = []
    for chosen_path in ("loop", path):
        experts, x, chosen, weights = one_layer(moe_config, num_tokens)
        experts.path = chosen_path
        out = experts(x, chosen, weights)
        out.square().sum().backward()
        results.append([out, x.grad, weights.grad, *(p.grad for p in experts.parameters())])
    assert len(results[0]) == 5
    for reference_result, result in zip(*results, strict=True):
        torch.testing.assert_close(result, reference_result, **EXACT)
    assert num_tokens > 2 or (results[0][3] == 0).flatten(1).all(1).any()  # an expert unused


@pytest.mark.parametrize("path", PATHS)
def test_experts_in_bfloat16_are_near_float32_forwards_and_backwards(moe_config, path):
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        experts, x, chosen, weights = one_layer(moe_config, 37, dtype)
        experts.path = path
        assert fast.has_grouped_mm(x, experts.down_proj) == (dtype == torch.bfloat16)
        out = experts(x, chosen, weights)
        assert out.dtype == dtype
        out.float().square().sum().backward()
        results.append([out, x.grad, weights.grad, *(p.grad for p in experts.parameters())])
    for wide, narrow in zip(*results, strict=True):
        assert (narrow.float() - wide).norm() < 0.01 * wide.norm()


@pytest.mark.parametrize("width", [24, 20], ids=["aligned", "not aligned"])
@torch.no_grad()
def test_grouped_linear_in_bfloat16_equals_products_one_by_one(width):
    # Rows of 20 bfloat16 numbers do not start at multiples of 16 bytes: the fallback.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, width, generator=generator, dtype=torch.bfloat16)
    weight = torch.randn(5, 16, width, generator=generator, dtype=torch.bfloat16)
    assert fast.has_grouped_mm(x, weight) == (width == 24)
    ends = torch.tensor([0, 2, 2, 6, 7], dtype=torch.int32)
    expected = torch.stack(
        [row @ weight[group].T for row, group in zip(x, (1, 1, 3, 3, 3, 3, 4), strict=True)]
    )
    found = fast.grouped_linear(x, weight, ends)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2])
@pytest.mark.parametrize("path", ["auto", *PATHS])
@torch.no_grad()
def test_experts_that_no_token_chose_are_not_read(moe_config, path, num_tokens, dtype):
    experts, x, chosen, weights = one_layer(moe_config, num_tokens, dtype)
    expected = experts(x, chosen, weights)
    unchosen = [index for index in range(8) if index not in chosen]
    assert unchosen
    for parameter in experts.parameters():
        parameter[unchosen] = torch.nan
    experts.path = path
    found = experts(x, chosen, weights)
    bounds = EXACT if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(found, expected, **bounds)


def test_compiled_code_gathers_few_pairs_and_groups_many(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for num_experts, num_tokens, expected in (
        (8, 1, "gathered"),
        (8, 2, "grouped"),
        (128, 4, "gathered"),
        (128, 5, "grouped"),
    ):
        x = torch.zeros(num_tokens, 32, dtype=torch.bfloat16)
        down = torch.zeros(num_experts, 32, 8, dtype=torch.bfloat16)
        chosen = torch.zeros(num_tokens, 8, dtype=torch.long)
        assert fast.best_path(x, chosen, down) == expected
        assert fast.best_path(x.float(), chosen, down.float()) == "gathered"


@torch.no_grad()
def test_experts_path_is_chosen_for_the_whole_model_and_the_automatic_one_fits(tiny_moe):
    set_experts_path(tiny_moe, "gathered")
    found = {module.path for module in tiny_moe.modules() if isinstance(module, Experts)}
    assert found == {"gathered"}
    with pytest.raises(ValueError, match=r"unknown experts path 'fast'; known: auto, loop"):
        set_experts_path(tiny_moe, "fast")
    down = tiny_moe.model.layers[0].mlp.experts.down_proj

    def best(num_tokens: int, **options: object) -> str:
        x = torch.zeros(num_tokens, 32, **options)
        return fast.best_path(x, torch.zeros(num_tokens, 3, dtype=torch.long), down)

    assert [best(1), best(2)] == ["loop", "grouped"]
    assert [best(1, device="meta"), best(2, device="meta")] == ["gathered", "gathered"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [1, 13])
def test_moe_whole_graph_is_traced_and_equals_eager(moe_config, length, dtype):
    torch.compiler.reset()
    decoder = Qwen3ForCausalLM(replace(moe_config, num_hidden_layers=1)).to(dtype)
    redraw(decoder)
    ids = some_ids(decoder, length=length)[: 1 if length == 1 else 3]

    def run(ids):
        logits: list[torch.Tensor] = []
        return decoder.hidden(ids, router_logits=logits), torch.stack(logits)

    traced = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = traced(ids)
    for found, expected in zip(results, run(ids), strict=True):
        bounds = EXACT if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
        torch.testing.assert_close(found, expected, **bounds)
    results[0].float().square().mean().backward()
    gradient = decoder.model.layers[0].mlp.experts.gate_up_proj.grad
    assert gradient is not None and gradient.abs().max() > 0


@pytest.mark.parametrize(("batch", "dtype"), [(1, torch.float32), (2, torch.bfloat16)], ids=str)
@torch.no_grad()
def test_moe_compiled_steps_over_a_static_cache_equal_eager_ones(moe_config, batch, dtype):
    decoder = Qwen3ForCausalLM(replace(moe_config, num_hidden_layers=1)).eval()
    redraw(decoder)
    decoder.to(dtype)
    ids = some_ids(decoder, batch=batch)
    cache = KVCache(decoder.config, batch, 13, "cpu", dtype)
    decoder.hidden(ids[:, :9], cache=cache)
    steps = CompiledDecoder(decoder, batch, 16, backend="aot_eager")
    steps.load(cache, torch.full((batch, 1), 9), None)
    bounds = EXACT if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    for index in range(9, 13):
        eager = decoder.logits(decoder.hidden(ids[:, index : index + 1], cache=cache)[:, 0])
        torch.testing.assert_close(steps.step(ids[:, index]), eager, **bounds)


@pytest.mark.slow  # a C++ compiler run
@torch.no_grad()
def test_moe_compiled_equals_eager(tiny_moe):
    for ids in (some_ids(tiny_moe), some_ids(tiny_moe, batch=1, length=1)):
        compiled = torch.compile(tiny_moe, fullgraph=True)
        torch.testing.assert_close(compiled(ids), tiny_moe(ids), **EXACT)


def test_moe_on_the_meta_device_gives_shapes(moe_config):
    with torch.device("meta"):
        decoder = Qwen3ForCausalLM(moe_config)
        assert decoder(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 99)


def test_moe_draws_every_expert_from_the_generator(moe_config):
    decoder = Qwen3ForCausalLM(moe_config)
    decoder.init_weights(torch.Generator().manual_seed(3))
    again = Qwen3ForCausalLM(moe_config)
    again.init_weights(torch.Generator().manual_seed(3))
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, decoder.get_parameter(name))
    stds = decoder.model.layers[2].mlp.experts.gate_up_proj.flatten(1).std(1)
    assert ((0.015 < stds) & (stds < 0.025)).all()


def test_moe_under_autocast_routes_in_float32_and_stays_near(tiny_moe):
    ids = some_ids(tiny_moe)
    wide_logits: list[torch.Tensor] = []
    wide = tiny_moe.hidden(ids, router_logits=wide_logits)
    narrow_logits: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        narrow = tiny_moe.hidden(ids, router_logits=narrow_logits)
        narrow.float().square().mean().backward()
    assert {logits.dtype for logits in narrow_logits} == {torch.float32}
    assert (narrow_logits[0] - wide_logits[0]).abs().max() < 0.05
    assert (narrow - wide).norm() < 0.02 * wide.norm()
    gradient = tiny_moe.model.layers[0].mlp.experts.down_proj.grad
    assert gradient.dtype == torch.float32 and gradient.abs().max() > 0


@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_moe_in_bfloat16_is_as_near_transformers_as_its_attentions_are_to_each_other(
    tiny_moe, path
):
    ids = some_ids(tiny_moe)
    eager, sdpa = (
        in_bfloat16(reference(tiny_moe, attention, "grouped_mm"))(ids).logits.float()
        for attention in ("eager", "sdpa")
    )
    set_experts_path(tiny_moe, path)
    ours = tiny_moe.to(torch.bfloat16)(ids).float()
    own = (eager - sdpa).abs()
    assert 0 < own.max() < 0.1
    for theirs in (eager, sdpa):
        difference = (ours - theirs).abs()
        assert difference.max() <= own.max() and difference.mean() <= own.mean()


# --- Load balancing ------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_router_logits_and_load_balancing_loss_are_those_of_transformers(moe_config, masked):
    config = replace(moe_config, num_hidden_layers=4, mlp_only_layers=(2,))
    decoder = Qwen3ForCausalLM(config).eval()
    redraw(decoder)
    ids = some_ids(decoder)
    mask = torch.ones_like(ids)
    if masked:
        mask[0, 9:] = 0
        mask[2, 4:] = 0
    model = reference(decoder)
    theirs = model(ids, attention_mask=mask, output_router_logits=True)
    collected: list[torch.Tensor] = []
    causal = torch.ones(13, 13, dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
    decoder.hidden(ids, attention_mask=causal, router_logits=collected)
    assert len(collected) == len(theirs.router_logits) == 3
    kept = mask.flatten().bool()
    for ours, expected in zip(collected, theirs.router_logits, strict=True):
        torch.testing.assert_close(ours[kept], expected[kept], **EXACT)
    loss = load_balancing_loss(collected, 8, 3, mask.bool())
    torch.testing.assert_close(loss, theirs.aux_loss, atol=1e-6, rtol=1e-5)
    loss.backward()
    theirs.aux_loss.backward()
    gate, expected_gate = (m.model.layers[1].mlp.gate.weight for m in (decoder, model))
    assert gate.grad.abs().max() > 1e-4
    torch.testing.assert_close(gate.grad, expected_gate.grad, atol=1e-6, rtol=1e-4)


def test_load_balancing_loss_ignores_what_the_mask_leaves_out():
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(10, 8, generator=generator) for _ in range(2)]
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 4 + [False]])
    kept = load_balancing_loss([layer[mask.flatten()] for layer in logits], 8, 3)
    for layer in logits:
        layer[~mask.flatten()] += 100 * torch.randn(3, 8, generator=generator)
    torch.testing.assert_close(load_balancing_loss(logits, 8, 3, mask), kept)
    assert load_balancing_loss(logits, 8, 3, torch.zeros_like(mask)) == 0  # and not NaN


def test_load_balancing_loss_is_least_when_the_load_is_even():
    even = torch.eye(8).repeat(4, 1) + torch.eye(8).roll(1, 1).repeat(4, 1)
    crowded = torch.zeros(32, 8)
    crowded[:, :2] = 4.0
    torch.testing.assert_close(load_balancing_loss([even], 8, 2), torch.tensor(2.0))
    assert load_balancing_loss([crowded], 8, 2) > 3
    with pytest.raises(ValueError, match="no router logits: a dense model"):
        load_balancing_loss([], 8, 2)


def test_dense_model_collects_no_router_logits(tiny_decoder):
    collected: list[torch.Tensor] = []
    tiny_decoder.hidden(some_ids(tiny_decoder), router_logits=collected)
    assert collected == []


@pytest.mark.gpu
@pytest.mark.parametrize("path", PATHS)
def test_moe_on_a_gpu_agrees_with_the_cpu_forwards_and_backwards(moe_config, path):
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 0.02)):
        results = []
        for device in ("cpu", "cuda"):
            experts, x, chosen, weights = one_layer(moe_config, 37, dtype)
            experts = experts.to(device)
            experts.path = "loop" if device == "cpu" else path
            x = x.detach().to(device).requires_grad_()
            out = experts(x, chosen.to(device), weights.to(device))
            out.float().square().sum().backward()
            grads = [parameter.grad for parameter in experts.parameters()]
            results.append([tensor.float().cpu() for tensor in (out, x.grad, *grads)])
        for expected, found in zip(*results, strict=True):
            assert (found - expected).norm() < bound * expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 4])
@torch.no_grad()
def test_moe_on_a_gpu_a_compiled_step_has_no_synchronisation_and_equals_eager(tiny_moe, batch):
    decoder = tiny_moe.to("cuda", torch.bfloat16)
    ids = some_ids(decoder, batch=batch, length=1).cuda()
    set_experts_path(decoder, "loop")
    expected = decoder.hidden(ids).float()
    set_experts_path(decoder, "auto")
    compiled = torch.compile(decoder.hidden, fullgraph=True, mode="reduce-overhead")
    for _ in range(4):
        found = compiled(ids).float().clone()
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    with no_waiting():
        compiled(ids)
