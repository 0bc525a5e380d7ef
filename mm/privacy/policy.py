"""A policy: everything that decides what scrubbing does, as one frozen record of plain data."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from PIL import Image

from mm.privacy.door import Limits
from mm.privacy.encode import ENCODINGS, encode
from mm.privacy.errors import ScrubError
from mm.privacy.text import ACTIONS, DEFAULT_REGIONS, KINDS, check_rules

PAGES = ("first", "refuse")
ON_FAILURE = ("quarantine", "stop")
PIXEL_ACTIONS = ("cover", "drop", "keep")
PIXEL_FIELDS = ("faces", "codes", "text_in_pictures", "plates")


@dataclass(frozen=True)
class Policy:
    """How pictures and texts are cleaned. Metadata goes under every policy; there is no "off".

    Args:
        name: what the policy is called, for people.
        encoding: png (lossless), webp (lossless at quality 100) or jpeg.
        quality: 1 to 100, for webp and jpeg.
        longest_side: pictures above this many pixels are shrunk to it; None leaves sizes alone.
        background: colour (0 to 255) behind transparent pixels.
        pages: of a file with several pictures the first is used, or it is refused.
        text: kind of personal text to what happens to it: mask (a typed placeholder), pseudonym
            (one that is the same for the same value under one key), drop (the sample) or keep.
        text_default: what happens to kinds that `text` does not name.
        names: what finds people in texts: rules (and lists), or presidio or spacy besides.
        phone_regions: countries whose national phone formats are known.
        max_text_chars: a longer text is refused, so that no rule can run out of time or tries.
        faces, codes, text_in_pictures, plates: what happens to those that are seen in a picture:
            cover, drop (the sample) or keep (nothing looks for them).
        limits: what a picture may cost to decode.
        on_failure: quarantine (count it, go on) or stop.
    """

    name: str = "standard"
    encoding: str = "png"
    quality: int = 92
    longest_side: int | None = 1024
    background: tuple[int, int, int] = (255, 255, 255)
    pages: str = "first"
    text: Mapping[str, str] = field(default_factory=dict)
    text_default: str = "mask"
    names: str = "rules"
    phone_regions: tuple[str, ...] = DEFAULT_REGIONS
    max_text_chars: int = 100_000
    faces: str = "keep"
    codes: str = "keep"
    text_in_pictures: str = "keep"
    plates: str = "keep"
    limits: Limits = field(default_factory=Limits)
    on_failure: str = "quarantine"

    def __post_init__(self) -> None:
        for name in ("background", "phone_regions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        checks = {
            "name": isinstance(self.name, str) and self.name != "",
            "encoding": self.encoding in ENCODINGS,
            "quality": isinstance(self.quality, int) and 1 <= self.quality <= 100,
            "longest_side": self.longest_side is None
            or (isinstance(self.longest_side, int) and self.longest_side > 0),
            "background": len(self.background) == 3
            and all(isinstance(value, int) and 0 <= value <= 255 for value in self.background),
            "pages": self.pages in PAGES,
            "text": isinstance(self.text, Mapping),
            "text_default": self.text_default in ACTIONS,
            "max_text_chars": isinstance(self.max_text_chars, int) and self.max_text_chars > 0,
            **{name: getattr(self, name) in PIXEL_ACTIONS for name in PIXEL_FIELDS},
            "limits": isinstance(self.limits, Limits),
            "on_failure": self.on_failure in ON_FAILURE,
        }
        for name, good in checks.items():
            if not good:
                raise ScrubError(
                    f"policy.{name} is {getattr(self, name)!r}; see conf/privacy/standard.yaml"
                    " for what it takes"
                )
        for kind, action in self.text.items():
            if kind not in KINDS:
                known = ", ".join(sorted(KINDS))
                raise ScrubError(f"policy.text names the unknown kind {kind!r}; known: {known}")
            if action not in ACTIONS:
                raise ScrubError(
                    f"policy.text.{kind} is {action!r}; it must be one of {', '.join(ACTIONS)}"
                )
        # Every kind by name, so that a ledger says what happened to each.
        whole = {kind: self.text.get(kind, self.text_default) for kind in sorted(KINDS)}
        object.__setattr__(self, "text", whole)
        try:
            check_rules(self.text_rules, self.phone_regions, names=self.names)
        except ValueError as error:
            raise ScrubError(f"policy: {error}") from None

    @property
    def text_rules(self) -> tuple[str, ...]:
        """The kinds that are looked for, in the order of the rules."""
        return tuple(kind for kind in KINDS if self.text[kind] != "keep")

    @property
    def needs_key(self) -> bool:
        """Whether a kind is replaced by a pseudonym, which takes a key."""
        return "pseudonym" in self.text.values()

    @property
    def looks(self) -> bool:
        """Whether a detector looks at the pictures."""
        return any(getattr(self, name) != "keep" for name in PIXEL_FIELDS)

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
        return encode(image, self.encoding, self.quality)


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
    """Read a policy from a YAML file such as conf/privacy/strict.yaml.

    Its `defaults` name files of the same folder that it changes, as Hydra would compose them.

    Raises:
        ScrubError: no such file, unknown key or bad value.
    """
    return from_dict(_composed(os.fspath(path)))


def _composed(path: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except OSError:
        raise ScrubError(f"no policy file {path}: see conf/privacy/") from None
    if not isinstance(values, dict):
        raise ScrubError(f"policy file {path} must hold a mapping")
    named = values.pop("defaults", [])
    below = [_composed(os.path.join(os.path.dirname(path), f"{name}.yaml")) for name in named]
    whole = OmegaConf.to_container(OmegaConf.merge(*below, values))
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items()}


def digest(value: Any) -> str:  # any JSON data
    """Return the SHA-256 (hex) of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
