"""Count what the usual ways of removing metadata leave: `python -m tests.privacy.canaries.idioms`.

The same files as `python -m tests.privacy.canaries`; a secret survives if its token is anywhere in
what is written, or magenta in any frame of it. Programs that are not installed are left out.
"""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps, ImageSequence

from mm.privacy import door
from tests.privacy.canaries import (
    Canary,
    all_canaries,
    inflated,
    needles,
    pixel_bytes,
    shows_magenta,
)

_ENDINGS = {"apng": "png", "jp2": "jp2", "j2k": "j2k"}


def _saved(image: Image.Image, kind: str | None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain_save(canary: Canary) -> bytes:
    """Open and save, with what Pillow takes along by itself."""
    image = Image.open(io.BytesIO(canary.data))
    return _saved(image, image.format)


def turn_and_save(canary: Canary) -> bytes:
    """Turn as EXIF says, then save."""
    image = Image.open(io.BytesIO(canary.data))
    kind = image.format
    return _saved(ImageOps.exif_transpose(image), kind)


def paste_and_save(canary: Canary) -> bytes:
    """Paste the picture into a new one of the same mode."""
    image = Image.open(io.BytesIO(canary.data))
    clean = Image.new(image.mode, image.size)
    if image.mode == "P":
        clean.putpalette(image.getpalette() or [])
    clean.paste(image)
    return _saved(clean, image.format)


def _program(*command: str) -> Callable[[Canary], bytes]:
    def run(canary: Canary) -> bytes:
        kind = canary.name.split()[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"picture.{_ENDINGS.get(kind, kind)}")
            path.write_bytes(canary.data)
            subprocess.run([*command, str(path)], capture_output=True, check=True, timeout=60)
            return path.read_bytes()

    return run


def by_the_door(canary: Canary) -> bytes:
    """Send it through the door."""
    return door.recode(canary.data, "png", 92)


def survivors(canary: Canary, out: bytes) -> int:
    """Count the planted secrets that a written file still holds."""
    blobs = [out, *inflated(out)]
    magenta = False
    try:
        for frame in ImageSequence.Iterator(Image.open(io.BytesIO(out))):
            blobs += pixel_bytes(frame)
            flat = frame.convert("RGBA")
            flat.putalpha(255)
            magenta = magenta or shows_magenta(flat)
    except (OSError, ValueError, SyntaxError):
        pass  # counted by what its bytes hold
    left = sum(
        any(needle in blob for needle in needles(token) for blob in blobs)
        for token in canary.tokens.values()
    )
    return left + (len(canary.pixels) if magenta else 0)


def main() -> None:
    """Print a table."""
    idioms: dict[str, Callable[[Canary], bytes]] = {
        "Pillow save": plain_save,
        "Pillow exif_transpose, save": turn_and_save,
        "Pillow paste into a new picture": paste_and_save,
    }
    if shutil.which("exiftool"):
        idioms["exiftool -all="] = _program("exiftool", "-all=", "-overwrite_original")
    if shutil.which("mat2"):
        idioms["mat2"] = _program("mat2", "--inplace")
    idioms["mm.privacy.door"] = by_the_door
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    canaries = all_canaries()
    print(f"{len(canaries)} files, {sum(canary.num_secrets for canary in canaries)} secrets")
    for name, idiom in idioms.items():
        left = files = refused = 0
        for canary in canaries:
            try:
                found = survivors(canary, idiom(canary))
            except (OSError, ValueError, KeyError, SyntaxError, subprocess.SubprocessError):
                refused += 1
                continue
            left, files = left + found, files + (found > 0)
        print(f"{name:32s} {left:5d} survive in {files:2d} files; {refused:2d} refused", flush=True)


if __name__ == "__main__":
    main()
