"""OpenCV, or an error that says how to install it."""

from functools import lru_cache

from mm.privacy.errors import ScrubError

INSTALL = "pip install 'mm[privacy]'"


@lru_cache(maxsize=1)
def check() -> None:
    """Make sure that OpenCV starts, with one thread: pictures are shared out among processes.

    Raises:
        ScrubError: it is not installed, or lacks a library of the system.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise ScrubError(f"OpenCV is not installed: {INSTALL}") from None
    except ImportError:
        raise ScrubError(
            "OpenCV does not start, as it lacks a library of the system:"
            " apt-get install libgl1 libglib2.0-0"
        ) from None
    cv2.setNumThreads(1)
