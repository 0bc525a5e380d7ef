"""InternVL's folders against transformers: prompts, pixels, logits and greedy tokens."""

import json
from pathlib import Path

import pytest
import torch

import mm
from mm.checkpoints import internvl, store
from mm.errors import CheckpointError
from tests.checkpoints import published_vlm
from tests.checkpoints.published_vlm import EXACT, NUM_IMAGE_TOKENS, asked, pictures

QUESTION = "How many cups are there?"
KINDS = {"dense": {}, "experts": {"moe": True, "seed": 1}, "qianfan": {"qianfan": True}}
# Pictures (width, height) of a prompt: one, several of different sizes, none.
SHOWN = {"one": [(90, 40)], "several": [(28, 28), (200, 60), (61, 130)], "none": []}


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, *published_vlm.save_internvl(folder, **KINDS[request.param])


@pytest.mark.parametrize("shown", SHOWN)
@torch.no_grad()
def test_prompt_pixels_logits_and_greedy_tokens_are_the_same(saved, tmp_path, shown):
    folder, reference, processor = saved
    model = mm.load(folder, device="cpu", dtype="float32")
    paths = pictures(tmp_path / "pictures", SHOWN[shown])
    _, inputs = asked(processor, paths, QUESTION)
    message = ("user", "<image>" * len(paths) + QUESTION)
    request = model.prepare_turns([message], paths)

    assert request.input_ids == inputs.input_ids[0].tolist()
    if paths:
        tiles = [len(views) for views in request.pictures.views]
        assert tiles == ([3] if shown == "one" else [1, 4, 3])
        assert request.input_ids.count(model.vlm.image_token_id) == NUM_IMAGE_TOKENS * sum(tiles)
        found = request.pictures.pixel_values
        torch.testing.assert_close(found, inputs.pixel_values, atol=1e-5, rtol=0)
    expected = reference(**inputs).logits
    shown_pixels = {"pixel_values": inputs.pixel_values} if paths else {}
    torch.testing.assert_close(model.logits(inputs.input_ids, **shown_pixels), expected, **EXACT)

    kept = reference.generation_config
    kept.eos_token_id = kept.pad_token_id = None
    said = reference.generate(**inputs, max_new_tokens=32, do_sample=False, output_logits=True,
                              return_dict_in_generate=True)
    best = torch.stack(said.logits).topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 5e-3, "a near tie: choose another seed"
    tokens = said.sequences[0, inputs.input_ids.shape[1] :].tolist()
    from mm.generate import GenerationConfig, generate

    (ours,) = generate(
        model.vlm, [request.input_ids], request.pictures, GenerationConfig(max_new_tokens=32)
    )
    assert len(tokens) == 32 and ours.ids == tokens
