"""Readers of input formats: module `mm.data.sources.foo` holds the class `Source` named `foo`.

A source is made as `Source(path, **options)` and iterated for `Sample`s with raw pictures. It
streams, never decodes a picture, and yields a sample with a `problem` for what it cannot read.
`records()` gives the same samples before their picture files are read, which is cheap to skip and
to send to another process; `count()` says how many there are, where that is quick to know.
"""

from collections.abc import Iterable
from typing import Any

from mm.data.sample import Sample
from mm.registry import Registry

REGISTRY = Registry("source", "mm.data.sources", "Source", exclude=("files",))


def names() -> list[str]:
    """List the known formats."""
    return REGISTRY.names()


def get(name: str) -> Any:  # a class whose instances are Iterable[Sample]
    """Return the `Source` class of a format."""
    return REGISTRY.get(name)


def build(name: str, path: str, **options: Any) -> Iterable[Sample]:  # options are the source's own
    """Open `path` as a source of the named format."""
    source: Iterable[Sample] = get(name)(path, **options)
    return source
