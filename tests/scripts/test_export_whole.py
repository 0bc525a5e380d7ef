"""scripts/export.py of models that see: transformers' class computes what the model does here."""

import json
from typing import Any

import pytest
import torch

import mm
from mm.checkpoints.export import export as write
from mm.folder import ASSETS, SHIPPED
from mm.generate import GenerationConfig, generate
from mm.vlm import VisionLanguageModel, build
from scripts import export
from tests import tiny_model
from tests.checkpoints import published_vlm, test_lighton_ocr, test_qwen3_vl
from tests.checkpoints.published_vlm import EXACT, asked, pictures, sharp

SIDE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
SIDE |= {"patch_size": 7}
MLP = {**SIDE, "intermediate_size": 40}
PLAIN = {"shuffle": 1, "layer_norm": False}
RMS = {"use_qk_norm": True, "norm_type": "rms_norm", "layer_norm_eps": 1e-5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
QUESTION = "How many cups are there?"
# Name: transformers' class, encoder, projector, decoder.
FITTING: dict[str, tuple[str, tuple[str, dict], dict, dict]] = {
    "internvit_tiles": (
        "InternVL",
        ("internvit", {**MLP, "attention_bias": True, "max_tiles": 4}),
        {"shuffle": 2},
        {},
    ),
    "internvit_square": (
        "InternVL",
        ("internvit", {**MLP, **RMS, "feature_layer": -2, "resample": "bilinear"}),
        {"shuffle": 4},
        {**EXPERTS, "tie_word_embeddings": True},
    ),
    "siglip": ("Llava", ("siglip", {**MLP, "use_final_norm": False}), PLAIN, {}),
    "siglip_earlier": (
        "Llava",
        ("siglip", {**MLP, "use_final_norm": False, "feature_layer": -2, "hidden_act": "gelu"}),
        PLAIN,
        {**EXPERTS, "norm_topk_prob": True},
    ),
    "clip": (
        "Llava",
        ("clip", {**MLP, "shortest_edge": 28, "feature_layer": -2}),
        PLAIN,
        {"tie_word_embeddings": True},
    ),
    "dinov2": (
        "Llava",
        ("dinov2", {**SIDE, "picture_size": 42, "shortest_edge": 45, "use_final_norm": False}),
        PLAIN,
        {},
    ),
    "aimv2": ("Llava", ("aimv2", {**MLP, "use_final_norm": False}), PLAIN, {}),
    "aimv2_native": (
        "Llava",
        ("aimv2", {**MLP, "use_final_norm": False, "is_native": True}),
        PLAIN,
        {},
    ),
    "internvit_unshuffled": (
        "InternVL",
        ("internvit", {**MLP, "max_tiles": 2}),
        {"shuffle": 1},
        {},
    ),
    "siglip_threes": ("Lfm2Vl", ("siglip", {**MLP, "image_size": 42}), {"shuffle": 3}, {}),
    "siglip_final_norm": ("Lfm2Vl", ("siglip", MLP), {"shuffle": 2}, {}),
    "siglip_plain": ("Lfm2Vl", ("siglip", MLP), PLAIN, {**EXPERTS, "tie_word_embeddings": True}),
    "internvit": ("Llava", ("internvit", {**MLP, "feature_layer": 1}), PLAIN, {}),
}


def composed(
    encoder: tuple[str, dict], projector: dict, decoder: dict, kind: str = "mlp"
) -> VisionLanguageModel:
    config: dict[str, Any] = tiny_model.config(**decoder)
    config["encoder"] = {"name": encoder[0], "config": encoder[1]}
    sizes = {"input_size": 24, "output_size": 32}
    config["projector"] = {"name": kind, "config": {**sizes, **projector}}
    config["decoder"]["config"]["max_position_embeddings"] = 512
    return sharp(build(config), seed=2)


@pytest.mark.parametrize("name", FITTING)
@torch.no_grad()
def test_a_composed_model_becomes_a_class_that_computes_the_same(tmp_path, capsys, name):
    transformers = published_vlm.library()
    pytest.importorskip("jinja2", reason="renders the reference's chat template")
    kind, *parts = FITTING[name]
    model = composed(*parts)
    folder = tiny_model.save(tmp_path / "own", model, chat={"thinking": "off"})
    out = tmp_path / "out"
    assert export.main([str(folder), str(out)]) == 0
    said = capsys.readouterr()
    keeps = "export.py: its processor keeps a picture's proportions"
    assert said.out == f"{out}\n" and said.err.startswith(keeps if kind == "Lfm2Vl" else "")
    assert bool(said.err) == (kind == "Lfm2Vl")

    theirs, report = transformers.AutoModelForImageTextToText.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    assert type(theirs).__name__ == f"{kind}ForConditionalGeneration"
    assert not any(report.values()), report
    processor = transformers.AutoProcessor.from_pretrained(out)
    own = mm.load(folder, device="cpu")
    some = [(90, 90), (33, 33)] if kind == "Lfm2Vl" else [(90, 40), (33, 70)]
    for number, sizes in enumerate((some, [])):
        paths = pictures(tmp_path / f"pictures{number}", sizes)
        request = own.prepare_turns([("user", "<image>" * len(paths) + QUESTION)], paths)
        _, inputs = asked(processor, paths, QUESTION)
        assert inputs.input_ids[0].tolist() == request.input_ids
        if paths:
            found = request.pictures.pixel_values
            if kind == "Lfm2Vl":  # patches, over (row, column, channel)
                found = found.unflatten(3, (-1, 7)).unflatten(2, (-1, 7))
                found = found.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
            torch.testing.assert_close(found, inputs.pixel_values, atol=1e-5, rtol=0)
        logits = own.vlm(torch.tensor([request.input_ids]), request.pictures)
        torch.testing.assert_close(theirs(**inputs).logits, logits, **EXACT)
        said = theirs.generate(**inputs, max_new_tokens=12, do_sample=False)
        stops = tuple(theirs.generation_config.eos_token_id)
        config = GenerationConfig(max_new_tokens=12, stop_token_ids=stops)
        ids = generate(own.vlm, [request.input_ids], request.pictures, config)[0].ids
        assert said[0, len(request.input_ids) :].tolist()[: len(ids)] == ids


@torch.no_grad()
def test_the_model_that_ships_becomes_a_class_that_says_the_same(tmp_path):
    transformers = published_vlm.library()
    own = mm.load(device="cpu", dtype="float32")
    write(ASSETS / SHIPPED, tmp_path / "out", dtype=torch.float32)
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    for path in pictures(tmp_path / "pictures", [(64, 64), (300, 300)]):
        request = own.prepare(path, own.caption_prompt())
        _, inputs = asked(processor, [path], own.caption_prompt())
        assert inputs.input_ids[0].tolist() == request.input_ids
        logits = own.vlm(torch.tensor([request.input_ids]), request.pictures)
        torch.testing.assert_close(theirs(**inputs).logits, logits, **EXACT)


@torch.no_grad()
def test_a_published_folder_is_written_again(tmp_path):
    transformers = published_vlm.library()
    reference, processor = published_vlm.save_internvl(tmp_path / "qianfan", qianfan=True, seed=4)
    out = tmp_path / "out"
    assert export.main([str(tmp_path / "qianfan"), str(out)]) == 0
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    assert type(theirs).__name__ == "InternVLForConditionalGeneration"
    paths = pictures(tmp_path / "pictures", [(90, 40)])
    prompt, inputs = asked(processor, paths, QUESTION)
    again = transformers.AutoProcessor.from_pretrained(out)
    _, same = asked(again, paths, QUESTION)
    assert same.input_ids.tolist() == inputs.input_ids.tolist()
    torch.testing.assert_close(theirs(**same).logits, reference(**inputs).logits, **EXACT)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["do_sample"] is False and "temperature" not in generation
    before, after = mm.load(tmp_path / "qianfan", device="cpu"), mm.load(out, device="cpu")
    assert after.vlm.config == before.vlm.config and after.config == before.config
    for name, tensor in before.vlm.state_dict().items():
        assert torch.equal(after.vlm.state_dict()[name], tensor), name


VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "patch_size": 4}
VISION |= {"num_attention_heads": 2, "num_position_embeddings": 36, "min_pixels": 256}
VISION |= {"max_pixels": 2000, "deepstack_visual_indexes": [0, 2]}
PLACED = {"mrope_section": [4, 2, 2], "num_hidden_layers": 3, "rope_theta": 5e6}


