"""Tiny published vision-language models, as transformers saves them, and what is compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from PIL import Image

from mm.text.tokenizer import Tokenizer
from tests import tiny_model
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}
FRAME = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
# The chat template of the published InternVL folders.
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ 'PICTURE\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
    "attention_bias": True,
}
PICTURES = {
    "size": {"height": 28, "width": 28},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 4,
}
NUM_IMAGE_TOKENS = 4  # of a tile


def library() -> Any:
    return pytest.importorskip("transformers", reason="the reference is not installed")


def words(extra: Sequence[str] = FRAME) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(tiny_model.tokenizer().to_json())
    backend.add_special_tokens([tokenizers.AddedToken(one, normalized=False) for one in extra])
    return backend


def text_config(moe: bool = False, **changes: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": Tokenizer(words()).vocab_size + tiny_model.PADDING_ROWS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        **changes,
    }
    if moe:
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
        return library().Qwen3MoeConfig(**sizes, **experts, norm_topk_prob=True).to_dict()
    return library().Qwen3Config(**sizes).to_dict()


def sharp(model: Any, seed: int = 0) -> Any:
    """Draw every parameter anew, so that each counts and greedy choices are clear."""
    redraw(model.eval(), seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lambda" in name:
                parameter.add_(0.5)
            if "embed_tokens" in name or "lm_head" in name:
                parameter.mul_(12.0 if "embed_tokens" in name else 4.0)
    return model


def save_internvl(
    folder: Path, *, moe: bool = False, qianfan: bool = False, seed: int = 0, **changes: Any
) -> tuple[Any, Any]:
    """Save a model and its processor with transformers; return both."""
    transformers = library()
    backend = words()
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=dict(zip(names, FRAME, strict=True)),
    )
    kind = "QianfanOCR" if qianfan else "InternVL"
    config = getattr(transformers, f"{kind}Config")(
        vision_config=VISION,
        text_config=text_config(moe),
        image_token_id=backend.token_to_id("<IMG_CONTEXT>"),
        image_seq_length=NUM_IMAGE_TOKENS,
        **{"tie_word_embeddings": False, **changes},
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    sharp(model, seed).save_pretrained(folder)
    placeholder = "<image>" if qianfan else "<IMG_CONTEXT>"
    parts = {"video_processor": transformers.InternVLVideoProcessor()} if not qianfan else {}
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor=transformers.GotOcr2ImageProcessor(**PICTURES),
        tokenizer=tokenizer,
        image_seq_length=NUM_IMAGE_TOKENS,
        chat_template=INTERNVL_TEMPLATE.replace("PICTURE", placeholder),
        **parts,
    )
    processor.save_pretrained(folder)
    return model, processor


def pictures(folder: Path, sizes: Sequence[tuple[int, int]]) -> list[Path]:
    """Write pictures of noise of these sizes (width, height)."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (width, height) in enumerate(sizes):
        generator = torch.Generator().manual_seed(number)
        values = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        paths.append(folder / f"{number}.png")
        Image.frombytes("RGB", (width, height), values.numpy().tobytes()).save(paths[-1])
    return paths


def asked(processor: Any, paths: Sequence[Path], question: str) -> tuple[str, Any]:
    """Return the published prompt about the pictures, as text and as tensors."""
    content = [*({"type": "image"} for _ in paths), {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    opened = [Image.open(path) for path in paths]
    images = {"images": opened} if opened else {}
    return prompt, processor(text=[prompt], return_tensors="pt", **images)
