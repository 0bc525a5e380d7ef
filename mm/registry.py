"""Short names for parts: `siglip` means module `mm.encoders.siglip` and its class `Encoder`.

A file under the part's folder is enough to be found; a package outside this repository adds a name
through an entry point in the group of the same name (`mm.encoders`). Names match exactly, and two
parts under one name are refused. Only the standard library is imported here, and no part is
imported before it is asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import pkgutil
import sys
import types
import typing
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class UnknownNameError(ValueError):
    """A name or a config field that is not known; the message lists what is."""


class DuplicateNameError(ValueError):
    """Two parts claim one name."""


class ConfigValueError(ValueError):
    """A config value that is missing or of another type than its field."""


def unknown_name_message(kind: str, name: object, known: Collection[str]) -> str:
    """Say in one line that `name` is unknown, what is known, and which known name is near."""
    message = f"unknown {kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}"
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"{message}; did you mean {near[0]!r}?" if near else message


class Registry:
    """The parts of one kind, found by short name.

    Args:
        kind: what a part is called in messages, for example `encoder`.
        package: package whose modules are the built-in parts, and the entry-point group.
        attribute: name of the public class in each module.
        exclude: modules of the package that are not parts.
    """

    def __init__(
        self, kind: str, package: str, attribute: str, exclude: Collection[str] = ()
    ) -> None:
        self.kind = kind
        self.package = package
        self.attribute = attribute
        self.exclude = frozenset(exclude)

    def names(self) -> list[str]:
        """List every known name, sorted, without importing the parts."""
        return sorted(self._builtin() | set(self._plugins()))

    def get(self, name: str) -> Any:  # Any: the class's own type is the caller's contract
        """Import and return the class registered as `name`.

        Raises:
            UnknownNameError: no part has exactly this name.
            DuplicateNameError: an entry point reuses a built-in name.
        """
        builtin, plugins = self._builtin(), self._plugins()
        if name in builtin and name in plugins:
            raise DuplicateNameError(
                f"{self.kind} {name!r} is built in and also an entry point ({plugins[name].value}):"
                f" rename the entry point in group {self.package!r}"
            )
        if name in builtin:
            return getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)
        if name in plugins:
            loaded = plugins[name].load()
            return (
                getattr(loaded, self.attribute) if isinstance(loaded, types.ModuleType) else loaded
            )
        raise UnknownNameError(unknown_name_message(self.kind, name, builtin | set(plugins)))

    def config_type(self, name: str) -> Any:  # Any: a dataclass type of the part's own
        """Return the config dataclass of `name`: nested in its class, or next to it."""
        part = self.get(name)
        config = getattr(part, "Config", None) or getattr(
            sys.modules[part.__module__], "Config", None
        )
        if config is None:
            raise ConfigValueError(
                f"{self.kind} {name!r} has no Config dataclass next to {part.__qualname__}"
            )
        return config

    def build(self, name: str, config: Mapping[str, Any]) -> Any:
        """Make the part `name` from plain config values.

        Raises:
            UnknownNameError: unknown part or unknown config field.
            ConfigValueError: a field is missing or its value has the wrong type.
        """
        values = make_config(self.config_type(name), config, f"{self.kind} {name!r}")
        return self.get(name)(values)

    def name_of(self, part: type) -> str:
        """Return the name under which a class is registered (what a checkpoint stores)."""
        for name in self._builtin():
            if part.__module__ == f"{self.package}.{name}":
                return name
        for name in self._plugins():
            if self.get(name) is part:
                return name
        raise UnknownNameError(
            f"{part.__module__}.{part.__qualname__} is not a registered {self.kind}: add an entry"
            f" point in group {self.package!r}, so that a saved model can name it"
        )

    def _builtin(self) -> set[str]:
        spec = importlib.util.find_spec(self.package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        found = {module.name for module in pkgutil.iter_modules(places)}
        return {name for name in found - self.exclude if not name.startswith("_")}

    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.package):
            if point.name in found and found[point.name].value != point.value:
                raise DuplicateNameError(
                    f"{self.kind} {point.name!r} is two entry points in group {self.package!r}"
                    f" ({found[point.name].value} and {point.value}): uninstall one"
                )
            found[point.name] = point
        return found


def make_config(config_type: Any, values: Mapping[str, Any], where: str) -> Any:
    """Make a config dataclass from plain values, checking names and types.

    Args:
        config_type: the dataclass.
        values: field values as JSON or YAML give them; lists become tuples, and mappings the
            dataclasses that their fields are declared as.
        where: what is being configured, for messages.

    Raises:
        UnknownNameError: a key is no field.
        ConfigValueError: a field without default is missing, or a value has the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type) if field.init}
    for key in values:
        if key not in fields:
            raise UnknownNameError(unknown_name_message(f"field of {where}", key, fields))
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigValueError(f"{where} needs a value for {', '.join(missing)}")
    hints = typing.get_type_hints(config_type)
    checked = {
        key: _checked(value, hints[key], f"{key} of {where}") for key, value in values.items()
    }
    return config_type(**checked)


def _checked(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value in args:
            return value
        wanted = " or ".join(repr(arg) for arg in args)
    elif origin in (typing.Union, types.UnionType):
        # A mapping can only be the one dataclass, whose own message says what is wrong in it.
        nested = [arg for arg in args if dataclasses.is_dataclass(arg)]
        if isinstance(value, Mapping) and len(nested) == 1:
            return _checked(value, nested[0], where)
        for arg in args:
            try:
                return _checked(value, arg, where)
            except ConfigValueError:
                continue
        named = (
            "null" if arg is type(None) else getattr(arg, "__name__", str(arg)) for arg in args
        )
        wanted = " or ".join(named)
    elif origin is tuple:
        wanted = f"a list like {hint}"
        if isinstance(value, list | tuple):
            kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
            if len(kinds) == len(value):
                pairs = zip(value, kinds, strict=True)
                return tuple(_checked(item, kind, where) for item, kind in pairs)
            wanted = f"{len(kinds)} values"
    elif hint is float:
        wanted = "a number"
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint is type(None):
        wanted = "null"
        if value is None:
            return None
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return make_config(hint, value, where)
    elif isinstance(hint, type):
        wanted = {int: "a whole number", bool: "true or false", str: "text"}.get(
            hint, hint.__name__
        )
        if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
            return value
    else:
        return value
    raise ConfigValueError(f"{where} is {value!r}; it must be {wanted}")
