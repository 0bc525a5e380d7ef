"""The conformance suite for one encoder by name: what it needs from outside, and its table."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm import encoders, projectors
from mm.encoders import Grid, VisionEncoder, conformance
from mm.encoders.conformance import Reference, Result, TakesTokens
from mm.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

OUTPUT_SIZE = 16
# Fewer and narrower than by default, as only the counts matter.
_SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"shuffle": 2},
    "perceiver": {"num_latents": 8, "num_attention_heads": 1},
    "qformer": {
        "num_query_tokens": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
    "c_abstractor": {"num_queries": 4, "hidden_size": 16, "depth": 1},
}


def named_encoder(
    name: str, fields: Sequence[str], conf: Path, tiny: bool = False
) -> VisionEncoder:
    """Build an encoder, with whatever weights its modules start with.

    Args:
        name: a file of conf/encoder without `.yaml`, or a registered name for its defaults.
        fields: FIELD=VALUE of its config.
        conf: the folder conf.
        tiny: shrink it.

    Raises:
        ConfigError: neither file nor encoder has the name, or a field or value is wrong.
    """
    import yaml

    path = conf / "encoder" / f"{name}.yaml"
    values: dict[str, Any] = {"name": name, "config": {}}
    if path.is_file():
        values = yaml.safe_load(path.read_text("utf-8"))
    try:
        kind = encoders.get(values["name"])
        config = dict(values.get("config") or {})
        if tiny:
            smaller = conformance.tiny_values(encoders.config_type(kind))
            if config.get("max_tiles", 1) > 1:
                smaller.pop("shortest_edge", None)  # tiles are cut of squashed pictures
            config |= smaller
        for word in fields:
            field, equals, value = word.partition("=")
            if not equals:
                raise ConfigError(f"{word!r} is no FIELD=VALUE, such as image_size=64")
            config[field] = yaml.safe_load(value)
        return encoders.build(values["name"], config)
    except ValueError as error:
        files = ", ".join(sorted(file.stem for file in (conf / "encoder").glob("*.yaml")))
        hint = f"; files of conf/encoder: {files}" if "unknown encoder" in str(error) else ""
        raise ConfigError(f"{error}{hint}") from None


def make_encoder(name: str, fields: Sequence[str], conf: Path, tiny: bool) -> VisionEncoder:
    """Build an encoder as `named_encoder` does, with weights that hide no mistake."""
    encoder = named_encoder(name, fields, conf, tiny)
    encoder.init_weights(torch.Generator().manual_seed(0))
    conformance.disturb(encoder)
    return encoder.eval()


def small_projectors(input_size: int) -> dict[str, TakesTokens]:
    """Build one projector of each kind for tokens of this width, if the kind can take it."""
    made: dict[str, TakesTokens] = {}
    for name in projectors.names():
        config = {"input_size": input_size, "output_size": OUTPUT_SIZE, **_SMALL.get(name, {})}
        try:
            projector = projectors.build(name, config)
        except ValueError:  # the width is no multiple of what this kind needs
            continue
        projector.init_weights(torch.Generator().manual_seed(0))
        made[name] = projector.eval()
    return made


def save_and_load(encoder: VisionEncoder) -> VisionEncoder:
    """Put an encoder into a small model, save that as mm does, and load it again."""
    from mm import decoder as decoders
    from mm.checkpoints import native
    from mm.text.tokenizer import train_tokenizer
    from mm.vlm import VisionLanguageModel

    tokenizer = train_tokenizer(["a picture of a cup"], 300)
    sizes = {"hidden_size": OUTPUT_SIZE, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    decoder = decoders.build("qwen3", {"vocab_size": tokenizer.vocab_size, **sizes, **heads})
    config = {"input_size": encoder.hidden_size, "output_size": OUTPUT_SIZE}
    model = VisionLanguageModel(encoder, projectors.build("linear", config), decoder, 0)
    with tempfile.TemporaryDirectory() as folder:
        native.save(model, tokenizer, Path(folder) / "model", card="")
        loaded = native.load(Path(folder) / "model").model.encoder
        for tensor in loaded.state_dict().values():  # mapped, from files that vanish
            tensor.data = tensor.data.clone()
    return loaded


def load_reference(directory: str | os.PathLike[str]) -> Reference:
    """Load a published folder's vision tower and image processor with transformers.

    Raises:
        UsageError: transformers is not installed, or cannot read the folder.
    """
    try:
        import transformers
    except ImportError:
        raise UsageError("a reference needs transformers: pip install transformers") from None
    try:
        auto: Any = transformers  # not typed throughout
        processor = auto.AutoImageProcessor.from_pretrained(directory)
        named = auto.AutoConfig.from_pretrained(directory).architectures or ["AutoModel"]
        kind = getattr(auto, named[0], auto.AutoModel)  # AutoModel doesn't find all whole models'
        whole = kind.from_pretrained(directory, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"transformers cannot read {directory}: {said}") from None
    model = getattr(whole, "model", whole)
    names = ("vision_model", "vision_encoder", "vision_tower")
    tower = next((getattr(model, name) for name in names if hasattr(model, name)), model)
    levels = getattr(model, "visual", None)  # Qwen3-VL's tower, which orders its patches by block

    def inputs(image: Image) -> Mapping[str, Tensor]:
        return dict(processor(images=image, return_tensors="pt"))

    def features(inputs: Mapping[str, Tensor], grids: Sequence[Grid]) -> Tensor:
        if levels is not None:
            return _levels(levels, inputs, grids)
        found: Tensor = tower(**inputs).last_hidden_state
        padded = len(inputs) > 1  # after the patches; of squares, class token and registers first
        counts = [rows * columns for rows, columns in grids]
        views = zip(found, counts, strict=True)
        return torch.cat([one[:count] if padded else one[-count:] for one, count in views])

    return Reference(inputs, features)


def _levels(
    tower: Any, inputs: Mapping[str, Tensor], grids: Sequence[Grid]
) -> Tensor:  # Any: transformers' class
    """Return the features of a tower with DeepStack before they are merged, row by row."""
    found = tower(
        inputs["pixel_values"], grid_thw=inputs["image_grid_thw"], output_hidden_states=True
    )
    side = tower.spatial_merge_size
    after = [found.hidden_states[block + 1] for block in tower.config.deepstack_visual_indexes]
    side_by_side = torch.cat([found.last_hidden_state, *after], dim=-1)
    views = zip(side_by_side.split([rows * columns for rows, columns in grids]), grids, strict=True)
    return torch.cat(
        [
            view.view(rows // side, columns // side, side, side, -1).transpose(1, 2).flatten(0, 3)
            for view, (rows, columns) in views
        ]
    )


def table(name: str, results: Sequence[Result]) -> str:
    """Lay results out, a line per check, and below each that failed what to change."""
    widest = max(len(result.check) for result in results)
    lines = []
    for result in results:
        lines.append(
            f"{result.check:<{widest}}  {result.status}  {result.seconds:6.2f} s  {result.detail}"
        )
        if result.status == "fail":
            lines.append(f"{'':<{widest}}  fix: {result.fix}")
    counts = {kind: sum(r.status == kind for r in results) for kind in ("pass", "fail", "skip")}
    verdict = "does not conform" if counts["fail"] else "conforms"
    told = f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"
    return "\n".join([*lines, f"{name} {verdict}: {told}"])


def as_json(name: str, results: Sequence[Result]) -> str:
    """Return results as JSON."""
    found: Mapping[str, Any] = {
        "encoder": name,
        "conforms": all(result.status != "fail" for result in results),
        "checks": [asdict(result) for result in results],
    }
    return json.dumps(found, indent=2, ensure_ascii=False)
