"""Descriptions agree with published sizes and with the model that is really built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mm import vlm
from mm.errors import ConfigError
from mm.report.describe import Plan, count_parameters, describe
from mm.report.describe.choice import compose_parts
from mm.report.describe.figures import figures
from mm.report.describe.gpus import TABLE, find_gpu
from mm.report.describe.pictures import flop_counter
from mm.report.describe.text import as_json, figures_text, parts_table

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY: dict[str, Any] = {
    "encoder": {
        "name": "siglip",
        "config": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 4,
        },
    },
    "projector": {"name": "mlp", "config": {"input_size": 16, "output_size": 32, "shuffle": 3}},
    "decoder": {
        "name": "qwen3",
        "config": {
            "vocab_size": 99,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        },
    },
}
# The published checkpoints: title, parameters (a tied head once), those a token uses, and bytes of
# a token's keys and values in bfloat16.
PUBLISHED = {
    "qwen3_0_6b": ("Qwen3-0.6B", 596_049_920, 596_049_920, 114_688),
    "qwen3_1_7b": ("Qwen3-1.7B", 1_720_574_976, 1_720_574_976, 114_688),
    "qwen3_4b": ("Qwen3-4B", 4_022_468_096, 4_022_468_096, 147_456),
    "qwen3_8b": ("Qwen3-8B", 8_190_735_360, 8_190_735_360, 147_456),
    "qwen3_14b": ("Qwen3-14B", 14_768_307_200, 14_768_307_200, 163_840),
    "qwen3_32b": ("Qwen3-32B", 32_762_123_264, 32_762_123_264, 262_144),
    "qwen3_30b_a3b": ("Qwen3-30B-A3B", 30_532_122_624, 3_353_032_704, 98_304),
    "qwen3_235b_a22b": ("Qwen3-235B-A22B", 235_093_634_560, 22_190_763_520, 192_512),
    "qwen3_coder_480b_a35b": (
        "Qwen3-Coder-480B-A35B",
        480_154_875_392,
        35_474_765_312,
        253_952,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    parts, plan, title = compose_parts([f"decoder={name}"], CONF)
    described = describe(parts, plan=plan, title=title)
    found = figures(described)
    assert (
        title,
        found["parameters"]["total"],
        found["parameters"]["active"],
        found["kv_cache"]["bytes_per_token"],
    ) == PUBLISHED[name]
    assert found["weight_bytes"]["bf16"] == 2 * found["parameters"]["total"]
    # Built, not only reckoned: the tasks' formulas add up to what the modules hold.
    assert sum(found["parameters"]["decoder"].values()) == described.parts[0].num_parameters


def test_description_agrees_with_the_model_that_is_built() -> None:
    model = vlm.build({**TINY, "image_token_id": 0})
    described = describe(TINY, picture_size=(50, 70))
    counted = [count_parameters(m) for m in (model.encoder, model.projector, model.decoder)]
    assert [row.num_parameters for row in described.parts] == counted
    assert described.num_image_tokens == model.num_image_tokens(50, 70) == 4


def test_pictures_cost_what_the_real_parts_count_and_keep() -> None:
    model = vlm.build({**TINY, "image_token_id": 0})
    model.init_weights(torch.Generator().manual_seed(0))
    pictures = describe(TINY).pictures
    assert pictures is not None
    assert pictures.pixels == (3, 24, 24)
    assert pictures.grid == (6, 6)
    N, D, F, P = 36, 16, 24, 4
    layers = 2 * (2 * N * (4 * D * D + 2 * D * F) + 4 * N * N * D)
    assert pictures.encoder_flops == layers + 2 * N * 3 * P * P * D
    assert pictures.projector_flops == 2 * 4 * (9 * D * 32 + 32 * 32)

    def kept(number: int) -> int:
        storages: dict[int, tuple[int, Tensor]] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes(), tensor
            return tensor

        pixels = torch.zeros(number, 3, 24, 24)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            model.encoder(pixels)
        return sum(size for size, _ in storages.values())

    assert pictures.encoder_bytes == kept(2) - kept(1) > 0


@pytest.mark.parametrize(
    ("library", "model", "width", "side"),
    [("timm", "vit_tiny_patch16_224", 192, 4), ("torchvision", "resnet18", 512, 2)],
)
def test_backbones_of_libraries_are_counted(
    library: str, model: str, width: int, side: int
) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    sizes = {"shortest_edge": 64} if library == "torchvision" else {}
    encoder = {"name": library, "config": {"model": model, "image_size": 64, **sizes}}
    projector = {"name": "linear", "config": {"input_size": width, "output_size": 32}}
    pictures = describe({**TINY, "encoder": encoder, "projector": projector}).pictures
    assert pictures is not None
    assert pictures.grid == (side, side)
    N, D, P = 16, 192, 16
    layers = 12 * (2 * (N + 1) * 12 * D * D + 4 * (N + 1) ** 2 * D)
    expected = {
        "timm": layers + 2 * N * 3 * P * P * D,
        # 1.814 GMAC are published, for 224 px and with 0.5 million in the classifier.
        "torchvision": pytest.approx(2 * (1.814e9 - 512_000) * (64 / 224) ** 2, rel=1e-3),
    }
    assert pictures.encoder_flops == expected[library]
    assert pictures.encoder_bytes > 0


def test_product_and_gelu_in_one_count_as_the_product() -> None:
    bias, left, right = torch.zeros(5), torch.zeros(2, 3), torch.zeros(3, 5)
    with flop_counter() as counter:
        torch._addmm_activation(bias, left, right, use_gelu=True)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5


def test_a_decoder_alone_is_described() -> None:
    described = describe({"decoder": TINY["decoder"]})
    assert [row.part for row in described.parts] == ["decoder"]
    assert described.num_image_tokens == 0
    assert "picture" not in figures(described)
    assert "picture" not in parts_table(described)


def test_tied_embeddings_count_once() -> None:
    untied = {**TINY["decoder"]["config"], "tie_word_embeddings": False}
    more = describe({**TINY, "decoder": {"name": "qwen3", "config": untied}})
    difference = more.parts[2].num_parameters - describe(TINY).parts[2].num_parameters
    assert difference == 99 * 32


def test_table_names_parts_sum_and_tokens() -> None:
    described = describe(TINY)
    table = parts_table(described)
    assert f"{described.num_parameters:,}" in table
    assert "A picture of 640 x 480 takes 4 tokens." in table
    assert all(f"{row.num_parameters:,}" in table for row in described.parts)


def test_training_takes_three_times_forward_and_four_with_checkpointing() -> None:
    decoder = {"decoder": TINY["decoder"]}
    forward = figures(describe(decoder))["flops_per_token"]["forward_in_training"]
    for checkpointing, factor in ((False, 3), (True, 4)):
        plan = Plan(tokens=64, length=16, checkpointing=checkpointing)
        found = figures(describe(decoder, plan=plan))
        short = found["flops_per_token"]["forward_in_training"]
        assert short < forward  # rows of 16 tokens, not of 1,024
        assert found["training"]["step_flops"] == 64 * factor * short


def test_frozen_parts_have_neither_gradients_nor_moments() -> None:
    whole, frozen = (
        figures(describe(TINY, plan=Plan(tokens=64, length=16, frozen=parts)))["training"]
        for parts in ((), ("encoder",))
    )
    encoder = describe(TINY).parts[0].num_parameters
    pictures = describe(TINY).pictures
    assert pictures is not None
    assert whole["pictures"] == frozen["pictures"] == 4
    for need, size in (("gradients", 4), ("optimizer", 8), ("weights", 0)):
        assert whole["bytes"][need] - frozen["bytes"][need] == size * encoder
    assert (
        whole["bytes"]["activations"] - frozen["bytes"]["activations"] == 4 * pictures.encoder_bytes
    )
    # Backward through the encoder is saved, and the projector's gradient of its input.
    saved = 2 * pictures.encoder_flops + pictures.projector_flops
    assert whole["step_flops"] - frozen["step_flops"] == 4 * saved


def test_longest_context_is_the_last_that_fits() -> None:
    config = {**TINY["decoder"]["config"], "max_position_embeddings": 10**9}
    parts = {"decoder": {"name": "qwen3", "config": config}}
    longest = figures(describe(parts, plan=Plan(gpu="1.5GB")))["gpu"]["longest_context"]
    assert longest > 1_000_000
    for context, fits in ((longest, True), (longest + 1, False)):
        found = figures(describe(parts, plan=Plan(gpu="1.5GB", context=context)))["gpu"]
        assert found["decoding_fits"] is fits


def test_gpus_for_training_share_the_state_and_no_fewer_would_do() -> None:
    plan = Plan(gpu="1.004GB", tokens=16, length=16)
    wide = {**TINY["decoder"]["config"], "vocab_size": 9_999}
    parts = {"decoder": {"name": "qwen3", "config": wide}}
    found = figures(describe(parts, plan=plan))
    fit, needs = found["gpu"], found["training"]["bytes"]
    local = needs["activations"] + needs["logits"]
    state = found["training"]["total_bytes"] - local
    usable = fit["memory_bytes"] - fit["reserved_bytes"]
    number = fit["gpus_for_training"]
    assert number > 1 and not fit["training_fits"]
    assert state / number + local <= usable < state / (number - 1) + local
    crowded = Plan(gpu="1.001GB", tokens=16, length=16)
    assert figures(describe(parts, plan=crowded))["gpu"]["gpus_for_training"] is None


def test_decoding_is_bounded_by_bandwidth_over_bytes() -> None:
    parts, plan, _ = compose_parts(["decoder=qwen3_0_6b", "gpu=h200"], CONF)
    fit = figures(describe(parts, plan=plan))["gpu"]
    # A tied head is the embedding, so that all weights are read, and one row for the token.
    assert fit["tokens_per_second_first"] == pytest.approx(4.8e12 / (2 * (596_049_920 + 1024)))
    read = 2 * (596_049_920 + 1024) + 114_688 * 32_768
    assert fit["tokens_per_second_at_context"] == pytest.approx(4.8e12 / read)
    assert fit["decoding_fits"] and fit["training_fits"]


@pytest.mark.parametrize(
    ("gpu", "fits"), [("rtx4090", False), ("h100", True), ("80GB", True), ("64GB", False)]
)
def test_whether_it_fits(gpu: str, fits: bool) -> None:
    parts, plan, _ = compose_parts(["decoder=qwen3_30b_a3b", f"gpu={gpu}"], CONF)
    described = describe(parts, plan=plan)
    fit = figures(described)["gpu"]
    assert fit["decoding_fits"] is fits  # 61.1 GB of weights, 3.2 GB of cache
    assert ("bf16 fits" in figures_text(described)) is fits


def test_every_gpu_of_the_table_is_found_in_any_case() -> None:
    for name in TABLE:
        gpu = find_gpu(name.upper())
        assert gpu.name == name
        assert gpu.memory > 1e10 and (gpu.flops or 0) > 6e13 and (gpu.bandwidth or 0) >= 3e11


@pytest.mark.parametrize(
    ("text", "memory", "bandwidth"),
    [
        ("24GB", 24e9, None),
        ("36 GiB", 36 * 2.0**30, None),
        ("0.5tb@1.5TB/s", 5e11, 1.5e12),
    ],
)
def test_gpu_given_by_its_memory(text: str, memory: float, bandwidth: float | None) -> None:
    gpu = find_gpu(text)
    assert (gpu.memory, gpu.bandwidth, gpu.flops) == (memory, bandwidth, None)


@pytest.mark.parametrize("text", ["h10", "24", "-24GB", "0GB", "24GB@0GB/s", "1.2.3GB", "GB"])
def test_gpu_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="unknown gpu .*known: a100-40.*gpu=24GB"):
        find_gpu(text)


def test_json_holds_every_figure() -> None:
    described = describe(TINY, plan=Plan(gpu="l4"))
    assert json.loads(as_json(described)) == figures(described)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"context": 0}, "context is 0"),
        ({"context": 40_961}, "context is 40,961, but .* reach to 40,960"),
        ({"batch": -1}, "batch is -1"),
        ({"tokens": 10**13}, "tokens is"),
        ({"pictures": -1}, "pictures is -1"),
        ({"length": 100, "tokens": 64}, "length is 100, longer than the 64 tokens"),
        ({"frozen": ("encoder",)}, "frozen names the encoder"),
        ({"frozen": ("decoder",)}, "nothing would be trained"),
        ({"gpu": "h10"}, "did you mean 'h100'"),
    ],
)
def test_impossible_plans_are_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        describe({"decoder": TINY["decoder"]}, plan=Plan(**plan))


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (10**5, 10**5)])
def test_impossible_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="a picture of"):
        describe(TINY, picture_size=size)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_hidden_layers", 10**8, "at most 10,000"),
        ("hidden_size", 10**18, "no tensors can be made"),
        ("vocab_size", 10**30, "no tensors can be made"),
        ("head_dim", 0, "head_dim is 0"),
    ],
)
def test_impossible_sizes_are_refused(field: str, value: int, message: str) -> None:
    config = {**TINY["decoder"]["config"], field: value}
    with pytest.raises(ConfigError, match=message):
        describe({"decoder": {"name": "qwen3", "config": config}})


def test_parts_that_do_not_meet_are_refused() -> None:
    narrow = {"name": "mlp", "config": {"input_size": 16, "output_size": 31}}
    with pytest.raises(ConfigError, match="output_size is 31"):
        describe({**TINY, "projector": narrow})
