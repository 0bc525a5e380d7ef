"""SigLIP against transformers: every layer, and preprocessing of hard pictures."""

from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from mm import encoders
from mm.encoders import siglip
from mm.encoders.pixels import resize_rounded, resize_uint8
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}


def reference(encoder: siglip.Encoder):
    """Return transformers' vision tower with the same weights, and without its pooling head."""
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    fields = asdict(encoder.config)
    for ours_only in ("resample", "image_mean", "image_std", "feature_layer", "use_final_norm"):
        fields.pop(ours_only)
    config = transformers.SiglipVisionConfig(**fields, vision_use_head=False)
    config._attn_implementation = "eager"
    model = transformers.SiglipVisionModel(config).eval()
    model.load_state_dict(encoder.state_dict(), strict=True)
    return model


def some_pixels(encoder: siglip.Encoder, batch: int = 3) -> torch.Tensor:
    size = encoder.config.image_size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_size": 38, "patch_size": 7},  # like so400m: the last pixels are not seen
        {"hidden_act": "gelu"},
        {"layer_norm_eps": 1e-5},
        {"num_attention_heads": 3},
    ],
    ids=str,
)
@torch.no_grad()
def test_siglip_every_layer_matches_transformers(encoder_config, changes):
    config = replace(encoder_config, **changes)
    encoder = siglip.Encoder(config).eval()
    redraw(encoder)
    pixels = some_pixels(encoder)
    expected = reference(encoder)(pixels, output_hidden_states=True)
    assert len(expected.hidden_states) == config.num_hidden_layers + 1
    for layer, theirs in enumerate(expected.hidden_states):
        raw = siglip.Encoder(replace(config, feature_layer=layer, use_final_norm=False))
        raw.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(raw(pixels), theirs, **EXACT)
        counted_back = layer - config.num_hidden_layers - 1
        again = siglip.Encoder(replace(config, feature_layer=counted_back, use_final_norm=False))
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(pixels), raw(pixels))
    torch.testing.assert_close(encoder(pixels), expected.last_hidden_state, **EXACT)


@torch.no_grad()
def test_siglip_small_inputs_show_the_norms_epsilon(encoder_config):
    encoder = siglip.Encoder(encoder_config).eval()
    redraw(encoder)
    encoder.embeddings.patch_embedding.bias.zero_()
    encoder.embeddings.position_embedding.weight.mul_(0.01)
    pixels = some_pixels(encoder) * 1e-3
    theirs = reference(encoder)(pixels).last_hidden_state
    torch.testing.assert_close(encoder(pixels), theirs, **EXACT)
    wrong = siglip.Encoder(replace(encoder_config, layer_norm_eps=1e-5)).eval()
    wrong.load_state_dict(encoder.state_dict())
    assert not torch.allclose(wrong(pixels), theirs, **EXACT)


@torch.no_grad()
def test_siglip_gelu_kinds_are_told_apart(tiny_encoder):
    other = siglip.Encoder(replace(tiny_encoder.config, hidden_act="gelu"))
    other.load_state_dict(tiny_encoder.state_dict())
    pixels = some_pixels(tiny_encoder)
    assert not torch.allclose(other(pixels), tiny_encoder(pixels), **EXACT)


