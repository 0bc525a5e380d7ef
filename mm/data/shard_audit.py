"""Read shards back and check everything in them, independently of the scrubbing that made them."""

import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mm.data.sample import Sample
from mm.data.shard_format import END, unpack
from mm.privacy.errors import ScrubError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy
from mm.privacy.scrub import hashed_id
from mm.privacy.text import find_all
from mm.privacy.worker import Lost, run_ordered

_SAMPLES = 128  # at a time, by one process
_SECONDS = 3600.0  # for so many


def check_clean(sample: Sample, policy: Policy) -> list[str]:
    """Check that a sample holds nothing that scrubbing would remove.

    Returns:
        The format of each picture.

    Raises:
        PrivacyError: a picture with more than pixels, a text in which a rule finds something.
    """
    kinds = [check_pixels_only(data) for data in sample.images]
    texts = [words for _, words in sample.turns]
    texts += [words for pair in sample.tags.items() for words in pair]
    for words in texts:
        if left := find_all(words, policy.text_rules, policy.phone_regions, names=policy.names):
            raise ScrubError(f"a text still holds what rule {left[0].kind!r} finds: scrub it first")
    if hashed_id(sample.source_id) != sample.source_id:
        raise ScrubError("a source_id is not a hash: scrub the sample first")
    return kinds


def audit_shards(
    directory: Path, shards: Iterable[Mapping[str, Any]], policy: Policy, workers: int = 0
) -> dict[str, int]:
    """Read finished shards from disk and check everything in them.

    Args:
        directory: where they lie.
        shards: the ledger's entries: file and offsets.
        policy: the policy that they were made under.
        workers: processes; 0 checks in this one.

    Returns:
        How many pictures and texts were checked.

    Raises:
        PrivacyError: something is there that scrubbing should have removed.
    """
    checked: Counter[str] = Counter(pictures=0, texts=0)
    check = partial(audit_samples, policy=policy)
    jobs = [
        job for shard in shards for job in _jobs(directory / shard["file"], list(shard["offsets"]))
    ]
    results: Iterator[dict[str, int] | Lost] = map(check, jobs)
    if workers > 1 and len(jobs) > 1:
        results = run_ordered(check, jobs, workers=min(workers, len(jobs)), seconds=_SECONDS)
    for result in results:
        if isinstance(result, Lost):
            raise ScrubError("a process died while auditing (out of memory?): use workers=0")
        checked.update(result)
    return dict(checked)


def _jobs(path: Path, offsets: list[int]) -> Iterator[tuple[str, list[int]]]:
    """Yield stretches of a shard, each with the bounds of its samples, once these fill the file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - len(END)))
        bounds = [*offsets, size - len(END)]
        if bounds[0] != 0 or file.read() != END:
            raise ScrubError(f"{path.name} holds bytes outside its samples")
    for start in range(0, len(offsets), _SAMPLES):
        yield str(path), bounds[start : start + _SAMPLES + 1]


def audit_samples(job: tuple[str, list[int]], policy: Policy) -> dict[str, int]:
    """Check the samples of a shard that lie between these bounds."""
    path, bounds = job
    pictures = texts = 0
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for start, end in zip(bounds, bounds[1:], strict=False):
            sample = unpack(data[start:end]).sample
            check_clean(sample, policy)
            pictures += len(sample.images)
            texts += len(sample.turns) + 2 * len(sample.tags)
    return {"pictures": pictures, "texts": texts}
