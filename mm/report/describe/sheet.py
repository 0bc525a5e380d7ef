"""Boxes, arrows and text of an SVG drawing that reads well on light and on dark pages.

Lengths are in pixels; x grows to the right, y downwards. Nothing outside the file is referred to:
no fonts, no scripts, no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

Point = tuple[float, float]

# role: fill and stroke on a light page, fill and stroke on a dark one
ROLES = {
    "plain": ("#ffffff", "#8c959f", "#161b22", "#6e7781"),
    "card": ("#f6f8fa", "#d0d7de", "#12171e", "#30363d"),
    "embed": ("#dcebff", "#4a7fd6", "#14294a", "#5f97ea"),
    "norm": ("#fff2c6", "#bf951b", "#372d0d", "#cfa733"),
    "attend": ("#e9dffc", "#8257d8", "#2a1f4a", "#a586ec"),
    "feed": ("#d8f3e3", "#2f9e64", "#10331f", "#44b97e"),
    "cache": ("#d3f0f3", "#1f8f9c", "#0d3338", "#38a9b6"),
    "vision": ("#ffe3d6", "#d2683c", "#43220f", "#e98a5f"),
}
# class: colour on a light page, on a dark one
INKS = {"ink": ("#1f2328", "#e6edf3"), "soft": ("#59636e", "#9da7b3")}
PAGE = ("#ffffff", "#0d1117")
LINE = ("#6e7781", "#8b949e")
SANS = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,'DejaVu Sans',sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
# Widths of a character over its size: the fixed one, and a wide guess for the others.
MONO_WIDTH, SANS_WIDTH = 0.61, 0.58


def text_width(text: str, size: float, mono: bool = False) -> float:
    """Estimate how wide a text is drawn, rather too wide than too narrow."""
    return len(text) * size * (MONO_WIDTH if mono else SANS_WIDTH)


def _style(dark: bool) -> str:
    one = int(dark)
    rules = [f".page{{fill:{PAGE[one]}}}"]
    rules += [f".{name}{{fill:{colours[one]}}}" for name, colours in INKS.items()]
    rules.append(f".line{{fill:none;stroke:{LINE[one]}}}.head{{fill:{LINE[one]}}}")
    rules.append(f".mark{{fill:none;stroke:{INKS['ink'][one]}}}")
    for role, colours in ROLES.items():
        fill, stroke = colours[2 * one : 2 * one + 2]
        rules.append(f".{role}{{fill:{fill};stroke:{stroke}}}.{role}-solid{{fill:{stroke}}}")
    return "".join(rules)


class Sheet:
    """A drawing in the making; later elements lie over earlier ones."""

    def __init__(self, width: float, height: float, title: str, about: str) -> None:
        self.width, self.height = width, height
        self.title, self.about = title, about
        self._parts: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, role: str, radius: float = 7
    ) -> None:
        """Draw a rectangle with round corners."""
        self._parts.append(
            f'<rect class="{role}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
            f' rx="{radius:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        ink: str = "ink",
        anchor: str = "middle",
        mono: bool = False,
        bold: bool = False,
        room: float | None = None,
    ) -> None:
        """Write text with its baseline at `y`, smaller if it would not fit into `room`."""
        if room is not None:
            size = min(size, size * room / max(text_width(text, size, mono), 1e-9))
        family = ' class="{}{}"'.format(ink, " mono" if mono else "")
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text{family} x="{x:g}" y="{y:g}" font-size="{round(size, 1):g}"'
            f' text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, role: str, name: str, note: str = ""
    ) -> None:
        """Draw a box with a name, in fixed width as code has it, and a note under it."""
        self.rect(x, y, width, height, role)
        middle, room = x + width / 2, width - 12
        lift = 7 if note else 0
        self.text(middle, y + height / 2 + 4.5 - lift, name, 13, mono=True, room=room)
        if note:
            self.text(middle, y + height / 2 + 13, note, 11.5, "soft", room=room)

    def line(
        self,
        points: Sequence[Point],
        arrow: bool = True,
        dashed: bool = False,
        thin: bool = False,
    ) -> None:
        """Draw a line through points, round at its corners, with an arrow's head at the end."""
        path = f"M{points[0][0]:g} {points[0][1]:g}"
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            enter, leave = _toward(corner, before, 8), _toward(corner, after, 8)
            path += (
                f"L{enter[0]:g} {enter[1]:g}Q{corner[0]:g} {corner[1]:g} {leave[0]:g} {leave[1]:g}"
            )
        end = _toward(points[-1], points[-2], 6) if arrow else points[-1]
        path += f"L{end[0]:g} {end[1]:g}"
        dash = ' stroke-dasharray="4 4"' if dashed else ' stroke-width="0.5"' if thin else ""
        self._parts.append(f'<path class="line" d="{path}"{dash}/>')
        if arrow:
            self._head(points[-1], points[-2])

    def circle(self, x: float, y: float, sign: str) -> None:
        """Draw a sum `+` or a product `x` as a sign in a circle."""
        self._parts.append(f'<circle class="plain" cx="{x:g}" cy="{y:g}" r="11"/>')
        d = 5.5 if sign == "+" else 4
        strokes = (
            f"M{x - d:g} {y:g}H{x + d:g}M{x:g} {y - d:g}V{y + d:g}"
            if sign == "+"
            else f"M{x - d:g} {y - d:g}L{x + d:g} {y + d:g}M{x - d:g} {y + d:g}L{x + d:g} {y - d:g}"
        )
        self._parts.append(f'<path class="mark" d="{strokes}"/>')

    def wedge(self, points: Sequence[Point], role: str) -> None:
        """Fill a shape lightly, as between a box and its enlargement."""
        corners = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(f'<polygon class="{role}-solid" opacity="0.13" points="{corners}"/>')

    def cell(self, x: float, y: float, width: float, height: float, role: str, solid: bool) -> None:
        """Draw one small cell of a row, such as a head or an expert; solid ones stand out."""
        name = f"{role}-solid" if solid else role
        self._parts.append(
            f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
            ' rx="2" stroke-width="1"/>'
        )

    def svg(self) -> str:
        """Return the file's text."""
        size = f"{self.width:g} {self.height:g}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self.width:g}"'
            f' height="{self.height:g}" role="img" font-family="{SANS}" stroke-width="1.4"'
            ' stroke-linecap="round" stroke-linejoin="round">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.about)}</desc>"
            f"<style>text{{stroke:none}}.mono{{font-family:{MONO}}}{_style(dark=False)}"
            f"@media (prefers-color-scheme:dark){{{_style(dark=True)}}}</style>"
            f'<rect class="page" width="{self.width:g}" height="{self.height:g}" rx="12"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )

    def _head(self, tip: Point, before: Point) -> None:
        (x, y), (bx, by) = tip, _toward(tip, before, 8)
        across = ((by - y) / 2, (x - bx) / 2)
        self._parts.append(
            f'<path class="head" d="M{x:g} {y:g}L{bx + across[0]:g} {by + across[1]:g}'
            f'L{bx - across[0]:g} {by - across[1]:g}Z"/>'
        )


def _toward(start: Point, goal: Point, distance: float) -> Point:
    dx, dy = goal[0] - start[0], goal[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(distance / length, 0.5 if distance > 6 else 1)
    return start[0] + dx * share, start[1] + dy * share
