"""An encoder in a package of its own: installed without a network, found by name, and checked."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tests/example_encoder"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed in."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("outside")
    source = shutil.copytree(PACKAGE, folder / "source")  # building leaves files behind
    target = folder / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--no-cache-dir"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, source]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(installed), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_installed_package_conforms(installed: Path) -> None:
    arguments = ["tinypatch", "image_size=80", "--compile", "eager", "--json"]
    done = run(installed, "scripts/check_encoder.py", *arguments)
    assert done.returncode == 0, done.stderr or done.stdout
    found = json.loads(done.stdout)
    assert found["conforms"] is True
    checks = {check["check"]: check for check in found["checks"]}
    assert "grids 5x5" in checks["shapes"]["detail"]
    assert checks["saved"]["status"] == "pass"  # by its name, as in any checkpoint of mm


def test_without_the_package_the_name_is_unknown() -> None:
    done = run(Path("nowhere"), "scripts/check_encoder.py", "tinypatch")
    assert done.returncode == 2
    assert "unknown encoder 'tinypatch'; known: " in done.stderr


def test_package_may_not_take_a_name_of_mm(installed: Path) -> None:
    (points,) = installed.glob("tinypatch-*.dist-info/entry_points.txt")
    kept = points.read_text("utf-8")
    try:
        points.write_text(kept.replace("tinypatch =", "siglip ="), "utf-8")
        done = run(installed, "scripts/check_encoder.py", "siglip")
        assert done.returncode == 2
        told = "'siglip' is built in and also an entry point (tinypatch): rename the entry point"
        assert told in done.stderr
    finally:
        points.write_text(kept, "utf-8")
