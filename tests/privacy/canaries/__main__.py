"""Count what survives of every planted secret: `python -m tests.privacy.canaries`."""

import io
from collections import Counter

from PIL import Image

from mm.privacy import door
from mm.privacy.metadata import check_pixels_only
from tests.privacy.canaries import Canary, all_canaries, finds, pixel_bytes, shows_magenta

ENCODINGS = (("png", 92), ("webp", 100), ("webp", 90), ("jpeg", 92))


def survivors(canary: Canary, longest_side: int | None = None) -> list[str]:
    """Send a file through the door into each encoding and name what is left of its secrets."""
    left = []
    for encoding, quality in ENCODINGS:
        out = door.recode(canary.data, encoding, quality, longest_side=longest_side)
        check_pixels_only(out)
        image = Image.open(io.BytesIO(out))
        blobs = [out, *pixel_bytes(image)]
        left += [f"{encoding}: text"] * any(finds(blob) for blob in blobs)
        left += [f"{encoding}: magenta"] * shows_magenta(image)
    return left


def main() -> None:
    """Print a table."""
    files: Counter[str] = Counter()
    secrets: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for canary in all_canaries():
        kind = canary.name.split()[0]
        files[kind] += 1
        secrets[kind] += canary.num_secrets
        for name in survivors(canary):
            left[kind] += 1
            print(f"SURVIVES {canary.name}: {name}")
    for kind, number in secrets.items():
        print(f"{kind:6s} {files[kind]:3d} files {number:5d} secrets {left[kind]:3d} survive")
    total = (files.total(), secrets.total(), left.total())
    print(f"total  {total[0]:3d} files {total[1]:5d} secrets {total[2]:3d} survive", end=" ")
    print(f"(each written as {', '.join(sorted({e for e, _ in ENCODINGS}))})")


if __name__ == "__main__":
    main()
