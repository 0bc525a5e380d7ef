"""The scrub benchmark runs every tool on the same files and sees what each leaves."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm.privacy import colour
from mm.privacy.metadata import count_metadata
from mm.report import bench_scrub


def test_made_pictures_hold_what_is_looked_for(tmp_path: Path) -> None:
    bench_scrub.make_pictures(tmp_path, 2, (96, 64), bench_scrub.wide_profile())
    data = (tmp_path / "0000.jpg").read_bytes()
    assert data.count(bench_scrub._SECRET) == 4
    found = count_metadata(data)
    expected = {"exif": 1, "author": 1, "comment": 1, "xmp": 1, "icc": 1, "trailing_data": 1}
    assert expected.items() <= found.items()
    image = Image.open(io.BytesIO(data))
    assert image.size == (96, 64) and np.asarray(image).std() > 20
    assert not colour.is_srgb(bench_scrub.wide_profile())
    assert image.getexif()[0x013B] == bench_scrub._SECRET.decode()


def test_table_has_our_rows_beside_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_scrub.make_pictures(tmp_path, 2, (96, 64), b"")
    pillow = {"Pillow, save": bench_scrub._PEERS["Pillow, save"]}
    monkeypatch.setattr(bench_scrub, "_PEERS", pillow)
    monkeypatch.setattr(bench_scrub, "_PROGRAMS", {"nothing": (["no-such-program"], True)})
    monkeypatch.setattr(bench_scrub, "_throughput", lambda files, workers, seconds: 10.0 * workers)
    made = bench_scrub.make_pictures

    def small(directory: Path, number: int, size: tuple[int, int], profile: bytes) -> None:
        made(directory, number, (96, 64), profile)

    monkeypatch.setattr(bench_scrub, "make_pictures", small)
    result = bench_scrub.bench_scrub(pictures=2, rounds=1)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["mm, full size", "mm, ICC to sRGB", "mm, 512 px", "Pillow, save"]
    assert [row["leaves"] for row in rows.values()] == [0, 0, 0, 1]
    assert all(row["per_second"] > 0 for row in rows.values())
    assert "2 worker process(es): 20 pictures/s" in bench_scrub.table(result)
    with pytest.raises(ValueError, match="no JPEGs in"):
        bench_scrub.bench_scrub(tmp_path / "none")


def test_scrubbed_is_as_large_as_asked() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1000, 600), 40).convert("RGB").save(buffer, "JPEG")
    out = bench_scrub.scrubbed(buffer.getvalue(), 512)
    assert Image.open(io.BytesIO(out)).size == (512, 307)
