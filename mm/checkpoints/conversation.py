"""What a published folder says about talking with its model, beside the weights.

`generation_config.json` has defaults of sampling and the ids that end an answer. The chat template
is a Jinja program, in `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`; it is
not run, but recognised, as `mm.text.chat` renders the published revisions itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm.checkpoints import store
from mm.errors import CheckpointError
from mm.text.chat import STOP_TOKENS, Revision, revision_of
from mm.text.tokenizer import Tokenizer

GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
PROCESSOR_TEMPLATE = "chat_template.json"  # older, of models that see
TOKENIZER_CONFIG = "tokenizer_config.json"
# Files beside weights, config.json and tokenizer.json that a published folder may have.
FILES = (
    GENERATION,
    TEMPLATE,
    PROCESSOR_TEMPLATE,
    TOKENIZER_CONFIG,
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_RANGES: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "max_new_tokens": (int, lambda x: x >= 1, "a whole number of at least 1"),
    "temperature": (float, lambda x: 0 <= x < math.inf, "a number of 0 or more"),
    "top_k": (int, lambda x: x >= 0, "a whole number, 0 for all"),
    "top_p": (float, lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    "min_p": (float, lambda x: 0 <= x <= 1, "a number between 0 and 1"),
    "repetition_penalty": (float, lambda x: 0 < x < math.inf, "a number above 0"),
}
_GREEDY = ("max_new_tokens", "repetition_penalty")  # what also holds without sampling


def read_generation(directory: Path, tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Read the defaults of generation.

    Args:
        directory: of the model.
        tokenizer: names the usual stop tokens, if no file does.
        vocab_size: ids are below it.

    Returns:
        `eos_token_id`, a list, and what else is set, by `mm.generate.GenerationConfig`'s names.
        Without `do_sample` the temperature is 0, and there are no other rules of sampling.

    Raises:
        CheckpointError: the file is damaged, or a value is out of its range.
    """
    path = directory / GENERATION
    found = store.read_json(path) if path.exists() else {}
    settings: dict[str, Any] = {}
    for name, (kind, is_good, wanted) in _RANGES.items():
        value = found.get(name)
        if value is None:
            continue
        accepted = (int, float) if kind is float else (int,)
        if isinstance(value, bool) or not isinstance(value, accepted) or not is_good(value):
            raise CheckpointError(f"{path}: {name} is {str(value)[:80]}; it must be {wanted}")
        settings[name] = kind(value)
    if found.get("do_sample"):
        settings.setdefault("temperature", 1.0)  # as transformers has it; ours is greedy
    elif path.exists():
        settings = {name: settings[name] for name in _GREEDY if name in settings}
        settings["temperature"] = 0.0
    config = directory / "config.json"
    stops = _token_ids(found.get("eos_token_id"), path, vocab_size)
    if not stops:
        # config.json alone names one of the two that end an answer.
        stops = _token_ids(store.read_json(config).get("eos_token_id"), config, vocab_size)
        stops = list(dict.fromkeys([*stops, *_usual_stops(tokenizer)]))
    return {"eos_token_id": stops, **settings}


def read_chat_revision(directory: Path) -> Revision | None:
    """Recognise the chat template of a folder, see `mm.text.chat.revision_of`.

    Returns:
        "qwen3" also where there is no template, as in some folders of base models; None for a
        template of another family.

    Raises:
        CheckpointError: the file that should have it is damaged.
    """
    template = read_template(directory)
    return "qwen3" if template is None else revision_of(template)


def read_template(directory: Path) -> str | None:
    """Return the chat template of a folder; None if there is none.

    Raises:
        CheckpointError: the file that should have it is damaged.
    """
    path = directory / TEMPLATE
    if path.exists():
        try:
            return path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            raise CheckpointError(f"{path} is no text: copy it again") from None
    path = directory / PROCESSOR_TEMPLATE
    path = path if path.exists() else directory / TOKENIZER_CONFIG
    found = store.read_json(path).get("chat_template") if path.exists() else None
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry for entry in found if isinstance(entry, dict)}
        found = named.get("default", {}).get("template")
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{path}: chat_template is no text: copy it again")
    return found


def read_named_tokens(directory: Path) -> dict[str, str]:
    """Return tokens that a model's own code finds by name, such as `start_image_token`.

    They stand in `tokenizer_config.json`, beside other settings or in an object of their own.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = directory / TOKENIZER_CONFIG
    settings = store.read_json(path) if path.exists() else {}
    extra = settings.get("extra_special_tokens")
    found = {**settings, **(extra if isinstance(extra, dict) else {})}
    return {
        name: value
        for name, value in found.items()
        if name.endswith("_token") and isinstance(value, str)
    }


def _usual_stops(tokenizer: Tokenizer) -> list[int]:
    found = []
    for token in STOP_TOKENS:
        with contextlib.suppress(KeyError):
            found.append(tokenizer.token_id(token))
    return found


def _token_ids(value: object, path: Path, vocab_size: int) -> list[int]:
    """Read one id, a list of them, or null."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for index in ids:
        if type(index) is not int or not 0 <= index < vocab_size:
            raise CheckpointError(
                f"{path}: eos_token_id has {str(index)[:80]}; it must be a whole number below"
                f" vocab_size {vocab_size}"
            )
    return list(dict.fromkeys(ids))