def placed(**decoder: Any) -> VisionLanguageModel:
    """A model composed as Qwen3-VL is, of other sizes."""
    config: dict[str, Any] = tiny_model.config(**{**PLACED, **decoder})
    config["encoder"] = {"name": "qwen3_vl", "config": VISION}
    sizes = {"input_size": 3 * 24, "output_size": 32, "num_residuals": 2}
    config["projector"] = {"name": "deepstack", "config": sizes}
    config["decoder"]["config"]["max_position_embeddings"] = 512
    return sharp(build(config), seed=2)


@pytest.mark.parametrize("decoder", [{}, {**EXPERTS, "norm_topk_prob": True}], ids=["", "experts"])
@torch.no_grad()
def test_a_model_composed_as_qwen3_vl_becomes_one(tmp_path, capsys, decoder):
    transformers = published_vlm.library()
    model = placed(**decoder)
    folder, out = tiny_model.save(tmp_path / "own", model), tmp_path / "out"
    assert export.main([str(folder), str(out)]) == 0 and capsys.readouterr() == (f"{out}\n", "")
    theirs, report = transformers.AutoModelForImageTextToText.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    stem = "Qwen3VLMoe" if decoder else "Qwen3VL"
    assert type(theirs).__name__ == f"{stem}ForConditionalGeneration"
    assert not any(report.values()), report
    processor = transformers.AutoProcessor.from_pretrained(out)
    own, again = mm.load(folder, device="cpu"), mm.load(out, device="cpu")
    assert again.vlm.config == own.vlm.config
    paths = pictures(tmp_path / "pictures", [(50, 30), (16, 60)])
    request = own.prepare_turns([("user", "<image><image>" + QUESTION)], paths)
    _, inputs = asked(processor, paths, QUESTION)
    assert inputs.input_ids[0].tolist() == request.input_ids
    same = own.vlm.encoder.from_processor(inputs.pixel_values, image_grid_thw=inputs.image_grid_thw)
    assert same.views == request.pictures.views
    torch.testing.assert_close(same.pixel_values, request.pictures.pixel_values, atol=1e-5, rtol=0)
    logits = own.vlm(torch.tensor([request.input_ids]), request.pictures)
    torch.testing.assert_close(theirs(**inputs).logits, logits, **EXACT)
    torch.testing.assert_close(
        again.vlm(torch.tensor([request.input_ids]), request.pictures), logits, **EXACT
    )


