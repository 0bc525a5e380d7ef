"""Published vision towers: read as each encoder class says in `published`.

`config.json` holds sizes under published names, often without those that equal the class defaults;
whole models nest them as `vision_config`. `preprocessor_config.json` says how pictures are resized,
cut and normalised.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from mm import encoders
from mm.checkpoints import store
from mm.checkpoints.fill import Layout, Part, fill, unfilled, whole
from mm.checkpoints.rules import NameRules
from mm.encoders import Published, VisionEncoder
from mm.encoders.native import NativeEncoder
from mm.errors import CheckpointError
from mm.registry import make_config

PICTURES = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of whole models; newer ones have `PICTURES` in it
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def published_encoders() -> dict[str, type[VisionEncoder]]:
    """Map each published vision `model_type` that is known to the encoder class that reads it."""
    found: dict[str, type[VisionEncoder]] = {}
    for name in encoders.names():
        encoder = encoders.get(name)
        if encoder.published is not None:
            for model_type in (*encoder.published.whole, *encoder.published.model_types):
                found.setdefault(model_type, encoder)
    return found


def names_of(published: Published) -> NameRules:
    """Return a family's name rules."""
    return NameRules(prefixes=published.prefixes, ignored=published.ignored)


def load_vision(
    directory: str | os.PathLike[str],
    kind: type[VisionEncoder],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> VisionEncoder:
    """Load a published vision tower with its preprocessing.

    Args:
        directory: holds `config.json`, `preprocessor_config.json` and safetensors.
        kind: the encoder class, one that has `published`.
        device: where to put it.
        dtype: of the weights; None keeps the stored one.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what the family does not do.
    """
    directory = Path(directory)
    published = _published(kind)
    config = read_config(directory, kind)
    with unfilled():
        encoder = kind(config)
    stored = names_of(published).apply(store.open_tensors(directory), directory)
    fill(encoder, stored, directory, device, dtype, layout_of(encoder, stored))
    return encoder.eval()


def load_timm(
    directory: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> VisionEncoder:
    """Load a folder as timm publishes it: an architecture's name, what it wants, its tensors.

    Raises:
        CheckpointError: a file is missing or damaged, the architecture is not timm's own, or timm
            is not installed.
    """
    directory = Path(directory)
    stored = store.read_json(directory / "config.json")
    said = stored.get("pretrained_cfg")
    args = {"in_chans": 3} | (stored.get("model_args") or {})
    if (
        args.keys() - {"num_classes", "in_chans", "global_pool", "img_size"}
        or args["in_chans"] != 3
    ):
        raise CheckpointError(
            f"{directory / 'config.json'} changes the architecture by model_args {sorted(args)}:"
            " only architectures as timm names them are read"
        )
    if not isinstance(said, dict):
        raise CheckpointError(f"{directory / 'config.json'} has no pretrained_cfg")
    pairs = {"resample": "interpolation", "image_mean": "mean", "image_std": "std"}
    pairs |= {"crop_pct": "crop_pct", "crop_mode": "crop_mode"}
    fields = {ours: said[theirs] for ours, theirs in pairs.items() if theirs in said}
    try:
        if "input_size" in said:
            side = args.get("img_size") or said["input_size"][1:]
            fields["image_size"] = _one_side("image_size", side)
        with unfilled():
            encoder = encoders.build("timm", {"model": str(stored["architecture"]), **fields})
    except ValueError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    heads = said.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    names = NameRules((("", "backbone."),), tuple(rf"{re.escape(head)}\..*" for head in heads))
    tensors = names.apply(store.open_tensors(directory), directory)
    fill(encoder, tensors, directory, device, dtype)
    return encoder.eval()


def read_config(directory: Path, kind: type[VisionEncoder]) -> Any:  # Any: the encoder's own
    """Translate the published config and preprocessing; raises CheckpointError."""
    tower = store.read_json(directory / "config.json")
    if tower.get("model_type") in _published(kind).whole:
        tower = tower.get("vision_config", {})
    return translate(kind, tower, read_pictures(directory), directory)


def read_pictures(directory: Path) -> dict[str, Any]:  # Any: JSON
    """Read how pictures are prepared, in the older file or in the newer one of whole models.

    Raises:
        CheckpointError: there is neither, or it is damaged.
    """
    if not (directory / PICTURES).exists() and (directory / PROCESSOR).exists():
        found = store.read_json(directory / PROCESSOR).get("image_processor")
        if isinstance(found, dict):
            return found
    return store.read_json(directory / PICTURES)


def translate(
    kind: type[VisionEncoder],
    tower: Mapping[str, Any],  # Any: JSON
    pictures: Mapping[str, Any],
    directory: Path,
) -> Any:  # Any: the encoder's own
    """Translate what files say of a tower and of its pictures.

    Args:
        kind: the encoder class, one that has `published`.
        tower: the config of the tower itself.
        pictures: as `read_pictures`.
        directory: for messages.

    Raises:
        CheckpointError: they ask for what the family does not do.
    """
    published = _published(kind)
    config_type = encoders.config_type(kind)
    known = {field.name for field in dataclasses.fields(config_type)}
    try:
        for name, value in published.fixed:
            if tower.get(name, value) != value:
                raise ValueError(f"{name} is {tower[name]!r}; this encoder does {value!r} only")
        ours = dict(published.fields)
        named = {ours.get(name, name): value for name, value in tower.items()}
        fields = {name: _one_side(name, value) for name, value in named.items() if name in known}
        if issubclass(kind, NativeEncoder):
            fields |= _native_preprocessing(pictures, kind, fields, known)
            return make_config(config_type, fields, "the config")
        side, found = _preprocessing(pictures, kind)
        fields |= {name: value for name, value in found.items() if name in known}
        if "picture_size" in known:
            fields["picture_size"] = side
        config = make_config(config_type, fields, "the config")
    except ValueError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    if "picture_size" not in known and side != config.image_size:
        raise CheckpointError(
            f"{directory / PICTURES} resizes to {pictures['size']}, but config.json has"
            f" image_size {config.image_size}: they must agree"
        )
    if found["shortest_edge"] is not None and "shortest_edge" not in known:
        raise CheckpointError(
            f"{directory / PICTURES} resizes to {pictures['size']} and cuts; this family squashes"
        )
    return config


def _published(kind: type[VisionEncoder]) -> Published:
    if kind.published is None:
        raise CheckpointError(f"{kind.__module__} says of no published folder that it reads it")
    return kind.published


def _one_side(name: str, value: object) -> object:
    """Turn a side given as a pair, or as height and width, into a number."""
    if isinstance(value, Mapping) and value.keys() == {"height", "width"}:
        value = list(value.values())
    if name not in ("image_size", "patch_size") or not isinstance(value, list):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"{name} is {value}; both sides must be equal")
    return value[0]


def _colours(pictures: Mapping[str, Any], kind: type[VisionEncoder]) -> dict[str, Any]:
    """Return how numbers are made, as fields of the encoder's config, where they are said."""
    for switch in ("do_resize", "do_rescale", "do_normalize"):
        if pictures.get(switch, True) is not True:
            raise ValueError(f"{PICTURES} switches off {switch}, which the encoder needs")
    does = set()
    if "max_tiles" in {field.name for field in dataclasses.fields(encoders.config_type(kind))}:
        does.add("crop_to_patches")
    if issubclass(kind, NativeEncoder):
        does.add("do_pad")  # only to stack pictures, which lie packed here
    for switch in ("do_pad", "crop_to_patches"):
        if pictures.get(switch) and switch not in does:
            raise ValueError(f"{PICTURES} switches on {switch}, which the encoder does not do")
    if abs(pictures.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError(f"{PICTURES} has a rescale_factor other than 1/255")
    name = str(pictures.get("image_processor_type", ""))[:80]
    if name and ("DINOv3" in name) != getattr(kind, "rescale_first", False):
        raise ValueError(f"{PICTURES} is of {name}, which resizes otherwise than this family")
    said = {name: pictures[name] for name in ("image_mean", "image_std") if name in pictures}
    if "resample" in pictures:
        if pictures["resample"] not in _RESAMPLE:
            raise ValueError(f"{PICTURES} has resample {pictures['resample']!r}; known: 2 and 3")
        said["resample"] = _RESAMPLE[pictures["resample"]]
    return said


def _native_preprocessing(
    pictures: Mapping[str, Any],
    kind: type[VisionEncoder],
    fields: Mapping[str, Any],
    known: Collection[str],
) -> dict[str, Any]:
    """Return fields of the config of an encoder that keeps proportions; it has no size to check."""
    pictures = dict(pictures)
    area = pictures.get("size")
    if isinstance(area, Mapping) and area.keys() == {"shortest_edge", "longest_edge"}:
        # Numbers of pixels, in spite of their names.
        edges = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        pictures |= {name: area[edge] for name, edge in edges.items() if name in known}
        pictures["size"] = None if edges.keys() <= set(known) else area
    if isinstance(area, Mapping) and area.keys() == {"longest_edge"} and "longest_edge" in known:
        pictures |= {"longest_edge": area["longest_edge"], "size": None}
    if "patch_size" in pictures:
        pictures["patch_size"] = _one_side("patch_size", pictures["patch_size"])
    if "merge_size" in pictures:
        pictures["spatial_merge_size"] = pictures["merge_size"]
    if pictures.get("size") is not None or pictures.get("crop_size") is not None:
        raise ValueError(
            f"{PICTURES} resizes to {pictures.get('size')} and cuts out"
            f" {pictures.get('crop_size')}; this family keeps a picture's proportions"
        )
    found = {name: pictures[name] for name in known if name in pictures}
    for name in found.keys() & fields.keys():
        if found[name] != fields[name]:
            raise ValueError(
                f"{PICTURES} has {name} {found[name]}, but config.json has {fields[name]}: they"
                " must agree"
            )
    return found | _colours(pictures, kind)


def _preprocessing(
    pictures: Mapping[str, Any], kind: type[VisionEncoder]
) -> tuple[int, dict[str, Any]]:
    """Return the side that pictures get, and fields of the encoder's config."""
    found = {"resample": "bicubic", **_colours(pictures, kind)}
    size, cuts = pictures.get("size"), pictures.get("do_center_crop", "crop_size" in pictures)
    square, shortest_edge = _square_of(size), None
    if cuts:
        edge = size if isinstance(size, int) else (size or {}).get("shortest_edge")
        cut = _square_of(pictures.get("crop_size"))
        shortest_edge = edge if edge is not None or square != cut else None
        square = cut if edge is not None or square == cut else None
    if square is None:
        raise ValueError(
            f"{PICTURES} resizes to {size} and cuts out {pictures.get('crop_size')}, which makes"
            " no square"
            if cuts
            else f"{PICTURES} resizes to {size}, which is no square"
        )
    if pictures.get("crop_to_patches"):
        found["min_tiles"] = pictures.get("min_patches", 1)
        found["max_tiles"] = pictures.get("max_patches", 12)
    return square, found | {"shortest_edge": shortest_edge}


def _square_of(size: object) -> int | None:
    """Read 224 or {"height": 224, "width": 224}; None if it is something else."""
    if isinstance(size, Mapping) and size.keys() == {"height", "width"}:
        size = size["height"] if size["height"] == size["width"] else None
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def layout_of(encoder: VisionEncoder, stored: Collection[str] = ()) -> Layout:
    """Say where a tensor of ours is stored: under its name, or as the family's other layout has it.

    A tensor that is made of several is cut into as many equal blocks of rows.

    Args:
        encoder: one that has `published`.
        stored: the names in the files; none is for the other layout.
    """
    stored_as = _published(type(encoder)).stored_as
    ours = encoder.state_dict()
    if stored_as is None or ours.keys() <= set(stored):
        return whole

    def parts(name: str) -> list[Part]:
        theirs = stored_as(name)
        rows = ours[name].shape[0] // len(theirs)
        blocks = (slice(i * rows, (i + 1) * rows) for i in range(len(theirs)))
        return [
            Part(one, (block,) if len(theirs) > 1 else ())
            for one, block in zip(theirs, blocks, strict=True)
        ]

    return parts
