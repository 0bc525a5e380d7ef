"""Facts about the source tree: lines of code, who imports whom, what a newcomer reads.

Everything here parses files and runs none of them.
"""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NOT_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)


def code_lines(source: str) -> int:
    """Count the lines that hold code: no blank lines, comments or docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                first = node.body[0]
                lines.difference_update(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(lines)


def module_name(path: Path, root: Path) -> str:
    """Name the module in `path`: `mm/text/__init__.py` is `mm.text`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, path: Path, root: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import statement with the full dotted name of what it binds, wherever it stands.

    `from mm.text import chat` gives `mm.text.chat`: whether that is a module or something in one is
    for the caller to find out. Relative imports come out absolute, `from x import *` as `x.*`.
    """
    package = list(path.relative_to(root).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node, f"{prefix}.{alias.name}"


def python_files(root: Path, folders: Iterable[str] = ("mm", "scripts")) -> list[Path]:
    """List the Python files under the given folders of `root`, sorted."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def import_graph(root: Path) -> dict[str, set[str]]:
    """Map every module of `mm` and `scripts` to the modules of `mm` that it imports, lazily or not.

    A package's `__init__.py` runs before its modules, but only counts as imported where something
    is taken from it by name.
    """
    files = {module_name(path, root): path for path in python_files(root)}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        graph[module] = set()
        for _, name in imported_names(tree, path, root):
            for candidate in (name, name.rpartition(".")[0]):
                if candidate in files and candidate != module:
                    graph[module].add(candidate)
                    break
    return graph


@dataclass(frozen=True)
class FileLines:
    """A file, relative to the root, and its lines of code."""

    path: Path
    lines: int


def reading_path(root: Path, start: str, also: Iterable[str] = ()) -> list[FileLines]:
    """List the files behind module `start`, in the order in which a reader meets them.

    Args:
        root: the repository.
        start: a module, e.g. `scripts.caption`.
        also: modules that are looked up by name at run time, which no import statement shows.

    Raises:
        ValueError: a named module does not exist.
    """
    graph = import_graph(root)
    files = {module_name(path, root): path for path in python_files(root)}
    roots = [start, *also]
    for name in roots:
        if name not in files:
            raise ValueError(f"no module {name!r} under mm/ or scripts/")
    seen: list[str] = []
    for name in roots:
        queue = [name]
        while queue:
            module = queue.pop(0)
            if module not in seen:
                seen.append(module)
                queue.extend(sorted(graph[module]))
    return [
        FileLines(files[module].relative_to(root), code_lines(files[module].read_text("utf-8")))
        for module in seen
    ]


def lines_per_folder(root: Path) -> dict[str, int]:
    """Sum the lines of code by label: `mm/text/`, `mm/vlm.py`, `scripts/`, `tests/`, ..."""
    totals: dict[str, int] = {}
    for path in python_files(root, ("mm", "scripts", "experiments", "tests")):
        parts = path.relative_to(root).parts
        depth = 2 if parts[0] == "mm" else 1
        label = "/".join(parts[:depth]) + ("/" if len(parts) > depth else "")
        totals[label] = totals.get(label, 0) + code_lines(path.read_text(encoding="utf-8"))
    return totals
