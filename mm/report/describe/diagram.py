"""The architecture in lines and boxes, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm.decoder.qwen3 import Qwen3Config
from mm.report.describe import costs
from mm.report.describe.canvas import Canvas
from mm.report.describe.numbers import plural

if TYPE_CHECKING:
    from mm.report.describe import Description

MIDDLE, BOX, WIDE = 24, 12, 34  # column of the main line, widths of a projection and of a box
SIDES = MIDDLE - 13, MIDDLE, MIDDLE + 13  # columns of queries, keys and values
PICTURES = 62  # column of the pictures' line
NOTE = MIDDLE + WIDE // 2 + 4  # column of what stands beside a box
SKIP = 3  # column of the residual line


def diagram(description: Description, ascii_only: bool = False) -> str:
    """Draw the model from top to bottom, at most 80 columns wide."""
    config = description.decoder
    canvas = Canvas()
    row = _entrance(canvas, description)
    top = row
    row = _attention(canvas, config, row + 1)
    kinds = [config.is_moe_layer(layer) for layer in range(config.num_hidden_layers)]
    row = _mixture(canvas, config, row) if any(kinds) else _swiglu(canvas, config, row)
    canvas.frame(1, top, 78, row)
    canvas.text(4, top, f" {plural(len(kinds), 'layer')} ")
    if any(kinds) and not all(kinds):
        dense = f" {kinds.count(False)} of them dense: SwiGLU {config.intermediate_size:,} wide "
        canvas.text(MIDDLE + 6, row, dense)
    canvas.down(MIDDLE, row, row + 1)
    row = _box(canvas, row + 1, "norm", "RMSNorm")
    tied = "tied with embed_tokens" if config.tie_word_embeddings else ""
    note = f"{config.hidden_size:,} -> {config.vocab_size:,}"
    row = _box(canvas, row, "lm_head", note, tied)
    canvas.centred(MIDDLE, row, "logits")
    return canvas.render(ascii_only)


def _box(canvas: Canvas, top: int, text: str, note: str = "", under: str = "") -> int:
    """Put a box on the main line, which goes on below it; return the row to go on from."""
    canvas.box(MIDDLE - WIDE // 2, top, WIDE, text)
    canvas.down(MIDDLE, top + 2, top + 3)
    canvas.text(NOTE, top + 1, note)
    canvas.text(NOTE, top + 2, under)
    # Where the line enters: the box's upper edge, with the cell above it.
    canvas.down(MIDDLE, top - 1, top)
    return top + 3


def _entrance(canvas: Canvas, description: Description) -> int:
    config, pictures = description.decoder, description.pictures
    canvas.centred(MIDDLE, 0, "token ids")
    canvas.down(MIDDLE, 0, 1)
    if pictures is None:
        row = _box(canvas, 2, "embed_tokens", f"{config.vocab_size:,} x {config.hidden_size:,}")
        canvas.text(MIDDLE + 2, row, f"{config.hidden_size:,}")
        canvas.down(MIDDLE, row, row + 1)
        return row + 1
    height, width = pictures.size
    encoder, projector = description.parts[0], description.parts[1]
    depth = f", {pictures.encoder_layers} layers" if pictures.encoder_layers else ""
    shapes = (pictures.pixels, (*pictures.grid, pictures.encoder_width))
    canvas.centred(PICTURES, 0, f"picture {width} x {height}")
    row = 0
    for text, shape in zip((f"{encoder.name}{depth}", projector.name), shapes, strict=True):
        canvas.down(PICTURES, row, row + 2)
        canvas.text(PICTURES + 2, row + 1, " x ".join(map(str, shape)))
        canvas.box(PICTURES - 15, row + 2, 30, text[:28])
        row += 4
    canvas.box(MIDDLE - 16, 2, 32, f"embed_tokens {config.vocab_size:,} x {config.hidden_size:,}")
    canvas.down(MIDDLE, 0, 2)
    canvas.down(MIDDLE, 4, row + 3)
    canvas.down(PICTURES, row, row + 2)
    canvas.text(PICTURES + 2, row + 1, f"{pictures.num_tokens} x {config.hidden_size:,}")
    canvas.across(MIDDLE, PICTURES, row + 2)
    canvas.text(MIDDLE + 8, row + 2, " image tokens among text ")
    return row + 3


def _attention(canvas: Canvas, config: Qwen3Config, row: int) -> int:
    D, Dh = config.hidden_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    start = row
    canvas.down(MIDDLE, row - 1, row + 1)
    row = _box(canvas, row + 1, "input_layernorm", "RMSNorm")
    left, _, right = SIDES
    canvas.across(left, right, row)
    for column, name in zip(SIDES, ("q_proj", "k_proj", "v_proj"), strict=True):
        canvas.down(column, row, row + 1)
        canvas.box(column - BOX // 2, row + 1, BOX, name)
        canvas.down(column, row + 3, row + 4)
    canvas.text(NOTE + 3, row + 1, f"{D:,} -> {H * Dh:,} queries")
    canvas.text(NOTE + 3, row + 2, f"{D:,} -> {K * Dh:,} keys")
    canvas.text(NOTE + 3, row + 3, f"{D:,} -> {K * Dh:,} values")
    row += 4
    for column, name in zip(SIDES[:2], ("q_norm", "k_norm"), strict=True):
        canvas.box(column - BOX // 2, row, BOX, name)
        canvas.down(column, row + 2, row + 3)
        canvas.box(column - BOX // 2, row + 3, BOX, "RoPE")
    canvas.text(NOTE + 3, row + 1, f"RMSNorm of each head, {Dh}")
    yarn = f", YaRN x {config.rope_scaling.factor:g}" if config.rope_scaling else ""
    canvas.text(NOTE + 3, row + 4, f"theta {config.rope_theta:,.0f}{yarn}"[: 77 - NOTE - 3])
    canvas.down(right, row, row + 6)
    row += 5
    per_layer = costs.kv_bytes_per_token(config) // config.num_hidden_layers
    canvas.down(left, row, row + 4)
    canvas.down(MIDDLE, row, row + 1)
    canvas.box(MIDDLE - BOX // 2, row + 1, right - MIDDLE + BOX, "KV cache")
    canvas.down(right, row, row + 1)
    canvas.text(NOTE + 3, row + 2, f"{per_layer:,} bytes a token and layer")
    for column in SIDES[1:]:
        canvas.down(column, row + 3, row + 4)
    row += 4
    canvas.box(left - BOX // 2, row, right - left + BOX, f"{H} query, {K} key/value heads")
    canvas.text(NOTE + 3, row + 1, f"{H // K} to each, causal")
    canvas.down(MIDDLE, row + 2, row + 3)
    row = _box(canvas, row + 3, "o_proj", f"{H * Dh:,} -> {D:,}")
    return _add(canvas, start, row, D)


def _swiglu(canvas: Canvas, config: Qwen3Config, row: int) -> int:
    D, F = config.hidden_size, config.intermediate_size
    start = row
    row = _box(canvas, row + 1, "post_attention_layernorm", "RMSNorm")
    left, _, right = SIDES
    canvas.across(left, right, row)
    for column, name in ((left, "gate_proj"), (right, "up_proj")):
        canvas.down(column, row, row + 1)
        canvas.box(column - BOX // 2, row + 1, BOX, name)
        canvas.down(column, row + 3, row + 4)
    canvas.text(NOTE + 3, row + 2, f"{D:,} -> {F:,} each")
    canvas.box(left - BOX // 2, row + 4, right - left + BOX, "silu(gate) x up")
    row = _box(canvas, row + 7, "down_proj", f"{F:,} -> {D:,}")
    canvas.down(MIDDLE, row - 4, row - 3)
    return _add(canvas, start, row, D)


def _mixture(canvas: Canvas, config: Qwen3Config, row: int) -> int:
    D, F = config.hidden_size, config.moe_intermediate_size
    E, k = config.num_experts, config.num_experts_per_tok
    start = row
    row = _box(canvas, row + 1, "post_attention_layernorm", "RMSNorm")
    row = _box(canvas, row, f"gate: {k} of {E} experts", f"{D:,} -> {E}, softmax in float32")
    left, _, right = SIDES
    canvas.across(left, right, row)
    for column, name in zip(SIDES, ("expert 1", ". . .", f"expert {E}"), strict=True):
        canvas.down(column, row, row + 1)
        canvas.box(column - BOX // 2, row + 1, BOX, name)
        canvas.down(column, row + 3, row + 4)
    canvas.text(NOTE + 3, row + 2, f"SwiGLU, {F:,} wide, each")
    canvas.across(left, right, row + 4)
    renormalised = "weights sum to 1" if config.norm_topk_prob else "by the gate's weights"
    row = _box(canvas, row + 5, f"weighted sum of the {k}", renormalised)
    return _add(canvas, start, row, D)


def _add(canvas: Canvas, start: int, row: int, width: int) -> int:
    """Bring the residual line from `start` to `row`, where it is added."""
    canvas.across(SKIP, MIDDLE, start)
    canvas.down(SKIP, start, row)
    canvas.across(SKIP, MIDDLE, row)
    canvas.down(MIDDLE, row, row + 1)
    canvas.centred(MIDDLE, row, "(+)")
    canvas.text(MIDDLE + 4, row, f"{width:,}")
    return row + 1
