"""Run a function over many items on Ray Data: the same results in the same order as here.

Items go to the cluster a window at a time, so that neither this process nor Ray's object store
holds more than one. Ray's own files are kept in a folder that is removed at the end, and its usage
reports are turned off. Needs `pip install 'mm[ray]'`.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mm.privacy.errors import ScrubError

_BATCH = 8  # items a task
_TASKS = 16  # tasks a processor and window
_RETRIES = 1  # of a task whose process died; Ray's own default is without end
_WINDOW_BYTES = 512 * 2**20  # of pictures that were read already


def run_ordered(
    function: Callable[[Any], Any],
    items: Iterable[Any],  # (number, record)
    *,
    workers: int = 0,
    rescue: Callable[[Iterable[Any]], Iterator[Any]],
) -> Iterator[Any]:
    """Yield `function(item)` for each item, in order.

    Joins the cluster that `RAY_ADDRESS` names, where `mm` must be installed and the files of the
    source must be found under the same paths; or starts one here and ends it afterwards.

    Args:
        function: a module-level function, or a `functools.partial` of one.
        items: read as they are needed, in this process.
        workers: processors of a cluster that is started here; 0: all of this machine.
        rescue: does the rest of a window whose task was lost, one item at a time.

    Raises:
        ScrubError: Ray is not installed, or its cluster can't be reached.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise ScrubError("backend=ray needs Ray: `pip install 'mm[ray]'`") from None
    with _cluster(ray, workers):
        size = _BATCH * _TASKS * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for window in _windows(items, size):
            done = 0
            rows = ray.data.from_items(
                [{"item": item} for item in window],
                override_num_blocks=-(-len(window) // _BATCH),
            ).map_batches(partial(_run, function=function), batch_size=None, max_retries=_RETRIES)
            try:
                for row in rows.iter_rows():
                    yield row["result"]
                    done += 1
            except RayError:  # the process of a task died; Ray has tried again in vain
                yield from rescue(window[done:])


def _run(batch: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    import numpy as np

    results = np.empty(len(batch["item"]), dtype=object)
    for place, item in enumerate(batch["item"]):
        results[place] = function(item)
    return {"result": results}


def _windows(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    window: list[Any] = []
    held = 0
    for item in items:
        window.append(item)
        held += sum(map(len, getattr(item[1], "images", ())))
        if len(window) >= size or held > _WINDOW_BYTES:
            yield window
            window, held = [], 0
    if window:
        yield window


@contextmanager
def _cluster(ray: Any, workers: int) -> Iterator[None]:  # the module
    """Use the cluster that is there, or one of our own for as long as it is needed."""
    logs = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [log.level for log in logs]
    told = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    folder = None
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if "RAY_ADDRESS" not in os.environ:
                folder = tempfile.mkdtemp(prefix="mm-ray-")
                options |= {"include_dashboard": False, "_temp_dir": folder}
                options |= {"num_cpus": workers} if workers > 0 else {}
            try:
                ray.init(**options)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                kind = type(error).__name__
                raise ScrubError(
                    f"no Ray cluster ({kind}): check RAY_ADDRESS, or unset it to start one here"
                ) from None
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        yield
    finally:
        if folder is not None:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        if told is None:
            os.environ.pop("RAY_USAGE_STATS_ENABLED", None)
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = told
