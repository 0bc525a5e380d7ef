"""From a composed configuration to a training run: `scripts/train.py` is this and Hydra."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mm.checkpoints import native
from mm.data.scenes.artwork import load_artwork
from mm.data.scenes.language import CAPTION_PROMPTS, DECLINE
from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.stream import StreamConfig
from mm.data.scenes.style import StyleConfig
from mm.data.shard_stream import ShardStreamConfig
from mm.errors import ConfigError
from mm.model import pick_device
from mm.registry import make_config, unknown_name_message
from mm.text.chat import stop_token_ids
from mm.text.tokenizer import Tokenizer
from mm.train import loggers
from mm.train.checks import check_together
from mm.train.distributed import World, join
from mm.train.feeds import SceneFeed, ShardFeed, square_side
from mm.train.loop import Evaluate, train
from mm.train.plan import Estimate, plan
from mm.train.recipe import PARTS, RecipeConfig
from mm.train.run import Keep, RunFolder
from mm.train.step import Feed, stream_seed
from mm.vlm import VisionLanguageModel
from mm.vlm import build as build_model

Config = Mapping[str, Any]  # plain data, as OmegaConf resolves it

# Makes the held-out measure of a run from its data config; given by the caller, because evaluation
# stands above training in the order of imports.
MakeEvaluate = Callable[[Config, Tokenizer, torch.device], Evaluate | None]

KNOWN_KEYS = (
    *PARTS, "data", "recipe", "init", "name", "output", "tokenizer", "device", "plan", "logger",
)  # fmt: skip


def model_config(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """The parts of the model as plain data, and the token that stands for an image."""
    parts = {part: config[part] for part in PARTS}
    size = parts["decoder"]["config"]["vocab_size"]
    if tokenizer.vocab_size > size:
        raise ConfigError(
            f"decoder.config.vocab_size is {size}, but the tokenizer has {tokenizer.vocab_size} ids"
        )
    return {**parts, "image_token_id": tokenizer.token_id("<|image_pad|>")}


def init_from(model: VisionLanguageModel, directory: str) -> None:
    """Start from the weights of a finished model of the same shape.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: its parts are of other sizes.
    """
    loaded = native.load(directory, device=torch.device("cpu"), dtype=torch.float32).model
    if loaded.config != model.config:
        raise ConfigError(f"init={directory} is a model of other sizes than the one configured")
    model.load_state_dict(loaded.state_dict())


def build_feed(
    config: Config,
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    device: torch.device,
    recipe: RecipeConfig,
) -> Feed:
    """The feed that `data` names."""
    data = config["data"]
    if data["kind"] == "scenes":
        side = square_side(model)
        assert side is not None, "check_together refuses it"
        artwork = load_artwork(data["artwork"], splits=tuple(data["splits"]))
        return SceneFeed(
            artwork,
            make_config(SceneConfig, data["scene"], "data.scene"),
            make_config(StyleConfig, data["style"], "data.style"),
            make_config(StreamConfig, data["stream"], "data.stream"),
            tokenizer,
            model.num_image_tokens(side, side),
            device,
            recipe.seed,
            recipe.batches,
            data["others"],
        )
    stream = make_config(ShardStreamConfig, data["stream"], "data.stream")
    return ShardFeed(data["shards"], stream, tokenizer, model, recipe.seed, recipe.batches)


def run(
    config: Config,
    config_yaml: str,
    make_evaluate: MakeEvaluate,
    estimate: Estimate | None = None,
) -> dict[str, float]:
    """Train as `config` says; leave the model in `<output>/model`.

    Args:
        estimate: what a step takes, for `plan=true`.

    Raises:
        MMError, ValueError: anything wrong with the configuration, before anything is loaded.
        LedgerError: data that did not go through `scripts/scrub.py`.
    """
    for key in config:
        if key not in KNOWN_KEYS:
            raise ConfigError(unknown_name_message("config key", key, KNOWN_KEYS))
    recipe: RecipeConfig = make_config(RecipeConfig, config["recipe"], "recipe")
    loggers.check(config.get("logger", {}))
    device = pick_device(config["device"])
    if config["plan"]:
        tokenizer = Tokenizer.from_file(config["tokenizer"])
        parts = model_config(config, tokenizer)
        print(plan(config, parts, recipe, tokenizer, device, estimate))
        return {}
    with join(device) as world:
        world.part(recipe.accumulate)  # before anything is loaded
        return _run(config, config_yaml, make_evaluate, recipe, device, world)


def _run(
    config: Config,
    config_yaml: str,
    make_evaluate: MakeEvaluate,
    recipe: RecipeConfig,
    device: torch.device,
    world: World,
) -> dict[str, float]:
    tokenizer = Tokenizer.from_file(config["tokenizer"])
    parts = model_config(config, tokenizer)
    model = build_model(parts)
    check_together(config["data"], model, recipe)
    if config["init"]:
        init_from(model, config["init"])
    else:
        model.init_weights(torch.Generator().manual_seed(stream_seed(recipe.seed, "init")))
    feed = build_feed(config, model, tokenizer, device, recipe)
    trackers: Sequence[loggers.Tracker] = ()
    if world.is_main:
        chosen = config.get("logger", {})
        trackers = loggers.build(chosen, Path(config["output"]), config["name"])
    keep = Keep(recipe.keep_checkpoints, recipe.keep_every, recipe.keep_best, recipe.keep_best_by)
    folder = RunFolder(config["output"], trackers, keep, world)
    facts = {
        "init": config["init"],
        "seed": recipe.seed,
        "ledgers": dict(feed.ledgers),
        "device_used": str(device),
        "processes": world.size,
    }
    folder.describe(config_yaml, facts)
    evaluate = make_evaluate(config, tokenizer, device) if world.is_main else None
    try:
        trained, metrics = train(model, feed, recipe, folder, device, evaluate)
    finally:
        for tracker in trackers:
            tracker.close()
    if trained is not None:
        save_model(trained, tokenizer, folder.path / "model", config, facts)
    return metrics


def save_model(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    directory: Path,
    config: Config,
    facts: Mapping[str, Any],
) -> None:
    """Write a trained model as `mm.load` reads it."""
    extra = {
        "chat": {"thinking": "none"},
        "generation": {"eos_token_id": stop_token_ids(tokenizer), "max_new_tokens": 64},
        "task_prompts": {
            "caption": {lang: prompts[0] for lang, prompts in CAPTION_PROMPTS.items()}
        },
        "decline": dict(DECLINE),
        "training": {**facts, "experiment": config["name"], "recipe": dict(config["recipe"])},
    }
    card = (
        f"# {config['name']}\n\nTrained by `python scripts/train.py experiment={config['name']}`."
        f"\n\n```json\n{json.dumps(dict(facts), indent=2)}\n```\n"
    )
    native.save(model.cpu(), tokenizer, directory, card=card, extra=extra, dtype=torch.bfloat16)
