"""From planted files to shards: no secret survives, what fails is counted and left out."""

import dataclasses
import io
import json
import re
import tarfile
import zlib
from pathlib import Path

import numpy
import pytest
import zxingcpp
from PIL import Image

from mm.data.sample import Sample
from mm.data.shards import ShardReader, write_shards
from mm.data.sources import build
from mm.privacy import containers
from mm.privacy.door import open_image
from mm.privacy.errors import ScrubError
from mm.privacy.policy import Policy
from mm.privacy.scrub import Refusal, hashed_id, scrub_sample
from tests.privacy import planted as plant

TEXT_SECRETS = ("jane.roe@example.com", "010-1234-5678", "4111 1111 1111 1111", "+44 20 7946 0958")


def planted_samples() -> list[Sample]:
    words = "Jane: " + ", ".join(TEXT_SECRETS)
    return [
        Sample(
            [plant.planted(kind)],
            [("user", f"<image>Whose? {words}"), ("assistant", words)],
            {"kind": kind, "note": TEXT_SECRETS[0], TEXT_SECRETS[1]: "x"},
            f"/home/PLANTED-Jane-Roe/photo.{kind}",
        )
        for kind in plant.FORMATS
    ]


def every_byte(directory: Path) -> list[bytes]:
    """Collect a directory's bytes raw, and every picture's structures inflated and decoded."""
    found = []
    for path in directory.rglob("*"):
        found.append(path.name.encode())
        if path.is_file():
            found.append(path.read_bytes())
        if path.suffix != ".tar":
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                data = file.read() if file else b""
                found += [member.name.encode(), data]
                if member.name.endswith(".png"):
                    chunks = containers.png_chunks(data)
                    packed = b"".join(data[a:b] for kind, a, b in chunks if kind == b"IDAT")
                    found.append(zlib.decompress(packed))
                if member.name.endswith(".json"):
                    found.append(json.dumps(json.loads(data), ensure_ascii=False).encode())
    return found


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_no_planted_secret_survives(tmp_path: Path, encoding: str) -> None:
    samples = planted_samples()
    needles = [secret for secret in plant.SECRETS] + [b"PLANTED", b"MAKER", b"GPS", b"8BIM"]
    needles += [secret.encode() for secret in TEXT_SECRETS]
    needles += [secret.replace(" ", "").replace("-", "").encode() for secret in TEXT_SECRETS]
    needles += [needle.decode().encode("utf-16-le") for needle in needles]
    needles += plant.GPS_BYTES
    raw = b"".join(b"".join(sample.images) + repr(sample).encode() for sample in samples)
    for needle in (*plant.SECRETS, *(secret.encode() for secret in TEXT_SECRETS)):
        assert needle in raw  # they are planted
    assert any(needle in raw for needle in plant.GPS_BYTES)

    report = write_shards(samples, tmp_path / "out", Policy(encoding=encoding))
    assert report.samples == len(samples) and not report.quarantined
    for blob in every_byte(tmp_path / "out"):
        for needle in needles:
            assert needle not in blob


def test_ledger_counts_what_was_removed(tmp_path: Path) -> None:
    write_shards(planted_samples(), tmp_path / "out", Policy())
    counts = ShardReader(tmp_path / "out").ledger["counts"]
    assert counts["samples"] == counts["images"] == 6
    assert counts["text"] == {"email": 18, "phone": 30, "card": 12, "person": 12}
    assert counts["metadata"]["gps"] == 3 and counts["metadata"]["icc"] == 5  # both TIFF pages


def test_turns_and_tags_are_clean_and_ids_hashed() -> None:
    clean, found = scrub_sample(planted_samples()[0], Policy())
    assert clean.turns[1] == ("assistant", "[PERSON]: [EMAIL], [PHONE], [CARD], [PHONE]")
    assert clean.tags == {"kind": "jpeg", "note": "[EMAIL]", "[PHONE]": "x"}
    assert clean.source_id == hashed_id("/home/PLANTED-Jane-Roe/photo.jpeg")
    assert hashed_id(clean.source_id) == clean.source_id
    assert found.text == {"email": 3, "phone": 5, "card": 2, "person": 2}


