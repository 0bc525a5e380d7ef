import random
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from mm.data.documents import BLOCK, attention_structure, block_mask
from mm.data.packing import Encoded, Item, PackedBatch, Row, attention_mask, collate, pack, place
from mm.decoder.attention import attend
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.vlm import VisionLanguageModel
from tests.conftest import IMAGE_TOKEN_ID
from tests.tiny_model import squares


def numbered(length: int, seed: int, rows: int = 2, longest: int = 400) -> tuple[Tensor, Tensor]:
    """Segments and prefixes as `collate` numbers them: some prefixes empty, padding at the end."""
    segment_ids = torch.zeros(rows, length, dtype=torch.int64)
    prefix_ids = torch.zeros(rows, length, dtype=torch.int64)
    rng = random.Random(seed)
    for row in range(rows):
        at, segment, end = 0, 0, length - rng.randrange(0, 1 + length // 4)
        while at < end:
            segment += 1
            prefix, size = segment, rng.choice([0, rng.randrange(1, longest)])
            segment_ids[row, at : min(at + size, end)] = segment
            prefix_ids[row, at : min(at + size, end)] = segment
            at, has_prefix = at + size, size > 0
            for _ in range(rng.randrange(1, 4)):
                segment, size = segment + 1, rng.randrange(1, longest)
                segment_ids[row, at : min(at + size, end)] = segment
                prefix_ids[row, at : min(at + size, end)] = prefix if has_prefix else segment
                at += size
    return segment_ids, prefix_ids


def written_out(mask: BlockMask, T: int) -> Tensor:
    """What FlexAttention makes of a block mask, token by token: bool [R, 1, T, T]."""
    at = torch.arange(T)
    rows = torch.arange(mask.kv_indices.shape[0])[:, None, None]
    allowed = mask.mask_mod(rows, torch.tensor(0), at[:, None], at[None])[:, None]
    found = torch.zeros_like(allowed)
    for kinds, whole in (
        ((mask.kv_num_blocks, mask.kv_indices), False),
        ((mask.full_kv_num_blocks, mask.full_kv_indices), True),
    ):
        number, which = (tensor for tensor in kinds if tensor is not None)
        for row, _, query in torch.cartesian_prod(*map(torch.arange, number.shape)).tolist():
            for key in which[row, 0, query, : int(number[row, 0, query])].tolist():
                queries, keys = (slice(n * BLOCK, (n + 1) * BLOCK) for n in (query, key))
                block = (row, 0, queries, keys)
                assert not found[block].any()  # named once
                found[block] = True if whole else allowed[block]
    return found


@settings(max_examples=25)
@given(st.integers(1, 900), st.integers(0, 2**20))
def test_blocks_say_what_the_plain_mask_says(length: int, seed: int) -> None:
    segment_ids, prefix_ids = numbered(length, seed)
    found = written_out(block_mask(segment_ids, prefix_ids), length)
    assert torch.equal(found, attention_mask(segment_ids, prefix_ids))


def test_any_order_of_segments_is_right() -> None:
    segment_ids = torch.tensor([[3] * 200 + [1] * 150 + [3] * 50 + [0] * 100 + [2] * 77])
    prefix_ids = segment_ids.roll(13, 1)
    found = written_out(block_mask(segment_ids, prefix_ids), segment_ids.shape[1])
    assert torch.equal(found, attention_mask(segment_ids, prefix_ids))


def test_no_block_is_named_without_need() -> None:
    segment_ids, prefix_ids = numbered(2048, 5, longest=600)
    made = block_mask(segment_ids, prefix_ids)
    wanted = create_block_mask(made.mask_mod, 2, None, 2048, 2048, device="cpu")
    assert made.full_kv_num_blocks is not None and wanted.full_kv_num_blocks is not None
    named = made.kv_num_blocks + made.full_kv_num_blocks
    needed = wanted.kv_num_blocks + wanted.full_kv_num_blocks
    assert torch.equal(named, needed)


def test_a_cpu_and_short_rows_get_the_plain_mask() -> None:
    assert isinstance(attention_structure(*numbered(1024, 0)), Tensor)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_the_decoder_takes_blocks(tiny_decoder: Qwen3ForCausalLM) -> None:
    segment_ids, prefix_ids = numbered(300, 1, longest=90)
    ids = torch.randint(0, 99, (2, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = tiny_decoder.hidden(ids, attention_mask=attention_mask(segment_ids, prefix_ids))
        blocks = tiny_decoder.hidden(ids, attention_mask=block_mask(segment_ids, prefix_ids))
    torch.testing.assert_close(blocks, plain, atol=2e-5, rtol=1e-4)


def test_a_new_mask_of_every_step_is_not_compiled_again() -> None:
    compiled: list[Any] = []

    def count(graph: Any, inputs: list[Any]) -> Any:  # what torch.compile calls a backend with
        compiled.append(graph)
        return graph.forward

    def step(q: Tensor, k: Tensor, mask: BlockMask) -> Tensor:
        return flex_attention(q, k, k, block_mask=mask, enable_gqa=True)  # type: ignore[return-value]

    run: Any = torch.compile(step, backend=count, dynamic=False, fullgraph=True)
    generator = torch.Generator().manual_seed(0)
    for seed in range(4):
        q, k = (torch.randn(2, heads, 300, 16, generator=generator) for heads in (4, 2))
        with torch.no_grad():
            run(q, k, block_mask(*numbered(300, seed)))
    assert len(compiled) == 1


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_all_layers_share_one_graph_whatever_the_mask(tiny_decoder: Qwen3ForCausalLM) -> None:
    graphs: list[Any] = []

    def count(graph: Any, inputs: list[Any]) -> Any:  # what torch.compile calls a backend with
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    for layer in tiny_decoder.model.layers:
        layer.compile(backend=count)
    ids = torch.randint(0, 99, (2, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for seed in range(3):
            made = block_mask(*numbered(300, seed, longest=90))
            found = tiny_decoder.hidden(ids, attention_mask=made)
    assert len(graphs) == 1
    plain = attention_mask(*numbered(300, 2, longest=90))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        wanted = tiny_decoder.hidden(ids, attention_mask=plain)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("length", "rows", "dtype", "atol"),
    [
        (1000, 2, torch.float32, 1e-4),
        (1000, 2, torch.bfloat16, 2e-2),
        (4096, 1, torch.bfloat16, 2e-2),
    ],
)
def test_blocks_and_their_gradients_equal_the_plain_mask(
    length: int, rows: int, dtype: torch.dtype, atol: float
) -> None:
    segment_ids, prefix_ids = (ids.cuda() for ids in numbered(length, 3, rows))
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(rows, heads, length, 64, generator=generator) for heads in (4, 2, 2, 4)]
    q, k, v, upstream = (tensor.to("cuda", dtype) for tensor in drawn)
    results = []
    for mask in (block_mask(segment_ids, prefix_ids), attention_mask(segment_ids, prefix_ids)):
        inputs = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
        out = attend(*inputs, mask, False)
        out.backward(upstream)
        results.append([out.detach(), *(tensor.grad for tensor in inputs)])
    for found, wanted in zip(*results, strict=True):
        assert found is not None and wanted is not None
        scale = float(wanted.float().std())
        torch.testing.assert_close(found, wanted, atol=atol * max(scale, 1.0), rtol=atol)


@pytest.mark.gpu
def test_a_canary_in_a_long_row_changes_nothing_in_other_documents() -> None:
    segment_ids, prefix_ids = (ids.cuda() for ids in numbered(16_384, 7, rows=1))
    mask = block_mask(segment_ids, prefix_ids)
    generator = torch.Generator("cuda").manual_seed(0)
    q, k = (
        torch.randn(1, heads, 16_384, 128, device="cuda", dtype=torch.bfloat16, generator=generator)
        for heads in (16, 8)
    )
    before = attend(q, k, k, mask, False)
    changed = k.clone()
    segment = int(segment_ids[0, 9000])
    places = segment_ids[0] == segment
    changed[:, :, places] += 1.0
    after = attend(q, changed, changed, mask, False)
    sees = places | (prefix_ids[0] == segment)
    same = (before == after).all(dim=-1).all(dim=1)[0]
    assert bool(same[~sees].all()) and not bool(same[places].any())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_making_a_mask_waits_for_nothing_and_takes_little_memory() -> None:
    segment_ids, prefix_ids = (ids.cuda() for ids in numbered(16_384, 7, rows=1))
    block_mask(segment_ids, prefix_ids)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        block_mask(segment_ids, prefix_ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 64 * 2**20


def conversations(seed: int) -> list[Encoded]:
    """Questions about pictures of 4 tokens that do not see each other, each answer learned."""
    rng, found = random.Random(seed), []
    for picture in range(24):
        items: list[Item] = []
        for _ in range(rng.randrange(1, 4)):
            length = rng.randrange(20, 60)
            ids = [rng.randrange(10, 99) for _ in range(length)]
            items.append((ids, [at > 8 for at in range(length)]))
        found.append(Encoded(picture, [8, *[IMAGE_TOKEN_ID] * 4, 9], items))
    return found


def learn(model: VisionLanguageModel, batch: PackedBatch, pixels: Tensor, blocks: bool) -> Tensor:
    """Add the gradients of a batch's summed loss; return the loss of each label."""
    mask = (block_mask if blocks else attention_mask)(batch.segment_ids, batch.prefix_ids)
    hidden = model.hidden(
        batch.input_ids, squares(pixels), position_ids=batch.position_ids, attention_mask=mask
    )
    wanted = hidden.flatten(0, 1)[batch.label_positions]
    losses = F.cross_entropy(model.logits(wanted).float(), batch.label_ids, reduction="none")
    losses.sum().backward()
    return losses.detach()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_long_row_learns_what_its_documents_would_alone(
    tiny_vlm: VisionLanguageModel, compiled: bool
) -> None:
    model = tiny_vlm.cuda()
    pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    talks = conversations(0)
    alone = []
    for talk in talks:
        for item in range(len(talk.items)):
            row = Row()
            place(row, replace(talk, items=[talk.items[item]]), 80)
            batch = collate([row], 80, 0).to("cuda")
            alone.append(learn(model, batch, pixels[[talk.picture]], blocks=False))
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    rows = list(pack(talks, 2500, images_per_row=24))
    assert len(rows) == 1
    order = [part.picture for part in rows[0].parts]
    if compiled:
        for layer in model.decoder.model.layers:
            layer.compile()
    found = learn(model, collate(rows, 2500, 0).to("cuda"), pixels[order], blocks=True)
    torch.testing.assert_close(found, torch.cat(alone), atol=2e-5, rtol=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6 * largest, rtol=1e-3)
