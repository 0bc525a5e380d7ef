"""The drawings: nothing leaves its place, everything is named, both pages can be read."""

import functools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from mm.errors import UsageError
from mm.report.describe import Description, Plan, describe
from mm.report.describe.canvas import Canvas
from mm.report.describe.choice import compose_parts
from mm.report.describe.diagram import diagram
from mm.report.describe.drawing import draw, save
from mm.report.describe.numbers import count, quantity, rate, size
from mm.report.describe.sheet import INKS, PAGE, ROLES, Sheet, text_width
from mm.report.describe.text import report

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
MODELS = {
    "dense": ["decoder=qwen3_0_6b"],
    "mixture": ["decoder=qwen3_coder_480b_a35b"],
    "some_layers_dense": ["decoder=qwen3_30b_a3b", "+decoder.config.mlp_only_layers=[0,1]"],
    "yarn": ["decoder=qwen3_8b_yarn"],
    "one_layer": ["decoder=qwen3_tiny", "decoder.config.num_hidden_layers=1"],
    "shipped": [],
    "sees": ["decoder=qwen3_32b", "encoder=siglip_so400m", "projector=linear", "gpu=h100"],
}
each_model = pytest.mark.parametrize("words", MODELS.values(), ids=MODELS)


@functools.cache
def _described(words: tuple[str, ...]) -> Description:
    parts, plan, title = compose_parts(list(words), ROOT / "conf")
    return describe(parts, plan=plan, title=title)


def described(words: list[str]) -> Description:
    return _described(tuple(words))


# --- In the terminal -----------------------------------------------------------------------------


@each_model
def test_report_keeps_to_80_columns(words: list[str]) -> None:
    for line in report(described(words), "utf-8").splitlines():
        assert len(line) <= 80, line


@each_model
def test_diagram_names_every_module_and_width(words: list[str]) -> None:
    description = described(words)
    config, drawn = description.decoder, diagram(description)
    H, K, Dh, D = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.hidden_size,
    )
    names = "embed_tokens input_layernorm q_proj k_proj v_proj q_norm k_norm RoPE o_proj lm_head"
    for name in (*names.split(), "post_attention_layernorm", "KV cache"):
        assert name in drawn
    assert f"{D:,} -> {H * Dh:,} queries" in drawn
    assert f"{D:,} -> {K * Dh:,} keys" in drawn
    assert f"{H} query, {K} key/value heads" in drawn
    assert drawn.count("(+)") == 2
    assert ("tied" in drawn) is config.tie_word_embeddings
    assert ("expert 1" in drawn) is bool(config.num_experts)
    assert ("YaRN x 4" in drawn) is (config.rope_scaling is not None)
    assert ("2 of them dense" in drawn) is bool(config.mlp_only_layers)
    assert ("image tokens" in drawn) is (description.pictures is not None)


ARMS = {  # by character: up, right, down, left
    "│": "ud", "─": "lr", "┌": "rd", "┐": "dl", "└": "ur", "┘": "ul", "├": "urd", "┤": "udl",
    "┬": "rdl", "┴": "url", "┼": "urdl", "╵": "u", "╷": "d", "╶": "r", "╴": "l",
}  # fmt: skip
STEPS = {"u": (-1, 0, "d"), "d": (1, 0, "u"), "l": (0, -1, "r"), "r": (0, 1, "l")}


@each_model
def test_lines_of_the_diagram_meet(words: list[str]) -> None:
    rows = [line.ljust(80) for line in diagram(described(words)).splitlines()]
    for y, line in enumerate(rows):
        for x, character in enumerate(line):
            for arm in ARMS.get(character, ""):
                dy, dx, back = STEPS[arm]
                other = rows[y + dy][x + dx]
                # A line ends at another line's arm, or at a word written on it.
                assert back in ARMS.get(other, back) and other != "?", (y, x, line)
                assert other != " " or "layer" in line or "image" in line or "dense" in line


@pytest.mark.parametrize("encoding", ["ascii", "cp949", "latin-1", "no-such-encoding"])
def test_report_has_only_characters_of_the_terminal(encoding: str) -> None:
    text = report(described([]), encoding)
    text.encode("ascii" if encoding == "no-such-encoding" else encoding)
    assert ("│" in text) is (encoding == "cp949")
    assert "+--" in text or encoding == "cp949"


def test_canvas_joins_lines_and_cuts_what_leaves_it() -> None:
    canvas = Canvas(9)
    canvas.box(0, 0, 7, "a long name")
    canvas.down(3, 2, 4)
    canvas.across(0, 6, 4)
    canvas.text(5, 3, "cut here")
    assert canvas.render().splitlines() == ["┌─────┐", "│a lon│", "└──┬──┘", "   │ cut", "╶──┴──╴"]
    assert canvas.render(ascii_only=True).splitlines()[2:] == ["+--+--+", "   | cut", "---+---"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantity(0, "B"), "0 B"),
        (quantity(999, "B"), "999 B"),
        (quantity(999.9, "FLOP"), "1.00 kFLOP"),
        (size(1_192_099_840), "1.19 GB"),
        (size(61_064_245_248), "61.1 GB"),
        (size(960_309_750_784), "960 GB"),
        (count(596_049_920), "596 M"),
        (count(30_532_122_624), "30.5 B"),
        (rate(2810.2), "2,810"),
        (rate(1.234), "1.23"),
    ],
)
def test_numbers_have_three_digits(written: str, expected: str) -> None:
    assert written == expected


# --- As SVG --------------------------------------------------------------------------------------


