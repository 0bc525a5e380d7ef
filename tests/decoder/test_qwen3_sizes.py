"""The published sizes: what conf/decoder describes has the published numbers of parameters."""

from pathlib import Path

import pytest
import torch

from mm import decoder as decoders
from mm.decoder.qwen3 import Qwen3ForCausalLM

CONF = Path(__file__).resolve().parents[2] / "conf"
# All tensors once, then without embedding and head, as counted in the published checkpoints.
PUBLISHED = {
    "qwen3_0_6b": (596_049_920, 440_467_456),
    "qwen3_1_7b": (1_720_574_976, 1_409_410_048),
    "qwen3_4b": (4_022_468_096, 3_633_511_936),
    "qwen3_8b": (8_190_735_360, 6_946_075_648),
    "qwen3_14b": (14_768_307_200, 13_212_482_560),
    "qwen3_32b": (32_762_123_264, 31_206_298_624),
    "qwen3_30b_a3b": (30_532_122_624, 29_909_792_768),
    "qwen3_235b_a22b": (235_093_634_560, 233_848_974_848),
    "qwen3_coder_480b_a35b": (480_154_875_392, 478_287_885_824),
}
# Of the mixtures: what a token goes through, embedding and head included.
ACTIVE = {
    "qwen3_30b_a3b": 3_353_032_704,
    "qwen3_235b_a22b": 22_190_763_520,
    "qwen3_coder_480b_a35b": 35_474_765_312,
}
VARIANTS = {
    "qwen3_4b_2507": ("qwen3_4b", {"rope_theta": 5e6}),
    "qwen3_30b_a3b_2507": ("qwen3_30b_a3b", {"rope_theta": 1e7}),
    "qwen3_235b_a22b_2507": ("qwen3_235b_a22b", {"rope_theta": 5e6}),
    "qwen3_coder_30b_a3b": ("qwen3_30b_a3b", {"rope_theta": 1e7, "intermediate_size": 5472}),
}


def composed(name: str, *overrides: str) -> Qwen3ForCausalLM:
    """Build a configuration's decoder without memory."""
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(overrides=[f"+decoder={name}", *overrides])
    part = omegaconf.OmegaConf.to_container(config, resolve=True)["decoder"]
    with torch.device("meta"):
        return decoders.build(part["name"], part["config"])


def count(decoder: Qwen3ForCausalLM, *, active: bool = False) -> int:
    """Count parameters; of experts, `active` counts those that one token goes through."""
    sizes = {name: parameter.numel() for name, parameter in decoder.named_parameters()}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    if active and experts:
        chosen = experts * decoder.config.num_experts_per_tok // decoder.config.num_experts
        return sum(sizes.values()) - experts + chosen
    return sum(sizes.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_has_the_published_number_of_parameters(name):
    decoder = composed(name)
    total, without_embeddings = PUBLISHED[name]
    assert count(decoder) == total
    ends = {decoder.model.embed_tokens.weight, decoder.lm_head.weight}
    assert total - sum(parameter.numel() for parameter in ends) == without_embeddings
    assert decoder.config.tie_word_embeddings == (len(ends) == 1)
    if decoder.config.num_experts:
        assert count(decoder, active=True) == ACTIVE[name]
    assert (decoder.config.num_experts > 0) == (name in ACTIVE)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_has_the_shapes_of_its_base_and_another_rope(name):
    base, changes = VARIANTS[name]
    variant, original = composed(name), composed(base)
    assert variant.config.max_position_embeddings == 262_144
    for field, value in changes.items():
        assert getattr(variant.config, field) == value != getattr(original.config, field)
    shapes, expected = (
        {key: tensor.shape for key, tensor in model.state_dict().items()}
        for model in (variant, original)
    )
    assert shapes == expected


def test_any_size_takes_yarn_from_the_command_line():
    scaling = "{rope_type:yarn,factor:4.0,original_max_position_embeddings:32768}"
    given = composed("qwen3_0_6b", f"decoder.config.rope_scaling={scaling}").config.rope_scaling
    assert given == composed("qwen3_8b_yarn").config.rope_scaling
    assert given is not None and given.factor == 4.0
