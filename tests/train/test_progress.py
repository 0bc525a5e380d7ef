import time
from collections.abc import Iterator

import pytest
import torch

from mm.train.progress import Progress


def test_waiting_speed_and_time_left_are_those_since_the_last_line() -> None:
    progress = Progress(10, 2, 1000, torch.device("cpu"))

    def slow() -> Iterator[int]:
        for index in range(3):
            time.sleep(0.02)
            yield index

    seen = []
    for index in progress.watch(slow()):
        seen.append(index)
        progress.tokens += 50
    found = progress.measure(5)
    assert seen == [0, 1, 2]
    assert found["tokens"] == 1150 and found["data_wait"] > 0.8
    assert found["tokens_per_s"] < 150 / 0.06
    assert found["seconds_left"] > 5 * 0.02
    time.sleep(0.02)
    again = progress.measure(6)
    assert again["data_wait"] == 0 and again["tokens_per_s"] == 0


def test_the_line_says_what_there_is() -> None:
    progress = Progress(10, 0, 0, torch.device("cpu"))
    metrics = {
        "step": 5, "loss": 1.5, "patch_loss": 0.25, "tokens_per_s": 2000.0, "data_wait": 0.015,
        "seconds_left": 90.0,
    }  # fmt: skip
    wanted = "step 5/10  loss 1.5000  patches 0.250  2k tok/s  waits 2%  1.5 min left"
    assert progress.line(metrics) == wanted
    assert "  3.5 GiB  " in progress.line({**metrics, "memory_gib": 3.5})


@pytest.mark.gpu
def test_memory_is_that_of_the_gpu() -> None:
    progress = Progress(1, 0, 0, torch.device("cuda"))
    assert progress.measure(1)["memory_gib"] >= 0
