"""Several processes at one run, as `torchrun` would start them, without its seconds of start."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Imported once, by the process that the others are forked from.
PRELOADED = ["torch.distributed.fsdp", "mm.train.build", "hydra", "tests.train.tiny_run"]


def together(count: int, work: Callable[..., Any], *arguments: Any, log: Path) -> list[int]:
    """Call `work` in `count` processes, which write to `log-RANK`; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    processes = [
        context.Process(target=_as_rank, args=(rank, count, port, log, work, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def _as_rank(
    rank: int, count: int, port: int, log: Path, work: Callable[..., Any], arguments: Any
) -> None:
    import torch

    with open(f"{log}-{rank}", "w", buffering=1) as sys.stderr:
        torch.set_num_threads(1)
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        try:
            work(*arguments)
        except BaseException as error:
            import traceback

            traceback.print_exc()
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
