"""Lines of code, the import graph and the reading path, on a small tree made for it."""

from pathlib import Path

import pytest

from mm.report.source import code_lines, import_graph, lines_per_folder, reading_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(
        tmp_path,
        {
            "mm/__init__.py": '"""Doc."""\n',
            "mm/vlm.py": "from .text import chat\nimport torch\n",
            "mm/text/__init__.py": "",
            "mm/text/chat.py": "def f():\n    from mm.text.words import WORDS\n    return WORDS\n",
            "mm/text/words.py": "WORDS = 1\n",
            "mm/encoders/siglip.py": "X = 1\n",
            "scripts/caption.py": "import mm.vlm\n",
            "scripts/other.py": "import mm.encoders.siglip\n",
            "tests/test_x.py": "def test():\n    assert True\n",
        },
    )
    return tmp_path


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("", 0),
        ('"""Docstring\n\nof three lines."""\n', 0),
        ("# comment\n\nx = 1  # why\n", 1),
        ("x = [\n    1,\n\n    2,\n]\n", 4),
        ('text = """a\n\nb"""\n', 3),
        ('def f():\n    """Doc."""\n    return 1\n', 2),
        ('class A:\n    """Doc\n    more."""\n\n    x = 1\n', 2),
    ],
)
def test_code_lines_leave_out_blanks_comments_and_docstrings(source: str, lines: int) -> None:
    assert code_lines(source) == lines


def test_import_graph_resolves_relative_and_lazy_imports(tree: Path) -> None:
    graph = import_graph(tree)
    assert graph["mm.vlm"] == {"mm.text.chat"}
    assert graph["mm.text.chat"] == {"mm.text.words"}
    assert graph["scripts.caption"] == {"mm.vlm"}


def test_reading_path_follows_imports_in_order(tree: Path) -> None:
    found = [file.path.as_posix() for file in reading_path(tree, "scripts.caption")]
    assert found == ["scripts/caption.py", "mm/vlm.py", "mm/text/chat.py", "mm/text/words.py"]


def test_reading_path_takes_parts_found_by_name(tree: Path) -> None:
    found = reading_path(tree, "scripts.caption", also=["mm.encoders.siglip"])
    assert [file.lines for file in found if file.path.name == "siglip.py"] == [1]


def test_reading_path_of_unknown_module_says_so(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"no module 'scripts\.captoin' under mm/ or scripts/"):
        reading_path(tree, "scripts.captoin")


def test_lines_per_folder_keeps_the_stages_of_mm_apart(tree: Path) -> None:
    assert lines_per_folder(tree) == {
        "mm/__init__.py": 0,
        "mm/encoders/": 1,
        "mm/text/": 4,
        "mm/vlm.py": 2,
        "scripts/": 2,
        "tests/": 2,
    }
