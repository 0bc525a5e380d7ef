"""Lines of results and problems, a progress bar, and the exit status."""

import io
import os
import sys
import time
import warnings
from collections.abc import Callable

from mm.errors import MMError
from mm.privacy import PrivacyError

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
LONGEST_SHOWN_PATH = 200


def printable(text: str, longest: int | None = None) -> str:
    """Text as one line without control characters, its middle left out if it is too long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if longest is not None and len(line) > longest:
        line = f"{line[: longest // 2]}...{line[-longest // 2 :]}"
    return line


def readable(text: str) -> str:
    """Text with its line breaks and tabs, and without other control characters."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


class Console:
    """Lines of results and problems, and a progress bar below them if there is a terminal.

    Args:
        prog: the script's name, in front of every problem.
        total: number of inputs; a bar is shown from `BAR_FROM` on.
    """

    BAR_FROM = 8
    BAR_WIDTH = 30

    def __init__(self, prog: str, total: int) -> None:
        self.prog = prog
        self.total = total
        self.done = 0
        self.failed = 0
        self.start = time.monotonic()
        self.has_bar = total >= self.BAR_FROM and sys.stderr.isatty()

    def result(self, line: str) -> None:
        """Print one result."""
        self._clear()
        print(line, flush=True)

    def problem(self, where: str, reason: str) -> None:
        """Print why one input failed."""
        self.failed += 1
        self._clear()
        shown = printable(where, LONGEST_SHOWN_PATH)
        print(f"{self.prog}: {shown}: {printable(reason)}", file=sys.stderr, flush=True)

    def step(self, count: int = 1) -> None:
        """Count inputs as done, and draw the bar."""
        self.done += count
        if self.has_bar:
            full = self.BAR_WIDTH * self.done // self.total
            left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
            bar = "#" * full + "." * (self.BAR_WIDTH - full)
            text = f"\r[{bar}] {self.done}/{self.total}, {left:.0f} s left\033[K"
            print(text, end="", file=sys.stderr, flush=True)

    def close(self) -> int:
        """Take the bar away; return the exit status."""
        self._clear()
        return FAILED if self.failed else OK

    def _clear(self) -> None:
        if self.has_bar:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(prog: str, main: Callable[[], int]) -> int:
    """Run a script's work; turn errors that the user can put right into one line and status 2."""
    # PyTorch's threads, started later, are to give way while they wait, as spinning ones starve
    # each other: 100 pictures on two cores took 5.6 s and 4.4 s with this, or 20 s and 11 s while
    # other programs ran.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for file in (sys.stdout, sys.stderr):
        if isinstance(file, io.TextIOWrapper):
            file.reconfigure(errors="backslashreplace")  # a terminal without Korean letters
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a path is bytes

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        print(f"{prog}: warning: {printable(str(message))}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn
            return main()
    except (MMError, PrivacyError) as error:
        print(f"{prog}: {printable(str(error))}", file=sys.stderr)
        return WRONG_USAGE
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED


def read_line(prompt: str, hint: str) -> str | None:
    """The next line of stdin, or None at its end; a person at a terminal sees prompt and hint."""
    if sys.stdin.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if line.strip() == "/help":
        print(hint, file=sys.stderr)
        return ""
    return line.rstrip("\n") if line else None
