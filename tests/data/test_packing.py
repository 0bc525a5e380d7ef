import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mm.data.packing import (
    Encoded,
    Item,
    PackedBatch,
    PackingCounts,
    Row,
    attention_mask,
    collate,
    pack,
    place,
)
from mm.vlm import VisionLanguageModel
from tests import tiny_model
from tests.conftest import IMAGE_TOKEN_ID
from tests.tiny_model import squares

ROW = 40
IMAGE_PAD = tiny_model.tokenizer().token_id("<|image_pad|>")
conversations = st.lists(
    st.tuples(
        st.integers(1, 6),  # length of the prefix
        st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=5),
    ),
    max_size=12,
)


def encoded(shapes: list[tuple[int, list[tuple[int, int]]]]) -> list[Encoded]:
    """Conversations whose every item has a token id of its own."""
    found, token = [], 100
    for picture, (prefix, items) in enumerate(shapes):
        made: list[Item] = []
        for length, learned in items:
            mask = [i >= length - min(learned, length) for i in range(length)]
            made.append(([token] * length, mask))
            token += 1
        found.append(Encoded(picture, [picture] * prefix, made))
    return found


@given(conversations, st.integers(1, 3), st.integers(0, 4))
def test_packing_loses_nothing_but_what_no_row_can_hold(
    shapes: list[tuple[int, list[tuple[int, int]]]], images: int, lookahead: int
) -> None:
    given_ = encoded(shapes)
    counts = PackingCounts()
    rows = list(pack(given_, ROW, images_per_row=images, lookahead=lookahead, counts=counts))
    fits = [i for c in given_ for i in c.items if len(c.prefix) + len(i[0]) <= ROW]
    packed = [item for row in rows for part in row.parts for item in part.items]
    assert sorted(i[0][0] for i in packed) == sorted(i[0][0] for i in fits)
    assert counts.too_long == sum(len(c.items) for c in given_) - len(fits)
    for row in rows:
        assert 0 < len(row.parts) <= images
        used = sum(len(p.prefix) + sum(len(i[0]) for i in p.items) for p in row.parts)
        assert used == row.length <= ROW
        for part in row.parts:
            assert part.prefix == given_[part.picture].prefix


@given(conversations)
def test_collate_labels_every_learned_token_once(
    shapes: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    rows = list(pack(encoded(shapes), ROW, images_per_row=4))
    if not rows:
        return
    batch = collate(rows, ROW, pad_id=0)
    learned = [i for row in rows for p in row.parts for ids, mask in p.items for i, m in
               zip(ids, mask, strict=True) if m]  # fmt: skip
    assert sorted(batch.label_ids.tolist()) == sorted(learned)
    assert batch.fill == pytest.approx(sum(r.length for r in rows) / (len(rows) * ROW))


def test_attention_stays_inside_a_segment_and_its_prefix() -> None:
    item: Item = ([5, 6], [False, True])
    row = Row()
    place(row, Encoded(0, [1, 2], [item, item]), 12)
    place(row, Encoded(1, [3], [item]), 12)
    batch = collate([row], 12, pad_id=0)
    mask = attention_mask(batch.segment_ids, batch.prefix_ids)[0, 0]
    sees = {i: set(mask[i].nonzero().flatten().tolist()) for i in range(12)}
    assert sees[1] == {0, 1}
    assert sees[3] == {0, 1, 2, 3}  # the first item: prefix and itself
    assert sees[5] == {0, 1, 4, 5}  # the second: not the first
    assert sees[8] == {6, 7, 8}  # another picture's item: nothing of the first picture
    assert sees[10] == {9, 10}  # padding sees padding alone
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 2, 3, 0, 1, 2, 0, 0, 0]


Mask = Callable[[Tensor, Tensor], Tensor]


def losses(model: VisionLanguageModel, batch: PackedBatch, pixels: Tensor, mask: Mask) -> Tensor:
    """Log probability of every labelled token."""
    hidden = model.hidden(
        batch.input_ids,
        squares(pixels),
        position_ids=batch.position_ids,
        attention_mask=mask(batch.segment_ids, batch.prefix_ids),
    )
    logits = model.logits(hidden).flatten(0, 1)[batch.label_positions]
    return logits.log_softmax(-1).gather(1, batch.label_ids[:, None])[:, 0]


def packed_and_apart(model: VisionLanguageModel, mask: Mask) -> tuple[Tensor, Tensor]:
    """What a model makes of conversations in shared rows under a mask, and in rows of their own."""
    rng = random.Random(0)
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def item() -> Item:
        length = rng.randrange(3, 8)
        return [rng.randrange(10, 99) for _ in range(length)], [False] + [True] * (length - 1)

    talks = [
        Encoded(i, [8, *[IMAGE_TOKEN_ID] * 4, 9], [item() for _ in range(i + 1)]) for i in range(3)
    ]
    rows = list(pack(talks, 48, images_per_row=3))
    assert len(rows) < 3
    order = [part.picture for row in rows for part in row.parts]
    together = losses(model, collate(rows, 48, pad_id=0), pictures[order], mask)
    apart = []
    for row in rows:
        for part in row.parts:
            for one in part.items:
                alone = Row()
                place(alone, Encoded(part.picture, part.prefix, [one]), 24)
                batch = collate([alone], 24, pad_id=0)
                apart.append(losses(model, batch, pictures[[part.picture]], attention_mask))
    return together, torch.cat(apart)


