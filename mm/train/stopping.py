"""Ctrl-C and SIGTERM while a run goes: noted, so that it can save before it ends."""

from __future__ import annotations

import signal
from typing import Any


class StopRequest:
    """Notes Ctrl-C and SIGTERM while the loop runs, so that it can save before it ends."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}  # Any: what the signal module calls a handler

    def __enter__(self) -> StopRequest:
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[name] = signal.signal(name, self._note)
            except ValueError:  # not the main thread: nobody sends it signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, *_: object) -> None:
        self.asked = True


def leave_signals_to_the_loop(worker: int) -> None:
    """A signal to the whole process group must not take the workers before the loop has saved."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
