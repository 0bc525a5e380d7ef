"""A sheet of characters on which lines meet properly, for diagrams in a terminal."""

from __future__ import annotations

# By the directions in which a cell's line leaves it: up 1, right 2, down 4, left 8.
_UNICODE = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
_ASCII = " |-+||++-+-++++++"
_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8


class Canvas:
    """Boxes, lines and text at columns and rows that count from 0; it grows downwards.

    Args:
        width: columns.
    """

    def __init__(self, width: int = 80) -> None:
        self.width = width
        self._lines: dict[tuple[int, int], int] = {}
        self._text: dict[tuple[int, int], str] = {}
        self.height = 0

    def text(self, column: int, row: int, text: str) -> None:
        """Write over what is there; what would leave the sheet is cut off."""
        for offset, character in enumerate(text[: self.width - column]):
            self._text[row, column + offset] = character
        self.height = max(self.height, row + 1)

    def centred(self, column: int, row: int, text: str) -> None:
        """Write with the middle at `column`."""
        self.text(column - len(text) // 2, row, text)

    def down(self, column: int, top: int, bottom: int) -> None:
        """Draw a vertical line between the middles of two cells."""
        for row in range(top, bottom):
            self._join(row, column, _DOWN)
            self._join(row + 1, column, _UP)

    def across(self, left: int, right: int, row: int) -> None:
        """Draw a horizontal line between the middles of two cells."""
        for column in range(left, right):
            self._join(row, column, _RIGHT)
            self._join(row, column + 1, _LEFT)

    def frame(self, left: int, top: int, right: int, bottom: int) -> None:
        """Draw a rectangle through the middles of its corner cells."""
        for row in (top, bottom):
            self.across(left, right, row)
        for column in (left, right):
            self.down(column, top, bottom)

    def box(self, left: int, top: int, width: int, text: str) -> None:
        """Draw a box of one line of text, three rows high."""
        self.frame(left, top, left + width - 1, top + 2)
        text = text[: width - 2]
        self.text(left + (width - len(text)) // 2, top + 1, text)

    def render(self, ascii_only: bool = False) -> str:
        """Return the sheet as lines of text."""
        characters = _ASCII if ascii_only else _UNICODE
        return "\n".join(
            "".join(self._cell(row, column, characters) for column in range(self.width)).rstrip()
            for row in range(self.height)
        )

    def _cell(self, row: int, column: int, characters: str) -> str:
        written = self._text.get((row, column))
        return written or characters[self._lines.get((row, column), 0)]

    def _join(self, row: int, column: int, direction: int) -> None:
        self._lines[row, column] = self._lines.get((row, column), 0) | direction
        self.height = max(self.height, row + 1)
