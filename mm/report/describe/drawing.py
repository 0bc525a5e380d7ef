"""A description as a drawing: the model from bottom to top, attention and feed-forward enlarged.

                  head        ┌──────────────┐
                  norm     ┌──│ feed-forward │
projector ──┐    layers ───┤  └──────────────┘
 encoder    └─> embedding  └──┌──────────────┐
 picture         tokens       │  attention   │
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mm.errors import UsageError
from mm.report.describe import costs
from mm.report.describe.figures import figures
from mm.report.describe.numbers import count, plural, quantity, size
from mm.report.describe.panels import ATTENTION, attention, is_mixture, mixture, swiglu
from mm.report.describe.panels import WIDTH as DETAIL
from mm.report.describe.sheet import Sheet

if TYPE_CHECKING:
    from mm.report.describe import Description

MARGIN = 36
VISION, MODEL, GAP = 250, 316, 84  # widths of the columns, and to the one of panels
TOP, BOTTOM = 104, 908  # of the columns
FOOT = 96  # height of the figures below them


def save(description: Description, path: str | os.PathLike[str]) -> None:
    """Write the drawing to a file.

    Raises:
        UsageError: the file cannot be written.
    """
    text = draw(description)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


def draw(description: Description) -> str:
    """Draw the architecture and its main figures; returns the text of an SVG file."""
    config = description.decoder
    left = MARGIN + (VISION + 40 if description.pictures else 0)
    detail = left + MODEL + GAP
    width = detail + DETAIL + MARGIN
    kind = "mixture-of-experts" if is_mixture(config) else "dense"
    sheet = Sheet(
        width,
        BOTTOM + FOOT + MARGIN,
        f"Architecture of {description.title}",
        f"{plural(config.num_hidden_layers, 'layer')} of grouped-query attention and a {kind}"
        f" feed-forward network, {config.hidden_size:,} wide; {description.num_parameters:,}"
        " parameters.",
    )
    sheet.text(MARGIN, 52, description.title, 26, anchor="start", bold=True)
    subtitle = (
        f"{plural(config.num_hidden_layers, kind + ' decoder layer')}, {config.hidden_size:,} wide,"
        f" {plural(config.num_attention_heads, 'query head')} on"
        f" {plural(config.num_key_value_heads, 'key/value head')}, {config.vocab_size:,} token ids"
    )
    sheet.text(MARGIN, 78, subtitle, 14, "soft", "start", room=width - 2 * MARGIN)
    attending, feeding = _model(sheet, description, left)
    split = BOTTOM - ATTENTION
    for (y, height), (top, bottom), role in (
        (attending, (split, BOTTOM), "attend"),
        (feeding, (TOP, split - 24), "feed"),
    ):
        edge = left + MODEL - 24
        sheet.wedge([(edge, y), (detail, top), (detail, bottom), (edge, y + height)], role)
    attention(sheet, config, detail, split)
    panel = mixture if is_mixture(config) else swiglu
    panel(sheet, config, detail, TOP, split - 24)
    if description.pictures:
        _vision(sheet, description, MARGIN)
    _figures(sheet, description, BOTTOM + 28)
    return sheet.svg()


def _model(
    sheet: Sheet, description: Description, left: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Draw the model's column; return top and height of its attention and feed-forward boxes."""
    config = description.decoder
    D, V, layers = config.hidden_size, config.vocab_size, config.num_hidden_layers
    x, middle, inner = left + 24, left + MODEL / 2, MODEL - 48
    wide = f"T × {D:,}"
    sheet.text(middle, BOTTOM - 4, "T token ids", 12, "soft")
    sheet.line([(middle, BOTTOM - 20), (middle, 858)])
    sheet.box(x, 810, inner, 48, "embed", "embed_tokens", f"{V:,} × {D:,}")
    card = 262, 738  # top and bottom of the layers
    if description.pictures:
        cells = ["embed"] * 3 + ["vision"] * 5 + ["embed"] * 4
        for index, role in enumerate(cells):
            sheet.cell(middle - len(cells) * 9 + 18 * index + 1.5, 771, 15, 15, role, True)
        sheet.line([(middle, 810), (middle, 789)])
        sheet.line([(middle, 768), (middle, card[1] - 18)], arrow=False)
    else:
        sheet.line([(middle, 810), (middle, card[1] - 18)], arrow=False)
        sheet.text(middle + 10, 780, wide, 11.5, "soft", "start")
    for shift in (10, 5, 0):
        sheet.rect(left + shift, card[0] - shift, MODEL - 10, card[1] - card[0], "card", 10)
    sheet.text(left + 14, card[0] + 26, f"{layers} ×", 17, anchor="start", bold=True)
    middle_text = "layers" if layers > 1 else "layer"
    sheet.text(left + 14, card[0] + 43, middle_text, 11.5, "soft", "start")
    role, heads = "attend", f"{config.num_attention_heads} query"
    feed_name = "mixture of experts" if is_mixture(config) else "SwiGLU"
    feed_note = f"{D:,} → {config.intermediate_size:,} → {D:,}"
    if is_mixture(config):
        feed_note = f"{config.num_experts_per_tok} of {config.num_experts} experts a token"
    sheet.line([(middle, card[1] + 2), (middle, 694)])
    sheet.box(x + 24, 660, inner - 24, 34, "norm", "input_layernorm")
    sheet.line([(middle, 660), (middle, 638)])
    sheet.box(
        x + 24,
        580,
        inner - 24,
        58,
        role,
        "self_attn",
        f"{heads}, {config.num_key_value_heads} key/value heads",
    )
    sheet.line([(middle, 580), (middle, 556)])
    sheet.circle(middle, 545, "+")
    sheet.line([(middle, 716), (x, 716), (x, 545), (middle - 11, 545)])
    sheet.line([(middle, 534), (middle, 476)])
    sheet.text(middle + 10, 519, wide, 11.5, "soft", "start")
    sheet.box(x + 24, 442, inner - 24, 34, "norm", "post_attention_layernorm")
    sheet.line([(middle, 442), (middle, 420)])
    sheet.box(x + 24, 362, inner - 24, 58, "feed", feed_name, feed_note)
    sheet.line([(middle, 362), (middle, 338)])
    sheet.circle(middle, 327, "+")
    sheet.line([(middle, 498), (x, 498), (x, 327), (middle - 11, 327)])
    sheet.line([(middle, 316), (middle, 238)])
    sheet.box(x, 204, inner, 34, "norm", "norm")
    sheet.line([(middle, 204), (middle, 182)])
    sheet.box(x, 134, inner, 48, "embed", "lm_head", f"{D:,} → {V:,}")
    sheet.line([(middle, 134), (middle, 116)])
    sheet.text(middle, 108, f"logits, T × {V:,}", 12, "soft")
    if config.tie_word_embeddings:
        edge = left - 12
        sheet.line([(x, 834), (edge, 834), (edge, 158), (x, 158)], arrow=False, dashed=True)
        sheet.text(edge + 6, 196, "tied", 11.5, "soft", "start")
    return (580, 58), (362, 58)