GOOD = plant.planted("png")
TURNS = [("user", "<image>What?"), ("assistant", "a dog")]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample([b""], TURNS), "empty"),
        (Sample([b"text"], TURNS), "not-an-image"),
        (Sample([GOOD[:200]], TURNS), "truncated"),
        (Sample([GOOD, GOOD], TURNS), "marker-count"),
        (Sample([], TURNS), "marker-count"),
        (Sample([GOOD], [("robot", "<image>")]), "bad-turns"),
        (Sample([GOOD], [("user", "<image>" + "x" * 200_000)]), "text-too-long"),
        (Sample([GOOD], [("user", "<image>\ud800")]), "bad-text"),
        (Sample([GOOD], [("user", None)]), "bad-text"),  # type: ignore[list-item]
        (Sample([GOOD], TURNS, {"n": 1}), "bad-text"),  # type: ignore[dict-item]
        (Sample([GOOD], TURNS, problem="missing"), "missing"),
        (Sample([None], TURNS), "internal"),  # type: ignore[list-item]
        (Sample(None, TURNS), "internal"),  # type: ignore[arg-type]
    ],
)
def test_bad_record_is_refused_with_a_reason(sample: Sample, reason: str) -> None:
    result = scrub_sample(sample, Policy(), index=7)
    assert isinstance(result, Refusal)
    assert result.reason == reason
    assert str(result).startswith(f"sample 7: {reason}: ") and "\n" not in str(result)


def test_quarantine_is_counted_and_the_others_are_done(tmp_path: Path) -> None:
    good = Sample([GOOD], TURNS)
    seen: list[Refusal] = []
    report = write_shards(
        [good, Sample([b"text"], TURNS), good, Sample([GOOD], problem="missing")],
        tmp_path / "out",
        Policy(),
        on_refusal=seen.append,
    )
    assert (report.samples, dict(report.quarantined)) == (2, {"not-an-image": 1, "missing": 1})
    assert [refusal.index for refusal in seen] == [1, 3]
    reader = ShardReader(tmp_path / "out")
    assert reader.ledger["counts"]["quarantined"] == {"not-an-image": 1, "missing": 1}
    assert len(reader) == 2