def test_packed_equals_unpacked(tiny_vlm: VisionLanguageModel) -> None:
    together, apart = packed_and_apart(tiny_vlm, attention_mask)
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=1e-4)


def test_a_leak_between_items_would_be_noticed(tiny_vlm: VisionLanguageModel) -> None:
    together, apart = packed_and_apart(
        tiny_vlm, lambda segments, prefixes: attention_mask(torch.ones_like(segments), prefixes)
    )
    assert (together - apart).abs().max() > 1e-3


@st.composite
def documents(draw: st.DrawFn) -> list[Encoded]:
    """Conversations with any number of pictures of 4 tokens, some with independent items."""
    found = []
    for number in range(draw(st.integers(2, 5))):
        images = draw(st.integers(1, 3))
        picture = [8, *[IMAGE_PAD] * 4, 9]
        rng = random.Random(draw(st.integers(0, 2**20)))

        def text(length: int, rng: random.Random = rng) -> Item:
            return [rng.randrange(10, 99) for _ in range(length)], [False] + [True] * (length - 1)

        if images == 1 and draw(st.booleans()):
            lengths = draw(st.lists(st.integers(2, 6), min_size=1, max_size=3))
            found.append(Encoded(number, picture, [text(length) for length in lengths]))
            continue
        ids: list[int] = []
        learned: list[bool] = []
        for _ in range(images):  # text after each picture: later turns see the earlier ones
            said, mask = text(draw(st.integers(2, 7)))
            ids += picture + said
            learned += [False] * len(picture) + mask
        found.append(Encoded(number, [], [(ids, learned)], images))
    return found


PackedRun = tuple[Tensor, dict[str, Tensor]]


def run(model: VisionLanguageModel, rows: list[Row], length: int, pixels: Tensor) -> PackedRun:
    """Loss of every labelled token, by row and position, and gradients of their sum."""
    batch = collate(rows, length, pad_id=0)
    model.zero_grad()
    found = -losses(model, batch, pixels, attention_mask)
    found.sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found.detach(), grads


def pixels_of(document: Encoded) -> Tensor:
    generator = torch.Generator().manual_seed(document.picture)
    return torch.randn(document.num_pictures, 3, 32, 32, generator=generator)


@settings(max_examples=12, deadline=None)
@given(documents())
def test_losses_and_gradients_of_packed_rows_are_those_of_each_alone(given_: list[Encoded]) -> None:
    model = tiny_model.model().double()
    rows = list(pack(given_, 64, images_per_row=4))
    parts = [part for row in rows for part in row.parts]
    together, grads = run(model, rows, 64, torch.cat([pixels_of(p) for p in parts]).double())
    apart, sums = [], {name: torch.zeros_like(grad) for name, grad in grads.items()}
    for part in parts:
        for item in part.items:
            row = Row()
            assert place(row, Encoded(0, part.prefix, [item], part.num_pictures), 64) == []
            found, alone = run(model, [row], 64, pixels_of(part).double())
            apart.append(found)
            for name, grad in alone.items():
                sums[name] += grad
    # Rotary angles are float32 in every model: equal positions, and so equal values.
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(grads, sums, atol=1e-5, rtol=1e-5)


def test_a_canary_in_one_document_changes_nothing_in_its_neighbours() -> None:
    model = tiny_model.model()
    pad = model.image_token_id
    assert pad is not None
    item: Item = ([8, *[pad] * 4, 9, 20, 21, 22], [False] * 7 + [True] * 2)
    canary: Item = ([8, *[pad] * 4, 9, 99, 98, 97], [False] * 7 + [True] * 2)
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for middle, shift in ((item, 0.0), (canary, 5.0)):
        row = Row()
        for number, one in enumerate((item, middle, item)):
            place(row, Encoded(number, [], [one]), 30)
        moved = pictures + shift * torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1)
        batch = collate([row], 30, pad_id=0)
        with torch.no_grad():
            found.append(losses(model, batch, moved, attention_mask))
    assert torch.equal(found[0][:2], found[1][:2])
    assert torch.equal(found[0][4:], found[1][4:])
    assert (found[0][2:4] - found[1][2:4]).abs().min() > 1e-3


def test_rows_keep_to_their_cap_on_pictures() -> None:
    counts = PackingCounts()
    talks = [Encoded(n, [], [([5] * 4, [True] * 4)], n) for n in (1, 2, 3, 1, 2, 5)]
    rows = list(pack(talks, 40, images_per_row=3, counts=counts))
    assert [row.num_pictures for row in rows] == [3, 3, 3]
    assert counts.too_many_pictures == 1
    assert len(collate(rows, 40, pad_id=0).label_ids) == 5 * 3  # nothing predicts a first token
