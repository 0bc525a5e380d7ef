"""From words such as `decoder=qwen3_0_6b gpu=h100` to the parts of a model and a plan for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mm.errors import ConfigError
from mm.registry import make_config, unknown_name_message
from mm.report.describe import Plan

SHIPPED = {"encoder": "siglip_scenes", "projector": "mlp_scenes", "decoder": "qwen3_scenes"}


def compose_parts(words: list[str], conf: Path) -> tuple[dict[str, Any], Plan, str]:
    """Compose a model's parts as plain data, the plan, and the decoder's name as a title.

    Args:
        words: Hydra overrides: groups by name, fields of parts (`decoder.config.head_dim=64`) and
            of `Plan` (`context=4096`); or `model=DIR` and fields of the plan.
        conf: the folder of Hydra groups.

    Raises:
        ConfigError: an unknown name, a value of the wrong type, or what Hydra cannot read or apply.
        CheckpointError: `model` names no model's folder.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folders = [word.partition("=")[2] for word in words if word.startswith("model=")]
    chosen, fields = choose([word for word in words if not word.startswith("model=")], conf)
    if folders:
        others = [word for word in words if _group(word) in SHIPPED]
        if others:
            raise ConfigError(f"{others[0]}: model={folders[-1]} has its own parts, leave one out")
        chosen = {}
    overrides = [f"+{group}={name}" for group, name in chosen.items()] + fields
    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            composed = OmegaConf.to_container(compose(overrides=overrides), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(composed, dict)
    parts = {str(key): value for key, value in composed.items()}
    try:
        plan: Plan = make_config(Plan, parts.pop("plan", {}), "the plan")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if folders:
        return stored_parts(folders[-1]), plan, Path(folders[-1]).resolve().name
    return parts, plan, title_of(chosen)


def stored_parts(directory: str) -> dict[str, Any]:
    """Read the parts of a stored model, of this package's own or of a published text model.

    Raises:
        CheckpointError: it is no model's folder.
    """
    from mm.checkpoints import published, qwen3_config, store

    path = Path(directory) / "config.json"
    if published.format_of(directory) == "text":
        fields = dataclasses.asdict(qwen3_config.read_config(path))
        return {"decoder": {"name": "qwen3", "config": fields}}
    stored = store.read_json(path)
    return {part: stored[part] for part in SHIPPED if stored.get(part) is not None}


def _group(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].split(".")[0]


def choose(words: list[str], conf: Path) -> tuple[dict[str, str], list[str]]:
    """Split overrides into the file chosen for each group, and the rest as Hydra takes it."""
    planned = [field.name for field in dataclasses.fields(Plan)]
    chosen: dict[str, str] = {}
    fields = []
    for word in words:
        key, equals, name = word.partition("=")
        if not equals and not word.startswith("~"):
            raise ConfigError(f"{word!r} is no KEY=VALUE, such as decoder=qwen3_0_6b or gpu=h100")
        if key in SHIPPED:
            known = [path.stem for path in (conf / key).glob("*.yaml")]
            if name not in known:
                raise ConfigError(unknown_name_message(f"{key} configuration", name, known))
            chosen[key] = name
        elif key in planned:
            if key == "gpu":  # text, also where it looks like a number
                name = "'{}'".format(name.replace("\\", "").replace("'", ""))
            elif key == "frozen" and not name.startswith("["):
                name = f"[{name}]"
            fields.append(f"+plan.{key}={name}")
        elif _group(word) in SHIPPED:
            fields.append(word)
        else:
            known = [*SHIPPED, "model", *planned]
            raise ConfigError(unknown_name_message("KEY=VALUE", key, known))
    sees = any(_group(word) in ("encoder", "projector") for word in words)
    if sees or "decoder" not in chosen:
        chosen = SHIPPED | chosen
    return chosen, fields


def title_of(chosen: dict[str, str]) -> str:
    """Name a model by its files: `qwen3_0_6b` is Qwen3-0.6B, others stay as they are."""
    names = [chosen[group] for group in SHIPPED if group in chosen]
    return " + ".join(_published(name) for name in names)


def _published(name: str) -> str:
    family, _, rest = name.partition("_")
    if family != "qwen3" or not any(character.isdigit() for character in rest):
        return name
    words: list[str] = []
    for word in rest.split("_"):
        if words and words[-1].isdigit() and len(words[-1]) == 1 and word[0].isdigit():
            words[-1] += f".{word}"  # 0_6b
        else:
            words.append(word)
    special = {"yarn": "YaRN"}
    written = (w.upper() if w[-1] == "b" else special.get(w, w.capitalize()) for w in words)
    return "-".join(["Qwen3", *written])
