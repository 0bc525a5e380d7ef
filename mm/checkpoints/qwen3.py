"""Published Qwen3 text checkpoints, dense and mixtures of experts: mostly, the names are ours.

Three things are not the identity:

- The head. A stored `lm_head.weight` wins; without one the embedding is used if the config ties
  them; without one and untied the checkpoint is incomplete. (Qwen3-0.6B and 1.7B say tied and store
  the head as well, 4B says tied and does not.) It is the rule that transformers follows.
- Experts. Published files store each expert's three matrices, ours are stacked:
      experts.{e}.gate_proj.weight  ->  experts.gate_up_proj[e, :F]  [F, D]
      experts.{e}.up_proj.weight    ->  experts.gate_up_proj[e, F:]  [F, D]
      experts.{e}.down_proj.weight  ->  experts.down_proj[e]         [D, F]
  Stacked files are read too, as they are or with the last two axes swapped.
- A decoder that was saved without its head (embedding models) has names without `model.`.

D model width, F an expert's feed-forward width.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mm.checkpoints import conversation, store
from mm.checkpoints.fill import Layout, Part, fill, stored_tensors, taken_apart, unfilled, whole
from mm.checkpoints.qwen3_config import published_config, read_config
from mm.checkpoints.rules import NameRules
from mm.checkpoints.tensor_file import StoredTensor, stored_dtype
from mm.decoder.qwen3 import Qwen3Config, Qwen3ForCausalLM
from mm.errors import CheckpointError
from mm.text.chat import Revision
from mm.text.tokenizer import Tokenizer

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
NAMES = NameRules(ignored=(r"(model\.)?rotary_emb\.inv_freq",))  # computed from rope_theta
_BARE = NameRules(prefixes=((_HEAD, _HEAD), ("", "model.")), ignored=NAMES.ignored)
_STACKED = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)")

Experts = Literal["each", "fused"]


@dataclass(frozen=True)
class LoadedText:
    """A text model and what a conversation with it needs.

    Args:
        decoder: the model, in evaluation mode.
        tokenizer: its tokenizer.
        generation: defaults by `mm.generate.GenerationConfig`'s names, as far as the folder has
            them, and `eos_token_id`, the list of ids that end an answer.
        chat_revision: which of Qwen3's chat templates it has, for `mm.text.chat`; None if it is
            another family's.
    """

    decoder: Qwen3ForCausalLM
    tokenizer: Tokenizer
    generation: dict[str, Any]  # JSON values
    chat_revision: Revision | None


def load_qwen3(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Qwen3ForCausalLM:
    """Load the decoder of a published Qwen3 checkpoint.

    Args:
        directory: holds `config.json` and safetensors, one file or shards.
        device: where to put it.
        dtype: of the weights; None keeps the stored one.

    Raises:
        CheckpointError: a file is missing or damaged, or the model is of another kind.
    """
    directory = Path(directory)
    store.check_folder(directory)
    config = read_config(directory / CONFIG)
    files = store.open_tensors(directory)
    bare = "embed_tokens.weight" in files
    stored = (_BARE if bare else NAMES).apply(files, directory)
    config = dataclasses.replace(config, tie_word_embeddings=is_shared(config, stored, directory))
    if config.tie_word_embeddings:
        stored.pop(_HEAD, None)
    with unfilled():
        decoder = Qwen3ForCausalLM(config)
    fill(decoder, stored, directory, device, dtype, layout_of(config, stored))
    return decoder.eval()


def load_text(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> LoadedText:
    """Load a published Qwen3 folder whole: decoder, tokenizer, generation defaults, chat revision.

    Arguments and errors are those of `load_qwen3`; `tokenizer.json` has to be there.
    """
    directory = Path(directory)
    store.check_folder(directory)
    config = read_config(directory / CONFIG)  # what is no Qwen3 is told first
    tokenizer = Tokenizer.from_file(directory / TOKENIZER)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{directory / TOKENIZER} has {tokenizer.vocab_size} tokens for a decoder of"
            f" {config.vocab_size}: it belongs to another model"
        )
    generation = conversation.read_generation(directory, tokenizer, config.vocab_size)
    revision = conversation.read_chat_revision(directory)
    return LoadedText(load_qwen3(directory, device, dtype), tokenizer, generation, revision)


def save_qwen3(
    decoder: Qwen3ForCausalLM,
    directory: str | os.PathLike[str],
    *,
    files: Mapping[str, bytes] | None = None,
    token_ids: Mapping[str, int] | None = None,
    experts: Experts = "each",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = store.MAX_SHARD_BYTES,
) -> None:
    """Write a folder in the published layout; it appears whole or not at all.

    Args:
        decoder: the model.
        directory: a new folder, an empty one, or an older checkpoint to replace.
        files: what else to put there, by name, such as `tokenizer.json`.
        token_ids: `eos_token_id` and its like, for `config.json`.
        experts: "each" as published, or "fused": stacked, as they are in memory.
        dtype: to store the weights in; None is their own.
        max_shard_bytes: see `mm.checkpoints.store.save_tensors`.

    Raises:
        CheckpointError: the folder holds something else.
    """
    layout = partial(published_parts, config=decoder.config) if experts == "each" else whole
    tensors = taken_apart(stored_tensors(decoder), layout)
    kind = stored_dtype(tensors[_EMBEDDING], dtype)
    config = published_config(decoder.config, kind) | dict(token_ids or {})
    text = json.dumps(dict(sorted(config.items())), indent=2, ensure_ascii=False) + "\n"
    contents = {**(files or {}), CONFIG: text.encode()}
    write_folder(directory, tensors, contents, dtype, max_shard_bytes)


def write_folder(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    dtype: torch.dtype | None,
    max_shard_bytes: int,
) -> None:
    """Write a folder of tensors and other files; it appears whole or not at all.

    Arguments and errors are those of `save_qwen3`.
    """

    def write(scratch: Path) -> None:
        store.save_tensors(tensors, scratch, max_shard_bytes, dtype=dtype)
        for name, content in files.items():
            store.write_bytes(scratch / name, content)

    replaceable = {*files, *conversation.FILES, TOKENIZER, store.INDEX}
    store.replace_folder(Path(directory), write, replaceable)


def is_shared(config: Qwen3Config, stored: Mapping[str, StoredTensor], directory: Path) -> bool:
    """Say whether the head is the embedding, by the rule above.

    Args:
        config: as it stands in the folder.
        stored: what the folder has of the decoder, by our names.
        directory: for messages.

    Raises:
        CheckpointError: there is no head.
    """
    if _HEAD not in stored:
        if not config.tie_word_embeddings:
            raise CheckpointError(
                f"{directory} has no {_HEAD}, and its config does not tie the head to the"
                " embedding: a shard is missing, or tie_word_embeddings should be true"
            )
        return True
    return (
        config.tie_word_embeddings
        and _EMBEDDING in stored
        and stored[_HEAD].same_bytes(stored[_EMBEDDING])
    )


def layout_of(config: Qwen3Config, stored: Mapping[str, StoredTensor]) -> Layout:
    """Describe how files that have the decoder's tensors under these names store ours."""
    D, F = config.hidden_size, config.moe_intermediate_size
    turned = {"gate_up_proj": (D, 2 * F), "down_proj": (F, D)}

    def is_transposed(experts: str) -> bool:
        # Both matrices together, as one alone may be square.
        found = {kind: stored.get(f"{experts}.{kind}") for kind in turned}
        return turned == {kind: tensor and tensor.shape[1:] for kind, tensor in found.items()}

    def parts(name: str) -> list[Part]:
        stacked = _STACKED.fullmatch(name)
        if stacked and name in stored:
            return [Part(name, transposed=is_transposed(stacked[1]))]
        return published_parts(name, config)

    return parts


def published_parts(name: str, config: Qwen3Config) -> list[Part]:
    """Describe a tensor of ours as published: stacked experts one by one, others as they are."""
    stacked = _STACKED.fullmatch(name)
    if not stacked:
        return [Part(name)]
    experts, F = stacked[1], config.moe_intermediate_size
    halves = {"gate_proj": slice(0, F), "up_proj": slice(F, 2 * F)}
    return [
        Part(f"{experts}.{e}.{kind}.weight", (e, rows))
        for e in range(config.num_experts)
        for kind, rows in (
            halves.items() if stacked[2] == "gate_up_proj" else [("down_proj", slice(None))]
        )
    ]
