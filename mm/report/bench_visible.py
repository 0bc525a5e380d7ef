"""Measure what the detectors of the visible find on scenes with known contents, and what they cost.

Found means that nine tenths of the box of what was planted are covered. Times are processor
seconds, those of tesseract included, on one core.
"""

import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.intervals import Proportion
from mm.privacy import door, visible
from mm.privacy.errors import ScrubError
from mm.privacy.policy import Policy
from mm.privacy.scrub import Refusal, scrub_sample
from mm.privacy.visible.boxes import FILL
from mm.report import visible_scenes, visible_signs
from mm.report.visible_scenes import Scene

COVERED = 0.9
SEED = 0
FACE_SIDES = (12, 16, 24, 48, 96, 192, 384)
_FIELDS = ("faces", "codes", "plates", "text_in_pictures")
_CACHE = Path("artwork/cache")


def covering(*names: str) -> Policy:
    """Return a policy that covers what these fields name and keeps the rest of what is seen."""
    actions = {name: "cover" if name in names else "keep" for name in _FIELDS}
    return replace(Policy(encoding="jpeg", quality=90), **actions)  # type: ignore[arg-type]


def covered_share(image: Image.Image, box: visible_scenes.Box) -> float:
    """Return the share of a box that has the covering colour."""
    left, top, right, bottom = (max(0, side) for side in box)
    inside = numpy.asarray(image)[top:bottom, left:right]
    return float((inside == numpy.array(FILL)).all(-1).mean())


def recall(scenes: Iterable[Scene], policy: Policy) -> dict[str, Proportion]:
    """Count, in all and by group, how many planted things were covered."""
    hits: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for scene in scenes:
        clean, _ = visible.clean(scene.image, policy)
        found = clean is None or covered_share(clean, scene.planted.box) >= COVERED
        for group in ("all", *scene.planted.groups):
            totals[group] += 1
            hits[group] += found
    return {group: Proportion(hits[group], total) for group, total in totals.items()}


def false_covers(policy: Policy) -> tuple[Proportion, Counter[str], float]:
    """Count the pictures without a person in which something was covered.

    Returns:
        Their share, what was found by kind, and the share of all pixels that were covered.
    """
    touched, found, covered, pixels, total = 0, Counter[str](), 0.0, 0, 0
    for _, image in visible_scenes.empty_pictures():
        clean, seen = visible.clean(image, policy)
        found.update(seen)
        touched += bool(seen)
        total += 1
        pixels += image.width * image.height
        if clean is None:
            covered += image.width * image.height
        elif seen:
            changed = numpy.asarray(clean) != numpy.asarray(image)
            covered += float(changed.any(-1).sum())
    return Proportion(touched, total), found, covered / pixels


def processor_s() -> float:
    """Return the processor seconds of this process and of the programs that it ran."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _ms_per_megapixel(work: Callable[[Image.Image], object], images: list[Image.Image]) -> float:
    work(images[0])  # loads what is loaded once
    start = processor_s()
    for image in images:
        work(image)
    pixels = sum(image.width * image.height for image in images)
    return (processor_s() - start) * 1e3 / (pixels / 1e6)


def costs(store: Path) -> dict[str, dict[str, float]]:
    """Measure milliseconds per megapixel: each detector, and whole policies on JPEG files."""
    empty = [image for _, image in visible_scenes.empty_pictures((1024,))]
    signs = [scene.image for scene in visible_signs.text_scenes(1, SEED, store, (24,))][:16]
    faces = [scene.image for scene in visible_scenes.face_scenes(9, SEED, (48, 96))]
    sets = {"nothing personal": empty, "a face": faces, "three lines of text": signs}
    table: dict[str, dict[str, float]] = {}
    for name in _FIELDS:
        policy = covering(name)
        table[name] = {
            title: _ms_per_megapixel(partial(visible.clean, policy=policy), images)
            for title, images in sets.items()
        }
    for name, policy in (("metadata_only", covering()), ("strict", covering(*_FIELDS))):
        table[name] = {}
        for title, images in sets.items():
            files = {id(image): door.encode_jpeg(image, 90) for image in images}
            table[name][title] = _ms_per_megapixel(partial(_scrub, files, policy), images)
    return table


def _scrub(files: dict[int, bytes], policy: Policy, image: Image.Image) -> None:
    done = scrub_sample(
        Sample(images=[files[id(image)]], turns=[], tags={}, source_id="0" * 32), policy
    )
    if isinstance(done, Refusal):
        raise UsageError(f"a picture was refused: {done}")


def run(words: list[str], conf: Path, **options: Any) -> dict[str, Any]:
    """Measure everything.

    Args:
        words: of the command line: at most one, the folder that keeps fetched fonts.
        conf: not used.
        options: `repeats`, scenes per group (12).

    Raises:
        UsageError: a detector or the photographs are missing.
    """
    if len(words) > 1:
        raise UsageError("give one folder at most, the one that keeps fetched fonts")
    store, count = Path(words[0]) if words else _CACHE, options.get("repeats", 12)
    everything = covering(*_FIELDS)
    try:
        visible.check(everything)
    except ScrubError as error:
        raise UsageError(str(error)) from None
    start = time.monotonic()
    measured = {
        title: {group: (share.hits, share.n) for group, share in recall(scenes, policy).items()}
        for title, scenes, policy in _sets(count, store)
    }
    empty, found, covered = false_covers(everything)
    return {
        "machine": platform.processor() or platform.machine(),
        "detectors": visible.versions(everything),
        "recall": measured,
        "false_covers": {
            "pictures": (empty.hits, empty.n), "found": dict(found), "share_of_pixels": covered
        },
        "ms_per_megapixel": costs(store),
        "seconds": time.monotonic() - start,
    }  # fmt: skip


def _sets(count: int, store: Path) -> Iterator[tuple[str, Iterable[Scene], Policy]]:
    scenes, signs = visible_scenes, visible_signs
    faces = covering("faces")
    yield "faces, upright", scenes.face_scenes(3 * count, SEED, FACE_SIDES), faces
    yield (
        "faces, turned by up to 20 degrees",
        scenes.face_scenes(count, SEED, FACE_SIDES, 20),
        faces,
    )
    yield "faces, turned by any angle", scenes.face_scenes(count, SEED, (48, 96), 180), faces
    yield "codes", scenes.code_scenes(count, SEED), covering("codes")
    yield "text", signs.text_scenes(max(1, count // 4), SEED, store), covering("text_in_pictures")
    yield "plates", signs.plate_scenes(count, SEED, store), covering("plates")


def table(result: dict[str, Any]) -> str:
    """Lay the result out as lines of text."""
    lines = [f"{name}: {version}" for name, version in result["detectors"].items()]
    for title, groups in result["recall"].items():
        lines += ["", f"recall, {title}"]
        lines += [f"  {group:<28} {Proportion(*counts)}" for group, counts in groups.items()]
    false = result["false_covers"]
    found = ", ".join(f"{kind} {count}" for kind, count in false["found"].items()) or "nothing"
    lines += ["", f"pictures without a person in which something was covered ({found})"]
    lines += [f"  pictures                     {Proportion(*false['pictures'])}"]
    lines += [f"  share of their pixels        {false['share_of_pixels']:.5f}"]
    lines += ["", "processor milliseconds per megapixel, on one core"]
    for name, times in result["ms_per_megapixel"].items():
        cells = ", ".join(f"{title} {ms:.0f}" for title, ms in times.items())
        lines.append(f"  {name:<18} {cells}")
    return "\n".join(lines)
