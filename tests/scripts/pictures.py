"""Picture files for the tests of scripts: good ones, and every kind of bad one."""

import io
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path

from PIL import Image

SECRET = "SECRET-TEXT-INSIDE"


def encoded(kind: str = "PNG", shade: int = 200, size: tuple[int, int] = (40, 30)) -> bytes:
    image = Image.new("RGB", size, (250, 250, 250))
    image.paste((shade, 30, 255 - shade), (5, 5, 20, 25))
    # Some noise, so that a file has enough bytes to be cut in its pixels.
    noise = random.Random(shade)
    for _ in range(300):
        image.putpixel(
            (noise.randrange(size[0]), noise.randrange(size[1])), (noise.randrange(256), 9, 90)
        )
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


def make_bad_inputs(folder: Path) -> dict[str, str]:
    """Write bad inputs into a folder; return each path and a part of the reason to be told."""
    jpeg, png = encoded("JPEG"), encoded("PNG")
    broken_crc = bytearray(png)
    broken_crc[png.index(b"IDAT") + 4 + 20] ^= 0xFF
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside.txt", SECRET)
    files = {
        "empty.jpg": (b"", "empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "truncated.webp": (encoded("WEBP")[:60], "truncated"),
        "truncated.gif": (encoded("GIF")[:400], "truncated"),
        "header-only.jpg": (jpeg[:20], "truncated"),
        "text.jpg": (f"just text, {SECRET}".encode(), "not-an-image"),
        "page.png": (f"<!DOCTYPE html><p>{SECRET}</p>".encode(), "not-an-image"),
        "random.jpg": (random.Random(0).randbytes(3000), "not-an-image"),
        "archive.png": (archive.getvalue(), "not-an-image"),
        "document.jpg": (f"%PDF-1.7\n{SECRET}".encode(), "PDF is not read"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read"),
        "new.avif": (b"\0\0\0\x1cftypavif" + b"\0" * 40, "corrupt"),
        "bomb.png": (png_header(60_000, 60_000), "too-large"),
        "nothing.png": (png_header(0, 5), "corrupt"),
        "broken-crc.png": (bytes(broken_crc), "corrupt"),
        "그림 \u202e.png": (b"\x89PNG\r\n\x1a\nno chunks here at all", "corrupt"),
    }
    reasons: dict[str, str] = {}
    for name, (content, reason) in files.items():
        (folder / name).write_bytes(content)
        reasons[str(folder / name)] = reason
    (folder / "no-pictures").mkdir()
    (folder / "no-pictures" / "notes.txt").write_text(SECRET)
    (folder / "broken-link.png").symlink_to(folder / "gone.png")
    os.mkfifo(folder / "pipe.png")
    return reasons | {
        str(folder / "no-pictures"): "no picture in this folder",
        str(folder / "broken-link.png"): "missing",
        str(folder / "pipe.png"): "not a regular file",
        "/dev/zero": "not a regular file",
        str(folder / "missing.png"): "missing",
        str(folder / "text.jpg" / "below.png"): "missing",
        str(folder / "line\nbreak.png"): "missing",
        str(folder / ("very-long-" * 40 + ".png")): "unreadable",
        str(folder / "*.nothing"): "no file matches",
    }
