"""verify, preview and forget as `scripts/scrub.py` does them: lines that count, exit status."""

import hashlib
import json
import random
import resource
import stat
from pathlib import Path

import pytest

from mm.data.sample import Sample
from mm.data.shards import ShardReader, write_shards
from mm.errors import UsageError
from mm.privacy import ledger as ledgers
from mm.privacy.door import open_image
from mm.privacy.errors import OutputError
from mm.privacy.policy import Policy, digest
from mm.privacy.scrub import KEY_VARIABLE
from mm.report import scrubbing
from scripts import scrub
from tests.privacy import planted as plant


def samples(count: int) -> list[Sample]:
    turns = [("user", "<image>Whose?"), ("assistant", "jane@example.com")]
    return [
        Sample([plant.planted(plant.FORMATS[n % 6])], turns, {}, f"{n:032x}") for n in range(count)
    ]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(samples(7), tmp_path / "set", Policy(), max_shard_bytes=20_000)
    return tmp_path / "set"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for kind in plant.FORMATS:
        (tmp_path / "raw" / f"PLANTED-Jane-Roe.{kind}").write_bytes(plant.planted(kind))
        (tmp_path / "raw" / "PLANTED-Jane-Roe.txt").write_text("jane@example.com")
    (tmp_path / "raw" / "broken.png").write_bytes(b"PLANTED-Jane-Roe")
    return tmp_path / "raw"


