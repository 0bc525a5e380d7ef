"""The artwork tools, offline: nothing here fetches a package."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from mm.data.artwork import build, fetch, icons, licences, pages, photographs, textures, vector
from mm.data.artwork.letters import CHARACTERS, letters, load_fonts
from mm.data.artwork.sets import ArtworkSet, Table, code_points, load_concepts, load_table

SQUARE = '<path fill="{}" d="M2 2h8v4H2z"/>'


def make_set(folder: Path, icon_names: dict[str, str], **more: object) -> icons.IconSet:
    """Write an Iconify package with one drawing per name; the value is its SVG body."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {name: {"body": body} for name, body in icon_names.items()}
    data = {"icons": bodies, "width": 12, "height": 12, **more}
    (folder / "icons.json").write_text(json.dumps(data))
    (folder / "chars.json").write_text(json.dumps({"1f436": "dog-face"}))
    (folder / "info.json").write_text(json.dumps({"license": {"spdx": "MIT"}}))
    return icons.IconSet(folder)


def artwork_set(**changes: object) -> ArtworkSet:
    fields = {"name": "toy", "package": "toy", "version": "1.0.0", "licence": "MIT"}
    fields |= {"author": "A", "homepage": "", "match": "name", "split": "train", **changes}
    return ArtworkSet(**fields)


def concepts(*english: str):
    return tuple(concept for concept in load_concepts() if concept.english in english)


TABLE = Table({}, {"dog": ("puppy",)}, frozenset({"phone"}), frozenset({"red heart"}))


def test_rgba_of_half_transparent_drawing_recovers_colour_and_coverage():
    pytest.importorskip("resvg_py")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12">'
        '<rect x="2" y="2" width="8" height="8" fill="#c84010" fill-opacity="0.5"/></svg>'
    )
    pixels = vector.rgba(vector.render_svg(svg))
    middle = pixels[vector.RENDER // 2, vector.RENDER // 2]
    # Two 8-bit pictures: one step of each is two steps of a colour at half coverage.
    assert np.allclose(middle, [0xC8, 0x40, 0x10, 128], atol=3)
    assert pixels[0, 0, 3] == 0


def test_glyph_pixels_are_the_font_s_coverage():
    matplotlib = pytest.importorskip("matplotlib")
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 200)
    drawing = vector.cut_out(vector.glyph_pixels(font, "⚽"))
    assert drawing.mask.max() == 255 and (drawing.colour == 0).all()


def test_cut_out_centres_the_visible_box_and_leaves_the_margin():
    pixels = np.zeros((50, 80, 4), dtype=np.uint8)
    pixels[10:30, 5:45] = [200, 30, 30, 255]
    drawing = vector.cut_out(pixels)
    rows, columns = np.flatnonzero(drawing.mask.any(1)), np.flatnonzero(drawing.mask.any(0))
    assert (columns[0], columns[-1]) == (2, 93)
    assert (rows[0], rows[-1]) == (25, 70)
    assert drawing.mask.shape == (96, 96) and drawing.colour.shape == (96, 96, 3)


def test_cut_out_of_nothing_is_none():
    assert vector.cut_out(np.zeros((8, 8, 4), dtype=np.uint8)) is None


def test_bleed_continues_colours_and_keeps_the_visible_ones():
    pixels = np.zeros((9, 13, 4), dtype=np.uint8)
    pixels[:, :3] = [250, 0, 0, 255]
    pixels[:, 10:] = [0, 0, 250, 255]
    filled = vector.bleed(pixels)
    assert (filled[:, :3] == [250, 0, 0]).all() and (filled[:, 10:] == [0, 0, 250]).all()
    assert filled[4, 3, 0] > filled[4, 3, 2] and filled[4, 9, 2] > filled[4, 9, 0]
    assert (filled.sum(axis=2) > 200).all()  # no dark fringe


def test_select_by_glyph_uses_character_list_numbered_variants_and_own_spelling(tmp_path: Path):
    names = ["dog-face", "dog-face-2", "kitty", "fox"]
    icon_set = make_set(tmp_path, {name: SQUARE.format(f"#{n}") for n, name in enumerate(names)})
    toy = artwork_set(match="glyph", names={"1f431": "kitty", "1f98a": ""})
    found = icons.select(toy, icon_set, concepts("dog", "cat", "fox"), TABLE, [{"1f98a": "fox"}])
    assert [(icon.concept, icon.name) for icon in found] == [
        ("dog", "dog-face"),
        ("dog", "dog-face-2"),
        ("cat", "kitty"),
    ]


def test_select_by_name_takes_one_style_and_leaves_out_what_is_wrong(tmp_path: Path):
    names = ["dog", "dog-fill", "puppy", "cat", "phone", "mobile", "heart", "red-heart"]
    icon_set = make_set(tmp_path, {name: SQUARE.format(f"#{n}") for n, name in enumerate(names)})
    toy = artwork_set(
        mono=True, suffixes=("-fill", ""), include={"phone": ("mobile",)}, exclude=("cat",)
    )
    wanted = concepts("dog", "cat", "phone", "red heart")
    found = icons.select(toy, icon_set, wanted, TABLE, [])
    assert {icon.name for icon in found} == {"dog-fill", "puppy", "mobile"}


def test_select_draws_a_drawing_with_two_names_once(tmp_path: Path):
    drawings = {"dog": SQUARE.format("#1"), "puppy": SQUARE.format("#1")}
    aliases = {"turned": {"parent": "dog", "rotate": 1}}
    icon_set = make_set(tmp_path, drawings, aliases=aliases)
    found = icons.select(artwork_set(), icon_set, concepts("dog"), TABLE, [])
    assert [icon.name for icon in found] == ["dog"]
    assert "turned" not in icon_set


