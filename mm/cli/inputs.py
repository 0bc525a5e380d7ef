"""From arguments to pictures: files, folders, patterns, paths on stdin."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from mm.privacy.containers import ALLOWED, sniff


@dataclass(frozen=True)
class Source:
    """A picture to look at, or why a path leads to none; or a place that asks without a picture."""

    path: str
    problem: str | None = None
    is_picture: bool = True


def find_pictures(arguments: Sequence[str], stdin: TextIO | None = None) -> list[Source]:
    """Turn arguments into pictures, in order.

    Args:
        arguments: files; folders, searched for pictures by content; patterns as `*.png`; and `-`
            for one path a line (or between null bytes) on `stdin`.
    """
    found: list[Source] = []
    for argument in arguments:
        if argument == "-":
            text = (stdin or sys.stdin).read()
            for path in text.split("\0" if "\0" in text else "\n"):
                found += _in_path(path) if path else []
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            matches = sorted(glob.glob(argument, recursive=True))
            for path in matches:
                found += _in_path(path)
            if not matches:
                found.append(Source(argument, "no file matches this pattern"))
        else:
            found += _in_path(argument)
    return found


def _in_path(path: str) -> Iterator[Source]:
    """The file itself, or the pictures in a folder and its folders; hidden ones are left out."""
    if not os.path.isdir(path):
        yield Source(path)
        return
    empty = True
    unreadable: list[str] = []
    for folder, folders, names in os.walk(path, onerror=lambda e: unreadable.append(e.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = os.path.join(folder, name)
            if not name.startswith(".") and _is_picture(file):
                empty = False
                yield Source(file)
    for folder in unreadable:
        yield Source(folder, "folder cannot be read: check its permissions")
    if empty and not unreadable:
        yield Source(path, "no picture in this folder: JPEG, PNG, WebP, GIF, TIFF or BMP is read")


def _is_picture(path: str) -> bool:
    try:
        if not os.path.isfile(path):  # a pipe or a device could hang us
            return False
        with open(path, "rb") as file:
            return sniff(file.read(64)) in ALLOWED
    except OSError:
        return True  # tried like any other, so that the reason is told
