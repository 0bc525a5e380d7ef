"""A policy: everything that decides what scrubbing does, as one frozen, hashable record."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from PIL import Image

from mm.privacy import door, text
from mm.privacy.door import Limits
from mm.privacy.errors import ScrubError

ENCODINGS = ("png", "webp", "jpeg")
ON_FAILURE = ("quarantine", "stop")


@dataclass(frozen=True)
class Policy:
    """How pictures and texts are cleaned.

    Args:
        name: what the policy is called, for people.
        encoding: png (lossless), webp (lossless at quality 100) or jpeg.
        quality: 1 to 100, for webp and jpeg.
        longest_side: pictures above this many pixels are shrunk to it; None leaves sizes alone.
        background: colour (0 to 255) behind transparent pixels.
        text_rules: rules of `mm.privacy.text`, applied in this order.
        phone_regions: countries whose national phone formats are known.
        max_text_chars: a longer text is refused, so that no rule can run out of time or tries.
        limits: what a picture may cost to decode.
        on_failure: quarantine (count it, go on) or stop.
    """

    name: str = "default"
    encoding: str = "png"
    quality: int = 92
    longest_side: int | None = 1024
    background: tuple[int, int, int] = (255, 255, 255)
    text_rules: tuple[str, ...] = text.DEFAULT_RULES
    phone_regions: tuple[str, ...] = text.DEFAULT_REGIONS
    max_text_chars: int = 100_000
    limits: Limits = field(default_factory=Limits)
    on_failure: str = "quarantine"

    def __post_init__(self) -> None:
        for name in ("background", "text_rules", "phone_regions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        checks = {
            "name": isinstance(self.name, str) and self.name != "",
            "encoding": self.encoding in ENCODINGS,
            "quality": isinstance(self.quality, int) and 1 <= self.quality <= 100,
            "longest_side": self.longest_side is None
            or (isinstance(self.longest_side, int) and self.longest_side > 0),
            "background": len(self.background) == 3
            and all(isinstance(value, int) and 0 <= value <= 255 for value in self.background),
            "max_text_chars": isinstance(self.max_text_chars, int) and self.max_text_chars > 0,
            "limits": isinstance(self.limits, Limits),
            "on_failure": self.on_failure in ON_FAILURE,
        }
        for name, good in checks.items():
            if not good:
                raise ScrubError(
                    f"policy.{name} is {getattr(self, name)!r}; see conf/policy/default.yaml"
                    " for what it takes"
                )
        try:
            text.check_rules(self.text_rules, self.phone_regions)
        except ValueError as error:
            raise ScrubError(f"policy: {error}") from None

    def as_dict(self) -> dict[str, Any]:  # plain JSON data
        """Return the policy as plain JSON data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def hash(self) -> str:
        """Return the SHA-256 of the policy's canonical JSON."""
        return digest(self.as_dict())

    def fit(self, image: Image.Image) -> Image.Image:
        """Shrink a picture to `longest_side` if it is larger."""
        if self.longest_side is None or max(image.size) <= self.longest_side:
            return image
        scale = self.longest_side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)

    def encode(self, image: Image.Image) -> bytes:
        """Encode a door image as this policy says, from its pixels only."""
        if self.encoding == "png":
            return door.encode_png(image)
        if self.encoding == "webp":
            return door.encode_webp(image, self.quality, lossless=self.quality == 100)
        return door.encode_jpeg(image, self.quality)


def from_dict(values: Mapping[str, Any]) -> Policy:
    """Build a policy from plain data, as a YAML file or a ledger holds it.

    Keys that start with an underscore belong to Hydra and are skipped.

    Raises:
        ScrubError: unknown key or bad value.
    """
    plain = {key: value for key, value in values.items() if not key.startswith("_")}
    known = {item.name for item in fields(Policy)}
    for key in plain:
        if key not in known:
            raise ScrubError(f"unknown policy key {key!r}; known: {', '.join(sorted(known))}")
    if isinstance(plain.get("limits"), Mapping):
        limits = {key: v for key, v in plain["limits"].items() if not key.startswith("_")}
        try:
            plain["limits"] = Limits(**limits)
        except (TypeError, ValueError) as error:
            raise ScrubError(f"policy.limits: {error}") from None
    return Policy(**plain)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy from a YAML file such as conf/policy/default.yaml."""
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.load(os.fspath(path)))
    except OSError:
        raise ScrubError(f"no policy file {os.fspath(path)}: see conf/policy/") from None
    if not isinstance(values, dict):
        raise ScrubError(f"policy file {os.fspath(path)} must hold a mapping")
    return from_dict({str(key): value for key, value in values.items()})


def digest(value: Any) -> str:  # any JSON data
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
