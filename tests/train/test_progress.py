import time
from collections.abc import Iterator

import pytest
import torch

from mm.data.packing import Encoded, Row, collate, place
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.train import progress as module
from mm.train.flops import Work, decoder_flops
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
    assert "2k tok/s  MFU 41%  waits" in progress.line({**metrics, "mfu": 0.409})


@pytest.mark.parametrize("learns", [True, False])
def test_the_decoders_work_is_given_as_a_share_of_the_peak(
    monkeypatch: pytest.MonkeyPatch, tiny_decoder: Qwen3ForCausalLM, learns: bool
) -> None:
    monkeypatch.setattr(module, "peak_flops", lambda device: 1e9)
    tiny_decoder.requires_grad_(learns)
    row = Row()
    place(row, Encoded(0, [1, 2], [([3, 4, 5], [False, True, True])]), 8)
    progress = Progress(10, 0, 0, torch.device("cpu"), tiny_decoder)
    progress.count([collate([row], 8, 0)], processes=2)
    found = progress.measure(1)
    seconds = found["tokens"] / found["tokens_per_s"]
    assert found["tokens"] == 16  # padding too, of both processes
    flops = decoder_flops(tiny_decoder.config, Work(5, 15, 2), trained=learns)["usual"]
    assert found["mfu"] == pytest.approx(flops / seconds / 1e9)
    assert "mfu" not in progress.measure(2)  # nothing was done since


@pytest.mark.gpu
def test_memory_is_that_of_the_gpu() -> None:
    progress = Progress(1, 0, 0, torch.device("cuda"))
    assert progress.measure(1)["memory_gib"] >= 0
