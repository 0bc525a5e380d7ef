"""The published sizes of conf/encoder have exactly the published models' parameters."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mm import encoders

CONF = Path(__file__).resolve().parents[2] / "conf/encoder"
# Parameters of transformers' classes on the meta device, vision tower only; SigLIP's and AIMv2's
# without the pooling head. Patches of one picture.
SIZES = {
    "siglip_base_patch16_224": (85_797_120, 196),
    "siglip_base": (85_843_200, 256),
    "siglip_so400m": (412_987_248, 729),
    "siglip2_base_patch16_224": (85_797_120, 196),
    "siglip2_base_patch16_512": (86_433_024, 1024),
    "siglip2_so400m_patch14_384": (412_987_248, 729),
    "siglip2_so400m_patch16_384": (413_018_352, 576),
    "siglip2_base_patch16_naflex": (85_843_200, 252),
    "siglip2_so400m_patch16_naflex": (412_649_712, 252),
    "pixtral_lighton": (403_305_472, 1610),
    "clip_base_patch32": (87_456_000, 49),
    "clip_base_patch16": (85_799_424, 196),
    "clip_large_patch14": (303_179_776, 256),
    "clip_large_patch14_336": (303_507_456, 576),
    "dinov2_small": (22_056_576, 256),
    "dinov2_base": (86_580_480, 256),
    "dinov2_large": (304_368_640, 256),
    "dinov2_giant": (1_136_480_768, 256),
    "dinov2_small_registers": (22_058_112, 256),
    "dinov2_base_registers": (86_583_552, 256),
    "dinov2_large_registers": (304_372_736, 256),
    "dinov2_giant_registers": (1_136_486_912, 256),
    "internvit_300m": (304_012_288, 1024),
    "internvit_300m_tiles": (304_012_288, 13 * 1024),  # 4 x 3 tiles and the whole
    "internvit_6b": (5_536_496_000, 1024),
    "dinov3_vits16": (21_596_544, 196),
    "dinov3_vits16plus": (28_692_864, 196),
    "dinov3_vitb16": (85_660_416, 196),
    "dinov3_vitl16": (303_129_600, 196),
    "dinov3_vith16plus": (840_592_640, 196),
    "aimv2_large": (309_197_824, 256),
    "aimv2_large_native": (308_935_680, 256),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_size_has_exactly_its_parameters(name):
    with torch.device("meta"):
        encoder = encoders.build(**OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")))
    num_patches = sum(rows * columns for rows, columns in encoder.views(480, 640))
    num_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert (num_parameters, num_patches) == SIZES[name]
