"""One picture explained, from the command line: the answer, maps, verdicts, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from mm.encoders.pixels import to_picture
from mm.explain.overlay import Strip, blend, draw, load_font
from mm.explain.picture import parts_of, peak
from mm.explain.places import R
from mm.privacy.door import open_image
from scripts import explain
from tests import tiny_model
from tests.scripts.pictures import encoded

FAST = ["--cells", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.save(tmp_path_factory.mktemp("models") / "tiny", tiny_model.model(1)))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    (tmp_path / "photo.png").write_bytes(encoded())
    return str(tmp_path / "photo.png")


def test_maps_are_drawn_and_their_verdict_is_told(
    model: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "looked.png"
    words = [picture, "What is this?", "--model", model, "--answer", "a red cup", *FAST]
    methods = ["--method", "rollout", "--method", "integrated_gradients"]
    assert explain.main([*words, *methods, "--output", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a red cup"
    verdicts = [line for line in lines if " by chance " in line]
    assert [line.split(":")[0] for line in verdicts] == ["rollout", "integrated_gradients"]
    assert all(line.endswith(("faithful", "no better than chance")) for line in verdicts)
    parts = len(tiny_model.tokenizer().encode("a red cup"))
    assert sum("% across" in line for line in lines) == 2 * parts
    sheet = open_image(out)
    assert sheet.width > (2 + parts) * 168
    assert not sheet.info


def test_json_holds_peaks_verdicts_and_the_lens(
    model: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [picture, "이것은 무엇인가요?", "--model", model, "--answer", "컵이 있어요", "--json"]
    assert explain.main([*words, *FAST, "--lens", "0"]) == 0
    first, *grid = capsys.readouterr().out.splitlines()
    found = json.loads(first)
    assert "".join(found["parts"]) == found["answer"] == "컵이 있어요"
    one = found["methods"]["occlusion"]
    assert len(one["peaks"]) == len(found["parts"])
    assert one["faithful"] == (one["beaten"] >= 0.95 * one["moved"])
    assert len(grid) == 2  # rows of image tokens
    assert [len(words) for words in found["lens"]["words"]] == [4, 4]


def test_what_can_not_be_explained_is_said(
    model: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", model, *FAST]
    text_model = str(tiny_model.save_text(tmp_path / "text"))
    wrong = {
        "known: ": [picture, "What?", *own, "--method", "guess"],
        "is no font file": [picture, "What?", *own, "--font", picture],
        "reads text only": [picture, "What?", "--model", text_model],
        "not answered": [picture, "Who is this man?", *own],
        "layer 7 is none": [picture, "What?", *own, "--answer", "cup", "--lens", "7"],
        "answer is empty": [picture, "What?", *own, "--answer", " "],
    }
    for reason, words in wrong.items():
        assert explain.main(words) == 2, reason
        assert reason in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert explain.main([str(tmp_path / "bad.png"), "What?", *own]) == 1
    assert "not-an-image" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        explain.main(["--model", model])


def test_letters_of_several_tokens_are_one_part() -> None:
    words = tiny_model.tokenizer()
    ids = words.encode("cup 쀍!")  # a letter that the tokenizer spells byte by byte
    texts, ends = parts_of(words, ids)
    assert "".join(texts) == "cup 쀍!"
    assert len(texts) < len(ids) == ends[-1]


def test_a_map_colours_the_place_that_it_names() -> None:
    image = torch.full((3, 80, 160), 128, dtype=torch.uint8)
    heat = torch.zeros(R, R)
    heat[:16, 48:] = 2.0  # top right
    heat[48:, :16] = -1.0
    assert peak(heat) == (56 / R, 8 / R)
    sheet = draw(image, [Strip("a title", [("", None), ("there", heat)], warns=True)])
    plain = draw(image, [Strip("a title", [("", None), ("there", None)], warns=True)])
    assert sheet.size == plain.size
    picture = to_picture(image)
    tinted = blend(picture, heat)
    red, green, blue = tinted.getpixel((150, 5))
    assert red > green > 180 > 90 > blue  # the most is yellow
    assert tinted.getpixel((5, 75)) == tinted.getpixel((80, 40)) == (128, 128, 128)


def test_letters_that_no_font_has_are_left_out() -> None:
    font = load_font(None)
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    with_them = draw(image, [Strip("t", [("(1) \ufffe\uffff", None)])], font)
    without = draw(image, [Strip("t", [("(1) ", None)])], font)
    assert with_them.tobytes() == without.tobytes()
