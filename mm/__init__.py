"""mm: a picture goes in, words come out.

`mm.load()` gives the model that ships with the package; see `mm.model.Model`. Importing `mm` has
no effects and is quick: PyTorch is imported when a model is loaded.
"""

import importlib
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm.model import Model

__version__ = "0.1.0"
_SUBPACKAGES = ("checkpoints", "decoder", "encoders", "projectors", "text")


def load(
    path: str | PathLike[str] | None = None, device: str = "auto", dtype: str | None = None
) -> "Model":
    """Load a model to caption pictures and answer questions about them.

    Args:
        path: a folder saved by `mm.checkpoints.native.save`; None is the model in the package.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dtype: "float32", "bfloat16", "float16"; None is bfloat16 on a GPU, float32 on a CPU.

    Raises:
        mm.errors.MMError: no such model, a damaged or foreign folder, no such device.
    """
    from mm.model import Model

    return Model.load(path, device, dtype)


def __getattr__(name: str) -> ModuleType:
    """Import `mm.encoders` and its like when they are first used."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"mm.{name}")
    raise AttributeError(f"module 'mm' has no attribute {name!r}")
