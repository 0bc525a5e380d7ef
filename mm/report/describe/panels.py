"""The parts of a layer in a drawing: attention, SwiGLU, mixture of experts, from bottom to top."""

from __future__ import annotations

from mm.decoder.qwen3 import Qwen3Config
from mm.report.describe import costs
from mm.report.describe.numbers import plural
from mm.report.describe.sheet import Sheet

WIDTH = 690
ATTENTION = 458  # height of its panel; the others take what is left


def is_mixture(config: Qwen3Config) -> bool:
    """Say whether any layer has a mixture of experts."""
    return costs.num_sparse_layers(config) > 0


def _panel(sheet: Sheet, left: float, top: float, bottom: float, name: str) -> None:
    sheet.rect(left, top, WIDTH, bottom - top, "card", 10)
    sheet.text(left + 18, top + 26, name, 14.5, anchor="start", bold=True)


def attention(sheet: Sheet, config: Qwen3Config, left: float, top: float) -> None:
    """Draw grouped-query attention from `top` on, `ATTENTION` high."""
    D, Dh = config.hidden_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    _panel(sheet, left, top, top + ATTENTION, "Grouped-query attention")
    width = 180
    columns = [left + 40 + width / 2 + (width + 35) * i for i in range(3)]
    query, key, value = columns
    bottom = top + ATTENTION
    sheet.text(key + 10, bottom - 8, f"T × {D:,}", 11.5, "soft", "start")
    sheet.line([(key, bottom), (key, bottom - 62)])
    for column in (query, value):
        sheet.line([(key, bottom - 24), (column, bottom - 24), (column, bottom - 62)])
    for column, name, heads in zip(columns, ("q_proj", "k_proj", "v_proj"), (H, K, K), strict=True):
        note = f"{D:,} → {heads} × {Dh}"
        sheet.box(column - width / 2, bottom - 106, width, 44, "attend", name, note)
    for column, name in ((query, "q_norm"), (key, "k_norm")):
        sheet.line([(column, bottom - 106), (column, bottom - 122)])
        sheet.box(column - width / 2, bottom - 152, width, 30, "norm", f"{name}, {Dh}")
        sheet.line([(column, bottom - 152), (column, bottom - 168)])
        theta = f"RoPE, θ = {config.rope_theta:,.0f}"
        scaling = config.rope_scaling
        if scaling is not None:
            theta += f", YaRN × {scaling.factor:g}"
        sheet.box(column - width / 2, bottom - 198, width, 30, "attend", theta)
    sheet.line([(value, bottom - 106), (value, bottom - 216)])
    sheet.line([(key, bottom - 198), (key, bottom - 216)])
    per_layer = costs.kv_bytes_per_token(config) // config.num_hidden_layers
    sheet.box(
        key - width / 2, bottom - 252, value - key + width, 36, "cache",
        f"KV cache, {per_layer:,} bytes a token and layer",
    )  # fmt: skip
    sheet.line([(query, bottom - 198), (query, bottom - 272)])
    for column in (key, value):
        sheet.line([(column, bottom - 252), (column, bottom - 272)])
    tall = 94
    upper = bottom - 272 - tall
    sheet.rect(query - width / 2, upper, value - query + width, tall, "attend")
    _heads(sheet, query - width / 2 + 14, upper + 14, value - query + width - 28, H, K)
    shared = f"each key/value head serves {plural(H // K, 'query head')}"
    note = f"softmax(q·k / √{Dh}) v, causal; {shared}"
    sheet.text(key, upper + tall - 12, note, 12, "ink", room=value - query + width - 24)
    sheet.line([(key, upper), (key, upper - 16)])
    sheet.box(key - width / 2, upper - 60, width, 44, "attend", "o_proj", f"{H * Dh:,} → {D:,}")
    sheet.line([(key, upper - 60), (key, top)])
    sheet.text(key + 10, top + 26, f"T × {D:,}", 11.5, "soft", "start")


def _heads(sheet: Sheet, left: float, top: float, width: float, H: int, K: int) -> None:
    """Draw each key/value head under the query heads that it serves; of more than 16, 16."""
    label = 122
    for row, text in enumerate((plural(H, "query head"), plural(K, "key/value head"))):
        sheet.text(left, top + 12.5 + 22 * row, text, 11.5, "soft", "start", room=label - 8)
    shown, group = min(K, 16), H // K
    space = 8 if shown <= 8 else 4
    room = width - label - space * (shown - 1)
    pitch = min(room / (shown * group), 30.0)
    gap = 2 if pitch > 6 else 1
    x = left + label
    for _ in range(shown):
        for index in range(group):
            sheet.cell(x + index * pitch, top, pitch - gap, 16, "attend", True)
        sheet.cell(x, top + 22, group * pitch - gap, 16, "cache", True)
        x += group * pitch + space


