"""What the package promises about itself: metadata, versions, data files, a quick import."""

import fnmatch
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mm

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): exact for name, exact in pairs}


@pytest.mark.parametrize(
    "text", PROJECT["dependencies"] + [text for extra in EXTRAS.values() for text in extra]
)
def test_constraints_pin_every_dependency_within_its_bounds(text: str) -> None:
    requirement = Requirement(text)
    exact = pinned()[canonicalize_name(requirement.name)]
    assert requirement.specifier, f"{text} has no lower bound"
    assert requirement.specifier.contains(exact), f"{text} but constraints.txt has {exact}"


def test_version_is_the_same_everywhere() -> None:
    assert mm.__version__ == PROJECT["version"]
    try:
        installed = version("mm")
    except PackageNotFoundError:
        pytest.skip("mm is not installed: pip install -e .")
    assert installed == PROJECT["version"]


def test_licence_is_apache_in_full() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_data_file_in_the_package_is_installed_with_it() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mm"]
    assert "assets/**" in patterns
    left_out = [
        path.relative_to(ROOT / "mm").as_posix()
        for path in (ROOT / "mm").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    left_out = [p for p in left_out if not any(fnmatch.fnmatch(p, x) for x in patterns)]
    assert left_out == []


def test_model_that_ships_is_at_most_26_mb() -> None:
    weights = list((ROOT / "mm/assets").rglob("*.safetensors"))
    if not weights:
        pytest.skip("no model in mm/assets/ yet")
    assert sum(path.stat().st_size for path in weights) <= 26e6


def test_importing_mm_brings_in_no_heavy_library() -> None:
    code = (
        "import sys, mm\n"
        "heavy = {'torch', 'torchvision', 'transformers', 'PIL', 'hydra', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_captioning_needs_neither_torchvision_nor_transformers() -> None:
    code = (
        "import sys, mm.model, mm.checkpoints.native, mm.encoders.siglip, mm.projectors.mlp\n"
        "heavy = {'torchvision', 'transformers', 'hydra', 'matplotlib', 'phonenumbers'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
