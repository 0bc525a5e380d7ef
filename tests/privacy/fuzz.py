"""Damage files of every format and send them through the door in a worker.

`python -m tests.privacy.fuzz [FILES]` does 20,000 and prints what came of them: a clean picture
that passes the strict proof and holds no planted secret, or a refusal. Each file is made from its
number alone, so that a finding can be repeated.
"""

import random
import sys
import time
from collections import Counter
from functools import lru_cache

from PIL import Image

from mm.privacy import door
from mm.privacy.errors import DoorError
from mm.privacy.metadata import check_pixels_only, count_metadata
from mm.privacy.worker import Lost, run_ordered
from tests.privacy.canaries import all_canaries, boxed, finds, picture
from tests.privacy.colours import adobe_rgb, photo, saved

SECONDS = 5.0
MEMORY = 2**30
_NUMBERS = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0")


@lru_cache(1)
def bases() -> dict[str, list[bytes]]:
    """Return undamaged files by format."""
    found: dict[str, list[bytes]] = {}
    for canary in all_canaries():
        found.setdefault(canary.name.split()[0], []).append(canary.data)
    small, large = picture(80, 56), photo(240, 160)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"):
        name = {"JPEG2000": "jp2"}.get(kind, kind.lower())
        found[name] += [saved(image, kind) for image in (small, large)]
    found["jpeg"].append(saved(large, "JPEG", progressive=True, icc_profile=adobe_rgb()))
    found["png"].append(saved(large.convert("RGBA"), "PNG"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        image = large.convert("1") if compression == "group4" else large
        found["tiff"].append(saved(image, "TIFF", compression=compression))
    frames = [Image.new("P", (60, 40), k) for k in range(5)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        name = "apng" if kind == "PNG" else kind.lower()
        data = saved(frames[0].convert("RGB"), kind, save_all=True, append_images=frames[1:])
        found[name].append(data)
    if "heic" in found:
        found["heic"].append(boxed.heic(large))
    return found


def damaged(number: int) -> tuple[str, bytes]:
    """Make file `number`: its format, and its bytes."""
    rng = random.Random(number)
    kinds = sorted(bases())
    kind = kinds[number % len(kinds)]
    data = bytearray(rng.choice(bases()[kind]))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if len(data) < 2:
            break
        reach = rng.choice((64, 512, len(data)))  # headers are where structure is
        at = rng.randrange(max(1, min(len(data), reach)))
        match rng.randrange(8):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.randrange(256)
            case 3:
                value = rng.choice(_NUMBERS)
                data[at : at + len(value)] = value
            case 4:
                del data[rng.randrange(1, len(data)) :]
            case 5:  # a piece of another file, of whatever format
                other = rng.choice(bases()[rng.choice(kinds)])
                start = rng.randrange(len(other))
                data[at : at + rng.randrange(200)] = other[start : start + rng.randrange(400)]
            case 6:  # a piece of itself, again
                data[at:at] = data[at : at + rng.randrange(300)]
            case _:
                del data[at : at + rng.randrange(1, 100)]
    return kind, bytes(data)


def clean(item: tuple[int, bytes]) -> tuple[str, float, int]:
    """Send one damaged file through the door: the outcome, seconds, peak bytes."""
    import resource

    number, data = item
    start = time.monotonic()
    try:
        small = 40 if number % 5 == 0 else None
        encoding = ("png", "webp", "jpeg")[number % 3]
        out = door.recode(data, encoding, 90, longest_side=small)
    except DoorError as error:
        outcome = error.reason
    else:
        check_pixels_only(out)
        outcome = "LEAK" if finds(out) else "clean"
    count_metadata(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return outcome, time.monotonic() - start, peak


def run(numbers: range, workers: int) -> tuple[Counter[str], float, int]:
    """Clean damaged files in workers: outcomes, the slowest in seconds, the largest in bytes."""
    outcomes: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    files = ((number, damaged(number)[1]) for number in numbers)
    results = run_ordered(clean, files, workers=workers, seconds=SECONDS, memory_bytes=MEMORY)
    for number, result in zip(numbers, results, strict=True):
        if isinstance(result, Lost):
            outcomes["LOST"] += 1
            print(f"file {number} ({damaged(number)[0]}): {result.reason}", file=sys.stderr)
            continue
        outcome, seconds, peak = result
        if outcome == "LEAK":
            print(f"file {number} ({damaged(number)[0]}): LEAK", file=sys.stderr)
        outcomes[outcome] += 1
        slowest, largest = max(slowest, seconds), max(largest, peak)
    return outcomes, slowest, largest


def main() -> None:
    """Print what came of them."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    start = time.monotonic()
    outcomes, slowest, largest = run(range(number), workers=2)
    for name, count in outcomes.most_common():
        print(f"{name:16s} {count:6d}")
    print(
        f"{number} files over {len(bases())} formats in {time.monotonic() - start:.0f} s;", end=" "
    )
    print(f"slowest {slowest:.2f} s, largest process {largest / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
