"""InternVL's folders against transformers: prompts, pixels, logits and greedy tokens."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mm
import mm.encoders
from mm import vlm
from mm.checkpoints import internvl, native, store
from mm.checkpoints.fill import unfilled
from mm.errors import CheckpointError
from mm.generate import GenerationConfig, generate
from tests.checkpoints import published_vlm
from tests.checkpoints.published_vlm import EXACT, NUM_IMAGE_TOKENS, asked, pictures

QUESTION = "How many cups are there?"
# Seeds whose 32 tokens are many different ones, without a near tie.
KINDS = {
    "dense": {"seed": 3},
    "experts": {"moe": True, "seed": 4},
    "qianfan": {"qianfan": True, "seed": 4},
}
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
    said = reference.generate(
        **inputs,
        max_new_tokens=32,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(said.logits).topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 5e-3, "a near tie: choose another seed"
    tokens = said.sequences[0, inputs.input_ids.shape[1] :].tolist()
    (ours,) = generate(
        model.vlm, [request.input_ids], request.pictures, GenerationConfig(max_new_tokens=32)
    )
    assert len(tokens) == 32 and len(set(tokens)) > 8 and ours.ids == tokens


@torch.no_grad()
def test_a_person_asks_about_pictures_one_by_one_or_many_at_once(saved, tmp_path):
    folder, reference, processor = saved
    model = mm.load(folder, device="cpu")
    paths = pictures(tmp_path / "pictures", [(90, 40), (28, 28)])
    limit = {"max_new_tokens": 6}
    _, inputs = asked(processor, paths[:1], QUESTION)
    reference.generation_config.eos_token_id = None
    padding = list(range(model.tokenizer.vocab_size, model.vlm.decoder.config.vocab_size))
    said = reference.generate(**inputs, do_sample=False, suppress_tokens=padding, **limit)
    said = said[0, inputs.input_ids.shape[1] :]
    answer = model.ask(paths[0], QUESTION, **limit)
    assert answer == processor.decode(said, skip_special_tokens=True).strip()
    alone = [model.answer(path, QUESTION, **limit) for path in paths]
    together = model.answer_many(paths, [QUESTION] * 2, **limit)
    assert [one.text for one in together] == [one.text for one in alone]
    assert model.languages == ["en", "ko"] and model.caption(paths[1], **limit)
    several = model.chat([("user", "<image>What?<image>And this?")], paths, **limit)
    assert several == "".join(
        model.chat([("user", "<image>What?<image>And this?")], paths, stream=True, **limit)
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    published_vlm.save_internvl(folder, **KINDS["dense"])
    return folder


def changed(folder: Path, out: Path, tensors=None, **config) -> Path:
    """Copy a folder with another config, and other tensors if given."""
    shutil.copytree(folder, out)
    path = out / "config.json"
    found = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({key: value for key, value in found.items() if value != "gone"}))
    if tensors is not None:
        (out / "model.safetensors").unlink()
        store.save_tensors(tensors, out)
    return out


def original_names(model: vlm.VisionLanguageModel) -> dict[str, torch.Tensor]:
    """Name the tensors as the original folders do, written out here once more."""
    projector = {"layer_norm": "mlp1.0", "linear_1": "mlp1.1", "linear_2": "mlp1.3"}
    named = {}
    for name, tensor in model.state_dict().items():
        part, rest = name.split(".", 1)
        layer, leaf = rest.rsplit(".", 1)
        named[
            {
                "encoder": f"vision_model.{rest}",
                "projector": f"{projector.get(layer)}.{leaf}",
                "decoder": f"language_model.{rest}",
            }[part]
        ] = tensor
    return named


def test_the_original_format_is_the_same_model(plain, tmp_path):
    model = internvl.load(plain).model
    published = json.loads((plain / "config.json").read_text())
    tower = published["vision_config"]
    tower |= {"model_type": "intern_vit_6b", "image_size": 28, "patch_size": 7}
    tower |= {"qkv_bias": tower.pop("attention_bias"), "qk_normalization": False}
    original = {
        "model_type": "internvl_chat",
        "llm_config": published["text_config"],
        "vision_config": tower,
        "select_layer": -1,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "force_image_size": 28,
        "max_dynamic_patch": 4,
        "min_dynamic_patch": 1,
        "use_thumbnail": True,
        "text_config": "gone",
        "image_token_id": "gone",
        "tie_word_embeddings": "gone",
        "vision_feature_layer": "gone",
    }
    folder = changed(plain, tmp_path / "original", original_names(model), **original)
    (folder / "processor_config.json").unlink()
    loaded = internvl.load(folder)
    assert loaded.model.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert loaded.config["chat"] == internvl.load(plain).config["chat"]
    squares = changed(folder, tmp_path / "squares", dynamic_image_size=False)
    assert internvl.load(squares).model.encoder.views(100, 900) == ((4, 4),)


def test_names_as_transformers_has_them_in_memory_are_read(plain, tmp_path):
    tensors = {}
    for name, tensor in store.load_tensors(plain).items():
        name = name.replace("language_model.model.", "model.language_model.")
        name = name.replace("language_model.lm_head", "lm_head")
        start = "model." if name.startswith(("vision_tower", "multi_modal")) else ""
        tensors[start + name] = tensor
    loaded = internvl.load(changed(plain, tmp_path / "memory", tensors)).model
    for name, tensor in internvl.load(plain).model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_qianfans_tower_has_biases_unless_its_config_says_otherwise(tmp_path):
    published_vlm.save_internvl(tmp_path / "model", qianfan=True)
    tower = json.loads((tmp_path / "model/config.json").read_text())["vision_config"]
    del tower["attention_bias"]
    folder = changed(tmp_path / "model", tmp_path / "unsaid", vision_config=tower)
    assert internvl.load(folder).model.encoder.config.attention_bias


def test_tiles_are_as_many_as_the_processors_file_says(plain, tmp_path):
    folder = changed(plain, tmp_path / "tiles")
    found = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    found |= {"min_patches": 2, "max_patches": 3, "crop_to_patches": False}
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(found))  # where older files have it
    encoder = internvl.load(folder).model.encoder
    assert (encoder.config.min_tiles, encoder.config.max_tiles) == (2, 3)
    assert len(encoder.views(50, 50)) == 3


TOOLS = "return a json object with function name and arguments within"
TEMPLATES = {
    "its own": (published_vlm.INTERNVL_TEMPLATE.replace("PICTURE", "<IMG_CONTEXT>"), "\n"),
    "escaped": ("<|im_start|> {{ '<IMG_CONTEXT>\\n' }}", "\n"),
    "without a line break": ("<|im_start|> {{ '<IMG_CONTEXT>' }}", ""),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_follows_a_picture_is_told_by_the_template(plain, tmp_path, name):
    folder = changed(plain, tmp_path / "template")
    template, after = TEMPLATES[name]
    (folder / "chat_template.jinja").write_text(template)
    chat = internvl.load(folder).config["chat"]
    assert chat["revision"] == "instruct-2507" and chat["image_end"] == f"</img>{after}"
    assert (chat["image_start"], chat["image_token"]) == ("<img>", "<IMG_CONTEXT>")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert internvl.load(folder).config["chat"] == chat


def test_another_frame_is_told_by_its_template_or_not_known(plain, tmp_path):
    folder = changed(plain, tmp_path / "template")
    path = folder / "chat_template.jinja"
    path.write_text(
        f"<|im_start|> tools {TOOLS} reasoning_content last_query_index enable_thinking"
    )
    assert internvl.load(folder).config["chat"]["revision"] == "qwen3"
    path.write_text("<|im_start|> with tools of its own")
    assert internvl.load(folder).config["chat"]["revision"] is None
    path.unlink()
    assert internvl.load(folder).config["chat"]["revision"] == "instruct-2507"


def test_the_tower_alone_is_read_from_the_folder_of_the_whole(plain):
    tower = mm.encoders.load(plain)
    whole = internvl.load(plain).model.encoder
    assert tower.config == replace(whole.config, max_tiles=1)  # tiles are the whole model's
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tower.state_dict()[name], tensor), name


def test_a_published_model_is_saved_as_one_of_our_own(plain, tmp_path):
    model = mm.load(plain, device="cpu")
    native.save(model.vlm, model.tokenizer, tmp_path / "own", card="Copied.", extra=model.config)
    again = mm.load(tmp_path / "own", device="cpu")
    (path,) = pictures(tmp_path / "pictures", [(90, 40)])
    before, after = model.prepare(path, QUESTION), again.prepare(path, QUESTION)
    assert after.input_ids == before.input_ids
    logits = model.vlm(torch.tensor([before.input_ids]), before.pictures)
    assert torch.equal(again.vlm(torch.tensor([after.input_ids]), after.pictures), logits)


@pytest.mark.parametrize("tie", [True, False, "gone"])
@pytest.mark.parametrize("stored", ["another", "the same", "none"])
def test_a_stored_head_wins_over_what_the_config_says(plain, tmp_path, tie, stored):
    tensors = dict(store.load_tensors(plain))
    head, embedding = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    if stored == "the same":
        tensors[head] = tensors[embedding].clone()
    elif stored == "none":
        del tensors[head]
    folder = changed(plain, tmp_path / "tied", tensors, tie_word_embeddings=tie)
    if stored == "none" and tie is False:
        with pytest.raises(CheckpointError, match="no lm_head.weight, and its config does not tie"):
            internvl.load(folder)
        return
    decoder = internvl.load(folder).model.decoder
    wanted = tensors.get(head, tensors[embedding])
    assert torch.equal(decoder.lm_head.weight, wanted)
    shared = decoder.lm_head.weight is decoder.model.embed_tokens.weight
    assert shared == (stored != "another" and tie is not False)  # not said is tied


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ps_version": "v1"}, "config.json sets ps_version to v1, which is not done here"),
        ({"projector_hidden_act": "relu"}, "sets projector_hidden_act to relu"),
        ({"vision_feature_select_strategy": "full"}, "sets vision_feature_select_strategy to full"),
        ({"quantization_config": {"bits": 4}}, "sets quantization_config to "),
        ({"downsample_ratio": 0.4}, "downsample_ratio is 0.4; it must be 1, 1/2, 1/3"),
        ({"downsample_ratio": "half"}, "downsample_ratio is 'half'"),
        ({"vision_feature_layer": [-1, -2]}, "feature_layer of encoder 'internvit' is"),
        ({"image_token_id": "gone"}, "image_token_id is None; it must be a whole number"),
        ({"image_token_id": 5000}, "image_token_id is 5000; it must be below"),
        ({"image_token_id": 60}, "has no added token"),
        ({"vision_config": "gone"}, "config.json has no vision_config"),
        ({"text_config": "gone"}, "config.json has no text_config"),
        ({"text_config": {"model_type": "qwen2"}}, "unknown model_type 'qwen2'; known: qwen3"),
    ],
)
def test_what_is_not_done_here_is_one_clear_line(plain, tmp_path, config, message):
    folder = changed(plain, tmp_path / "changed", **config)
    with pytest.raises(CheckpointError, match=message) as error:
        mm.load(folder, device="cpu")
    assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit_are_listed_as_they_are_stored(plain, tmp_path):
    tensors = dict(store.load_tensors(plain))
    del tensors["vision_tower.encoder.layer.1.attention.k_proj.bias"]
    del tensors["multi_modal_projector.linear_1.bias"]
    tensors["language_model.model.layers.0.extra"] = torch.zeros(3)
    folder = changed(plain, tmp_path / "torn", tensors)
    with pytest.raises(CheckpointError) as error:
        internvl.load(folder)
    missing = "multi_modal_projector.linear_1.bias, vision_tower.encoder.layer.1.attention.k_proj"
    assert f"2 missing: {missing}" in str(error.value)
    assert "1 unexpected: language_model.model.layers.0.extra" in str(error.value)


# Untied, as published: tower, decoder, and parameters of transformers' class on the meta device.
SIZES = {
    "1B": ("internvit_300m", "qwen3_0_6b", 1_060_897_792),
    "2B": ("internvit_300m", "qwen3_1_7b", 2_348_347_392),
    "4B": ("internvit_300m", "qwen3_4b", 4_732_489_216),
    "8B": ("internvit_300m", "qwen3_8b", 8_528_318_464),
    "14B": ("internvit_300m", "qwen3_14b", 15_119_523_840),
    "38B": ("internvit_6b", "qwen3_32b", 38_390_405_504),
    "30B-A3B": ("internvit_300m", "qwen3_30b_a3b", 30_848_730_112),
    "241B-A28B": ("internvit_6b", "qwen3_235b_a22b", 240_699_370_368),
}


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_exactly_their_parameters(size):
    from omegaconf import OmegaConf

    conf = Path(__file__).resolve().parents[2] / "conf"
    tower, decoder, expected = SIZES[size]
    config = {
        "encoder": OmegaConf.load(conf / "encoder" / f"{tower}.yaml"),
        "projector": OmegaConf.load(conf / "projector/mlp.yaml"),
        "decoder": OmegaConf.load(conf / "decoder" / f"{decoder}.yaml"),
        "image_token_id": 151_671,
    }
    whole = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    whole["decoder"]["config"]["tie_word_embeddings"] = False
    with unfilled():
        model = vlm.build(whole)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model.num_image_tokens(448, 448) == 256
    tiled = replace(model.encoder.config, max_tiles=12)
    model.encoder.config = tiled
    assert model.num_image_tokens(480, 640) == 13 * 256