def noisy(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture of noise, where every rounding and every tap of the filter shows."""
    generator = torch.Generator().manual_seed(width * height)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Image.fromarray(values.numpy(), mode=None)


PICTURES = {
    "one pixel": (1, 1, "RGB"),
    "tiny": (5, 3, "RGB"),
    "as wanted": (32, 32, "RGB"),
    "large": (1500, 1100, "RGB"),
    "1 to 20": (40, 800, "RGB"),
    "20 to 1": (800, 40, "RGB"),
    "grey": (50, 70, "L"),
}


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("picture", PICTURES)
def test_siglip_preprocessing_matches_transformers(encoder_config, picture, resample):
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    std = (0.5, 0.25, 0.4)
    config = replace(encoder_config, resample=resample, image_mean=(0.5, 0.4, 0.6), image_std=std)
    image = noisy(*PICTURES[picture])
    processor = transformers.SiglipImageProcessor(
        size={"height": 32, "width": 32},
        resample={"bicubic": 3, "bilinear": 2}[resample],
        image_mean=config.image_mean,
        image_std=config.image_std,
    )
    theirs = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
    ours = siglip.Encoder(config).preprocess([image]).pixel_values
    assert ours.shape == (1, 3, 32, 32) and ours.dtype == torch.float32
    # The bound in use elsewhere is two of 255 levels; the same library gives the same levels.
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_preprocessing_gives_the_same_from_pictures_tensors_and_batches(tiny_encoder):
    images = [noisy(40, 30), noisy(40, 30).rotate(180)]
    tensors = [torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8) for i in images]
    tensors = [flat.view(30, 40, 3).permute(2, 0, 1).contiguous() for flat in tensors]
    expected = tiny_encoder.preprocess(images)
    assert expected.views == (((4, 4),),) * 2
    for given in (tensors, torch.stack(tensors)):
        found = tiny_encoder.preprocess(given)
        assert torch.equal(found.pixel_values, expected.pixel_values)
        assert found.views == expected.views


def test_preprocessing_enlarges_without_leaving_the_range(tiny_encoder):
    edge = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    edge[..., 3:] = 255
    pixels = tiny_encoder.preprocess(edge).pixel_values
    assert pixels.min() == -1 and pixels.max() == 1


@pytest.mark.parametrize(
    "image",
    [torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.uint8), torch.zeros(4, 8, 8).byte()],
    ids=["float", "no channels", "four channels"],
)
def test_preprocessing_refuses_tensors_it_would_scale_wrongly(tiny_encoder, image):
    with pytest.raises(ValueError, match="must be uint8"):
        tiny_encoder.preprocess([image])


@torch.no_grad()
def test_encode_gives_tokens_and_grid_of_each_picture_alone_or_together(tiny_encoder):
    images = [noisy(40, 30), noisy(9, 90), noisy(32, 32)]
    together = tiny_encoder.encode(images)
    for image, (tokens, views) in zip(images, together, strict=True):
        assert views == ((4, 4),) and tokens.shape == (16, 24)
        torch.testing.assert_close(tiny_encoder.encode([image])[0][0], tokens, **EXACT)


def test_forward_refuses_another_size(tiny_encoder):
    with pytest.raises(ValueError, match=r"\(1, 3, 40, 32\); this encoder needs \[B, 3, 32, 32\]"):
        tiny_encoder(torch.zeros(1, 3, 40, 32))


def test_grid_of_an_odd_size_is_the_floor():
    with torch.device("meta"):
        so400m = siglip.Encoder(siglip.Config(image_size=384, patch_size=14, num_hidden_layers=1))
    assert so400m.views(1000, 10) == ((27, 27),)
    assert so400m(torch.zeros(1, 3, 384, 384, device="meta")).shape == (1, 729, 768)


def test_init_weights_depend_on_the_generator_alone(encoder_config):
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        encoder = siglip.Encoder(encoder_config)
        encoder.init_weights(torch.Generator().manual_seed(3))
        states.append(encoder.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(bool(tensor.any()) for name, tensor in states[0].items() if "weight" in name)


def test_whole_graph_is_traced(tiny_encoder):
    pixels = some_pixels(tiny_encoder)
    traced = torch.compile(tiny_encoder, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(pixels), tiny_encoder(pixels), **EXACT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of num_attention_heads 5"),
        ({"patch_size": 64}, "patch_size is 64"),
        ({"image_mean": (0.5,)}, "image_mean has 1 and image_std 3 values"),
        ({"feature_layer": -5}, "feature_layer is -5; with 3 layers it must be between -4 and 3"),
    ],
)
def test_config_that_makes_no_encoder_is_refused(encoder_config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(encoder_config, **changes)


def test_encoders_are_built_by_name():
    assert "siglip" in encoders.names()
    assert encoders.get("siglip") is siglip.Encoder
    assert encoders.name_of(siglip.Encoder) == "siglip"
    built = encoders.build("siglip", {"hidden_size": 24, "num_attention_heads": 2})
    assert built.hidden_size == 24
    with pytest.raises(
        ValueError, match=r"unknown encoder 'siglp'; known: .*did you mean 'siglip'"
    ):
        encoders.build("siglp", {})


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(500, 300), (9, 11), (40, 700), (31, 33)], ids=str)
def test_resizing_without_the_8_bit_kernel_is_a_level_off_at_most(size, resample):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    off = (
        resize_rounded(batch, (32, 32), resample).int()
        - resize_uint8(batch, (32, 32), resample).int()
    )
    assert off.abs().max() <= 1 and off.abs().float().mean() < 0.04


@pytest.mark.gpu
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(500, 300), (9, 11), (32, 32)], ids=str)
def test_on_a_gpu_a_batch_stays_there_and_is_a_level_off_at_most(encoder_config, size, resample):
    encoder = siglip.Encoder(replace(encoder_config, resample=resample))
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    found = encoder.preprocess(batch.cuda()).pixel_values
    assert found.is_cuda
    level = 1 / 255 / 0.5
    off = (found.cpu() - encoder.preprocess(batch).pixel_values).abs()
    assert off.max() < 1.01 * level and off.mean() < 0.02 * level
