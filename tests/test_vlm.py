"""The place where image tokens meet text tokens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mm import vlm
from mm.decoder.cache import KVCache
from mm.encoders import Pictures
from mm.vlm import ImageFeatures
from tests.conftest import IMAGE_TOKEN_ID as PAD
from tests.conftest import redraw
from tests.tiny_model import squares

EXACT = {"atol": 2e-5, "rtol": 1e-4}
ROOT = Path(__file__).resolve().parents[1]
KEYS = Path(__file__).with_name("state_dict_keys.txt")
IMAGE = [PAD] * 4


@pytest.fixture
def pixels() -> Pictures:
    return squares(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(9)))


def part(pictures: Pictures, which: slice) -> Pictures:
    return Pictures(pictures.pixel_values[which], pictures.views[which])


def features_of(values: torch.Tensor) -> ImageFeatures:
    """Features of pictures of 2x2 tokens, from `[K, 4, D]`."""
    return ImageFeatures(values.flatten(0, 1), (((2, 2),),) * len(values))


@pytest.fixture
def ids() -> torch.Tensor:
    """Two rows of three images: one in the first row, two in the second."""
    return torch.tensor(
        [[11, 12, *IMAGE, 13, 14, 15, 16, 17, 18, 19], [21, *IMAGE, 22, *IMAGE, 23, 24, 25]]
    )


@torch.no_grad()
def test_embed_puts_image_rows_in_order_at_their_placeholders(tiny_vlm, ids, pixels):
    features = tiny_vlm.image_features(pixels)
    assert features.values.shape == (12, 32) and features.counts == [4, 4, 4]
    embedded = tiny_vlm.embed(ids, features)
    assert torch.equal(embedded[0, 2:6], features.values[:4])
    assert torch.equal(embedded[1, 1:5], features.values[4:8])
    assert torch.equal(embedded[1, 6:10], features.values[8:])
    text = ids != PAD
    assert torch.equal(embedded[text], tiny_vlm.decoder.model.embed_tokens(ids)[text])
    assert torch.equal(tiny_vlm.embed(ids, features, check=False), embedded)


def test_embed_gradients_are_those_of_plain_indexing(tiny_vlm, ids):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 32, generator=generator, requires_grad=True)
    weight = torch.randn(2, 13, 32, generator=generator)
    table = tiny_vlm.decoder.model.embed_tokens.weight
    wanted_inputs = [features, table]
    embedded = tiny_vlm.embed(ids, features_of(features))
    found = torch.autograd.grad((embedded * weight).sum(), wanted_inputs)
    plain = tiny_vlm.decoder.model.embed_tokens(ids).masked_scatter(
        (ids == PAD)[..., None], features
    )
    expected = torch.autograd.grad((plain * weight).sum(), wanted_inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("num_images", [0, 2, 4])
def test_counts_that_differ_are_refused(tiny_vlm, ids, num_images):
    features = features_of(torch.zeros(num_images, 4, 32)) if num_images else None
    with pytest.raises(ValueError) as error:
        tiny_vlm.embed(ids, features)
    found = f"has 12 image placeholders (token 7) for {4 * num_images} image tokens of {num_images}"
    assert found in str(error.value)


@torch.no_grad()
def test_hidden_reads_pixels_or_features_alike_and_not_both(tiny_vlm, ids, pixels):
    features = tiny_vlm.image_features(pixels)
    from_pixels = tiny_vlm.hidden(ids, pixels)
    assert torch.equal(tiny_vlm.hidden(ids, image_features=features), from_pixels)
    with pytest.raises(ValueError, match="pictures or image_features, not both"):
        tiny_vlm.hidden(ids, pixels, features)


@torch.no_grad()
def test_the_picture_changes_what_follows_it_and_nothing_before(tiny_vlm, ids, pixels):
    changed = pixels.pixel_values.clone()
    changed[1] += 1
    other = replace(pixels, pixel_values=changed)
    change = (tiny_vlm.hidden(ids, other) - tiny_vlm.hidden(ids, pixels)).abs().amax(-1)
    assert change[0].max() == 0 and change[1, 0] == 0
    assert change[1, 1:].min() > 1e-4


@torch.no_grad()
def test_batch_equals_single_and_cached_equals_uncached(tiny_vlm, ids, pixels):
    together = tiny_vlm.hidden(ids, pixels)
    first = tiny_vlm.hidden(ids[:1], part(pixels, slice(1)))
    second = tiny_vlm.hidden(ids[1:], part(pixels, slice(1, None)))
    torch.testing.assert_close(together, torch.cat([first, second]), **EXACT)
    cache = KVCache(tiny_vlm.decoder.config, 2, 13, "cpu", torch.float32)
    prefill = tiny_vlm.hidden(ids[:, :10], pixels, cache=cache)
    steps = [tiny_vlm.hidden(ids[:, i : i + 1], cache=cache) for i in range(10, 13)]
    torch.testing.assert_close(torch.cat([prefill, *steps], dim=1), together, **EXACT)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_whole_graph_with_pictures_is_traced_and_trains(tiny_vlm, ids, pixels, backend):
    def loss(ids, pixels):
        with torch.autocast("cpu", torch.bfloat16, enabled=False):
            mask = torch.ones(13, 13, dtype=torch.bool).tril().expand(2, 1, 13, 13)
            hidden = tiny_vlm.hidden(ids, pixels, attention_mask=mask, check=False)
            return tiny_vlm.logits(hidden).square().mean()

    expected = loss(ids, pixels)
    expected.backward()
    eager = [parameter.grad.clone() for parameter in tiny_vlm.parameters()]
    tiny_vlm.zero_grad()
    found = torch.compile(loss, fullgraph=True, backend=backend)(ids, pixels)
    found.backward()
    torch.testing.assert_close(found, expected, **EXACT)
    for parameter, gradient in zip(tiny_vlm.parameters(), eager, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, **EXACT)


@torch.no_grad()
def test_autocast_mixes_narrow_images_with_wide_text(tiny_vlm, ids, pixels):
    wide = tiny_vlm(ids, pixels)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = tiny_vlm(ids, pixels)
    assert (narrow - wide).abs().max() < 0.1
    half = tiny_vlm.to(torch.bfloat16)
    assert half(ids, pixels).dtype == torch.bfloat16


def test_init_weights_depend_on_the_generator_alone_and_reach_every_parameter(tiny_vlm):
    states = []
    for seed in (1, 2):
        redraw(tiny_vlm, seed)
        tiny_vlm.init_weights(torch.Generator().manual_seed(3))
        states.append({name: tensor.clone() for name, tensor in tiny_vlm.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_config_builds_the_same_model(tiny_vlm, ids, pixels):
    described = json.loads(json.dumps(tiny_vlm.config))
    again = vlm.build({**described, "format": "mm", "training": {}})
    again.load_state_dict(tiny_vlm.state_dict(), strict=True)
    assert again.config == tiny_vlm.config
    with torch.no_grad():
        assert torch.equal(again(ids, pixels), tiny_vlm(ids, pixels))
    assert again.num_image_tokens(1000, 17) == 4


def test_state_dict_keys_are_the_stored_ones(tiny_vlm):
    # A change here breaks every saved model: it needs a new format version and a converter.
    assert sorted(tiny_vlm.state_dict()) == KEYS.read_text().split()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"name": "siglop", "config": {}}}, "unknown encoder 'siglop'.*'siglip'"),
        ({"decoder": {"name": "qwen", "config": {}}}, "unknown decoder 'qwen'.*'qwen3'"),
        ({"decoder": {"config": {}}}, "decoder needs a value for name"),
        ({"decoder": "qwen3"}, "decoder is 'qwen3'; it must have a name and a config"),
        ({"image_token_id": 99}, "image_token_id is 99; it must be below .* vocab_size 99"),
        ({"image_token_id": "7"}, "image_token_id is '7'; it must be a whole number"),
        (
            {"projector": {"name": "linear", "config": {"input_size": 8, "output_size": 32}}},
            "projector's input_size is 8, but the encoder's hidden_size is 24",
        ),
        (
            {"projector": {"name": "linear", "config": {"input_size": 24, "output_size": 8}}},
            "projector's output_size is 8, but the decoder's hidden_size is 32",
        ),
    ],
)
def test_config_that_makes_no_model_is_refused(tiny_vlm, change, message):
    with pytest.raises(ValueError, match=message):
        vlm.build({**tiny_vlm.config, **change})
    with pytest.raises(ValueError, match="needs decoder"):
        vlm.build({})
    with pytest.raises(ValueError, match="needs decoder, projector, image_token_id"):
        vlm.build({"encoder": tiny_vlm.config["encoder"]})


@torch.no_grad()
def test_a_decoder_alone_is_a_text_only_model(tiny_decoder, ids, pixels):
    text_only = vlm.VisionLanguageModel(None, None, tiny_decoder, None).eval()
    assert not text_only.sees
    assert list(text_only.config) == ["decoder"]
    assert torch.equal(text_only(ids), tiny_decoder(ids))
    again = vlm.build(text_only.config)
    again.init_weights(torch.Generator().manual_seed(0))
    again.load_state_dict(text_only.state_dict(), strict=True)
    assert torch.equal(again(ids), text_only(ids))
    with pytest.raises(ValueError, match="reads text only: leave the pictures out"):
        text_only(ids, pixels)
    with pytest.raises(ValueError, match="together, or none"):
        vlm.VisionLanguageModel(None, None, tiny_decoder, 7)


def yaml_files(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize(
    ("encoder", "projector", "decoder"),
    [("siglip_tiny", "linear", name) for name in yaml_files("decoder")]
    + [
        (name, projector, "qwen3_tiny")
        for name in yaml_files("encoder")
        for projector in yaml_files("projector")
        if not projector.startswith("deepstack") or name.startswith(("qwen3_vl", "siglip_tiny"))
    ],
)
def test_every_group_file_builds(encoder, projector, decoder):
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    chosen = (f"+encoder={encoder}", f"+projector={projector}", f"+decoder={decoder}")
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = omegaconf.OmegaConf.to_container(hydra.compose(overrides=chosen), resolve=True)
    several_levels = encoder.startswith("qwen3_vl"), projector.startswith("deepstack")
    as_wide = encoder.endswith("large") == projector.endswith("large")
    if any(several_levels) and not (all(several_levels) and as_wide):
        with torch.device("meta"), pytest.raises(ValueError, match="projector's input_size is"):
            vlm.build({**config, "image_token_id": 1})
        return
    with torch.device("meta"):
        model = vlm.build({**config, "image_token_id": 1})
    ((side, _),) = model.encoder.views(50, 50)
    pooled = int(getattr(model.projector.config, "num_queries", 1) ** 0.5)
    too_small = projector == "c_abstractor" and side < pooled
    if side % getattr(model.projector.config, "shuffle", 1) or too_small:
        with pytest.raises(ValueError, match="grid"):
            model.num_image_tokens(50, 50)
    else:
        pictures = model.encoder.preprocess([torch.zeros(3, 50, 50, dtype=torch.uint8)])
        features = model.image_features(pictures.to("meta"))
        levels = 1 + model.projector.num_residuals
        promised = (model.num_image_tokens(50, 50), levels * decoder_width(model))
        assert features.values.shape == promised


def decoder_width(model: vlm.VisionLanguageModel) -> int:
    return model.decoder.config.hidden_size


def test_published_sizes_have_the_published_number_of_parameters():
    for group, name, expected in (
        ("decoder", "qwen3_0_6b", 596_049_920),
        ("encoder", "siglip_base", 85_843_200),
        ("encoder", "siglip_so400m", 412_987_248),
    ):
        entry = yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())
        module = vlm.decoders if group == "decoder" else vlm.encoders
        with torch.device("meta"):
            part = module.build(entry["name"], entry["config"])
        assert sum(parameter.numel() for parameter in part.parameters()) == expected


@torch.no_grad()
def test_features_of_chosen_pictures_come_in_the_order_asked_for(tiny_vlm, ids, pixels):
    features = tiny_vlm.image_features(pixels)
    picked = features.pick([2, 0, 0])
    wanted = [features.values[8:], features.values[:4], features.values[:4]]
    assert torch.equal(picked.values, torch.cat(wanted))
    assert picked.grids == (((2, 2),),) * 3 and len(picked) == 3


def test_pictures_are_put_together_with_the_views_of_each():
    one = Pictures(torch.zeros(3, 3, 8, 8), (((2, 2), (2, 2)), ((2, 2),)))
    two = Pictures(torch.ones(1, 3, 8, 8), (((2, 2),),))
    both = Pictures.cat([one, two])
    assert len(both) == 3 and both.grids == ((2, 2),) * 4
    assert both.views == one.views + two.views and float(both.pixel_values[3].mean()) == 1
    assert both.to("meta").pixel_values.is_meta


def test_image_tokens_lie_in_rows_and_columns_and_text_goes_on_after_the_longer_side(tiny_vlm):
    features = ImageFeatures(torch.zeros(8, 32), (((2, 3),), ((1, 2),)))
    row = [1, 2, 3, *[PAD] * 6, 4, 5, 6, 1, PAD, PAD, 1, 2, 3, 4]
    (placed,), (following,) = tiny_vlm.place([row], features)
    time = [0, 1, 2, *[3] * 6, 6, 7, 8, 9, 10, 10, 12, 13, 14, 15]
    rows = [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 9, 10, 10, 12, 13, 14, 15]
    columns = [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert placed.tolist() == [time, rows, columns] and following == 16
    apart, after = tiny_vlm.place([row[:9], row[9:]], features)
    assert apart[0].tolist() == [axis[:9] for axis in (time, rows, columns)]
    assert after == [6, 10] and apart[1][:, -1].tolist() == [9, 9, 9]


@torch.no_grad()
def test_features_for_deeper_layers_are_added_there_at_the_images_alone(tiny_vlm, ids, pixels):
    plain = tiny_vlm.image_features(pixels)
    extra = torch.randn(12, 64, generator=torch.Generator().manual_seed(3))
    deep = ImageFeatures(torch.cat([plain.values, extra], dim=1), plain.grids)
    residuals = tiny_vlm.residuals(ids, deep)
    assert tiny_vlm.residuals(ids, plain) is None and sorted(residuals) == [0, 1]
    for layer, added in residuals.items():
        assert torch.equal(added[ids == PAD], extra[:, 32 * layer : 32 * (layer + 1)])
        assert not added[ids != PAD].any()
    expected = tiny_vlm.decoder.hidden(
        inputs_embeds=tiny_vlm.embed(ids, plain), residuals=residuals
    )
    found = tiny_vlm.hidden(ids, image_features=deep)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, tiny_vlm.hidden(ids, image_features=plain), atol=1e-2)
