"""LightOnOCR's folders against transformers: prompts, pixels, logits and greedy tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from PIL import Image

import mm
from mm import encoders
from mm.checkpoints import lighton_ocr
from mm.errors import CheckpointError, UsageError
from mm.generate import GenerationConfig, generate
from mm.text.chat import render
from mm.text.frame import PictureFrame
from tests import tiny_model
from tests.checkpoints.published_vlm import EXACT, library, pictures, sharp

QUESTION = "How many cups are there?"
# Frames chats as the published template does; `RENDERED` is what that one gives.
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<|image_pad|>"
    "{% else %}{{ part.text + '\n' }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
NO_SYSTEM = "<|im_start|>system<|im_end|>\n"
RENDERED = {
    "<image>": f"{NO_SYSTEM}<|im_start|>user\n<|image_pad|><|im_end|>\n",
    "<image>Read it.": f"{NO_SYSTEM}<|im_start|>user\n<|image_pad|>Read it.\n<|im_end|>\n",
    "<image><image>a\nb<image>": f"{NO_SYSTEM}<|im_start|>user\n<|image_pad|><|image_pad|>a\nb\n"
    "<|image_pad|><|im_end|>\n",
    "x<image>y": f"{NO_SYSTEM}<|im_start|>user\nx\n<|image_pad|>y\n<|im_end|>\n",
    "hello": f"{NO_SYSTEM}<|im_start|>user\nhello<|im_end|>\n",
}
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
VISION |= {"num_attention_heads": 2, "patch_size": 7, "image_size": 56, "hidden_act": "silu"}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
SIZES |= {"max_position_embeddings": 512, "rope_theta": 1e6}
# Pictures (width, height) of a prompt: one, several of different sizes (odd grids too), none.
SHOWN = {"one": [(50, 30)], "several": [(16, 16), (90, 30), (33, 64)], "none": []}


def save(folder: Path, tied: bool = True, seed: int = 0) -> tuple[Any, Any]:
    """Save a model and its processor with transformers; return both."""
    transformers = library()
    backend = tiny_model.tokenizer()
    names = {"image_token": "<|image_pad|>", "image_break_token": "<|vision_pad|>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(backend.to_json()),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={**names, "image_end_token": "<|vision_end|>"},
    )
    vocab_size = backend.vocab_size + tiny_model.PADDING_ROWS
    config = transformers.LightOnOcrConfig(
        vision_config={"model_type": "pixtral", **VISION},
        text_config={"model_type": "qwen3", "vocab_size": vocab_size, **SIZES},
        image_token_id=backend.token_id("<|image_pad|>"),
        tie_word_embeddings=tied,
    )
    model = sharp(transformers.LightOnOcrForConditionalGeneration(config), seed)
    model.save_pretrained(folder)
    processor = transformers.LightOnOcrProcessor(
        image_processor=transformers.PixtralImageProcessor(
            size={"longest_edge": 56}, patch_size={"height": 7, "width": 7}
        ),
        tokenizer=tokenizer,
        patch_size=7,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return model, processor


def asked(processor: Any, paths: list[Path], question: str) -> Any:
    parts = [*({"type": "image"} for _ in paths), {"type": "text", "text": question}]
    messages = [{"role": "user", "content": parts if paths else question}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    opened = [Image.open(path) for path in paths]
    images = {"images": opened} if opened else {}
    return processor(text=[prompt], return_tensors="pt", **images)


# Tied or not, and a seed without a near tie; tied ones of this size repeat themselves.
KINDS = {"tied": (True, 3), "untied": (False, 12)}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return folder, *save(folder, *request.param)


@pytest.mark.parametrize("shown", SHOWN)
@torch.no_grad()
def test_prompt_pixels_logits_and_greedy_tokens_are_the_same(saved, tmp_path, shown):
    folder, reference, processor = saved
    model = mm.load(folder, device="cpu", dtype="float32")
    paths = pictures(tmp_path / "pictures", SHOWN[shown])
    inputs = asked(processor, paths, QUESTION)
    request = model.prepare_turns([("user", "<image>" * len(paths) + QUESTION)], paths)

    assert request.input_ids == inputs.input_ids[0].tolist()
    given = {}
    if paths:
        given = {key: inputs[key] for key in ("pixel_values", "image_sizes")}
        same = model.vlm.encoder.from_processor(**given)
        assert same.views == request.pictures.views and len(set(same.grids)) == len(paths)
        found = request.pictures.pixel_values
        torch.testing.assert_close(found, same.pixel_values, atol=1e-5, rtol=0)
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
    assert len(tokens) == 32 and len(set(tokens)) > 2 and ours.ids == tokens


@torch.no_grad()
def test_a_page_is_read_without_a_question(saved, tmp_path):
    folder, reference, processor = saved
    model = mm.load(folder, device="cpu", dtype="float32")
    paths = pictures(tmp_path / "pictures", [(50, 30), (33, 64)])
    parts = {"role": "user", "content": [{"type": "image"}]}
    prompt = processor.apply_chat_template([parts], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[prompt], images=[Image.open(paths[0])], return_tensors="pt")
    reference.generation_config.eos_token_id = None
    padding = list(range(model.tokenizer.vocab_size, model.vlm.decoder.config.vocab_size))
    said = reference.generate(**inputs, do_sample=False, max_new_tokens=6, suppress_tokens=padding)
    expected = processor.decode(said[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert model.caption(paths[0], max_new_tokens=6) == expected.strip()
    together = model.caption_many(paths, max_new_tokens=6)
    assert together == [model.caption(path, max_new_tokens=6) for path in paths]
    with pytest.raises(UsageError, match="the question is empty"):
        model.ask(question="")


@pytest.mark.parametrize("text", RENDERED)
def test_chats_are_framed_as_published(saved, text):
    chat = lighton_ocr.load(saved[0]).config["chat"]
    counts = [1] * text.count("<image>")
    settings = {"revision": chat["revision"], "frame": PictureFrame.of(chat)}
    settings["num_image_tokens"] = counts
    pieces = render([("user", text)], add_generation_prompt=True, **settings)
    assert "".join(p.text for p in pieces) == RENDERED[text] + "<|im_start|>assistant\n"
    turns = [("system", "S"), ("user", text), ("assistant", "a")]
    pieces = render(turns, **settings)
    shown = RENDERED[text].removeprefix(NO_SYSTEM)
    assert "".join(piece.text for piece in pieces) == (
        f"<|im_start|>system\nS<|im_end|>\n{shown}<|im_start|>assistant\na<|im_end|>\n"
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    save(folder)
    return folder


def test_another_template_is_told(plain, tmp_path):
    out = shutil.copytree(plain, tmp_path / "out")
    (out / "chat_template.jinja").write_text("{{ messages }}")
    assert lighton_ocr.load(out).config["chat"]["revision"] is None


def test_a_whole_models_folder_gives_its_tower(saved):
    folder, reference, _ = saved
    encoder = encoders.load(folder)
    theirs = reference.model.vision_encoder.state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, theirs[name])


BAD = {
    "another decoder": ({"text_config": {"model_type": "mistral"}}, "'mistral'"),
    "no decoder": ({"text_config": None}, "has no text_config"),
    "biases": ({"multimodal_projector_bias": True}, "sets multimodal_projector_bias to True"),
    "another layer": ({"vision_feature_layer": -2}, "sets vision_feature_layer to -2"),
    "no tower": ({"vision_config": None}, "has no vision_config"),
    "another theta": (
        {"vision_config": {**VISION, "rope_theta": 5.0}},
        "rope_theta is 5.0; this encoder does 10000.0 only",
    ),
    "another placeholder": ({"image_token_id": 3}, "it belongs to another model"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_one_clear_line(plain, tmp_path, change, message):
    out = shutil.copytree(plain, tmp_path / "out")
    found = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**found, **change}))
    with pytest.raises(CheckpointError, match=message) as error:
        mm.load(out, "cpu")
    assert "\n" not in str(error.value)
