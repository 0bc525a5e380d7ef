"""Made-up charts for the model to decline: matplotlib's usual kinds, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def charts(count: int, seed: int) -> Iterator[Image.Image]:
    """Draw `count` charts of made-up numbers with matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    random_ = np.random.default_rng(seed)
    kinds = list(_CHARTS)
    for number in range(count):
        figure = Figure(figsize=tuple(random_.uniform(2.6, 4.2, 2)), dpi=90, layout="constrained")
        if random_.random() < 0.25:
            figure.set_facecolor(str(random_.choice(["#f4f1e8", "#eef3f8", "#202830"])))
        axes = figure.add_subplot()
        colours = _PALETTES[int(random_.integers(len(_PALETTES)))]
        axes.set_prop_cycle(color=colours)
        _CHARTS[kinds[number % len(kinds)]](axes, random_, colours)
        if random_.random() < 0.5:
            axes.set_title(str(random_.choice(_TITLES)), fontsize=9)
        if random_.random() < 0.4:
            axes.grid(True, alpha=0.4)
        axes.tick_params(labelsize=7)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        yield Image.fromarray(np.ascontiguousarray(pixels))


_PALETTES = [
    ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"],
    ["#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51"],
    ["#003f5c", "#58508d", "#bc5090", "#ff6361", "#ffa600"],
    ["#444444", "#777777", "#999999", "#bbbbbb", "#dddddd"],
]
_TITLES = ["Sales by month", "Results", "Temperature", "Group A and B", "Share", "2019 to 2024"]


def _bars(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    count = int(random_.integers(3, 9))
    for group in range(int(random_.integers(1, 4))):
        axes.bar(np.arange(count) + group * 0.27, random_.uniform(1, 10, count), 0.26)


def _lying_bars(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    count = int(random_.integers(3, 9))
    axes.barh(np.arange(count), np.sort(random_.uniform(1, 10, count)), color=colours)


def _lines(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    for _ in range(int(random_.integers(1, 5))):
        marker = str(random_.choice(["", "o", "s", "."]))
        axes.plot(np.cumsum(random_.normal(size=int(random_.integers(8, 40)))), marker=marker)


def _pie(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    parts = random_.uniform(1, 6, int(random_.integers(3, 7)))
    width = {"width": 0.45} if random_.random() < 0.4 else {}
    labels = [f"{part:.1f}" for part in parts]
    axes.pie(parts, labels=labels, wedgeprops=width, textprops={"fontsize": 7})


def _scatter(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    for _ in range(int(random_.integers(1, 4))):
        centre = random_.normal(size=2) * 2
        right, up = random_.normal(size=(2, 40)) + centre[:, None]
        axes.scatter(right, up, s=float(random_.uniform(4, 30)))


def _histogram(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    axes.hist(random_.normal(size=400), bins=int(random_.integers(8, 30)), edgecolor="white")


def _heat(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    cells = random_.uniform(size=tuple(random_.integers(4, 12, 2)))
    axes.imshow(cells, cmap=str(random_.choice(["viridis", "Blues", "magma", "coolwarm"])))


def _areas(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    axes.stackplot(np.arange(12), random_.uniform(1, 4, (3, 12)), colors=colours)


def _boxes(axes: Axes, random_: np.random.Generator, colours: list[str]) -> None:
    axes.boxplot(list(random_.normal(size=(int(random_.integers(3, 7)), 40))))


_CHARTS = {
    "bars": _bars,
    "lines": _lines,
    "pie": _pie,
    "scatter": _scatter,
    "lying bars": _lying_bars,
    "histogram": _histogram,
    "heat": _heat,
    "areas": _areas,
    "boxes": _boxes,
}
