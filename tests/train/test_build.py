"""What a configuration becomes: pictures of shards reach the encoder as pictures of files do."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mm import encoders, vlm
from mm.data.shards import ShardReader, write_shards
from mm.data.sources.folder import Source
from mm.encoders.conformance import picture, tiny_values
from mm.errors import ConfigError
from mm.privacy.door import open_image
from mm.privacy.policy import Policy
from mm.text.tokenizer import train_tokenizer
from mm.train.build import build_feed, model_config, plan
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
    assert "a picture takes 16 tokens" in plan(model, recipe)
    feed = build_feed(config, model, tokenizer, torch.device("cpu"), recipe)
    batch = next(iter(feed.dataset))
    stored, _ = feed.pixels(batch, torch.Generator())
    found = model.encoder.preprocess(stored).pixel_values
    files = [open_image(sample.images[0]) for sample in ShardReader(tmp_path / "shards")]
    expected = model.encoder.preprocess(files).pixel_values
    assert found.shape == expected.shape == (len(SIZES), 3, 32, 32)
    for one in expected:
        assert sum(torch.equal(one, other) for other in found) == 1


def test_parts_that_packed_rows_cannot_hold_yet_are_refused(monkeypatch) -> None:
    decoder = {**DECODER, "vocab_size": 9}
    fields = tiny_values(encoders.config_type(encoders.get("siglip")))
    config = {
        "encoder": {"name": "siglip", "config": fields},
        "projector": {"name": "linear", "config": {"input_size": 32, "output_size": 32}},
        "decoder": {"name": "qwen3", "config": {**decoder, "mrope_section": [4, 2, 2]}},
    }
    with torch.device("meta"):
        placing = vlm.build({**config, "image_token_id": 1})
        config["decoder"] = {"name": "qwen3", "config": decoder}
        tiling = vlm.build({**config, "image_token_id": 1})
    with pytest.raises(ConfigError, match="decoder has an mrope_section.*plain positions"):
        plan(placing, RecipeConfig())
    assert "a picture takes 16 tokens" in plan(tiling, RecipeConfig())
    monkeypatch.setattr(type(tiling.encoder), "views", lambda self, h, w: ((4, w // 8),))
    with pytest.raises(ConfigError, match="'siglip' sees pictures of other shapes in other views"):
        plan(tiling, RecipeConfig())
