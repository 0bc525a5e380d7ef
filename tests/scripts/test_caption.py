"""caption.py: which pictures it finds, what it prints, and that batches change nothing."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mm.cli.console import Console, printable
from mm.cli.inputs import find_pictures
from scripts import caption
from tests import tiny_model
from tests.scripts.pictures import encoded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.save(tmp_path_factory.mktemp("models") / "tiny", tiny_model.model(1)))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Five pictures in a tree, told by content, and things that are none."""
    folder = tmp_path / "album"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name, kind, shade in (
        ("a.png", "PNG", 10),
        ("b/no extension", "JPEG", 60),
        ("b/deep/c.gif", "GIF", 110),
        ("b/named.txt", "WEBP", 160),
        ("z.tif", "TIFF", 210),
    ):
        (folder / name).write_bytes(encoded(kind, shade))
    (folder / ".hidden" / "x.png").write_bytes(encoded())
    (folder / "b" / "notes.jpg").write_text("not a picture")
    return folder


NAMES = ["a.png", "z.tif", "b/named.txt", "b/no extension", "b/deep/c.gif"]


def run(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> list[str]:
    assert caption.main(list(argv)) == status
    out, err = capsys.readouterr()
    assert status == 1 or err == ""
    lines: list[str] = out.split("\n")
    assert lines.pop() == ""
    return lines


def test_one_picture_gives_its_caption_alone(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(album / "a.png")
    (line,) = run(capsys, "--model", model, path)
    assert line and not line.startswith(path)
    assert run(capsys, path, "--model", model, path) == [f"{path}: {line}"] * 2


def test_folders_are_searched_by_content(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(capsys, "--model", model, str(album))
    assert [line.split(": ")[0] for line in lines] == [str(album / name) for name in NAMES]
    # A folder's pictures are named even if it holds one only.
    (line,) = run(capsys, "--model", model, str(album / "b" / "deep"))
    assert line == lines[4]


def test_patterns_and_stdin_name_pictures(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*arguments: str, stdin: str = "") -> list[str]:
        sources = find_pictures(arguments, io.StringIO(stdin))
        assert all(source.problem is None for source in sources)
        return [str(Path(source.path).relative_to(album)) for source in sources]

    assert found(f"{album}/*.png", f"{album}/b/*/*.gif") == ["a.png", "b/deep/c.gif"]
    assert found(f"{album}/**/*.gif") == ["b/deep/c.gif"]
    assert found("-", stdin=f"{album}/z.tif\n\n{album}/a.png\n") == ["z.tif", "a.png"]
    assert found("-", stdin=f"{album}/z.tif\0{album}/a.png\0") == ["z.tif", "a.png"]
    assert found("-", stdin="") == []
    (album / "[1].png").write_bytes(encoded())  # a real name wins over a pattern
    assert found(f"{album}/[1].png") == ["[1].png"]


def test_batches_change_nothing(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(capsys, "--model", model, str(album))
    assert len({line.split(": ")[1] for line in whole}) > 1
    for size in ("1", "2", "16"):
        assert run(capsys, "--model", model, str(album), "--batch-size", size) == whole


def test_streamed_words_are_the_same(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", model, str(album), "--temperature", "1.2", "--seed", "3"]
    streamed = [line.rstrip() for line in run(capsys, *options, "--stream")]
    assert streamed == run(capsys, *options)
    assert streamed != run(capsys, *options[:-1], "4")


def test_json_has_one_object_a_line(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(capsys, "--model", model, str(album), "--lang", "ko")
    rows = [
        json.loads(line)
        for line in run(capsys, "--model", model, str(album), "--json", "--lang", "ko")
    ]
    assert [row["path"] for row in rows] == [str(album / name) for name in NAMES]
    for row, line in zip(rows, plain, strict=True):
        facts = {"confidence", "declined", "tokens", "complete", "provenance"}
        assert set(row) == {"path", "caption", *facts}
        assert f"{row['path']}: " + printable(row["caption"].replace("\n", " ")) == line
        assert 0 <= row["confidence"] <= 1 and row["declined"] is False
        assert row["tokens"] == 12 and row["complete"] is False
    assert plain != run(capsys, "--model", model, str(album))  # the English request


def test_paths_that_no_terminal_shows_come_back_in_json(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["그림.png", "two\nlines.png", "\x1b[31mred.png", "lone\udcff.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded())
    paths = [str(tmp_path / name) for name in names]
    rows = run(capsys, "--model", model, "--json", *paths)
    assert [json.loads(row)["path"] for row in rows] == paths
    lines = run(capsys, "--model", model, *paths)
    assert [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in lines] == [
        "그림.png",
        "two\\nlines.png",
        "\\x1b[31mred.png",
        "lone\\udcff.png",
    ]


def test_options_may_stand_between_pictures(
    model: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = str(album / "a.png"), str(album / "z.tif")
    mixed = run(capsys, first, "--model", model, "--max-new-tokens", "3", last)
    assert mixed == run(capsys, "--max-new-tokens", "3", "--model", model, first, last)


def test_captioning_imports_only_what_it_needs(model: str, album: Path) -> None:
    """A cold start is mostly imports: PyTorch alone takes a second."""
    code = f"""
import sys
from scripts import caption
assert caption.main(["--model", {model!r}, {str(album / "a.png")!r}]) == 0
heavy = ["torchvision", "transformers", "hydra", "matplotlib", "torch._dynamo", "sympy"]
assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_nothing_on_stdin_is_nothing_to_do(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run(capsys, "--model", model, "-") == []


def test_the_shipped_model_is_the_default(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mm.folder.ASSETS", tmp_path)
    assert caption.main([str(album / "a.png")]) == 2
    assert "scenes-12m is missing" in capsys.readouterr().err
    tiny_model.save(tmp_path / "scenes-12m")
    assert caption.main([str(album / "a.png")]) == 0


def test_a_reader_that_stops_early_is_no_traceback(
    model: str, album: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("mm.cli.console.Console.result", stopped)
    monkeypatch.setattr("mm.cli.console.os.dup2", lambda *_: None)
    assert caption.main(["--model", model, str(album)]) == 1
    assert capfd.readouterr().err == ""


def test_interrupting_is_no_traceback(
    model: str, album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mm.model.Model.run", interrupted)
    assert caption.main(["--model", model, str(album)]) == 130
    assert capsys.readouterr().err == "\ncaption.py: interrupted\n"


def test_help_has_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        caption.main(["--help"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.count("python scripts/caption.py") == 2


def test_a_bar_counts_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = Console("caption.py", 10)
    console.step(4)
    console.result("a line")
    console.problem("x.png", "missing")
    console.step(6)
    assert console.close() == 1
    out, err = capsys.readouterr()
    assert out == "a line\n"
    assert "4/10" in err and "10/10" in err and "caption.py: x.png: missing\n" in err
    assert err.endswith("\r\033[K")  # nothing is left of the bar
    few = Console("caption.py", 2)
    few.step()
    few.close()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    piped = Console("caption.py", 1000)
    piped.step()
    assert piped.close() == 0
    assert capsys.readouterr().err == ""
