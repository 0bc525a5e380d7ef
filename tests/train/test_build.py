"""What a configuration becomes: pictures of shards reach the encoder as pictures of files do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mm import encoders, vlm
from mm.data.packing import attention_mask
from mm.data.sample import Sample
from mm.data.shards import ShardReader, write_shards
from mm.data.sources.folder import Source
from mm.encoders.conformance import picture, tiny_values
from mm.errors import ConfigError
from mm.privacy.door import encode_png, open_image
from mm.privacy.policy import Policy
from mm.text.chat import encode_chat
from mm.text.tokenizer import train_tokenizer
from mm.train.build import build_feed, model_config
from mm.train.checks import check_together
from mm.train.plan import plan
from mm.train.recipe import RecipeConfig

SIZES = ((90, 61), (40, 113), (33, 33), (200, 17))  # width, height
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "siglip": {},
    "clip": {"shortest_edge": 32},
    # Positions for 48 pixels; pictures are resized to 40, of which the middle 32 are cut out.
    "dinov2": {"image_size": 48, "picture_size": 32, "shortest_edge": 40},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_pictures_of_shards_are_prepared_as_files_are(tmp_path: Path, name: str) -> None:
    for number, size in enumerate(SIZES):
        (tmp_path / "files").mkdir(exist_ok=True)
        picture(*reversed(size)).save(tmp_path / f"files/{number}.png")
        (tmp_path / f"files/{number}.txt").write_text("a picture of a cup")
    write_shards(Source(str(tmp_path / "files")), tmp_path / "shards", Policy())
    tokenizer = train_tokenizer(["a picture of a cup"], 300)
    fields = tiny_values(encoders.config_type(encoders.get(name))) | ENCODERS[name]
    config = {
        "encoder": {"name": name, "config": fields},
        "projector": {"name": "linear", "config": {"input_size": 32, "output_size": 32}},
        "decoder": {"name": "qwen3", "config": {**DECODER, "vocab_size": tokenizer.vocab_size}},
        "data": {
            "kind": "shards",
            "shards": [str(tmp_path / "shards")],
            "stream": {"rows": len(SIZES), "row_length": 160, "images_per_row": 1},
        },
    }
    model = vlm.build(model_config(config, tokenizer))
    recipe = RecipeConfig(steps=1)
    parts = model_config(config, tokenizer)
    whole = {**config, "recipe": {}}
    text = plan(whole, parts, recipe, tokenizer, torch.device("cpu"))
    assert "a picture takes 16 tokens" in text and "labels of 4 of 4 conversations 100.0%" in text
    feed = build_feed(config, model, tokenizer, torch.device("cpu"), recipe)
    batch = next(iter(feed.dataset))
    stored, _ = feed.pixels(batch, torch.Generator())
    found = model.encoder.preprocess(stored).pixel_values
    files = [open_image(sample.images[0]) for sample in ShardReader(tmp_path / "shards")]
    expected = model.encoder.preprocess(files).pixel_values
    assert found.shape == expected.shape == (len(SIZES), 3, 32, 32)
    for one in expected:
        assert sum(torch.equal(one, other) for other in found) == 1


PLACED: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    # encoder, its fields; fields of the decoder
    "tiles": ("internvit", {"max_tiles": 4, "shortest_edge": None}, "linear", {}),
    "native": ("siglip2_naflex", {}, "linear", {}),
    "native and M-RoPE": ("siglip2_naflex", {}, "linear", {"mrope_section": [4, 2, 2]}),
    "squares and M-RoPE": ("siglip", {}, "linear", {"mrope_section": [4, 2, 2]}),
}


@pytest.mark.parametrize("case", PLACED)
def test_packed_pictures_of_any_views_are_read_as_alone(tmp_path: Path, case: str) -> None:
    name, changed, projector, decoder = PLACED[case]
    images = [encode_png(picture(height, width)) for width, height in SIZES[:3]]
    talks = [
        Sample(images[:2], [("user", "<image>a <image>cup"), ("assistant", "a cup")], {}, "a"),
        Sample(images[2:], [("user", "<image>of"), ("assistant", "a"), ("user", "a"),
                            ("assistant", "picture")], {}, "b"),
    ]  # fmt: skip
    talks = [Sample(t.images, t.turns, {}, f"{n:064x}") for n, t in enumerate(talks)]
    write_shards(talks, tmp_path / "shards", Policy())
    tokenizer = train_tokenizer(["a picture of a cup"], 300)
    fields = tiny_values(encoders.config_type(encoders.get(name))) | changed
    width = encoders.build(name, fields).hidden_size
    config = {
        "encoder": {"name": name, "config": fields},
        "projector": {"name": projector, "config": {"input_size": width, "output_size": 32}},
        "decoder": {
            "name": "qwen3",
            "config": {**DECODER, "vocab_size": tokenizer.vocab_size, **decoder},
        },
        "data": {
            "kind": "shards",
            "shards": [str(tmp_path / "shards")],
            "stream": {"rows": 1, "row_length": 1024, "images_per_row": 3, "turns": "together"},
        },
    }
    model = vlm.build(model_config(config, tokenizer)).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    feed = build_feed(config, model, tokenizer, torch.device("cpu"), RecipeConfig(steps=1))
    batch = feed.dataset[0]
    stored, _ = feed.pixels(batch, torch.Generator())
    packed = batch.packed
    assert packed.position_ids.ndim == (3 if decoder else 2)
    with torch.no_grad():
        together = model.hidden(
            packed.input_ids,
            model.encoder.preprocess(stored),
            position_ids=packed.position_ids,
            attention_mask=attention_mask(packed.segment_ids, packed.prefix_ids),
        )
        at = 0
        for source in batch.sources:
            sample = talks[int(source, 16)]
            pictures = model.encoder.preprocess([open_image(image) for image in sample.images])
            sizes = [sum(h * w for h, w in views) for views in model.token_grids(pictures)]
            ids = encode_chat(tokenizer, sample.turns, num_image_tokens=sizes).input_ids
            alone = model.hidden(torch.tensor([ids]), pictures)
            assert packed.input_ids[0, at : at + len(ids)].tolist() == ids
            torch.testing.assert_close(together[:, at : at + len(ids)], alone, atol=2e-5, rtol=1e-4)
            at += len(ids)
    assert at == int((packed.segment_ids > 0).sum()) == batch.counts["tokens"]


def test_scenes_refuse_a_model_whose_tokens_have_places() -> None:
    fields = tiny_values(encoders.config_type(encoders.get("siglip")))
    config = {
        "encoder": {"name": "siglip", "config": fields},
        "projector": {"name": "linear", "config": {"input_size": 32, "output_size": 32}},
        "decoder": {
            "name": "qwen3",
            "config": {**DECODER, "vocab_size": 300, "mrope_section": [4, 2, 2]},
        },
        "data": {"kind": "scenes"},
    }
    with torch.device("meta"):
        model = vlm.build({**config, "image_token_id": 1})
    with pytest.raises(ConfigError, match="use data=shards"):
        check_together(config["data"], model, RecipeConfig(steps=1))
