"""Measure how fast pictures are scrubbed, beside what else is used for it, and what that leaves.

The pictures are JPEGs of about a megapixel with a secret in their EXIF, a comment, an XMP packet
and behind their end; or those of a folder. Every tool gets the same files and runs in a process of
its own, as its users run it. Times are processor seconds, so that other work on the machine
matters little; starting and importing are not counted for the libraries, and are for the programs,
which get all files in one call where they can.
"""

import os
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mm.privacy import door
from mm.privacy.metadata import check_pixels_only, count_metadata
from mm.privacy.profile import matrix_profile

_SECRET = b"Pl4nted-s3cret-owner"
_QUALITY = 90

# Peers, run with `python -c` and the folder as argument; each prints processor seconds.
_PEER = """
import io, pathlib, sys, time
{imports}
files = sorted(pathlib.Path(sys.argv[1]).glob("*.jpg"))
blobs = [file.read_bytes() for file in files]
def one(data):
{body}
one(blobs[0])
start = time.process_time()
outs = [one(data) for data in blobs]
print(time.process_time() - start)
for file, out in zip(files, outs):
    file.write_bytes(out)
"""
_PILLOW = """
    image, out = Image.open(io.BytesIO(data)), io.BytesIO()
    {change}
    image.save(out, "JPEG", quality={quality})
    return out.getvalue()
"""
_ICC = """
    source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    image.info = {}
"""
_SHRINK = "image.draft('RGB', (512, 512)); image.thumbnail((512, 512))"
_TORCHVISION = """
    pixels = io_.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return io_.encode_jpeg(pixels, {quality}).numpy().tobytes()
"""
_PEERS = {
    "Pillow, save": ("from PIL import Image", _PILLOW.format(change="pass", quality=_QUALITY)),
    "Pillow, ICC to sRGB, save": (
        "from PIL import Image, ImageCms",
        _PILLOW.format(change=_ICC.strip(), quality=_QUALITY),
    ),
    "Pillow, draft, 512 px, save": (
        "from PIL import Image",
        _PILLOW.format(change=_SHRINK, quality=_QUALITY),
    ),
    "torchvision, decode, encode": (
        "import torch; torch.set_num_threads(1); import torchvision.io as io_",
        _TORCHVISION.format(quality=_QUALITY),
    ),
}
_PROGRAMS: dict[str, tuple[list[str], bool]] = {  # arguments before the files; all files at once?
    "exiftool -all=": (["exiftool", "-q", "-q", "-overwrite_original", "-all="], True),
    "mat2": (["mat2", "--inplace"], True),
    "jpegtran -copy none": (["jpegtran", "-copy", "none", "-outfile"], False),
}


@dataclass
class Row:
    """What one tool did.

    Args:
        name: the tool.
        per_second: pictures a second on one core, from processor time; the middle of all rounds.
        leaves: share of the files in which a planted secret is left; None without planted ones.
    """

    name: str
    per_second: float
    leaves: float | None


def make_pictures(directory: Path, number: int, size: tuple[int, int], profile: bytes) -> None:
    """Write JPEGs with the spectrum of photographs, and secrets in them."""
    import numpy

    width, height = size
    rng = numpy.random.default_rng(0)
    ramp = numpy.hypot(numpy.fft.fftfreq(height)[:, None], numpy.fft.rfftfreq(width)[None])
    ramp[0, 0] = 1
    for index in range(number):
        bands = []
        for _ in range(3):
            noise = rng.normal(size=(height, width // 2 + 1, 2)).view(numpy.complex128)[..., 0]
            band = numpy.fft.irfft2(noise / ramp**1.3, s=(height, width))
            bands.append((band - band.mean()) / band.std())
        mixed = [128 + 45 * (0.8 * bands[0] + 0.35 * band) for band in bands]
        array = numpy.clip(numpy.stack(mixed, -1), 0, 255).astype(numpy.uint8)
        data = door.encode_jpeg(array, _QUALITY)
        block = b"Exif\0\0II*\0\x08\0\0\0\1\0\x3b\1\2\0" + struct.pack("<II", len(_SECRET), 26)
        extra = [(0xE1, block + b"\0\0\0\0" + _SECRET), (0xFE, _SECRET)]
        extra += [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _SECRET)]
        extra += [(0xE2, b"ICC_PROFILE\0\1\1" + profile)] if profile else []
        head = b"".join(struct.pack(">BBH", 0xFF, m, len(body) + 2) + body for m, body in extra)
        (directory / f"{index:04}.jpg").write_bytes(data[:20] + head + data[20:] + _SECRET)


def wide_profile() -> bytes:
    """Make a profile with the primaries and curve of Adobe RGB (1998), to convert from."""
    red, green = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087)
    return matrix_profile((red, green, (0.14919, 0.06322, 0.74457)), 2.19921875)