def test_select_gives_an_included_icon_to_the_concept_that_names_it(tmp_path: Path):
    icon_set = make_set(tmp_path, {"chicken": SQUARE.format("#1")})
    toy = artwork_set(include={"chicken leg": ("chicken",)})
    found = icons.select(toy, icon_set, concepts("chicken", "chicken leg"), TABLE, [])
    assert [icon.concept for icon in found] == ["chicken leg"]


def test_select_with_changed_licence_is_refused(tmp_path: Path):
    icon_set = make_set(tmp_path, {"dog": SQUARE.format("#1")})
    with pytest.raises(ValueError, match="'toy' says its licence is MIT, not ISC"):
        icons.select(artwork_set(licence="ISC"), icon_set, concepts("dog"), TABLE, [])


def test_artwork_set_with_share_alike_licence_is_refused():
    with pytest.raises(ValueError, match="CC-BY-SA-4.0"):
        artwork_set(licence="CC-BY-SA-4.0")


def test_tables_keep_test_sources_out_of_training():
    sets = load_table().sets
    assert sets["twemoji"].split == "test" and sets["fxemoji"].split == "dev"
    assert "openmoji" not in "".join(entry.package for entry in sets.values())
    packages = {split: set() for split in ("train", "dev", "test")}
    for entry in (*sets.values(), *photographs.load_sources()):
        packages[entry.split].add(entry.package)
    assert not packages["train"] & (packages["dev"] | packages["test"])
    fonts = load_fonts()
    assert not set(fonts["train"]) & (set(fonts["test"]) | set(fonts["dev"]))
    assert not set(fonts["korean"]["train"]) & set(fonts["korean"]["test"])


def test_manifest_names_every_source():
    text = licences.manifest()
    for name in (*load_table().sets, *(source.name for source in photographs.load_sources())):
        assert f"| {name} |" in text


def test_document_carries_the_credit_of_every_source():
    document = Path(__file__).parents[2].joinpath("docs/artwork.md").read_text(encoding="utf-8")
    rows = [line for line in licences.manifest().splitlines() if line.startswith("| ")]
    assert [row for row in rows if row not in document] == []


def test_code_points_ignore_the_variation_selector():
    assert code_points("❤\ufe0f") == "2764"


def test_letters_stand_on_one_baseline_within_their_squares():
    matplotlib = pytest.importorskip("matplotlib")
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    drawn = {letter.character: letter for letter in letters(font.read_bytes())}
    assert "".join(drawn) == CHARACTERS
    for character in "EHX":
        rows = np.flatnonzero((drawn[character].mask > 127).any(axis=1))
        assert (rows[0], rows[-1]) == (12, 51)
    assert drawn["I"].advance < drawn["W"].advance < 64
    assert all((letter.mask[:, -1] == 0).all() for letter in drawn.values())


def test_made_up_pictures_repeat_with_their_seed():
    matplotlib = pytest.importorskip("matplotlib")
    font = (Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf").read_bytes()
    for make in (
        lambda seed: pages.pages(2, seed, [font]),
        lambda seed: textures.textures(2, seed),
    ):
        first, again, other = ([np.asarray(image) for image in make(seed)] for seed in (1, 1, 2))
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        assert any(a.shape != b.shape or (a != b).any() for a, b in zip(first, other, strict=True))


def test_korean_words_are_hangul():
    writer = pages.Writer(random.Random(0), [b""], korean=True)
    text = "".join(writer.word() for _ in range(50))
    assert all("가" <= letter <= "힣" or letter.isdigit() for letter in text)


def test_shrink_and_crop_stay_within_the_picture():
    image = Image.new("RGB", (900, 600))
    assert photographs.shrink(image).size == (352, 235)
    part = photographs.crop(image, random.Random(3))
    assert 315 <= part.width <= 630 and 210 <= part.height <= 420


def test_fetch_without_npm_says_what_to_install(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(fetch.FetchError, match="npm is not installed: install Node.js"):
        fetch.npm_package("toy", "1.0.0", tmp_path)
    assert list((tmp_path / "npm").iterdir()) == []  # a failure leaves nothing that looks fetched


def test_write_index_is_what_the_jsonl_source_reads(tmp_path: Path):
    tags = {"kind": "object", "set": "toy", "concept": "dog", "split": "train"}
    item = build.Item(("toy/dog.colour.png", "toy/dog.mask.png"), "dog", tags)
    assert build.write([item, item], tmp_path) == {"object\ttoy\ttrain": 2}
    line = json.loads((tmp_path / build.INDEX).read_text().splitlines()[0])
    assert line["turns"] == [["user", "<image><image>"], ["assistant", "dog"]]
    assert line["tags"] == tags and len(line["images"]) == 2


def test_write_index_also_parts_drawings_from_pictures(tmp_path: Path):
    kinds = ("object", "letter", "photo", "page")
    items = [build.Item((f"{kind}.png",), kind, {"kind": kind, "split": "train"}) for kind in kinds]
    build.write(items, tmp_path)
    for name, expected in ((build.DRAWINGS, kinds[:2]), (build.PICTURES, kinds[2:])):
        lines = (tmp_path / name).read_text().splitlines()
        assert tuple(json.loads(line)["tags"]["kind"] for line in lines) == expected


def test_prepare_refuses_a_folder_of_other_things_and_unknown_names(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        build.prepare(tmp_path, tmp_path / "cache")
    assert (tmp_path / "thesis.txt").exists()
    with pytest.raises(ValueError, match="--only notto: no such name; known: .*noto"):
        build.prepare(tmp_path / "new", tmp_path / "cache", only=["notto"])
