"""Qwen3-VL's folders against transformers: prompts, pixels, logits and greedy tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mm
from mm.checkpoints import qwen3_vl, vision
from mm.checkpoints.export import export
from mm.decoder.qwen3 import Qwen3Config
from mm.encoders import Pictures
from mm.errors import CheckpointError
from mm.generate import GenerationConfig, generate
from mm.privacy.door import open_image
from mm.registry import make_config
from mm.report.check_encoder import load_reference
from mm.vlm import ImageFeatures
from scripts import caption
from tests import tiny_model
from tests.checkpoints.published_vlm import EXACT, asked, library, pictures, sharp

CONF = Path(__file__).resolve().parents[2] / "conf"
QUESTION = "How many cups are there?"
FRAME = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
FRAME |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
# Frames what is asked here as the published template does, which `tests.text` compares.
TEMPLATE = (
    "{# return a json object with function name and arguments within #}"  # tells the revision
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
VISION = {"hidden_size": 24, "intermediate_size": 40, "depth": 4, "num_heads": 2}
VISION |= {"patch_size": 4, "num_position_embeddings": 36, "out_hidden_size": 32}
VISION |= {"deepstack_visual_indexes": [0, 1, 2]}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
SIZES |= {"max_position_embeddings": 512}
ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 5e6}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
KINDS = ("dense", "tied", "experts", "experts as published")
# Pictures (width, height) of a prompt: one, several of different sizes, none.
SHOWN = {"one": [(50, 30)], "several": [(16, 16), (90, 21), (33, 64)], "none": []}


def save(folder: Path, kind: str = "dense", seed: int = 0) -> tuple[Any, Any]:
    """Save a model and its processor with transformers; return both."""
    transformers = library()
    backend = tiny_model.tokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(backend.to_json()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=FRAME,
    )
    moe = "experts" in kind
    name = "Qwen3VLMoe" if moe else "Qwen3VL"
    vocab_size = backend.vocab_size + tiny_model.PADDING_ROWS
    text = {**SIZES, "vocab_size": vocab_size, "rope_parameters": ROPE, **(EXPERTS if moe else {})}
    config = getattr(transformers, f"{name}Config")(
        vision_config=dict(VISION),
        text_config=text,
        tie_word_embeddings=kind == "tied",
        **{f"{key}_id": backend.token_id(token) for key, token in FRAME.items()},
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    sharp(model, seed).save_pretrained(folder)
    if kind == "experts as published":
        tensors = load_file(folder / "model.safetensors")
        for key in tensors:
            if ".experts." in key:
                tensors[key] = tensors[key].mT.contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pixels = {"size": {"shortest_edge": 256, "longest_edge": 2000}, "patch_size": 4}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**pixels, **half),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return model, processor


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return folder, *save(folder, request.param)


@pytest.mark.parametrize("shown", SHOWN)
@torch.no_grad()
def test_prompt_pixels_logits_and_greedy_tokens_are_the_same(saved, tmp_path, shown):
    folder, reference, processor = saved
    model = mm.load(folder, device="cpu", dtype="float32")
    paths = pictures(tmp_path / "pictures", SHOWN[shown])
    _, inputs = asked(processor, paths, QUESTION)
    request = model.prepare_turns([("user", "<image>" * len(paths) + QUESTION)], paths)

    assert request.input_ids == inputs.input_ids[0].tolist()
    given = {}
    if paths:
        given = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
        same = model.vlm.encoder.from_processor(**given)
        assert same.views == request.pictures.views and len(set(same.grids)) == len(paths)
        found = request.pictures.pixel_values
        torch.testing.assert_close(found, same.pixel_values, atol=1e-6, rtol=0)
    expected = reference(**inputs).logits
    torch.testing.assert_close(model.logits(inputs.input_ids, **given), expected, **EXACT)

    kept = reference.generation_config
    kept.eos_token_id = kept.pad_token_id = None
    settings = {"max_new_tokens": 32, "do_sample": False, "output_logits": True}
    said = reference.generate(**inputs, **settings, return_dict_in_generate=True)
    best = torch.stack(said.logits).topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 5e-3, "a near tie: choose another seed"
    tokens = said.sequences[0, inputs.input_ids.shape[1] :].tolist()
    config = GenerationConfig(max_new_tokens=32)
    (ours,) = generate(model.vlm, [request.input_ids], request.pictures, config)
    assert len(tokens) == 32 and ours.ids == tokens


@torch.no_grad()
def test_answers_are_those_that_transformers_words(tmp_path):
    reference, processor = save(tmp_path)
    paths = pictures(tmp_path / "pictures", [(50, 30)])
    _, inputs = asked(processor, paths, QUESTION)
    said = reference.generate(**inputs, max_new_tokens=12, do_sample=False)
    words = processor.decode(said[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    model = mm.load(tmp_path, device="cpu", dtype="float32")
    assert model.config["chat"] == {"revision": "instruct-2507"}
    assert model.ask(paths[0], QUESTION, max_new_tokens=12) == words.strip()


@torch.no_grad()
def test_what_the_processor_makes_of_a_batch_gives_its_logits(saved, tmp_path):
    folder, reference, processor = saved
    paths = pictures(tmp_path, [(50, 30), (16, 60), (90, 21)])
    counts, texts = (1, 2, 0), []
    for count in counts:
        texts += [asked(processor, paths[:count], QUESTION[: 9 + count])[0]]
    processor.tokenizer.padding_side = "left"
    images = [Image.open(path) for path in paths]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    real = inputs.attention_mask.bool()
    assert not real.all()
    found = mm.load(folder, device="cpu", dtype="float32").logits(**inputs)
    torch.testing.assert_close(found[real], reference(**inputs).logits[real], **EXACT)


@torch.no_grad()
def test_rows_of_a_batch_are_read_as_if_alone(tmp_path):
    save(tmp_path)
    model = mm.load(tmp_path, device="cpu", dtype="float32")
    shown = [pictures(tmp_path / "a", [(50, 30)]), pictures(tmp_path / "b", [(16, 60), (90, 21)])]
    requests = [model.prepare_turns([("user", "<image>" * len(p) + QUESTION)], p) for p in shown]
    requests.append(model.prepare_turns([("user", "yes")]))
    for settings in ({}, {"prefill_chunk": 7}):
        config = GenerationConfig(max_new_tokens=10, **settings)
        alone = [
            generate(model.vlm, [one.input_ids], one.pictures, config)[0].ids for one in requests
        ]
        pixels = Pictures.cat([one.pictures for one in requests if one.pictures is not None])
        rows = generate(model.vlm, [one.input_ids for one in requests], pixels, config)
        assert [row.ids for row in rows] == alone


def test_positions_are_the_published_ones(tmp_path):
    reference, _ = save(tmp_path)
    model = mm.load(tmp_path, device="cpu", dtype="float32")
    image = model.vlm.image_token_id
    row = [5] * 3 + [image] * 6 + [5] * 4 + [image] * 2 + [5] * 4
    features = ImageFeatures(torch.zeros(8, 128), (((2, 3),), ((1, 2),)))
    (found,), (following,) = model.vlm.place([row], features)
    assert found.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 9, 10, 10, 12, 13, 14, 15],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 9, 10, 10, 12, 13, 14, 15],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    ]
    assert following - len(row) == -3
    ids = torch.tensor([row])
    grids = torch.tensor([[1, 4, 6], [1, 2, 4]])
    theirs, delta = reference.model.get_rope_index(ids, (ids == image).int(), grids)
    assert torch.equal(theirs[:, 0], found) and delta.item() == -3


@torch.no_grad()
def test_a_whole_models_folder_gives_its_tower(tmp_path):
    save(tmp_path)
    whole = mm.load(tmp_path, device="cpu", dtype="float32").vlm.encoder
    alone = mm.encoders.load(tmp_path)
    assert alone.config == whole.config
    (path,) = pictures(tmp_path / "pictures", [(50, 30)])
    ((found, grids),) = alone.encode([open_image(path)])
    ((expected, _),) = whole.encode([open_image(path)])
    assert grids == ((8, 12),) and torch.equal(found, expected)


@torch.no_grad()
def test_the_conformance_suite_has_the_tower_as_reference(tmp_path):
    save(tmp_path)
    reference, tower = load_reference(tmp_path), mm.encoders.load(tmp_path)
    for path in pictures(tmp_path / "pictures", [(50, 30), (16, 60)]):
        image = open_image(path)
        inputs = reference.inputs(image)
        ours = tower.preprocess([image])
        assert tower.from_processor(**inputs).views == ours.views
        torch.testing.assert_close(
            tower.tokens(ours), reference.features(inputs, ours.grids), **EXACT
        )


def edit(folder: Path, name: str, change: Any) -> None:
    """Change a JSON file of the folder in place."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    save(folder)
    return folder


