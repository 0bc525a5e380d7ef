"""Run a function over many items in processes that may crash, hang or run out of memory.

A hostile picture can kill or stall the decoder that reads it. Here that costs the one item: its
process is ended and replaced, and the item comes back as `Lost`. Results keep the order of the
items, so that what is built from them does not depend on the number of processes.
"""

import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from mm.privacy.errors import ScrubError

_START_SECONDS = 120.0  # importing what the function needs, on a busy machine
_AHEAD = 4  # items per process that may be waiting or finished but not yet asked for


@dataclass(frozen=True)
class Lost:
    """An item that has no result, because its process did not live to give one.

    Args:
        reason: `crashed`, or `too-slow` when it was ended after `seconds`.
        detail: one line for a person; nothing of the item in it.
    """

    reason: str
    detail: str


def run_ordered(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    workers: int = 1,
    seconds: float = 60.0,
    memory_bytes: int | None = 4 * 2**30,
) -> Iterator[Any]:
    """Yield `function(item)` for each item, in order, or `Lost` where the process was lost.

    Args:
        function: a module-level function. What it raises is raised here, and ends the run.
        items: read as they are needed, in this thread.
        workers: processes at a time, each with one item at a time.
        seconds: what one item may take.
        memory_bytes: what one process may allocate beyond what it has at its start. More is a
            `MemoryError` inside the function. Not enforced where the system cannot.

    Raises:
        ScrubError: a process did not start.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    crew = [_Keeper(function, todo, seconds, memory_bytes) for _ in range(workers)]
    window: deque[_Job] = deque()
    numbered = iter(items)
    try:
        for keeper in crew:
            keeper.start()
        more = True
        while True:
            while more and len(window) < _AHEAD * workers:
                try:
                    window.append(_Job(next(numbered)))
                except StopIteration:
                    more = False
                else:
                    todo.put(window[-1])
            if not window:
                return
            job = window.popleft()
            job.done.wait()
            if job.error is not None:
                raise job.error
            yield job.result
    finally:
        for keeper in crew:
            keeper.stopping = True
        for _ in crew:
            todo.put(None)
        for keeper in crew:
            keeper.join()


class _Job:
    """One item, and what became of it."""

    def __init__(self, item: Any) -> None:
        self.item = item
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()


class _Keeper(threading.Thread):
    """A thread that keeps one process going, hands it jobs and buries it when it has to."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        todo: "queue.SimpleQueue[_Job | None]",
        seconds: float,
        memory_bytes: int | None,
    ) -> None:
        super().__init__(daemon=True)
        self.function, self.todo = function, todo
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self.stopping = False
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def run(self) -> None:
        try:
            while (job := self.todo.get()) is not None:
                if not self.stopping:
                    try:
                        job.result = self._ask(job.item)
                    except Exception as error:
                        job.error = error
                    job.item = None
                job.done.set()
        finally:
            self._bury()

    def _ask(self, item: Any) -> Any:
        pipe = self.pipe or self._hire()
        try:
            pipe.send(item)
            if not self._wait(pipe, self.seconds):
                self._bury()
                return Lost("too-slow", f"took over {self.seconds:g} s and was ended")
            good, result = pipe.recv()
        except (EOFError, OSError):
            self._bury()
            return Lost("crashed", "the process that read it died")
        if not good:
            raise result
        return result

    def _wait(self, pipe: Connection, seconds: float) -> bool:
        """Wait for an answer, but not once the run is over."""
        end = time.monotonic() + seconds
        while not self.stopping:
            left = end - time.monotonic()
            if pipe.poll(max(0.0, min(left, 0.5))):
                return True
            if left <= 0:
                return False
        return False

    def _hire(self) -> Connection:
        # spawn: a fork would copy this process's threads and devices in an unknown state
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.function, self.memory_bytes), daemon=True
        )
        try:
            self.process.start()
            theirs.close()
            if self._wait(self.pipe, _START_SECONDS):
                self.pipe.recv()
                return self.pipe
        except (EOFError, OSError):
            pass
        self._bury()
        raise ScrubError("a worker process did not start: run with workers=0 to see why")

    def _bury(self) -> None:
        if self.pipe is not None:
            self.pipe.close()
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
            self.process.join()
        self.pipe = self.process = None


def _serve(pipe: Connection, function: Callable[[Any], Any], memory_bytes: int | None) -> None:
    """Answer items until the other end is gone. Runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _die_with_parent()
    _limit_memory(memory_bytes)
    pipe.send("ready")
    try:
        while True:
            item = pipe.recv()
            try:
                answer = (True, function(item))
            except Exception as error:
                answer = (False, _without_context(error))
            del item
            pipe.send(answer)
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone, or has closed the pipe: nobody to report to
    except BaseException:  # an item too large to take in, say; a traceback is nobody's business
        os._exit(1)


def _without_context(error: Exception) -> Exception:
    """Drop what an error drags along: causes could quote the item."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def _die_with_parent() -> None:
    """Have Linux end this process with the thread that keeps it, however that ends."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (ImportError, OSError, AttributeError, TypeError):  # not Linux
        pass


def _limit_memory(memory_bytes: int | None) -> None:
    """Bound private memory (not address space, which libraries reserve without using)."""
    if memory_bytes is None:
        return
    try:
        import resource

        with open("/proc/self/status", encoding="ascii") as file:
            used = next(int(line.split()[1]) for line in file if line.startswith("VmData:"))
        limit = used * 1024 + memory_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (ImportError, OSError, StopIteration, ValueError):  # not Linux
        pass