def test_a_folder_of_hostile_files_costs_those_files_only(tmp_path: Path) -> None:
    """Through workers, as the command line does it; nothing is half-written, all is counted."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "0.png").write_bytes(GOOD)
    (folder / "a folder.png").mkdir()
    (folder / "cut.png").write_bytes(GOOD[:300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(plant.png(60_000, 60_000, 8, 2, bytes(100_000)))
    frame = b"\x2c" + bytes(4) + b"\1\0\1\0\0" + b"\2\2\x44\1\0"
    head = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6)
    (folder / "frames.gif").write_bytes(head + frame * 10_000 + b";")
    # Its one directory says that the next one is itself.
    entry = b"\0\1\3\0\1\0\0\0\1\0\0\0"
    (folder / "loop.tif").write_bytes(b"II*\0\x08\0\0\0" + b"\1\0" + entry + b"\x08\0\0\0")
    (folder / "polyglot.jpg").write_bytes(plant.planted("jpeg") + b"<script>PLANTED</script>PK")
    (folder / "renamed.jpg").write_bytes(plant.planted("webp"))
    (folder / "text.png").write_bytes(b"no picture")
    (folder / "text.txt").write_bytes(b"caption \xff\xfe")
    (folder / "zip.png").write_bytes(b"PK\3\4" + bytes(200))
    seen: list[Refusal] = []
    report = write_shards(
        build("folder", str(folder)), tmp_path / "out", Policy(), workers=2, on_refusal=seen.append
    )
    assert report.samples == 3  # the whole one, the polyglot's picture, the wrong extension
    reasons = dict(report.quarantined)
    assert sum(reasons.values()) == 7 == len(seen)
    assert reasons["empty"] == reasons["bad-record"] == reasons["truncated"] == 1
    assert reasons["not-an-image"] == 1 and reasons["too-large"] == 1
    assert reasons["too-many-frames"] == 1
    for blob in every_byte(tmp_path / "out"):
        assert b"PLANTED" not in blob and b"<script" not in blob


def test_stop_policy_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ScrubError, match="sample 0: not-an-image: .*on_failure is stop"):
        write_shards([Sample([b"x"], TURNS)], tmp_path / "out", Policy(on_failure="stop"))
    assert list(tmp_path.iterdir()) == []


def test_source_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield Sample([GOOD], TURNS)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="disk"):
        write_shards(failing(), tmp_path / "out", Policy())
    assert list(tmp_path.iterdir()) == []


def test_scrubbing_twice_equals_once() -> None:
    for sample in planted_samples():
        once, _ = scrub_sample(sample, Policy())
        twice, found = scrub_sample(once, Policy())
        assert twice == once
        assert not found.text and not found.metadata


def test_workers_change_nothing(tmp_path: Path) -> None:
    samples = [
        dataclasses.replace(sample, source_id=f"{number}{sample.source_id}")
        for number in range(12)
        for sample in (*planted_samples(), Sample([b"text"], TURNS))
    ]
    for workers in (0, 2):
        write_shards(samples, tmp_path / str(workers), Policy(), workers=workers)
    for name in ("000000.tar", "ledger.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_progress_is_one_line_without_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    write_shards([Sample([GOOD], TURNS)], tmp_path / "out", Policy(), progress=stream)
    assert stream.getvalue().startswith("scrubbed 1, quarantined 0, ")
    assert stream.getvalue().count("\n") == 1


def test_progress_on_a_terminal_has_rate_and_time_left(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(plant.planted("png"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm.privacy.scrub._SHOW_SECONDS", 0.0)
        source = build("folder", str(tmp_path))
        write_shards(source, tmp_path / "out", Policy(), progress=stream)
    shown = stream.getvalue().split("\r\x1b[K")
    assert re.fullmatch(r"scrubbed 9, quarantined 0, \d+/s, 22 % of 40, 0:\d\d left", shown[9])
    assert re.fullmatch(r"scrubbed 40, quarantined 0, \d+/s\n", shown[-1])


def test_what_is_seen_is_covered_counted_or_drops_the_sample(tmp_path: Path) -> None:
    """From a policy's field to shards and ledger, with the detector that the tests install."""
    canvas = Image.new("RGB", (200, 200), "white")
    code = zxingcpp.create_barcode("PLANTED-Jane-Roe", zxingcpp.QRCode)
    canvas.paste(Image.fromarray(numpy.asarray(code.to_image(scale=4))).convert("RGB"), (20, 20))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    samples = [Sample([buffer.getvalue()], TURNS), Sample([GOOD], TURNS)]
    for action in ("keep", "cover", "drop"):
        write_shards(samples, tmp_path / action, Policy(codes=action), workers=0)
    read = {
        action: [
            len(zxingcpp.read_barcodes(numpy.asarray(open_image(sample.images[0]))))
            for sample in ShardReader(tmp_path / action)
        ]
        for action in ("keep", "cover", "drop")
    }
    assert read == {"keep": [1, 0], "cover": [0, 0], "drop": [0]}
    ledgers = {action: ShardReader(tmp_path / action).ledger for action in read}
    assert ledgers["keep"]["counts"]["visible"] == {} and "codes" not in ledgers["keep"]["tools"]
    assert ledgers["cover"]["counts"]["visible"]["code"] >= 1
    assert ledgers["cover"]["tools"]["codes"].startswith("zxing-cpp ")
    assert ledgers["drop"]["counts"]["quarantined"] == {"visible": 1}


def test_a_kind_that_the_policy_drops_costs_the_sample(tmp_path: Path) -> None:
    samples = [
        Sample([GOOD], [("user", "<image>Whose?"), ("assistant", words)])
        for words in ("jane@example.com", "nobody's", "010-1234-5678")
    ]
    report = write_shards(samples, tmp_path / "out", Policy(text={"email": "drop"}))
    assert dict(report.quarantined) == {"personal-text": 1}
    assert dict(report.text) == {"phone": 1}  # of what was passed on
    report = write_shards(samples, tmp_path / "kept", Policy(text_default="keep"))
    assert report.samples == 3
    assert ShardReader(tmp_path / "kept")[0].turns[1][1] == "jane@example.com"
