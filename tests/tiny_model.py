"""A tiny random model made of the real parts, and the folder it is saved in."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.encoders import Pictures
from mm.text.tokenizer import Tokenizer, train_tokenizer
from mm.vlm import VisionLanguageModel, build

CORPUS = [
    "Describe the picture. a red cup to the left of a blue star on a white background",
    "How many cups are there? there are 3 cups. What is this? yes no",
    "그림을 설명해 주세요. 흰 배경에 빨간 컵이 파란 별의 왼쪽에 있어요 잘 모르겠어요",
]
NUM_IMAGE_TOKENS = 4
PADDING_ROWS = 11  # rows of the head that no token belongs to, as in the published models


@functools.cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS * 4, 400)


def config(**decoder: Any) -> dict[str, Any]:
    words = tokenizer()
    sizes = {
        "vocab_size": words.vocab_size + PADDING_ROWS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        **decoder,
    }
    tower = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 8,
    }
    projector = {"input_size": 24, "output_size": sizes["hidden_size"], "shuffle": 2}
    return {
        "encoder": {"name": "siglip", "config": tower},
        "projector": {"name": "mlp", "config": projector},
        "decoder": {"name": "qwen3", "config": sizes},
        "image_token_id": words.token_id("<|image_pad|>"),
    }


def model(seed: int = 0, **decoder: Any) -> VisionLanguageModel:
    """Random in every parameter, norms too, and sharp enough that greedy choices are clear."""
    vlm = build(config(**decoder))
    generator = torch.Generator().manual_seed(seed)
    vlm.init_weights(generator)
    with torch.no_grad():
        for name, parameter in vlm.named_parameters():
            noise = torch.empty(parameter.shape).normal_(generator=generator)
            if parameter.ndim == 1:
                parameter.add_(noise, alpha=0.3)
            else:
                parameter.add_(noise, alpha=0.5 if name.startswith("decoder") else 0.05)
    return vlm.eval()


def pixels(count: int, seed: int = 0) -> Pictures:
    """Pictures of one view of 4x4 patches, as the tiny model takes them."""
    values = torch.empty(count, 3, 32, 32)
    return squares(values.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed)))


def squares(values: Tensor) -> Pictures:
    """Pictures of `[K, 3, 32, 32]`, in one view of 4x4 patches each."""
    return Pictures(values, (((4, 4),),) * len(values))


EXTRA: dict[str, Any] = {
    "chat": {"thinking": "none"},
    "generation": {"max_new_tokens": 12},
    "task_prompts": {"caption": {"en": "Describe the picture.", "ko": "그림을 설명해 주세요."}},
    "decline": {"en": "I can't tell", "ko": "잘 모르겠어요"},
}


def save(directory: Path, vlm: VisionLanguageModel | None = None, **extra: Any) -> Path:
    from mm.checkpoints import native

    native.save(
        vlm or model(), tokenizer(), directory, card="A random model.", extra={**EXTRA, **extra}
    )
    return directory


# What tells the published chat templates apart, without the rest of them.
_JSON_TOOLS = "return a json object with function name and arguments within"
TEMPLATES = {
    "qwen3": f"{_JSON_TOOLS} reasoning_content last_query_index enable_thinking",
    "instruct-2507": _JSON_TOOLS,
}


def save_text(
    directory: Path,
    vlm: VisionLanguageModel | None = None,
    revision: str = "qwen3",
    **generation: Any,
) -> Path:
    """Save the decoder alone, in the published layout of a text model."""
    from mm.checkpoints.qwen3 import save_qwen3

    words = tokenizer()
    stops = [words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")]
    files = {
        "tokenizer.json": words.to_json(),
        "generation_config.json": json.dumps({"eos_token_id": stops, **generation}),
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATES[revision]}),
    }
    encoded = {name: text.encode() for name, text in files.items()}
    decoder = (vlm or model()).decoder
    save_qwen3(decoder, directory, files=encoded, token_ids={"eos_token_id": stops[0]})
    return directory
