"""Draw the pictures and questions of the experiments from nothing: coloured shapes on a ground.

A picture of 64 px has one to five things, each in a cell of a 3x3 grid. It gets one to twelve
questions, so that conversations are of very different lengths. What is drawn follows from the set's
name and the picture's number alone.

Examples:
  python -m experiments.shapes train --count 20000 --output data/raw/shapes_train
  python scripts/scrub.py source=jsonl source.path=data/raw/shapes_train/shapes.jsonl \\
      output=data/shapes_train
"""

from __future__ import annotations

import argparse
import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SIDE, FINE = 64, 4  # pixels; drawn finer, then averaged
COLOURS = {
    "red": (214, 40, 40), "orange": (245, 140, 20), "yellow": (240, 215, 40),
    "green": (45, 160, 70), "blue": (40, 90, 210), "purple": (135, 60, 175),
    "pink": (245, 135, 180), "brown": (125, 80, 45),
}  # fmt: skip
CORNERS = {  # of regular polygons and stars: corners, share of the radius that is cut in
    "triangle": (3, 0.0), "square": (4, 0.0), "pentagon": (5, 0.0), "star": (5, 0.55),
    "cross": (4, 0.6),
}  # fmt: skip
SHAPES = (*CORNERS, "circle", "ring", "half")
PLACES = tuple(
    f"{row} {column}".replace("middle centre", "middle")
    for row in ("top", "middle", "bottom")
    for column in ("left", "centre", "right")
)
NUMBERS = ("no", "one", "two", "three", "four", "five")
LENGTHS = (1, 2, 3, 5, 8, 12)  # numbers of questions, all as likely


@dataclass(frozen=True)
class Thing:
    """One thing; `cell` counts from the top left, row by row."""

    colour: str
    shape: str
    cell: int

    @property
    def name(self) -> str:
        """As a caption says it."""
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"


def scene(rng: random.Random) -> list[Thing]:
    """Draw lots for the things of a picture, in reading order."""
    cells = sorted(rng.sample(range(9), rng.randint(1, 5)))
    return [Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES), cell) for cell in cells]


def questions(things: list[Thing], rng: random.Random) -> list[tuple[str, str, str]]:
    """Question, answer and kind: as many as the picture gets."""
    asked: list[tuple[str, str, str]] = []
    wanted = rng.choice(LENGTHS)
    while len(asked) < wanted:
        question = _question(things, rng)
        if question[0] not in {q for q, _, _ in asked}:
            asked.append(question)
    return asked


def _question(things: list[Thing], rng: random.Random) -> tuple[str, str, str]:
    kind = rng.choice(("caption", "count", "colour", "presence", "place", "relation"))
    colours, shapes = [t.colour for t in things], [t.shape for t in things]
    if kind == "caption":
        names = [thing.name for thing in things]
        text = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        return "Describe the picture.", text, kind
    if kind == "count":
        word = rng.choice((*colours, *shapes, rng.choice(list(COLOURS)), rng.choice(SHAPES), ""))
        number = sum(word in (t.colour, t.shape, "") for t in things)
        return f"How many {word} things are there?".replace("  ", " "), NUMBERS[number], kind
    if kind == "colour" and (single := [t for t in things if shapes.count(t.shape) == 1]):
        thing = rng.choice(single)
        return f"What colour is the {thing.shape}?", thing.colour, kind
    if kind == "relation" and len(things) > 1:
        first, second = rng.sample(things, 2)
        sides = (first.cell % 3, second.cell % 3)
        if sides[0] != sides[1] and (first.name != second.name):
            pairs = [(a.name, b.name) for a in things for b in things]
            if pairs.count((first.name, second.name)) == 1:
                question = f"Is {first.name} left of {second.name}?"
                return question, "yes" if sides[0] < sides[1] else "no", kind
    if kind == "place":
        cell = rng.choice((rng.choice(things).cell, rng.randrange(9)))
        found = [thing.name for thing in things if thing.cell == cell]
        return f"What is in the {PLACES[cell]}?", found[0] if found else "nothing", kind
    there = rng.random() < 0.5
    thing = rng.choice(things)
    if not there:
        thing = Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES), 0)
    there = (thing.colour, thing.shape) in [(t.colour, t.shape) for t in things]
    return f"Is there {thing.name}?", "yes" if there else "no", "presence"


def draw(things: list[Thing], rng: random.Random) -> Any:  # Any: a PIL image
    """Draw the picture."""
    from PIL import Image, ImageDraw

    ground = tuple(rng.randint(215, 255) for _ in range(3))
    image = Image.new("RGB", (SIDE * FINE, SIDE * FINE), ground)
    pen = ImageDraw.Draw(image)
    cell = SIDE * FINE / 3
    for thing in things:
        radius = cell * rng.uniform(0.26, 0.44)
        room = cell / 2 - radius
        x = (thing.cell % 3 + 0.5) * cell + rng.uniform(-room, room)
        y = (thing.cell // 3 + 0.5) * cell + rng.uniform(-room, room)
        colour = tuple(min(255, max(0, c + rng.randint(-25, 25))) for c in COLOURS[thing.colour])
        box = (x - radius, y - radius, x + radius, y + radius)
        if thing.shape == "circle":
            pen.ellipse(box, fill=colour)
        elif thing.shape == "ring":
            pen.ellipse(box, outline=colour, width=int(radius * 0.4))
        elif thing.shape == "half":
            turn = rng.uniform(0, 360)
            pen.pieslice(box, turn, turn + 180, fill=colour)
        else:
            pen.polygon(_corners(thing.shape, x, y, radius, rng.uniform(-0.3, 0.3)), fill=colour)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _corners(
    shape: str, x: float, y: float, radius: float, turn: float
) -> list[tuple[float, float]]:
    corners, cut = CORNERS[shape]
    # A cross is a star of four points.
    radii = [radius] * corners if not cut else [radius, radius * (1 - cut)] * corners
    start = turn - math.pi / 2 + (math.pi / 4 if shape == "square" else 0)
    angles = [start + 2 * math.pi * k / len(radii) for k in range(len(radii))]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def make(name: str, folder: Path, index: int) -> dict[str, Any]:
    """Draw one picture into its file; return its record."""
    rng = random.Random(f"shapes/{name}/{index}")
    things = scene(rng)
    file = f"{index:06d}.png"
    draw(things, rng).save(folder / file, compress_level=1)
    asked = questions(things, rng)
    turns = [turn for q, a, _ in asked for turn in (("user", q), ("assistant", a))]
    turns[0] = ("user", f"<image>{asked[0][0]}")
    labels = " ".join(f"{kind}+all" for _, _, kind in asked)
    return {"images": [file], "turns": turns, "tags": {"labels": labels, "split": name}}


def write(name: str, count: int, folder: Path, workers: int | None = None) -> list[dict[str, Any]]:
    """Draw a set of `count` pictures into `folder`, with `shapes.jsonl`; return its records."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        records = list(pool.map(partial(make, name, folder), range(count), chunksize=100))
    write_records(records, folder)
    return records


def write_records(records: list[dict[str, Any]], folder: Path) -> None:
    """Write `shapes.jsonl`, which says that the set is whole."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "shapes.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    """Draw one set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the set: train, dev and test have nothing in common")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    records = write(options.name, options.count, options.output)
    print(f"{len(records)} pictures, {sum(len(r['turns']) for r in records) // 2} questions")


if __name__ == "__main__":
    main()
