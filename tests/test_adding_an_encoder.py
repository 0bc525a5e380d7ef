"""docs/adding-an-encoder.md, followed word for word: files, commands and what they print."""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mm import encoders
from mm.report.describe import describe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/adding-an-encoder.md"
CAST = "        pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)\n"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return [str(text) for text in found]


def block(language: str) -> str:
    (text,) = blocks(language)
    return text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder beside those of the repository, with the files that the page has one write."""
    conf = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (conf / "encoder/foo_small.yaml").write_text(block("yaml"), encoding="utf-8")
    (tmp_path / "foo.py").write_text(block("python"), encoding="utf-8")
    encoders.__path__.append(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "mm.encoders.foo", raising=False)
    yield tmp_path
    encoders.__path__.remove(str(tmp_path))
    sys.modules.pop("mm.encoders.foo", None)


@pytest.fixture
def config(folder: Path) -> dict[str, object]:
    return OmegaConf.to_container(OmegaConf.create(block("yaml")))


def run(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Run a command of the page, here; return its exit status and what it printed."""
    python, path, *arguments = command.split()
    assert python == "python"
    script = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    monkeypatch.setattr(script, "CONF", folder / "conf")
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    status = script.main()
    return status, capsys.readouterr().out


def same(shown: str, printed: str) -> bool:
    """Compare what the page shows with what was printed, `...` and seconds aside."""
    lines = [re.sub(r"  +\d+\.\d\d s  ", "  ", line) for line in printed.splitlines()]
    wanted = [re.escape(line).replace(r"\.\.\.", ".+") for line in shown.splitlines()]
    return len(lines) == len(wanted) and all(
        re.fullmatch(pattern, line) for pattern, line in zip(wanted, lines, strict=True)
    )


def test_page_shows_what_the_check_prints(folder, monkeypatch, capsys):
    check, _ = blocks("bash")
    status, printed = run(f"{check} --compile eager", folder, monkeypatch, capsys)
    assert status == 0
    assert same(blocks("text")[0], printed), printed


def test_page_shows_what_a_missing_cast_costs(folder, monkeypatch, capsys):
    whole = block("python")
    assert CAST in whole
    (folder / "foo.py").write_text(whole.replace(CAST, ""), encoding="utf-8")
    check, _ = blocks("bash")
    status, printed = run(f"{check} --compile eager", folder, monkeypatch, capsys)
    assert status == 1
    lines = printed.splitlines()
    (at,) = (i for i, line in enumerate(lines) if "  fail  " in line)
    assert same(blocks("text")[1], "\n".join(lines[at : at + 2])), printed


def test_page_describes_a_model_with_it(folder, monkeypatch, capsys):
    _, command = blocks("bash")
    status, printed = run(command, folder, monkeypatch, capsys)
    assert status == 0 and "foo" in printed


def test_page_names_files_that_exist():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / link).exists(), link
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text("utf-8")):
        assert (ROOT / path).exists() or path == "tests/encoders/test_foo.py", path


def test_published_of_the_page_is_what_the_class_takes():
    values: dict[str, object] = {}
    exec(block("py").replace("    published", "published", 1), vars(encoders), values)
    assert isinstance(values["published"], encoders.Published)


def test_page_adds_an_encoder(config: dict[str, object]) -> None:
    assert "foo" in encoders.names()
    encoder = encoders.build(**config)
    encoder.init_weights(torch.Generator().manual_seed(0))
    pictures = [Image.new("RGB", (30, 20), "red"), Image.new("RGB", (200, 300), "blue")]
    for tokens, views in encoder.encode(pictures):
        assert views == ((4, 4),)
        assert tokens.shape == (16, encoder.hidden_size) == (16, 32)
    assert encoders.name_of(type(encoder)) == "foo"


def test_added_encoder_fits_a_model(config: dict[str, object]) -> None:
    decoder = {
        "vocab_size": 10,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    parts = {
        "encoder": config,
        "projector": {"name": "linear", "config": {"input_size": 32, "output_size": 8}},
        "decoder": {"name": "qwen3", "config": decoder},
    }
    assert describe(parts).num_image_tokens == 16


def test_added_encoder_checks_its_config(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="image_size 65 is no multiple of patch_size 16"):
        encoders.build("foo", {"image_size": 65})