def swiglu(sheet: Sheet, config: Qwen3Config, left: float, top: float, bottom: float) -> None:
    """Draw the dense feed-forward network between `top` and `bottom`."""
    D, F = config.hidden_size, config.intermediate_size
    _panel(sheet, left, top, bottom, "SwiGLU")
    middle, width = left + WIDTH / 2, 200
    gate, up = middle - 125, middle + 125
    sheet.text(middle + 10, bottom - 8, f"T × {D:,}", 11.5, "soft", "start")
    sheet.line([(middle, bottom), (middle, bottom - 24)], arrow=False)
    for column in (gate, up):
        sheet.line([(middle, bottom - 24), (column, bottom - 24), (column, bottom - 50)])
    for column, name in ((gate, "gate_proj"), (up, "up_proj")):
        note = f"{D:,} → {F:,}"
        sheet.box(column - width / 2, bottom - 98, width, 48, "feed", name, note)
    sheet.line([(gate, bottom - 98), (gate, bottom - 118)])
    sheet.box(gate - width / 2, bottom - 150, width, 32, "plain", "SiLU")
    sheet.line([(gate, bottom - 150), (gate, bottom - 186), (middle - 11, bottom - 186)])
    sheet.line([(up, bottom - 98), (up, bottom - 186), (middle + 11, bottom - 186)])
    sheet.circle(middle, bottom - 186, "×")
    sheet.line([(middle, bottom - 197), (middle, bottom - 222)])
    sheet.box(middle - width / 2, bottom - 270, width, 48, "feed", "down_proj", f"{F:,} → {D:,}")
    sheet.line([(middle, bottom - 270), (middle, top)])
    sheet.text(middle + 10, top + 26, f"T × {D:,}", 11.5, "soft", "start")


def mixture(sheet: Sheet, config: Qwen3Config, left: float, top: float, bottom: float) -> None:
    """Draw router, experts and their sum between `top` and `bottom`."""
    D, F = config.hidden_size, config.moe_intermediate_size
    E, k = config.num_experts, config.num_experts_per_tok
    _panel(sheet, left, top, bottom, "Mixture of experts")
    dense = config.num_hidden_layers - costs.num_sparse_layers(config)
    if dense:
        note = f"{dense} of {config.num_hidden_layers} layers are dense"
        sheet.text(left + 18, top + 44, note, 11.5, "soft", "start", room=180)
    middle, width = left + WIDTH / 2, 260
    sheet.text(middle + 10, bottom - 8, f"T × {D:,}", 11.5, "soft", "start")
    sheet.line([(middle, bottom), (middle, bottom - 36)])
    note = f"{D:,} → {E} scores, softmax in float32, the {k} largest"
    sheet.box(middle - width / 2 - 40, bottom - 84, width + 80, 48, "feed", "gate", note)
    sheet.line([(middle, bottom - 84), (middle, bottom - 106)])
    area = bottom - 216, 110  # top and height of the experts
    sheet.rect(left + 24, area[0], WIDTH - 48, area[1], "plain")
    per_row = 32 if E > 16 else E
    rows = -(-E // per_row)
    pitch = min(11.5, 70 / rows, 370 / per_row)
    x, y = left + 40, area[0] + (84 - rows * pitch) / 2
    # Spread out as a router's choice looks: steps by the golden ratio meet no pattern.
    chosen = {int(E * (0.31 + 0.618034 * i) % E) for i in range(k)}
    for index in range(E):
        place = x + index % per_row * pitch, y + index // per_row * pitch
        sheet.cell(*place, pitch - 2.5, pitch - 2.5, "feed", index in chosen)
    sheet.text(x, area[0] + area[1] - 12, f"{E} experts, {k} for each token", 11.5, "soft", "start")
    x = left + WIDTH - 36 - 224
    sheet.text(x + 112, area[0] + 20, "each expert a SwiGLU", 11.5, "soft")
    for row, text in enumerate((f"down_proj {F:,} → {D:,}", f"gate_proj, up_proj {D:,} → {F:,}")):
        sheet.box(x, area[0] + 29 + 38 * row, 224, 32, "feed", text)
    sheet.line([(middle, area[0]), (middle, area[0] - 18)])
    edge, level = left + 12, bottom - 60
    sum_edge = (middle - width / 2, area[0] - 42)
    sheet.line([(middle - width / 2 - 40, level), (edge, level), (edge, sum_edge[1]), sum_edge])
    sheet.text(edge + 10, sum_edge[1] + 16, f"{k} weights", 11.5, "soft", "start")
    note = "weights sum to 1" if config.norm_topk_prob else "by their scores"
    sheet.box(middle - width / 2, area[0] - 66, width, 48, "feed", f"weighted sum of {k}", note)
    sheet.line([(middle, area[0] - 66), (middle, top)])
    sheet.text(middle + 10, top + 26, f"T × {D:,}", 11.5, "soft", "start")
