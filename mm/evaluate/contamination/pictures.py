"""Finding a picture again that was resized, encoded anew, mirrored or cropped by up to a tenth.

N pictures that are searched for, B pictures that are looked through, W windows along an axis,
K cosines along an axis, D = K * K numbers of a description.

A picture is described by its slow cosines (those of a perceptual hash), as they are and not by
their signs alone: signs of small numbers are noise in pictures of large plain areas. A window of a
picture is described from the same 64 x 64 grey thumbnail, by cosines that start and end with the
window, so that all 49 windows cost little more than one. Whichever of the two pictures was cropped,
one of its counterpart's windows is close to it; mirroring turns the sign of every other cosine.
Pairs that are close are aligned to an eightieth of the side and compared by more cosines, and by
their coarse colours if both have any: two plain shapes may well stand in the same place.

Memory: about 37 KiB for each picture that is searched for; none for what is looked through.

Ref: Zauner 2010, Implementation and benchmarking of perceptual image hash functions, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from mm.privacy.door import open_image

if TYPE_CHECKING:
    from mm.privacy.door import Source

SIDE = 64  # of a thumbnail
_STEPS = 80  # windows begin and end at eightieths of a side
_TENTH = _STEPS // 10
# Begin and end: whole, cut by a twentieth or a tenth on either side, or a little on both.
_COARSE = ((0, 80), (0, 76), (0, 72), (4, 80), (8, 80), (4, 76), (2, 78))
_COARSE_K, _FINE_K = 8, 16
_CLOSE, ALIKE = 0.9, 0.985  # cosines of descriptions; measured by `bench.py contamination`
_SAME_COLOURS = 0.93  # cosine of coarse colours
_GREY = 4.0  # levels of colour, below which there is none
_PLAIN = 2.0  # grey levels: a picture that varies less has nothing to be found by
_AT_ONCE = 16_000_000  # numbers
Floats = npt.NDArray[np.float32]
Thumbnail = npt.NDArray[np.uint8]
Window = tuple[int, int]


@dataclass(frozen=True)
class Match:
    """A picture that was looked through and one that was searched for."""

    looked_through: int  # number in the batch
    searched_for: int
    likeness: float  # 0..1


def thumbnail(source: Source) -> Thumbnail:
    """Y, Cb and Cr `[64, 64, 3]` of an encoded picture, squashed to a square.

    Raises:
        DoorError: the picture cannot be opened.
    """
    image = open_image(source, longest_side=2 * SIDE)
    square = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(square.convert("YCbCr"), np.uint8)


class PictureIndex:
    """Pictures to be searched for.

    Args:
        thumbnails: `[N, 64, 64, 3]`, of `thumbnail`.
    """

    def __init__(self, thumbnails: Thumbnail) -> None:
        self.thumbnails = thumbnails
        grey = thumbnails[..., 0].astype(np.float32)
        self.is_plain = grey.std((1, 2)) < _PLAIN
        signs = np.where(np.arange(_COARSE_K) % 2, -1, 1).astype(np.float32)
        seen = _cosines(grey, _COARSE, _COARSE_K)
        described = _described(np.stack([seen, seen * signs], 1))  # [N, 2, W, W, D]
        described[self.is_plain] = 0
        self.whole = np.ascontiguousarray(described[:, :, 0, 0])
        self.windows = described.reshape(len(grey), -1, described.shape[-1])

    @property
    def num_bytes(self) -> int:
        """Memory of what is searched for."""
        return self.thumbnails.nbytes + self.whole.nbytes + self.windows.nbytes

    def search(self, thumbnails: Thumbnail) -> Iterator[Match]:
        """Find what of a batch `[B, 64, 64, 3]` is one of the pictures."""
        grey = thumbnails[..., 0].astype(np.float32)
        mine = _described(_cosines(grey, _COARSE, _COARSE_K)).reshape(
            len(grey), len(_COARSE) ** 2, -1
        )
        mine[grey.std((1, 2)) < _PLAIN] = 0
        whole = np.ascontiguousarray(mine[:, 0])
        count = self.windows.shape[1]
        for start in range(0, len(self.windows), step := max(1, _AT_ONCE // (count * len(grey)))):
            theirs = self.windows[start : start + step]
            one = (whole @ theirs.reshape(-1, theirs.shape[-1]).T).reshape(len(grey), -1, count)
            ours = self.whole[start : start + step]
            other = mine.reshape(-1, mine.shape[-1]) @ ours.reshape(-1, ours.shape[-1]).T
            other = other.reshape(len(grey), count // 2, -1, 2)
            close = np.maximum(one.max(2), other.max((1, 3))) >= _CLOSE
            for row, column in zip(*np.nonzero(close), strict=True):
                cropped_here = other[row, :, column].max() > one[row, column].max()
                if cropped_here:
                    window, mirrored = divmod(int(other[row, :, column].argmax()), 2)
                else:
                    mirrored, window = divmod(int(one[row, column].argmax()), count // 2)
                number = start + int(column)
                target, found = self.thumbnails[number], thumbnails[row]
                down, across = (_COARSE[place] for place in divmod(window, len(_COARSE)))
                if mirrored:
                    target = target[:, ::-1]
                    if not cropped_here:  # the window is one of the target before it was mirrored
                        across = (_STEPS - across[1], _STEPS - across[0])
                pair = (target, found) if cropped_here else (found, target)
                likeness = _likeness(*pair, down, across)
                if likeness >= ALIKE:
                    yield Match(int(row), number, likeness)


def _likeness(whole: Thumbnail, cut: Thumbnail, down: Window, across: Window) -> float:
    """How like a picture `[64, 64, 3]` is to a window of another; 0 if its colours are others."""
    grey = whole[..., 0].astype(np.float32), cut[..., 0].astype(np.float32)
    likeness, down, across = _aligned(*grey, down, across)
    ours = _colours(whole, (0, _STEPS), (0, _STEPS))
    theirs = _colours(cut, down, across)
    lengths = float(np.linalg.norm(ours)), float(np.linalg.norm(theirs))
    if min(lengths) < _GREY * 32**0.5:  # a copy may have lost its colours
        return likeness
    return likeness if float((ours * theirs).sum()) >= _SAME_COLOURS * math.prod(lengths) else 0.0


def _colours(picture: Thumbnail, down: Window, across: Window) -> Floats:
    """Mean Cb and Cr of the 4 x 4 parts of a window: `[2, 4, 4]`, 0 where there is no colour."""
    chroma = picture[..., 1:].astype(np.float32).transpose(2, 0, 1) - 128
    return (_parts(down) @ chroma @ _parts(across).T).astype(np.float32)


@cache
def _parts(window: Window) -> Floats:
    """Linear map `[4, 64]` to the means of the four quarters of a window of a line."""
    ends = np.linspace(window[0], window[1], 5) / _STEPS * SIDE
    pixels = np.arange(SIDE)
    covered = np.minimum(pixels + 1, ends[1:, None]) - np.maximum(pixels, ends[:-1, None])
    covered = np.clip(covered, 0, None)
    parts: Floats = (covered / covered.sum(1, keepdims=True)).astype(np.float32)
    return parts


def _aligned(
    whole: Floats, cut: Floats, down: Window, across: Window
) -> tuple[float, Window, Window]:
    """How like a picture is to a window of another after the best alignment, and the window.

    Args:
        whole, cut: `[64, 64]`.
        down, across: about which window of `cut` it is.
    """
    wanted = _described(_cosines(whole[None], ((0, _STEPS),), _FINE_K))[0, 0, 0]
    best = -1.0
    for _ in range(2):
        choices = _around(across)
        lines = _operators((down,), _FINE_K)[0] @ cut  # [K, 64]
        found = np.einsum("ks,wjs->wkj", lines, _operators(choices, _FINE_K), optimize=True)
        likeness = _described(found) @ wanted
        across = choices[int(likeness.argmax())]
        choices = _around(down)
        columns = cut @ _operators((across,), _FINE_K)[0].T  # [64, K]
        likeness = _described(_operators(choices, _FINE_K) @ columns) @ wanted
        down = choices[int(likeness.argmax())]
        best = max(best, float(likeness.max()))
    return best, down, across


def _around(window: Window) -> tuple[Window, ...]:
    """Windows that begin and end within a fortieth of a side of this one."""
    begins = range(max(0, window[0] - 2), min(_TENTH, window[0] + 2) + 1)
    ends = range(max(_STEPS - _TENTH, window[1] - 2), min(_STEPS, window[1] + 2) + 1)
    return tuple((begin, end) for begin in begins for end in ends)


def _cosines(grey: Floats, windows: Sequence[Window], k: int) -> Floats:
    """Cosines of all windows: `[N, 64, 64]` -> `[N, W, W, K, K]`, downwards before across."""
    operators = _operators(tuple(windows), k).reshape(-1, SIDE)
    across = grey @ operators.T
    both = operators @ across
    shaped = both.reshape(len(grey), len(windows), k, len(windows), k)
    return np.ascontiguousarray(shaped.transpose(0, 1, 3, 2, 4))


def _described(cosines: Floats) -> Floats:
    """Unit descriptions `[..., D]` of cosines `[..., K, K]`, whatever the light and contrast."""
    k = cosines.shape[-1]
    frequency = np.hypot(*np.meshgrid(np.arange(k), np.arange(k)))
    # Without its mean; fast cosines are small in pictures and would count for nothing.
    weighted = (cosines * np.sqrt(frequency).astype(np.float32)).reshape(*cosines.shape[:-2], k * k)
    length = np.linalg.norm(weighted, axis=-1, keepdims=True)
    described: Floats = (weighted / np.maximum(length, 1e-6)).astype(np.float32, copy=False)
    return described


@cache
def _operators(windows: tuple[Window, ...], k: int) -> Floats:
    """Linear maps `[W, K, 64]` from a line of pixels to the cosines of its windows."""
    edges = np.linspace(0, 1, SIDE + 1)
    orders = np.arange(k)[:, None]
    rows = []
    for begin, end in np.array(windows) / _STEPS:
        inside = (np.clip(edges, begin, end) - begin) / (end - begin)
        # The integral of each cosine up to each pixel's edge.
        area = np.where(
            orders == 0, inside, np.sin(np.pi * orders * inside) / (np.pi * np.maximum(orders, 1))
        )
        rows.append(np.diff(area, axis=1))
    return np.stack(rows).astype(np.float32)
