"""Short names: near misses, entry points, refused duplicates, checked configs."""

import sys
import types
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Literal

import pytest

from mm import registry
from mm.registry import (
    ConfigValueError,
    DuplicateNameError,
    Registry,
    UnknownNameError,
    make_config,
)


@pytest.fixture
def parts() -> Registry:
    others = {"attention", "checks", "shuffle"}
    others |= {"c_abstractor", "deepstack", "patch_merger", "perceiver", "qformer"}
    return Registry("projector", "mm.projectors", "Projector", exclude=others)


@pytest.fixture
def plugin(monkeypatch) -> list[EntryPoint]:
    """Entry points that look installed; a module `outside_part` with a class and its config."""

    @dataclass(frozen=True)
    class Config:
        size: int

    class Projector:
        def __init__(self, config):
            self.config = config

    module = types.ModuleType("outside_part")
    module.Config, module.Projector = Config, Projector
    Projector.__module__ = "outside_part"
    monkeypatch.setitem(sys.modules, "outside_part", module)
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    return points


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="mm.projectors")


def test_names_are_modules_less_the_excluded(parts):
    assert parts.names() == ["linear", "mlp"]


@pytest.mark.parametrize("name", ["shuffle", "Linear", "linear.Projector", "os", "", "../linear"])
def test_only_exact_names_of_parts_are_found(parts, name):
    with pytest.raises(UnknownNameError, match="known: linear, mlp"):
        parts.get(name)


def test_near_miss_is_suggested_and_a_far_one_is_not(parts):
    with pytest.raises(UnknownNameError) as near:
        parts.get("linaer")
    assert str(near.value) == (
        "unknown projector 'linaer'; known: linear, mlp; did you mean 'linear'?"
    )
    with pytest.raises(UnknownNameError) as far:
        parts.get("resampler")
    assert str(far.value) == "unknown projector 'resampler'; known: linear, mlp"


@pytest.mark.parametrize("value", ["outside_part", "outside_part:Projector"])
def test_entry_point_to_a_module_or_a_class_adds_a_name(parts, plugin, value):
    plugin.append(point("outside", value))
    assert parts.names() == ["linear", "mlp", "outside"]
    built = parts.build("outside", {"size": 3})
    assert built.config.size == 3


def test_entry_point_class_is_named_for_a_checkpoint(parts, plugin):
    plugin.append(point("outside", "outside_part:Projector"))
    assert parts.name_of(sys.modules["outside_part"].Projector) == "outside"


def test_class_that_nothing_registers_cannot_be_named(parts, plugin):
    with pytest.raises(UnknownNameError, match="not a registered projector: add an entry point"):
        parts.name_of(sys.modules["outside_part"].Projector)


def test_entry_point_with_a_builtin_name_is_refused(parts, plugin):
    plugin.append(point("linear", "outside_part:Projector"))
    with pytest.raises(DuplicateNameError, match="'linear' is built in and also an entry point"):
        parts.get("linear")


def test_two_entry_points_of_one_name_are_refused_unless_the_same(parts, plugin):
    plugin += [point("outside", "outside_part"), point("outside", "outside_part")]
    assert parts.names() == ["linear", "mlp", "outside"]
    plugin.append(point("outside", "elsewhere:Projector"))
    with pytest.raises(DuplicateNameError, match="two entry points"):
        parts.names()


@dataclass(frozen=True)
class Example:
    width: int
    scale: float = 1.0
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    mean: tuple[float, ...] = (0.5,)
    limit: int | None = None


def test_config_takes_plain_values():
    values = {"width": 3, "scale": 2, "kind": "b", "mean": [1, 0.5], "limit": None}
    config = make_config(Example, values, "part 'x'")
    assert config == Example(3, 2.0, False, "b", (1.0, 0.5), None)
    assert isinstance(config.scale, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "part 'x' needs a value for width"),
        ({"width": "3"}, "width of part 'x' is '3'; it must be a whole number"),
        ({"width": 3.0}, "width of part 'x' is 3.0; it must be a whole number"),
        ({"width": True}, "width of part 'x' is True; it must be a whole number"),
        ({"width": 3, "scale": "1"}, "scale of part 'x' is '1'; it must be a number"),
        ({"width": 3, "flag": 1}, "flag of part 'x' is 1; it must be true or false"),
        ({"width": 3, "kind": "c"}, "kind of part 'x' is 'c'; it must be 'a' or 'b'"),
        ({"width": 3, "mean": 0.5}, "mean of part 'x' is 0.5; it must be a list"),
        ({"width": 3, "limit": "no"}, "limit of part 'x' is 'no'; it must be int or null"),
    ],
)
def test_config_value_of_the_wrong_type_is_refused(values, message):
    with pytest.raises(ConfigValueError, match=message):
        make_config(Example, values, "part 'x'")


def test_config_field_misspelt_suggests_the_right_one():
    with pytest.raises(UnknownNameError, match="unknown field of part 'x' 'widht'.*'width'"):
        make_config(Example, {"widht": 3}, "part 'x'")


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    factor: float
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None
    width: int = 1


def test_nested_mapping_becomes_the_fields_dataclass():
    made = make_config(Outer, {"inner": {"kind": "b", "factor": 2, "sizes": [3]}}, "part")
    assert made == Outer(Inner("b", 2.0, (3,)))
    assert make_config(Outer, {"inner": None}, "part") == Outer()
    assert make_config(Outer, {"inner": made.inner}, "part") == made


@pytest.mark.parametrize(
    ("inner", "error", "message"),
    [
        ({"kind": "c", "factor": 1}, ConfigValueError, "kind of inner of part is 'c'; .* 'a' or"),
        ({"kind": "a"}, ConfigValueError, "inner of part needs a value for factor"),
        ({"kind": "a", "factr": 1}, UnknownNameError, "field of inner of part 'factr'.*'factor'"),
        (3, ConfigValueError, "inner of part is 3; it must be Inner or null"),
    ],
)
def test_nested_mapping_that_does_not_fit_says_where(inner, error, message):
    with pytest.raises(error, match=message):
        make_config(Outer, {"inner": inner}, "part")
