"""Bring pinned packages into a cache folder with the package managers' own clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


class FetchError(Exception):
    """A package could not be fetched; the message is one line for the user."""


def npm_package(name: str, version: str, cache: Path) -> Path:
    """Fetch `name@version` with `npm pack` once and return its unpacked folder.

    Raises:
        FetchError: npm is missing, or it could not fetch the package.
    """
    folder = _folder(cache, "npm", name, version)
    if not folder.exists():
        with _Download(folder) as download:
            command = ["npm", "pack", "--silent", f"{name}@{version}"]
            _run(command, download.downloads, "install Node.js, which brings npm")
            with tarfile.open(download.only_file("*.tgz")) as archive:
                archive.extractall(download.unpacked, filter="data")
    return folder / "package"


def python_package(name: str, version: str, cache: Path) -> Path:
    """Fetch a source distribution or a wheel with `pip download` once; return its unpacked folder.

    Raises:
        FetchError: pip could not fetch the package.
    """
    folder = _folder(cache, "pypi", name, version)
    if not folder.exists():
        with _Download(folder) as download:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-build-isolation", "--disable-pip-version-check"]
            command += ["--only-binary", ":all:", f"{name}=={version}"]
            _run(command, download.downloads, "install pip in this environment")
            with zipfile.ZipFile(download.only_file("*.whl")) as archive:
                archive.extractall(download.unpacked)
    return folder


def debian_package(name: str, version: str, cache: Path) -> Path:
    """Fetch a Debian package with `apt-get download` once and return its unpacked folder.

    Raises:
        FetchError: this system is not a Debian, or its sources lack the package or version.
    """
    folder = _folder(cache, "debian", name, version or "newest")
    if not folder.exists():
        with _Download(folder) as download:
            wanted = f"{name}={version}" if version else name
            hint = "run on Debian after 'apt-get update', or leave the set out with --skip"
            _run(["apt-get", "download", wanted], download.downloads, hint)
            archive = str(download.only_file("*.deb").resolve())
            _run(
                ["dpkg", "-x", archive, str(download.unpacked.resolve())], download.downloads, hint
            )
    return folder


class _Download:
    """A pair of scratch folders that becomes the cache folder only once everything worked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.downloads = folder.with_name(folder.name + ".download")
        self.unpacked = folder.with_name(folder.name + ".unpacked")

    def __enter__(self) -> _Download:
        for scratch in (self.downloads, self.unpacked):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.unpacked.rename(self._folder)
        for scratch in (self.downloads, self.unpacked):
            shutil.rmtree(scratch, ignore_errors=True)

    def only_file(self, pattern: str) -> Path:
        found = list(self.downloads.glob(pattern))
        if len(found) != 1:
            raise FetchError(f"expected one {pattern} of {self._folder.name}, found {len(found)}")
        return found[0]


def _folder(cache: Path, manager: str, name: str, version: str) -> Path:
    return cache / manager / f"{name.replace('/', '+')}@{version.replace(':', '+')}"


def _run(command: list[str], folder: Path, hint: str) -> None:
    if shutil.which(command[0]) is None:
        raise FetchError(f"{command[0]} is not installed: {hint}")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        detail = lines[-1] if lines else f"exit status {result.returncode}"
        raise FetchError(f"'{' '.join(command)}' failed: {detail} ({hint})")
