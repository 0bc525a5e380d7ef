"""PRIVACY.md tells the truth: its commands, tests, kinds and files exist, its audit runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mm.data.sample import Sample
from mm.data.shards import write_shards
from mm.privacy.policy import Policy, load_policy
from mm.privacy.text import KINDS
from scripts import scrub
from tests.privacy import measure
from tests.privacy import planted as plant

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "PRIVACY.md").read_text(encoding="utf-8")


def commands(start: str) -> list[str]:
    """Find what the page says to run, in code blocks and in the text."""
    quoted = re.findall(rf"`({start}[^`]*)`", PAGE)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [*quoted, *(line for line in lines if line.startswith(start))]


def test_links_lead_somewhere() -> None:
    places = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert places and [place for place in places if not (ROOT / place).exists()] == []
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= names


def test_named_tests_exist() -> None:
    found = commands("pytest ")
    assert len(found) > 8
    for command in found:
        words = command.split()[1:]
        wanted = words[words.index("-k") + 1] if "-k" in words else "test_"
        paths = [ROOT / word.split("::")[0] for word in words if word.startswith("tests/")]
        assert paths, command
        for path in paths:
            files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
            assert any(wanted in file.read_text("utf-8") for file in files), command


def test_named_measurements_exist() -> None:
    found = commands("python -m ")
    assert found
    for command in found:
        module, *names = command.removeprefix("python -m ").split()
        assert importlib.util.find_spec(module), command
        if module == "tests.privacy.measure":
            assert set(names) <= {claim.__name__ for claim in measure.CLAIMS}, command
    for command in commands("python scripts/"):
        assert (ROOT / command.split()[1]).is_file(), command


def test_the_table_of_policies_is_what_the_files_say() -> None:
    rows = dict(re.findall(r"^\| (`metadata_only`|`standard`|`strict`)(.*)\|$", PAGE, re.MULTILINE))
    assert len(rows) == 3
    number = re.findall(r"all (\d+) kinds masked", PAGE)
    assert number == [str(len(KINDS))] * len(number)
    for name, action in {"metadata_only": "keep", "standard": "mask", "strict": "mask"}.items():
        policy = load_policy(ROOT / "conf" / "privacy" / f"{name}.yaml")
        assert set(policy.text.values()) == {action}
        assert policy.looks == (name == "strict") == ("covered" in rows[f"`{name}`"])


def test_the_audit_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each line of the five-minute audit, on a small set; the last one without detectors."""
    (block,) = re.findall(r"five minutes\n\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    turns = [("user", "<image>Whose?"), ("assistant", "jane@example.com")]
    samples = [Sample([plant.planted(kind)], turns) for kind in plant.FORMATS]
    write_shards(samples, tmp_path / "data" / "photos", Policy())
    monkeypatch.chdir(tmp_path)
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        if line.startswith("python scripts/scrub.py"):
            words = line.replace("policy=strict", "policy=standard").split()[2:]
            assert scrub.main(words) == 0, line
        else:
            line = line.replace("python ", f"{sys.executable} ")
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
            print(done.stdout)
    said = "".join(capfd.readouterr())
    assert "6 samples in 1 shards pass" in said and '"policy_hash"' in said
    assert "000000000.json" in said and "[EMAIL]" in said and "text: none" in said
