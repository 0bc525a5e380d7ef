"""One picture explained: the answer, a map for each of its parts, and whether the maps are true.

R side of a map.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image
from torch import Tensor

from mm.encoders.pixels import to_uint8
from mm.errors import UsageError
from mm.explain.faithfulness import Verdict, judge
from mm.explain.lens import Lens, lens
from mm.explain.measure import reading_of
from mm.explain.methods import Settings, available, explain
from mm.explain.overlay import AnyFont, Strip, draw
from mm.explain.places import R, peaks
from mm.model import Model, Thinking
from mm.privacy.door import open_image
from mm.text.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Explained:
    """What one method says.

    Args:
        method: its name.
        parts: a map `[R, R]` for each part of the answer, and `whole`, their sum.
        verdict: whether `whole` is better than chance on this picture.
    """

    method: str
    parts: Sequence[Tensor]
    whole: Tensor
    verdict: Verdict


@dataclass(frozen=True)
class Explanation:
    """An answer with its maps.

    Args:
        image: uint8 `[3, height, width]`.
        answer: what was explained, and `parts`, its tokens as text: those that make up a letter
            together are one.
        methods: what each method says.
        lens: words at the image tokens.
    """

    image: Tensor
    answer: str
    parts: Sequence[str]
    methods: Sequence[Explained]
    lens: Lens

    def draw(self, font: AnyFont | None = None) -> Image:
        """Draw every method's maps over the picture."""
        strips = []
        for one in self.methods:
            panels: list[tuple[str, Tensor | None]] = [("picture", None)]
            panels += [("whole answer", one.whole)] if len(self.parts) > 1 else []
            labels = [f"({number}) {text.strip()}" for number, text in enumerate(self.parts, 1)]
            panels += zip(labels, one.parts, strict=True)
            title = f"{one.method}: {one.verdict}"
            strips.append(Strip(title, panels, warns=not one.verdict.is_faithful))
        return draw(self.image, strips, font)

    def lines(self) -> list[str]:
        """What a person reads: each method's verdict, and where it looks for each part."""
        found = [self.answer]
        for one in self.methods:
            found.append(f"{one.method}: {one.verdict}")
            for number, (text, heat) in enumerate(zip(self.parts, one.parts, strict=True), 1):
                x, y = peak(heat)
                found.append(f"  ({number}) {text.strip()!r}: most at {x:.0%} across, {y:.0%} down")
        return found

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        methods = {
            one.method: {
                "area": round(one.verdict.area, 4),
                "chance": round(one.verdict.chance, 4),
                "beaten": one.verdict.beaten,
                "moved": one.verdict.moved,
                "faithful": one.verdict.is_faithful,
                "peaks": [[round(place, 3) for place in peak(heat)] for heat in one.parts],
            }
            for one in self.methods
        }
        parts = {"answer": self.answer, "parts": list(self.parts)}
        return {**parts, "methods": methods, "lens": self.lens.facts()}


def explain_picture(
    model: Model,
    image: str | os.PathLike[str] | bytes,
    question: str,
    methods: Sequence[str],
    *,
    answer: str | None = None,
    thinking: Thinking | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Explanation:
    """Answer a question about a picture, and say where each part of the answer comes from.

    Args:
        image: a path or a file's bytes.
        question: what a user typed.
        methods: names; "all" is every one whose library is installed.
        answer: explain this text rather than what the model says.
        thinking: as `Model.prepare`.
        settings: of the methods.
        options: how the model chooses words, see `mm.model.Options`.

    Raises:
        mm.privacy.DoorError: it is no readable picture, or is too large.
        PictureError: the model can't take a picture of its size.
        UsageError: a text model, a method that is unknown, or a question that is not answered.
    """
    if not model.sees:
        raise UsageError("this model reads text only: there is no picture to look at")
    pixels = to_uint8(open_image(image))
    request = model.prepare(image, question, thinking)
    if request.refusal is not None:
        raise UsageError(f"nothing to explain, as this is not answered: {request.refusal.text}")
    if answer is None:
        said = model.run([request], **options)[0]
        if said.refused:
            raise UsageError(f"nothing to explain, as this is not answered: {said.text}")
        answer = said.text
    if not answer.strip():
        raise UsageError("the answer is empty: give one with --answer, or ask something else")
    reading = reading_of(model, pixels, question, answer, thinking)
    parts, ends = parts_of(model.tokenizer, reading.answer.tolist())
    found = []
    for method in available() if "all" in methods else methods:
        maps = explain(reading, method, settings)
        pieces = [maps[low:high].sum(0) for low, high in zip([0, *ends], ends, strict=False)]
        found.append(Explained(method, pieces, maps.sum(0), judge(reading, maps.sum(0))))
    return Explanation(pixels, answer, parts, found, lens(reading, model.tokenizer))


def parts_of(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the texts of tokens, joined where a letter takes several, and where each part ends."""
    decoder, texts, ends = StreamDecoder(tokenizer), [], []
    for number, token in enumerate(ids, 1):
        text = decoder.push(token)
        text += decoder.flush() if number == len(ids) else ""
        if text:
            texts.append(text)
            ends.append(number)
    if ends and ends[-1] < len(ids):
        ends[-1] = len(ids)
    return texts, ends


def peak(heat: Tensor) -> tuple[float, float]:
    """Return where a map is largest, as shares of the width and of the height."""
    row, column = (peaks(heat).nonzero().float().mean(0) + 0.5).div(R).tolist()
    return column, row
