"""Processes may die, hang or eat memory; the run goes on and order holds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm.privacy.errors import ScrubError
from mm.privacy.worker import Lost, run_ordered


def act(item: tuple[str, int]) -> object:
    """Do as the item says."""
    what, value = item
    if what == "sleep":
        time.sleep(value / 1000)
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "hang":
        time.sleep(1000)
    elif what == "eat":
        try:
            return len(bytearray(value * 2**20))
        except MemoryError:
            return "no memory"
    elif what == "raise":
        raise ScrubError(f"item {value}")
    elif what == "pid":
        return os.getpid()
    return value


def test_results_keep_their_order() -> None:
    items = [("sleep", 30 if k % 3 == 0 else 0) for k in range(20)] + [("echo", 7)]
    assert list(run_ordered(act, items, workers=2)) == [value for _, value in items]
    assert list(run_ordered(act, [])) == []


def test_a_lost_process_costs_one_item() -> None:
    items = [("echo", 0), ("die", 0), ("echo", 1), ("segfault", 0), ("hang", 0), ("echo", 2)]
    start = time.monotonic()
    results = list(run_ordered(act, items, workers=2, seconds=1.0))
    assert [r.reason if isinstance(r, Lost) else r for r in results] == [
        0,
        "crashed",
        1,
        "crashed",
        "too-slow",
        2,
    ]
    assert time.monotonic() - start < 60


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits memory on Linux only")
def test_memory_is_bounded() -> None:
    items = [("eat", 100), ("eat", 5000), ("echo", 3)]
    results = list(run_ordered(act, items, memory_bytes=2**30))
    assert results == [100 * 2**20, "no memory", 3]


def test_an_error_of_the_function_is_raised_here() -> None:
    results = run_ordered(act, [("echo", 1), ("raise", 4), ("echo", 2)], workers=2)
    assert next(results) == 1
    with pytest.raises(ScrubError, match="item 4"):
        next(results)


def test_items_are_read_as_they_are_needed() -> None:
    taken = 0

    def source() -> Iterator[tuple[str, int]]:
        nonlocal taken
        for k in range(1000):
            taken += 1
            yield ("pid", k)

    results = run_ordered(act, source())
    pid = next(results)
    assert taken < 20
    results.close()  # ends the process
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_a_hung_process_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {os.getcwd()!r})\n"
        "from mm.privacy.worker import run_ordered\n"
        "def hang(item):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(1000)\n"
        "if __name__ == '__main__':\n"
        "    list(run_ordered(hang, [1]))\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text() if sys.platform == "linux" else ""
            if ") Z " in state:  # dead, and not yet collected by whoever adopted it
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_bad_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        next(run_ordered(act, [], workers=0))
