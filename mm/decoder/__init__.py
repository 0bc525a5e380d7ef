"""Text decoders by short name; a decoder knows nothing of images."""

from typing import Any

from mm.registry import Registry

_registry = Registry(
    "decoder",
    "mm.decoder",
    "Decoder",
    exclude={"cache", "compiled", "fused", "fused_kernels", "experts"},
)


def names() -> list[str]:
    """List the known decoder names."""
    return _registry.names()


def get(name: str) -> Any:  # Any: decoders of different families share no base class
    """Return the decoder class registered as `name`."""
    return _registry.get(name)


def build(name: str, config: dict[str, Any]) -> Any:  # config: plain values from JSON or YAML
    """Make a decoder from its name and plain config values."""
    return _registry.build(name, config)


def name_of(decoder: type) -> str:
    """Return the name of a decoder class."""
    return _registry.name_of(decoder)