# --- verify ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], ["workers=0"]])
def test_verify_passes_what_was_scrubbed(
    shards: Path, workers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert scrub.main([f"verify={shards}", *workers]) == 0
    out = capsys.readouterr().out
    assert "7 samples in" in out and "checked again: 7 pictures, 14 texts" in out
    assert "7 email" in out and ShardReader(shards).ledger["self_hash"] in out


def test_any_flipped_byte_of_shards_or_ledger_is_caught(shards: Path) -> None:
    """Every byte of the ledger, and bytes of the shards all over: each change is refused."""
    rng = random.Random(0)
    paths = sorted(shards.iterdir())
    tried = 0
    for path in paths:
        good = path.read_bytes()
        places = range(len(good)) if path.suffix == ".json" else rng.sample(range(len(good)), 120)
        for place in places:
            bad = bytearray(good)
            bad[place] ^= rng.randrange(1, 256)
            path.write_bytes(bad)
            lines, status = scrubbing.verify([f"verify={shards}", "workers=0"])
            assert status == 1 and "refused: " in lines[0], (path.name, place)
            tried += 1
        path.write_bytes(good)
    assert tried > 500
    assert scrubbing.verify([f"verify={shards}", "workers=0"])[1] == 0


def test_verify_looks_again_at_what_a_forged_ledger_vouches_for(shards: Path) -> None:
    """A set whose hashes fit, but whose policy is stricter than what was done."""
    ledger = json.loads((shards / "ledger.json").read_text())
    (shards / "ledger.json").unlink()
    # An address that was left in, with every hash made to fit.
    for shard in ledger["shards"]:
        path = shards / shard["file"]
        path.write_bytes(path.read_bytes().replace(b"[EMAIL]", b"a@b.com"))
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    ledger["self_hash"] = digest({k: v for k, v in ledger.items() if k != "self_hash"})
    ledgers.write(ledger, shards)
    lines, status = scrubbing.verify([f"verify={shards}", "workers=0"])
    assert status == 1 and "still holds what rule 'email' finds" in lines[0]
    assert "python scripts/scrub.py source=webdataset" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify=DIR", "policy=strict"], "'policy=strict' does not go with verify="),
        (["verify="], "'verify=' does not go with"),
        (["forget=0123456789abcdef"], "say what output is"),
        (["forget=nobody", "output=DIR"], "is no file and no hash"),
        (["forget=0123456789abcdef", "output=none"], "is no directory of shards"),
    ],
)
def test_wrong_words_are_named_with_status_2(
    shards: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scrub.main([word.replace("DIR", str(shards)) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


# --- forget ---------------------------------------------------------------------------------------


def test_forget_lists_what_went_and_what_was_trained_on_it(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    (runs / "one").mkdir(parents=True)
    used = {"set": ShardReader(shards).ledger["self_hash"]}
    (runs / "one" / "run.json").write_text(json.dumps({"ledgers": used}))
    wanted = hashlib.sha256(plant.planted("png")).hexdigest()
    arguments = [f"forget={wanted}", f"output={shards}", f"runs={runs}"]
    assert scrub.main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("set: 1 samples removed") and f"  {wanted}: 1 samples" in out
    assert out[-1].strip() == str(runs / "one")
    assert scrub.main(arguments) == 1  # nothing is left to remove
    assert "set: 0 samples removed" in capsys.readouterr().out


# --- preview --------------------------------------------------------------------------------------


def test_preview_draws_and_counts_and_writes_no_shards(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["source=folder", f"source.path={folder}", "preview=20", f"sheet={sheet}"]
    before = sorted(tmp_path.rglob("*"))
    assert scrub.main(arguments) == 1  # one record would be left out
    out = capsys.readouterr().out
    assert "7 records before and after" in out and "6 email" in out
    assert "quarantined: 1 not-an-image" in out and "3 gps" in out
    assert "Jane" not in out and "example.com" not in out
    assert sorted(tmp_path.rglob("*")) == sorted([*before, sheet])
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    drawn = open_image(sheet)
    assert drawn.width > 1000 and len(set(drawn.resize((64, 64)).tobytes())) > 50
    assert b"PLANTED" not in sheet.read_bytes()


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_preview_takes_a_number(
    folder: Path, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["source=folder", f"source.path={folder}", f"preview={number}"]
    assert scrub.main(arguments) == 2
    assert "must be a number of records" in capsys.readouterr().err


# --- the rest -------------------------------------------------------------------------------------


def test_pseudonyms_need_a_key_and_follow_it(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["source=folder", f"source.path={folder}", "workers=0"]
    arguments += ["policy.text.email=pseudonym"]
    assert scrub.main([*arguments, f"output={tmp_path / 'none'}"]) == 2
    assert f"set {KEY_VARIABLE} or key_file=FILE" in capsys.readouterr().err
    said = []
    for number, key in enumerate(["a" * 32, "a" * 32, "b" * 32]):
        (tmp_path / "key").write_text(key)
        monkeypatch.setenv(KEY_VARIABLE, "c" * 32)  # the file goes first
        out = tmp_path / str(number)
        assert scrub.main([*arguments, f"output={out}", f"key_file={tmp_path / 'key'}"]) == 1
        said.append({sample.turns[1][1] for sample in ShardReader(out)})
        for path in out.iterdir():
            assert key.encode() not in path.read_bytes()
    assert said[0] == said[1] != said[2] and len(said[0]) == 1
    assert all("EMAIL" in words and "jane" not in words for group in said for words in group)


def test_an_unforeseen_error_is_named_by_type_and_place_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> scrubbing.Outcome:
        raise KeyError("jane@example.com")

    assert scrubbing.told("scrub", fail) == 1
    out, err = capsys.readouterr()
    assert "jane" not in out + err
    assert err.startswith("scrub: KeyError in test_scrubbing.py, line ")


def test_errors_have_their_status(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> scrubbing.Outcome:
        raise error

    for error, status in (
        (UsageError("x"), 2),
        (OutputError("x"), 1),
        (KeyboardInterrupt(), 1),
    ):
        assert scrubbing.told("scrub", lambda error=error: fail(error)) == status  # type: ignore[misc]
    assert "the same command goes on" in capsys.readouterr().err


def test_crash_dumps_are_forbidden(folder: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        scrub.main(
            ["source=folder", f"source.path={folder}", f"output={tmp_path / 'out'}", "workers=0"]
        )
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    finally:
        if before[1] == resource.RLIM_INFINITY or before[1] > 0:
            try:
                resource.setrlimit(resource.RLIMIT_CORE, before)
            except (ValueError, OSError):
                pass


@pytest.mark.parametrize("workers", [-1, 1.5, "two", True])
def test_workers_must_be_a_number(workers: object) -> None:
    with pytest.raises(UsageError, match="workers="):
        scrubbing.workers_of(workers)  # type: ignore[arg-type]
    assert scrubbing.workers_of(None) >= 1 and scrubbing.workers_of(0) == 0
