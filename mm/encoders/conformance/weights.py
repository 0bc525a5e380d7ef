"""Checks of what an encoder is made of: config, parameters, gradients, state, checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import json
import typing
from typing import Any

import torch

from mm.encoders import VisionEncoder
from mm.encoders.conformance.base import (
    Broken,
    Skipped,
    Surroundings,
    deviations_off,
    device_of,
    differing_state,
    disturb,
    some_of,
    some_pictures,
)
from mm.registry import make_config

SAME = 1e-4  # deviations between equal weights at other places in memory, where kernels may differ


def check_contract(encoder: VisionEncoder, around: Surroundings) -> str:
    config = encoder.config
    kind: Any = type(config)
    params = getattr(kind, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise Broken("config is no frozen dataclass", "write @dataclass(frozen=True) over Config")
    try:
        plain = json.loads(json.dumps(dataclasses.asdict(config)))
        again = make_config(kind, plain, "the config")
    except (TypeError, ValueError) as error:
        again = error
    if again != config:
        raise Broken(
            f"config does not come back from JSON: {again}",
            "give Config fields of numbers, text, booleans and tuples of them only",
        )
    if type(encoder.hidden_size) is not int or encoder.hidden_size < 1:
        raise Broken(
            f"hidden_size is {encoder.hidden_size!r}",
            "return the width D of a token, an int",
        )
    with torch.device("meta"):
        unfilled = type(encoder)(config)
    stored = unfilled.state_dict().keys()
    lost = [n for n, b in unfilled.named_buffers() if b.is_meta and n not in stored]
    if lost:
        raise Broken(
            f"buffer {some_of(lost)} is empty when made on the meta device, and never stored",
            'make it with device="cpu", or register it with persistent=True',
        )
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return f"{count:,} parameters, width {encoder.hidden_size}"


def check_weights(encoder: VisionEncoder, around: Surroundings) -> str:
    made = []
    for start in (0.25, 0.75):
        fresh = type(encoder)(encoder.config).to("cpu")
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.fill_(start)
        before = torch.get_rng_state()
        fresh.init_weights(torch.Generator().manual_seed(3))
        if not torch.equal(before, torch.get_rng_state()):
            raise Broken(
                "init_weights draws from the global generator",
                "pass generator=generator to every draw in init_weights",
            )
        made.append(dict(fresh.named_parameters()))
    left = [name for name in made[0] if not torch.equal(made[0][name], made[1][name])]
    if left:
        raise Broken(
            f"init_weights leaves {some_of(left)} as it was",
            "set every parameter in init_weights, from the generator alone",
        )
    fresh.init_weights(torch.Generator().manual_seed(4))
    changed = sum(not torch.equal(p, made[0][n]) for n, p in fresh.named_parameters())
    if not changed:
        raise Broken("two seeds give the same weights", "draw from the generator in init_weights")
    return f"{len(made[0])} tensors set, {changed} drawn"


def check_gradients(encoder: VisionEncoder, around: Surroundings) -> str:
    config, hints = encoder.config, typing.get_type_hints(type(encoder.config))
    wanted = {"feature_layer": -1} if "feature_layer" in hints else {}
    if hints.get("use_final_norm") is bool:
        wanted["use_final_norm"] = True
    whole = type(encoder)(dataclasses.replace(config, **wanted)).to(device_of(encoder)).float()
    try:
        whole.load_state_dict(encoder.state_dict())
    except RuntimeError:  # another layer of some library's network has other tensors
        whole = copy.deepcopy(encoder).float()
    whole.eval()
    pictures = some_pictures(encoder, 2)
    pixels = pictures.pixel_values.requires_grad_()
    tokens = whole.tokens(pictures)
    direction = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(5))
    (tokens.float() * direction.to(tokens.device)).sum().backward()
    trained = {n: p for n, p in whole.named_parameters() if p.requires_grad}
    dead = [
        name
        for name, parameter in trained.items()
        # A bias may truly have none: that of attention's keys cancels in the softmax.
        if parameter.numel()
        and (parameter.grad is None or (parameter.ndim > 1 and not parameter.grad.any()))
    ]
    if dead:
        raise Broken(
            f"no gradient reaches {some_of(dead)}",
            "use it in forward without detach() or no_grad(), or set requires_grad_(False)",
        )
    if pixels.grad is None or not pixels.grad.any() or not pixels.grad.isfinite().all():
        raise Broken(
            "no finite gradient reaches the pixels",
            "keep forward free of detach(), rounding and no_grad()",
        )
    return f"reaches {len(trained)} tensors and the pixels"


def check_freezing(encoder: VisionEncoder, around: Surroundings) -> str:
    frozen = copy.deepcopy(encoder).requires_grad_(False).train()
    tokens = frozen.tokens(some_pictures(encoder))
    if tokens.requires_grad:
        raise Broken(
            "tokens of a frozen encoder ask for a gradient",
            "make every weight a parameter or a buffer, and set requires_grad nowhere in forward",
        )
    moved = differing_state(encoder, frozen)
    if moved:
        raise Broken(
            f"a frozen encoder in a model that trains changes {some_of(moved)}",
            "keep batch statistics as stored: override train() so that norms stay in eval()",
        )
    return "nothing moves"


@torch.no_grad()
def check_state(encoder: VisionEncoder, around: Surroundings) -> str:
    fix = "make every weight an nn.Parameter and all else that forward needs a buffer or computed"
    fresh = type(encoder)(encoder.config).to(device_of(encoder), next(encoder.parameters()).dtype)
    disturb(fresh, seed=9)
    try:
        fresh.load_state_dict(encoder.state_dict(), strict=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise Broken(f"its state does not fit a new one: {said}", fix) from None
    pictures = some_pictures(encoder)
    if deviations_off(fresh.eval().tokens(pictures), encoder.tokens(pictures)) > SAME:
        raise Broken("a new encoder with its state gives other tokens", fix)
    return f"{len(encoder.state_dict())} tensors, same bits"


@torch.no_grad()
def check_saved(encoder: VisionEncoder, around: Surroundings) -> str:
    if around.save_and_load is None:
        raise Skipped("nothing given to save with")
    loaded = around.save_and_load(encoder).to(device_of(encoder)).eval()
    if type(loaded) is not type(encoder) or loaded.config != encoder.config:
        raise Broken(
            f"a saved {encoder.config} comes back as {loaded.config}",
            "let Config hold all that __init__ reads, and set self.config to what it was given",
        )
    differing = differing_state(encoder, loaded)
    if differing:
        raise Broken(
            f"{some_of(differing)} comes back otherwise than it was saved",
            "register buffers that forward changes, or do not share one tensor under two names",
        )
    pictures = some_pictures(encoder)
    if deviations_off(loaded.tokens(pictures), encoder.tokens(pictures)) > SAME:
        raise Broken(
            "the loaded encoder gives other tokens",
            'make buffers that are not stored with device="cpu" in __init__, for checkpoints are'
            " loaded into modules on the meta device",
        )
    return "config and every bit"
