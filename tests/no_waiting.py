"""A block in which any wait of the host for the GPU raises."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise RuntimeError where the block waits for the device; the mode is given back after it."""
    with warnings.catch_warnings():
        # torch says once that this mode does not see every kind of wait.
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
