"""Where the time of a step goes: `debug=profile`, or `recipe.profile_steps`."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from mm.train.run import RunFolder

SKIPPED, WARM = 3, 1  # steps before the profiled ones: start-up and compiling; the profiler's own
ROWS, SHOWN = 40, 12  # operations in the file, and on the screen


class Profile:
    """Profiles some steps of a run, after its first few; does nothing for `steps` 0.

    Leaves `profile/table.txt`, operations by the time that they take, and `profile/trace.json`,
    which https://ui.perfetto.dev and chrome://tracing draw. Both name operations, no data.
    """

    def __init__(self, steps: int, folder: RunFolder, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._profile: Any = None  # Any: untyped
        if steps and folder.world.is_main:
            activities = [ProfilerActivity.CPU]
            if device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=SKIPPED, warmup=WARM, active=steps, repeat=1),
                on_trace_ready=self._write,
            )

    def __enter__(self) -> Profile:
        if self._profile is not None:
            self._profile.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._profile is not None:
            self._profile.__exit__(kind, error, trace)

    def step(self) -> None:
        """Say that a step is over."""
        if self._profile is not None:
            self._profile.step()

    def _write(self, found: Any) -> None:  # Any: the profiler's own class
        path = self.folder.path / "profile"
        path.mkdir(exist_ok=True)
        found.export_chrome_trace(str(path / "trace.json"))
        operations = found.key_averages()
        by = f"self_{self.device.type}_time_total"
        self.folder.write("profile/table.txt", operations.table(sort_by=by, row_limit=ROWS))
        short = operations.table(sort_by=by, row_limit=SHOWN, max_name_column_width=40)
        print(f"{short}\n{path}: table.txt and trace.json", file=sys.stderr)