def elements(words: list[str]) -> tuple[ElementTree.Element, str]:
    text = draw(described(words))
    return ElementTree.fromstring(text), text


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


@each_model
def test_svg_stands_alone(words: list[str]) -> None:
    root, text = elements(words)
    assert len(text) < 60_000
    assert root.find(f"{SVG}title") is not None and root.find(f"{SVG}desc") is not None
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "path", "circle", "polygon"}
    assert re.findall(r"(?:href|src|url|@import|@font-face|https?:)[^ ]*", text) == [
        'http://www.w3.org/2000/svg"'
    ]


@each_model
def test_svg_text_stays_on_the_page_and_in_its_box(words: list[str]) -> None:
    root, _ = elements(words)
    width, height = (number(root, side) for side in ("width", "height"))
    boxes = [
        tuple(number(rect, side) for side in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
        if rect.get("class") not in ("page", "card") and "x" in rect.attrib
    ]
    inside = 0
    for element in root.iter(f"{SVG}text"):
        text, x, y = element.text or "", number(element, "x"), number(element, "y")
        wide = text_width(text, number(element, "font-size"), "mono" in element.attrib["class"])
        left = x - wide / 2 if element.get("text-anchor") == "middle" else x
        assert left >= 0 and left + wide <= width and 0 < y < height, text
        for bx, by, bw, bh in boxes:
            crossing = left < bx + bw and bx < left + wide
            if crossing and by < y < by + bh:
                assert left >= bx and left + wide <= bx + bw, text
                inside += 1
    assert inside > 20


@each_model
def test_svg_boxes_lie_beside_or_within_each_other(words: list[str]) -> None:
    root, _ = elements(words)
    boxes = [
        tuple(number(rect, side) for side in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
        if rect.get("class") not in ("page", "card") and rect.get("rx") == "7"
    ]
    assert len(boxes) > 12
    for index, (x, y, w, h) in enumerate(boxes):
        for bx, by, bw, bh in boxes[index + 1 :]:
            apart = x + w <= bx or bx + bw <= x or y + h <= by or by + bh <= y
            within = x <= bx and bx + bw <= x + w and y <= by and by + bh <= y + h
            assert apart or within, (x, y, bx, by)


@each_model
def test_svg_writes_every_width(words: list[str]) -> None:
    description = described(words)
    config = description.decoder
    root, _ = elements(words)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    H, K, Dh, D, V = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.hidden_size,
        config.vocab_size,
    )
    for wanted in (
        f"{V:,} × {D:,}",
        f"{D:,} → {V:,}",
        f"{D:,} → {H} × {Dh}",
        f"{D:,} → {K} × {Dh}",
        f"{H * Dh:,} → {D:,}",
        f"q_norm, {Dh}",
        f"{config.num_hidden_layers} ×",
        f"{description.num_parameters:,}",
        f"T × {D:,}",
    ):
        assert wanted in texts
    F = config.moe_intermediate_size if config.num_experts else config.intermediate_size
    assert any(f"{F:,} → {D:,}" in text for text in texts)
    assert any(f"{D:,} → {F:,}" in text for text in texts)
    assert ("tied" in texts) is config.tie_word_embeddings


def test_svg_shows_each_expert_and_as_many_chosen_as_a_token_takes() -> None:
    root, _ = elements(MODELS["mixture"])
    classes = [rect.get("class") for rect in root.iter(f"{SVG}rect") if rect.get("rx") == "2"]
    assert classes.count("feed-solid") == 8
    assert classes.count("feed") == 160 - 8
    assert classes.count("attend-solid") == 96
    assert classes.count("cache-solid") == 8


def test_svg_escapes_what_a_name_may_hold() -> None:
    sheet = Sheet(100, 100, "<&>", "a & b")
    sheet.text(50, 50, "R&D <1>")
    root = ElementTree.fromstring(sheet.svg())
    assert [element.text for element in root.iter(f"{SVG}text")] == ["R&D <1>"]


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [0, 1], ids=["light", "dark"])
def test_text_stands_out_on_every_ground(dark: int) -> None:
    grounds = [PAGE[dark], *(colours[2 * dark] for colours in ROLES.values())]
    for ink in INKS.values():
        for ground in grounds:
            assert contrast(ink[dark], ground) >= 4.5, (ink, ground)  # WCAG 2 level AA


def test_every_class_has_a_colour_on_both_pages() -> None:
    root, text = elements(MODELS["sees"])
    light, dark = text.split("@media (prefers-color-scheme:dark)")
    used = {name for e in root.iter() for name in (e.get("class") or "").split()} - {"mono"}
    assert len(used) > 10
    for name in used:
        assert f".{name}{{" in light and f".{name}{{" in dark


@pytest.mark.parametrize(
    ("file", "words"),
    [("qwen3.svg", ["decoder=qwen3_0_6b"]), ("qwen3_moe.svg", ["decoder=qwen3_30b_a3b"])],
)
def test_drawings_in_the_documents_are_up_to_date(file: str, words: list[str]) -> None:
    stored = (ROOT / "docs/images" / file).read_text(encoding="utf-8")
    assert stored == draw(described(words)), "make it again as docs/describing.md says"


def test_svg_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write .*: No such file or directory"):
        save(described([]), tmp_path / "missing" / "model.svg")


def test_svg_needs_no_plan_of_a_gpu() -> None:
    values: dict[str, Any] = compose_parts(["decoder=qwen3_tiny"], ROOT / "conf")[0]
    assert draw(describe(values)) == draw(describe(values, plan=Plan(gpu="h100")))
