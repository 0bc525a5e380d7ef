"""The README tells the truth: its commands exist and run, its output is what they print."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "README.ko.md"]
MODEL = ROOT / "mm/assets/scenes-12m"
needs_model = pytest.mark.skipif(
    not (MODEL / "config.json").is_file(), reason="needs the model that ships, mm/assets/scenes-12m"
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)
    return [body for kind, body in fences if kind == language]


def commands(name: str) -> list[str]:
    lines = [line for block in blocks(name, "sh") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines]


def shown() -> list[tuple[str, str, str]]:
    """Find each command whose output the README shows right below it."""
    pairs = r"^```sh\n([^`]*?)\n```\n\n```text\n(.*?)\n```$"
    return [
        (name, command, output)
        for name in READMES
        for command, output in re.findall(pairs, text_of(name), re.MULTILINE | re.DOTALL)
    ]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    steps = re.findall(r'^step "(.*)"$', text_of(".ci/run"), re.MULTILINE)
    in_readme = [command for command in commands("README.md") if "pytest" in command]
    assert in_readme == [steps[0]]


def test_each_readme_shows_the_caption_first() -> None:
    for name in READMES:
        first = commands(name)[0]
        assert first.startswith("pip install"), name
        assert first.endswith("python scripts/caption.py docs/images/scene.png"), name
        assert shown(), name


def test_both_languages_have_the_same_commands_and_links() -> None:
    english, korean = (text_of(name) for name in READMES)
    links = r"\]\(([^)]+)\)"
    swap = {"README.ko.md": "README.md"}
    assert commands("README.ko.md") == commands("README.md")
    assert blocks("README.ko.md", "python") == blocks("README.md", "python")
    assert blocks("README.ko.md", "text") == blocks("README.md", "text")
    assert re.findall(links, korean) == [swap.get(x, x) for x in re.findall(links, english)]


def test_both_languages_have_the_same_numbers() -> None:
    def cells(name: str) -> list[list[str]]:
        rows = re.findall(r"^\|(.*)\|$", text_of(name), re.MULTILINE)
        heads = {i - 1 for i, row in enumerate(rows) if not row.strip("-|")}
        body = [row for i, row in enumerate(rows) if i not in heads]
        return [[cell.strip() for cell in row.split("|")[1:]] for row in body]

    assert cells("README.ko.md") == cells("README.md")


@pytest.mark.parametrize("name", READMES)
def test_scripts_and_links_exist(name: str) -> None:
    named = re.findall(r"scripts/\w+\.py", text_of(name))
    linked = re.findall(r"\]\(([^)#:]+)\)", text_of(name))
    assert [path for path in named + linked if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", READMES)
def test_tree_names_every_folder_and_nothing_else(name: str) -> None:
    (tree,) = (block for block in blocks(name, "") if block.startswith("mm/"))
    top = re.findall(r"^([\w./]+)", tree, re.MULTILINE)
    inner = re.findall(r"^  ([\w./]+)", tree, re.MULTILINE)
    assert [path for path in top if not (ROOT / path).exists()] == []
    assert [path for path in inner if not (ROOT / "mm" / path).exists()] == []
    folders = {f"{path.parent.name}/" for path in (ROOT / "mm").glob("*/__init__.py")}
    assert folders - set(inner) == set()


@needs_model
@pytest.mark.parametrize(("name", "command", "output"), shown())
def test_commands_print_what_the_readme_shows(
    name: str,
    command: str,
    output: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    program, script, *arguments = shlex.split(command.split("&&")[-1])
    assert program == "python"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [script, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stopped.value.code in (0, None)
    assert capfd.readouterr().out.rstrip("\n") == output


@needs_model
def test_python_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("README.md", "python")
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    caption, answer = capsys.readouterr().out.splitlines()
    assert caption == shown()[0][2]
    assert answer