@pytest.mark.parametrize("kind", ["tied", "experts as published"])
@torch.no_grad()
def test_a_published_qwen3_vl_is_written_again(tmp_path, kind):
    reference, processor = test_qwen3_vl.save(tmp_path / "published", kind)
    (tmp_path / "published/LICENSE").write_text("be kind")
    out = tmp_path / "out"
    assert export.main([str(tmp_path / "published"), str(out)]) == 0
    transformers = published_vlm.library()
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    assert type(theirs) is type(reference) and (out / "LICENSE").read_text() == "be kind"
    again = transformers.AutoProcessor.from_pretrained(out)
    paths = pictures(tmp_path / "pictures", [(50, 30), (16, 60)])
    _, inputs = asked(processor, paths, QUESTION)
    _, same = asked(again, paths, QUESTION)
    for name in ("input_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(same[name], inputs[name]), name
    torch.testing.assert_close(theirs(**same).logits, reference(**inputs).logits, **EXACT)
    before, after = mm.load(tmp_path / "published", device="cpu"), mm.load(out, device="cpu")
    assert after.vlm.config == before.vlm.config and after.config == before.config
    for name, tensor in before.vlm.state_dict().items():
        assert torch.equal(after.vlm.state_dict()[name], tensor), name


@torch.no_grad()
def test_the_decoder_of_a_published_model_reads_text_as_the_whole_does(tmp_path, capsys):
    reference, _ = test_qwen3_vl.save(tmp_path / "published", "experts")
    out = tmp_path / "out"
    capsys.readouterr()  # progress of saving
    assert export.main([str(tmp_path / "published"), str(out), "--text-only"]) == 0
    assert capsys.readouterr().err == "export.py: text only, without its encoder and projector\n"
    transformers = published_vlm.library()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(theirs(ids).logits, reference(input_ids=ids).logits, **EXACT)


def test_a_published_model_of_another_class_is_refused_by_its_part(tmp_path, capsys):
    test_lighton_ocr.save(tmp_path / "published")
    capsys.readouterr()  # progress of saving
    assert export.main([str(tmp_path / "published"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "InternVL's does not fit the encoder, which is pixtral, not internvit" in said
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_positions_in_three_directions_fit_no_other_class(tmp_path, capsys):
    parts = ("siglip", MLP), {"shuffle": 2}, PLACED
    folder = tiny_model.save(tmp_path / "own", composed(*parts))
    assert export.main([str(folder), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("decoder's mrope_section, which is (4, 2, 2), not None") == 2
    folder = tiny_model.save(tmp_path / "unnormed", placed(**EXPERTS))
    assert export.main([str(folder), str(tmp_path / "out")]) == 2
    assert "Qwen3VL's does not fit the decoder's norm_topk_prob" in capsys.readouterr().err


UNFIT = {
    "final norm": (
        ("clip", {**MLP, "use_final_norm": True}),
        PLAIN,
        "no class for this model (Llava's does not fit the encoder's use_final_norm, which is True,"
        " not False): export its decoder alone",
    ),
    "an earlier layer": (
        ("siglip", {**MLP, "feature_layer": -2}),
        {"shuffle": 2},
        "Lfm2Vl's does not fit the encoder's feature_layer, which is -2, not -1 or 2",
    ),
    "shuffle": (
        ("siglip", {**MLP, "use_final_norm": False}),
        {"shuffle": 2, "layer_norm": False},
        "Llava's does not fit the projector's shuffle, which is 2, not 1",
    ),
    "layer norm": (("clip", MLP), {"shuffle": 1}, "projector's layer_norm, which is True"),
    "no layer norm": (
        ("internvit", {**MLP, "max_tiles": 2}),
        {"shuffle": 2, "layer_norm": False},
        "InternVL's does not fit the projector's layer_norm, which is False, not True; Llava's does"
        " not fit the encoder's max_tiles, which is 2, not 1",
    ),
    "another epsilon": (
        ("siglip", MLP),
        {"shuffle": 2, "layer_norm_eps": 1e-6},
        "Lfm2Vl's does not fit the projector's layer_norm_eps, which is 1e-06, not 1e-05",
    ),
    "another epsilon of tiles": (
        ("internvit", {**MLP, "max_tiles": 2}),
        {"shuffle": 2, "layer_norm_eps": 1e-6},
        "InternVL's does not fit the projector's layer_norm_eps, which is 1e-06, not 1e-05",
    ),
    "cut pictures": (
        ("internvit", {**MLP, "shortest_edge": 30}),
        {"shuffle": 2},
        "InternVL's does not fit the encoder's shortest_edge, which is 30, not None",
    ),
    "kept class token": (
        ("clip", {**MLP, "keep_prefix": True}),
        PLAIN,
        "Llava's does not fit the encoder's keep_prefix, which is True, not False",
    ),
    "kept class token of tiles": (
        ("internvit", {**MLP, "keep_prefix": True}),
        {"shuffle": 2},
        "InternVL's does not fit the encoder's keep_prefix, which is True, not False",
    ),
    "another encoder": (
        ("dinov3", MLP),
        PLAIN,
        "InternVL's does not fit the encoder, which is dinov3, not internvit; Llava's does not fit",
    ),
    "registers": (
        ("dinov2", {**SIDE, "picture_size": 28, "num_register_tokens": 4}),
        PLAIN,
        "encoder's class token and registers, which is 5, not 0 or 1",
    ),
    "thumbnail": (
        ("internvit", {**MLP, "max_tiles": 3, "use_thumbnail": False}),
        {"shuffle": 2},
        "InternVL's does not fit the encoder's use_thumbnail, which is False",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_model_that_no_class_computes_is_refused_by_its_part(tmp_path, capsys, name):
    encoder, projector, message = UNFIT[name]
    folder = tiny_model.save(tmp_path / "own", composed(encoder, projector, {}))
    assert export.main([str(folder), str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and "--text-only" in said.err
    assert said.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_another_projector_is_refused_by_its_name(tmp_path, capsys):
    parts = ("siglip", {**MLP, "use_final_norm": False}), {"shuffle": 2}, {}
    folder = tiny_model.save(tmp_path / "own", composed(*parts, kind="linear"))
    assert export.main([str(folder), str(tmp_path / "out")]) == 2
    assert "Llava's does not fit the projector, which is linear, not mlp" in capsys.readouterr().err


def test_weights_are_cast_laid_out_and_cut_into_shards_as_asked(tmp_path):
    _, *parts = FITTING["internvit_square"]
    folder = tiny_model.save(tmp_path / "own", composed(*parts))
    options = ["--dtype", "bfloat16", "--experts", "fused", "--max-shard-gb", "0.00005"]
    assert export.main([str(folder), str(tmp_path / "out"), *options]) == 0
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
    again = mm.load(tmp_path / "out", device="cpu", dtype="bfloat16")
    for name, tensor in mm.load(folder, device="cpu").vlm.state_dict().items():
        assert torch.equal(again.vlm.state_dict()[name], tensor.bfloat16()), name
