"""Errors whose message is one line for the person at the keyboard.

A message names the value, where it is and what to change. Scripts print it as it is and exit;
anything else that reaches the top is a defect of this package and keeps its traceback.
"""


class MMError(Exception):
    """Base of every error that the user can put right."""


class CheckpointError(MMError):
    """A model folder that cannot be read, is incomplete or is of another version."""


class ConfigError(MMError, ValueError):
    """An unknown name or a value out of its range in a configuration."""


class UsageError(MMError, ValueError):
    """A request that makes no sense as asked: no question, no such device, nothing to do."""


class StoppedError(MMError):
    """A run that was asked to stop (Ctrl-C, SIGTERM), and has saved what it had done."""


class PictureError(MMError, ValueError):
    """A picture that the model can't take, as one that is hundreds of times as long as wide."""


class NotFiniteError(MMError, ArithmeticError):
    """A model whose numbers are NaN or infinite: overflow in its dtype, or damaged weights."""

    @classmethod
    def in_logits(cls) -> "NotFiniteError":
        """The model can't choose a token."""
        return cls(
            "the model's logits hold NaN or infinity: use dtype 'bfloat16' or 'float32' if it runs"
            " in float16, else its weights are damaged"
        )
