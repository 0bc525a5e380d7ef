import random

import pytest
import torch

from mm.data.packing import Encoded, Item, Row, attention_mask, collate, place
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.report.describe.pictures import flop_counter
from mm.train.flops import Work, decoder_flops, peak_flops, work_of


def rows(seed: int) -> list[Row]:
    rng = random.Random(seed)
    found = [Row(), Row()]
    for row in found:
        while row.length < 70:
            items: list[Item] = [
                ([1] * n, [False] + [True] * (n - 1)) for n in rng.choices(range(1, 9), k=3)
            ]
            if not place(row, Encoded(0, [2] * rng.randrange(5), items), 80) == []:
                break
    return found


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_those_of_the_mask(seed: int) -> None:
    packed = collate(rows(seed), 80, pad_id=0)
    mask = attention_mask(packed.segment_ids, packed.prefix_ids)[:, 0]
    real = packed.segment_ids > 0
    found = work_of(packed)
    assert found == Work(int(real.sum()), int(mask[real].sum()), len(packed.label_ids))
    assert found + found == Work(2 * found.tokens, 2 * found.pairs, 2 * found.labels)


@pytest.mark.parametrize("experts", [0, 4])
def test_what_is_done_is_what_a_causal_row_computes(experts: int) -> None:
    config = Qwen3Config(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, num_experts=experts, num_experts_per_tok=2,
        moe_intermediate_size=8, mlp_only_layers=(0,),
    )  # fmt: skip
    decoder = Qwen3ForCausalLM(config)
    decoder.init_weights(torch.Generator().manual_seed(0))
    T, labels = 10, 4
    with torch.no_grad(), flop_counter() as counter:
        hidden = decoder.hidden(torch.zeros(1, T, dtype=torch.int64))
        decoder.logits(hidden[:, :labels])
    # The counter takes every pair, a causal row half of them and the diagonal.
    half = 4 * 2 * 4 * 16 * (T * T - T * (T + 1) // 2)
    found = decoder_flops(config, Work(T, T * (T + 1) // 2, labels))
    if experts:  # the reference path runs each expert on its tokens: the same products
        assert found["done"] / 3 == pytest.approx(counter.get_total_flops() - half, rel=0.01)
    else:
        assert found["done"] == 3 * (counter.get_total_flops() - half)


def test_usual_is_six_for_every_parameter_and_a_frozen_decoder_costs_a_third_less() -> None:
    config = Qwen3Config(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    parameters = sum(p.numel() for p in Qwen3ForCausalLM(config).parameters())
    assert decoder_flops(config, Work(7))["usual"] == 7 * 6 * parameters
    assert decoder_flops(config, Work(7), trained=False)["usual"] == 7 * 4 * parameters
    assert decoder_flops(config, Work(0, 5))["usual"] == 12 * 2 * 4 * 16 * 5


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None
