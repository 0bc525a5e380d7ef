"""A scrubbed set's card and its Croissant metadata."""

import json
from pathlib import Path

import pytest

from mm.privacy import ledger as ledgers
from mm.privacy.errors import LedgerError
from mm.report.card import write_data_card
from mm.report.card.data_facts import known_licences, licence_of, read_set
from tests.tiny_artwork import write_artwork


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write_artwork(tmp_path_factory.mktemp("sets") / "drawings")
    write_data_card(place, licence="CC-BY-4.0")
    return place


def test_the_set_stays_readable_and_whole(folder: Path) -> None:
    ledgers.verify_shards(folder, ledgers.read(folder))


def test_shards_and_licence_are_named(folder: Path) -> None:
    found = json.loads((folder / "croissant.json").read_text("utf-8"))
    ledger = ledgers.read(folder)
    tars = [f for f in found["distribution"] if f["@type"] == "cr:FileObject"]
    assert {t["name"]: t["sha256"] for t in tars} == {
        shard["file"]: shard["sha256"] for shard in ledger["shards"]
    }
    assert found["name"] == "drawings"
    assert found["license"] == "CC-BY-4.0"
    assert any("not looked for" in words for words in found["rai:personalSensitiveInformation"])


def test_the_stated_licence_is_what_cards_of_runs_repeat(folder: Path) -> None:
    text = (folder / "README.md").read_text("utf-8")
    assert "CC-BY-4.0" in text and "not stated" not in text
    assert read_set(folder).licences == {"CC-BY-4.0": read_set(folder).samples}


def test_licences_are_the_samples_own_first() -> None:
    known = known_licences()
    assert licence_of({"licence": "CC0-1.0", "set": "twemoji"}, known) == "CC0-1.0"
    assert licence_of({"set": "twemoji"}, known) == "CC-BY-4.0"
    assert licence_of({"task": "easy-vqa"}, known) == "MIT"
    assert licence_of({"set": "somebody's"}, known) == ""


def test_what_was_never_scrubbed_gets_no_card(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="scrub"):
        write_data_card(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_metadata_is_valid_and_reads_the_shards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    croissant = pytest.importorskip("mlcroissant")
    dataset = croissant.Dataset(folder / "croissant.json")
    assert not dataset.metadata.issues.errors
    samples = list(dataset.records("samples"))
    assert len(samples) == read_set(folder).samples
    record = json.loads(samples[1]["samples/record"])
    assert set(record) >= {"turns", "tags", "source_id"}
    assert samples[1]["samples/sample"] == b"000000001"
    picture = next(iter(dataset.records("pictures")))["pictures/image"]
    assert picture.mode in ("RGB", "L")
