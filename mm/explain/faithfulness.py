"""Whether a map tells what the answer hangs on: deletion and insertion, against chance.

The cells that a map ranks first are blurred away (deletion), or are the first to be shown on a
blurred picture (insertion). With a faithful map the answer's probability falls early, or rises
early. How early it would by chance is asked with the same map moved elsewhere: its form and its
values stay, only the place is wrong.

Ref: Petsiuk, Das and Saenko 2018, "RISE" (arXiv 1806.07421), section 4.2.

K maps, L levels, R side of a map, g side of the grid of cells.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from mm.explain.places import cell_sums
from mm.explain.reading import Reading, blurred, shown

CELLS = 16
LEVELS = 7  # shares of the picture from none to all, close together where the first cells go


@dataclass(frozen=True)
class Curves:
    """The answer's probability while a map's cells go, or come, in order.

    Args:
        shares: `[L]`, how much of the picture is gone, or has come.
        deletion: `[K, L]`, from the whole picture to the blurred one; `insertion` the other way.
    """

    shares: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def areas(self) -> Tensor:
        """What each map is worth, `[K]`: the area under insertion less that under deletion.

        From -1 to 1; 0 says that the order is no better than its reverse.
        """
        return torch.trapezoid(self.insertion - self.deletion, self.shares)


@dataclass(frozen=True)
class Verdict:
    """One map against the same map moved elsewhere.

    Args:
        area: as `Curves.areas`, and `chance` the mean of those of the moved maps.
        beaten: how many of `moved` maps the map beats.
    """

    area: float
    chance: float
    beaten: int
    moved: int

    @property
    def is_faithful(self) -> bool:
        """Whether the map beats 95 of 100 of the moved ones."""
        return self.beaten >= 0.95 * self.moved

    def __str__(self) -> str:
        said = "faithful" if self.is_faithful else "NOT FAITHFUL: no better than chance"
        beats = f"beats {self.beaten} of {self.moved} maps moved elsewhere"
        return f"area {self.area:+.3f}, by chance {self.chance:+.3f}, {beats}: {said}"


def curves(reading: Reading, maps: Tensor, cells: int = CELLS, levels: int = LEVELS) -> Curves:
    """Delete and insert the cells of maps `[K, R, R]` in their order.

    Args:
        reading: the picture and its answer.
        maps: of the whole answer.
        cells: side of the grid of cells.
        levels: points of a curve.
    """
    ranks = cell_sums(maps.double(), cells).flatten(1).argsort(dim=1, descending=True).argsort(1)
    counts = (torch.linspace(0, 1, levels) ** 2 * cells * cells).round()
    gone = (ranks[:, None] < counts[:, None]).float().view(-1, cells, cells)  # [K * L, g, g]
    filling = blurred(reading.image)
    ends = reading.probs(torch.stack([reading.image, filling]))
    between = [n for n in range(len(gone)) if 0 < n % levels < levels - 1]
    found = []
    for masks in (1 - gone, gone):
        probs = torch.empty(len(gone))
        for some in torch.tensor(between).split(reading.batch_size):
            probs[some] = reading.probs(shown(reading.image, masks[some], filling)).cpu()
        found.append(probs.view(-1, levels))
    deletion, insertion = found
    deletion[:, 0], deletion[:, -1] = ends[0], ends[1]
    insertion[:, 0], insertion[:, -1] = ends[1], ends[0]
    return Curves(counts / cells**2, deletion, insertion)


def moved(heat: Tensor, count: int, rng: random.Random) -> Tensor:
    """Move a map `[R, R]` round the picture's edges, by a quarter of a side or more, `count` times.

    Returns:
        `[count, R, R]`.
    """
    R = heat.shape[-1]
    far: list[tuple[int, int]] = []
    while len(far) < count:
        shift = rng.randrange(R), rng.randrange(R)
        if max(min(one, R - one) for one in shift) >= R // 4:
            far.append(shift)
    return torch.stack([heat.roll(shift, dims=(0, 1)) for shift in far])


def judge(reading: Reading, heat: Tensor, copies: int = 20, seed: int = 0) -> Verdict:
    """Say whether the map `[R, R]` of the whole answer is better than chance on this picture."""
    others = moved(heat, copies, random.Random(seed))
    area, *chance = curves(reading, torch.cat([heat[None], others])).areas.tolist()
    return Verdict(area, sum(chance) / copies, sum(area > one for one in chance), copies)