def put(*keys: str, to: Any) -> Any:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


def published_spelling(content: Any) -> None:
    """As the published files have it, where transformers writes it otherwise."""
    text = content["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = {**rope, "mrope_interleaved": True}
    content["vision_config"]["model_type"] = "qwen3_vl"


def test_older_spellings_are_read(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "old")
    edit(folder, "config.json", published_spelling)
    pixels = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    size = pixels.pop("size")
    pixels |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    old, new = (mm.load(one, device="cpu").vlm for one in (folder, plain))
    assert old.config == new.config
    assert new.config["decoder"]["config"]["rope_theta"] == 5e6


# `config.json` of Qwen3-VL-4B and -30B-A3B, but for what a decoder and a tower do not need.
PUBLISHED = {
    "4b": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": "bfloat16",
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2560,
            "initializer_range": 0.02,
            "intermediate_size": 9728,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
        "vision_config": {
            "deepstack_visual_indexes": [5, 11, 17],
            "depth": 24,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1024,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4096,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2560,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    },
    "30b_a3b": {
        "model_type": "qwen3_vl_moe",
        "tie_word_embeddings": False,
        "text_config": {
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 262144,
            "mlp_only_layers": [],
            "model_type": "qwen3_vl_moe_text",
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "vocab_size": 151936,
        },
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "in_channels": 3,
            "intermediate_size": 4304,
            "model_type": "qwen3_vl_moe",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2048,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    },
}
# `preprocessor_config.json` of all of them.
PUBLISHED_PICTURES = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "image_std": [0.5, 0.5, 0.5],
    "merge_size": 2,
    "patch_size": 16,
    "processor_class": "Qwen3VLProcessor",
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "temporal_patch_size": 2,
}