def bench_scrub(
    folder: Path | None = None, *, pictures: int = 40, rounds: int = 3, seconds: float = 6.0
) -> dict[str, Any]:
    """Measure every tool that is installed.

    Args:
        folder: JPEGs to take instead of made ones.
        pictures: how many to make.
        rounds: each tool runs so often, taking turns.
        seconds: how long the scaling over processes is measured for.

    Returns:
        Rows, scaling and what they were measured on, as plain data.
    """
    with tempfile.TemporaryDirectory() as name:
        plain, tagged = Path(name, "plain"), Path(name, "tagged")
        plain.mkdir()
        if folder is None:
            make_pictures(plain, pictures, (1152, 864), b"")
            tagged.mkdir()
            make_pictures(tagged, pictures, (1152, 864), wide_profile())
        else:
            for file in sorted(folder.glob("*.jp*g"))[:pictures]:
                shutil.copy(file, plain / f"{file.stem}.jpg")
        files = sorted(plain.glob("*.jpg"))
        if not files:
            raise ValueError(f"no JPEGs in {folder}: name a folder that has some")
        rates: dict[str, list[float]] = {}
        leaves: dict[str, float] = {}
        for _ in range(rounds):
            for tool, source, run in _tools(plain, tagged):
                if not source.exists():  # profiles are in made pictures only
                    continue
                with tempfile.TemporaryDirectory() as copy:
                    for file in source.glob("*.jpg"):
                        shutil.copy(file, copy)
                    spent = run(Path(copy))
                    outs = [file.read_bytes() for file in Path(copy).glob("*.jpg")]
                rates.setdefault(tool, []).append(len(files) / spent)
                leaves[tool] = sum(_SECRET in out for out in outs) / len(files)
        rows = [
            Row(tool, statistics.median(values), leaves[tool] if folder is None else None)
            for tool, values in rates.items()
        ]
        sizes = [file.stat().st_size for file in files]
        scaling = {workers: _throughput(files, workers, seconds) for workers in (1, 2)}
    return {
        "rows": [asdict(row) for row in rows],
        "scaling": scaling,
        "pictures": len(files),
        "bytes": statistics.mean(sizes),
        "quality": _QUALITY,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
    }


def _tools(plain: Path, tagged: Path) -> list[tuple[str, Path, Callable[[Path], float]]]:
    tools: list[tuple[str, Path, Callable[[Path], float]]] = [
        ("mm, full size", plain, lambda copy: _ours(copy, None)),
        ("mm, ICC to sRGB", tagged, lambda copy: _ours(copy, None)),
        ("mm, 512 px", plain, lambda copy: _ours(copy, 512)),
    ]
    for name, (imports, body) in _PEERS.items():
        code = _PEER.format(imports=imports, body=body)
        source = tagged if "ICC" in name else plain
        tools.append((name, source, lambda copy, code=code: _library(code, copy)))  # type: ignore[misc]
    for name, (command, at_once) in _PROGRAMS.items():
        if shutil.which(command[0]):
            tools.append(
                (name, plain, lambda copy, c=command, a=at_once: _program(c, copy, a))  # type: ignore[misc]
            )
    return tools


def scrubbed(data: bytes, longest_side: int | None = None) -> bytes:
    """Do what scrubbing does to a picture: count, clean, encode, prove."""
    count_metadata(data)
    out = door.recode(data, "jpeg", _QUALITY, longest_side=longest_side)
    check_pixels_only(out)
    return out


def _ours(copy: Path, longest_side: int | None) -> float:
    files = sorted(copy.glob("*.jpg"))
    blobs = [file.read_bytes() for file in files]
    scrubbed(blobs[0], longest_side)  # loads libraries and makes tables
    start = time.process_time()
    outs = [scrubbed(data, longest_side) for data in blobs]
    spent = time.process_time() - start
    for file, out in zip(files, outs, strict=True):
        file.write_bytes(out)
    return spent


def _library(code: str, copy: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _program(command: list[str], copy: Path, at_once: bool) -> float:
    files = [str(file) for file in sorted(copy.glob("*.jpg"))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    calls = [[*command, *files]] if at_once else [[*command, file, file] for file in files]
    for call in calls:
        subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for cleaned in copy.glob("*.cleaned.jpg"):
        cleaned.replace(copy / cleaned.name.replace(".cleaned", ""))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _throughput(files: list[Path], workers: int, seconds: float) -> float:
    """Return pictures a second of so many worker processes, by the clock."""
    from mm.privacy.worker import run_ordered

    blobs = [file.read_bytes() for file in files]
    end = time.monotonic() + 600

    def items() -> Any:
        index = 0
        while time.monotonic() < end:
            yield blobs[index % len(blobs)]
            index += 1

    results: Any = run_ordered(scrubbed, items(), workers=workers)
    for _ in range(4 * workers):  # until every process has started
        next(results)
    start, count = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        next(results)
        count += 1
    spent = time.monotonic() - start
    results.close()
    return count / spent


def run(words: list[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure with a command line's words: a folder of JPEGs, or none."""
    return bench_scrub(Path(words[0]) if words else None, rounds=options.get("repeats", 3))


def table(result: dict[str, Any]) -> str:
    """Format a result for people."""
    lines = [f"{'':30s} pictures/s per core   files with a secret left"]
    for row in result["rows"]:
        left = "" if row["leaves"] is None else f"{row['leaves']:.0%}"
        lines.append(f"{row['name']:30s} {row['per_second']:19.0f} {left:>26s}")
    for workers, rate in result["scaling"].items():
        lines.append(f"mm, {workers} worker process(es): {rate:.0f} pictures/s by the clock")
    lines.append(
        f"{result['pictures']} pictures of {result['bytes'] / 1024:.0f} KiB, quality"
        f" {result['quality']}, {result['machine']}, load {result['load']:.1f}"
    )
    return "\n".join(lines)
