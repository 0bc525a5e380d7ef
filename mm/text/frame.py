"""How a picture stands in a chat's text: its placeholders, and the added tokens around them."""

from collections.abc import Mapping
from dataclasses import dataclass

from mm.errors import UsageError


@dataclass(frozen=True)
class PictureFrame:
    """A picture of three tokens is `start`, three times `token`, `end`.

    Args:
        start: an added token, or nothing.
        token: the placeholder, an added token too.
        end: an added token, and perhaps white space, which is read with the text that follows; or
            nothing.
        opening: what a chat begins with that has no system turn, in added tokens and their names.
        text_end: what follows each text that stands beside pictures.
    """

    start: str = "<|vision_start|>"
    token: str = "<|image_pad|>"
    end: str = "<|vision_end|>"
    opening: str = ""
    text_end: str = ""

    @classmethod
    def of(cls, chat: Mapping[str, object]) -> "PictureFrame":
        """Read a model's `chat` settings: `image_start`, `image_token`, `image_end`, `opening` and
        `text_end`, where given.

        Raises:
            UsageError: one is no text, or white space alone, or the placeholder is empty.
        """
        found: dict[str, str] = {}
        for name in ("start", "token", "end"):
            value = chat.get(f"image_{name}", getattr(cls, name))
            is_token = isinstance(value, str) and (value.strip() or (not value and name != "token"))
            if not isinstance(value, str) or not is_token:
                raise UsageError(f"chat.image_{name} is {value!r}; it must be an added token")
            found[name] = value
        for name in ("opening", "text_end"):
            value = chat.get(name, "")
            if not isinstance(value, str):
                raise UsageError(f"chat.{name} is {value!r}; it must be text")
            found[name] = value
        return cls(**found)

    def around(self, count: int) -> tuple[str, str]:
        """Return the added tokens of a picture of `count` tokens, and the text after them."""
        end = self.end.rstrip()
        return f"{self.start}{self.token * count}{end}", self.end[len(end) :]


QWEN_FRAME = PictureFrame()