@pytest.mark.parametrize(("size", "tower"), [("4b", "large"), ("30b_a3b", "so400m")])
def test_published_configs_are_those_of_conf(size, tower):
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    parts = (f"+encoder=qwen3_vl_{tower}", f"+decoder=qwen3_vl_{size}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = omegaconf.OmegaConf.to_container(hydra.compose(overrides=list(parts)))
    published = PUBLISHED[size]
    decoder = qwen3_vl.read_decoder(published, "config.json")
    assert decoder == make_config(Qwen3Config, config["decoder"]["config"], "the decoder")
    kind = mm.encoders.get("qwen3_vl")
    found = vision.translate(kind, published["vision_config"], PUBLISHED_PICTURES, Path())
    assert found == make_config(type(found), config["encoder"]["config"], "the encoder")


def test_pictures_that_nothing_is_said_of_are_as_published(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "bare")
    (folder / "processor_config.json").unlink()
    config = mm.load(folder, device="cpu").vlm.encoder.config
    assert (config.min_pixels, config.max_pixels, config.resample) == (65536, 16777216, "bicubic")
    assert config.image_mean == config.image_std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_picture_that_is_too_narrow_is_told_and_the_others_are_captioned(
    plain, tmp_path, capsys, options
):
    paths = pictures(tmp_path, [(3000, 10), (50, 30)])
    told = ["--model", str(plain), "--max-new-tokens", "3", "--device", "cpu", *options]
    assert caption.main([*map(str, paths), *told]) == 1
    said = capsys.readouterr()
    reason = "picture of 3000 x 10 is more than 200 times as long as it is wide: crop it"
    assert f"caption.py: {paths[0]}: {reason}" in said.err and "Traceback" not in said.err
    assert said.out.startswith(f"{paths[1]}: ") and said.out.count("\n") == 1


def test_placeholder_is_the_token_that_the_config_names(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "other")
    token = tiny_model.tokenizer().token_id("<|video_pad|>")
    edit(folder, "config.json", put("image_token_id", to=token))
    model = mm.load(folder, device="cpu", dtype="float32")
    assert model.config["chat"]["image_token"] == "<|video_pad|>"
    (path,) = pictures(tmp_path / "pictures", [(50, 30)])
    assert model.prepare(path, QUESTION).input_ids.count(token) == 24
    # One that is no token of its own: prompts can't hold it, which is told.
    edit(folder, "config.json", put("image_token_id", to=7))
    with pytest.raises(ValueError, match="has 0 image placeholders .token 7. for 24 image tokens"):
        mm.load(folder, device="cpu", dtype="float32").ask(path, QUESTION)


BAD = [
    (put("text_config", to=None), "has no text_config: name a folder of a whole model"),
    (put("quantization_config", to={"quant_method": "fp8"}), "sets quantization_config, which is"),
    (put("vision_config", to=3), "has no vision_config"),
    (put("image_token_id", to=411), "image_token_id is 411; it must be below"),
    (put("text_config", "rope_parameters", "mrope_section", to=[4, 4, 0]), "mrope_section is"),
    (put("text_config", "rope_parameters", "mrope_section", to=[8]), "mrope_section of"),
    (put("text_config", "rope_parameters", "mrope_interleaved", to=False), "mrope_interleaved"),
    (put("text_config", "attention_bias", to=True), "sets attention_bias to True"),
    (put("text_config", "vocab_size", to=90), "tokens for a decoder of 90"),
    (put("vision_config", "out_hidden_size", to=31), "output_size is 31, but"),
    (put("vision_config", "patch_size", to=8), "has patch_size 4, but config.json has 8"),
    (put("vision_config", "deepstack_visual_indexes", to=[0, 1]), "2 unexpected|unexpected:"),
    (put("vision_config", "depth", to=5), "missing: model.visual.blocks.4"),
    (put("vision_config", "rope_parameters", "rope_theta", to=1e6), "rope_parameters is"),
    (put("vision_config", "hidden_act", to="silu"), "hidden_act of the config is 'silu'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_does_not_fit_is_one_clear_line(plain, tmp_path, change, message):
    folder = shutil.copytree(plain, tmp_path / "bad")
    edit(folder, "config.json", change)
    with pytest.raises(CheckpointError, match=message) as error:
        mm.load(folder, device="cpu")
    assert "\n" not in str(error.value)


def unsaid(content: Any) -> None:
    del content["image_processor"]["image_mean"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("image_processor", "size", to={"height": 40, "width": 40}), "keeps a picture's prop"),
        (put("image_processor", "size", to={"shortest_edge": 40}), "keeps a picture's proportions"),
        (put("image_processor", "merge_size", to=4), "has spatial_merge_size 4, but config.json"),
        (put("image_processor", "do_resize", to=False), "switches off do_resize"),
        (unsaid, "nothing says image_mean"),
    ],
)
def test_pictures_made_otherwise_are_refused(plain, tmp_path, change, message):
    folder = shutil.copytree(plain, tmp_path / "bad")
    edit(folder, "processor_config.json", change)
    with pytest.raises(CheckpointError, match=message):
        mm.load(folder, device="cpu")


@pytest.mark.parametrize("kind", ["tied", "experts as published"])
@torch.no_grad()
def test_a_published_folder_is_written_again(tmp_path, kind):
    folder, out = tmp_path / "published", tmp_path / "out"
    reference, processor = save(folder, kind)
    export(folder, out)
    theirs, report = library().AutoModelForImageTextToText.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    assert type(theirs) is type(reference) and not any(report.values()), report
    paths = pictures(tmp_path / "pictures", [(90, 40), (16, 60)])
    prompt, inputs = asked(processor, paths, QUESTION)
    again, same = asked(library().AutoProcessor.from_pretrained(out), paths, QUESTION)
    assert again == prompt and torch.equal(same.pixel_values, inputs.pixel_values)
    torch.testing.assert_close(theirs(**same).logits, reference(**inputs).logits, **EXACT)
    before, after = mm.load(folder, device="cpu"), mm.load(out, device="cpu")
    assert after.vlm.config == before.vlm.config
    for name, tensor in before.vlm.state_dict().items():
        assert torch.equal(after.vlm.state_dict()[name], tensor), name