def _vision(sheet: Sheet, description: Description, left: float) -> None:
    pictures = description.pictures
    assert pictures is not None
    encoder, projector = description.parts[:2]
    config = description.decoder
    middle, inner = left + VISION / 2, VISION - 40
    height, width = pictures.size
    rows, columns = pictures.grid
    scale = min(150 / width, 96 / height)
    w, h = width * scale, height * scale
    x, y = middle - w / 2, 870 - h
    sheet.rect(x, y, w, h, "vision", 4)
    for cuts, (across, tall) in ((columns, (w, 0)), (rows, (0, h))):
        for index in range(1, min(cuts, 32)):
            share = index / min(cuts, 32)
            start = x + across * share, y + tall * share
            end = (start[0], y + h) if across else (x + w, start[1])
            sheet.line([start, end], arrow=False, thin=True)
    sheet.text(middle, BOTTOM - 4, f"picture, {width} × {height}", 12, "soft")
    sheet.line([(middle, y), (middle, 736)])
    shape = " × ".join(map(str, pictures.pixels))
    sheet.text(middle + 10, 758, shape, 11.5, "soft", "start")
    for shift in (8, 4, 0):
        sheet.rect(left + 20 + shift, 636 - shift, inner, 100, "vision", 9)
    sheet.text(middle, 676, encoder.name, 14, mono=True, room=inner - 16)
    depth = f"{pictures.encoder_layers} layers, " if pictures.encoder_layers else ""
    sheet.text(middle, 698, f"{depth}{pictures.encoder_width:,} wide", 12, "soft")
    sheet.text(middle, 718, f"{count(encoder.num_parameters)} parameters", 12, "soft")
    sheet.line([(middle, 628), (middle, 580)])
    grid = f"{rows} × {columns} × {pictures.encoder_width:,}"
    sheet.text(middle + 10, 606, grid, 11.5, "soft", "start")
    sheet.box(
        left + 20, 524, inner, 56, "vision", projector.name, f"projector, to {config.hidden_size:,}"
    )
    target = left + VISION + 40 + MODEL / 2
    edge = left + VISION + 8
    sheet.line([(middle, 524), (middle, 494), (edge, 494), (edge, 778.5), (target - 112, 778.5)])
    tokens = f"{pictures.num_tokens} × {config.hidden_size:,}"
    sheet.text(middle, 484, f"{tokens} image tokens", 11.5, "soft")


def _figures(sheet: Sheet, description: Description, top: float) -> None:
    found = figures(description)
    counted, cache, flops = (
        found[topic] for topic in ("parameters", "kv_cache", "flops_per_token")
    )
    cells = [("parameters", count(counted["total"]), f"{counted['total']:,}")]
    if counted["active"] != counted["total"]:
        cells.append(("for one token", count(counted["active"]), f"{counted['active']:,}"))
    longest = costs.longest_context(description.decoder)
    cells += [
        ("weights in bf16", size(found["weight_bytes"]["bf16"]), "2 bytes each"),
        ("KV cache", size(cache["bytes_per_token"]), "a token, bf16"),
        ("forward", quantity(flops["weights"], "FLOP"), "a token, without attention"),
        ("longest context", f"{longest:,}", f"tokens, {size(cache['bytes_per_token'] * longest)}"),
    ]
    if description.pictures:
        seen = found["picture"]["encoder_flops"] + found["picture"]["projector_flops"]
        note = f"{quantity(seen, 'FLOP')} to encode"
        cells.append(("a picture", f"{description.num_image_tokens:,} tokens", note))
    pitch = (sheet.width - 2 * MARGIN) / len(cells)
    sheet.line([(MARGIN, top), (sheet.width - MARGIN, top)], arrow=False)
    for index, (name, value, note) in enumerate(cells):
        x = MARGIN + index * pitch
        sheet.text(x, top + 28, name, 12, "soft", "start", room=pitch - 12)
        sheet.text(x, top + 56, value, 22, anchor="start", bold=True, room=pitch - 12)
        sheet.text(x, top + 78, note, 12, "soft", "start", room=pitch - 12)
