"""Every class of values goes to a dictionary and comes back, and says what is wrong with a dictionary."""

from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import dataclass

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics._value import Value, kinds_of, value_from
from krause_dynamics.dynamics.layer_norm import MixedResponse
from krause_dynamics.forms.attention.lifting import Beside
from krause_dynamics.forms.attention.softcap import SoftCapped
from krause_dynamics.interaction import Edges
from krause_dynamics.interaction.neighbourhoods import All
from krause_dynamics.mean_field.cells import CircleCells, LatitudeCells, LineCells

# Values of the fields that have no default; everything else is built without arguments.
NEEDED = {
    "All": lambda: All((kd.Causal(), kd.Window(3), kd.TopK(2))),
    "AtTime": lambda: kd.stopping.AtTime(3.0),
    "Beside": lambda: Beside(kd.Window(2), np.array([[[0, 0, 0], [1, 1, 1]]])),
    "CircleCells": lambda: CircleCells(8),
    "ClustersSettled": lambda: kd.stopping.ClustersSettled(0.5),
    "Dynamics": lambda: kd.Dynamics(kd.krause(0.5), kd.Torus(2.0), value=np.eye(2), fixed=np.array([True, False])),
    "Edges": lambda: Edges(np.array([0, 1, 3]), np.array([0, 0, 1])),
    "FirstOf": lambda: kd.stopping.Frozen() | kd.stopping.AtTime(2.0),
    "Graph": lambda: kd.Graph(np.array([[True, False], [True, True]])),
    "Grid": lambda: kd.Grid(3, 4, prefix=1),
    "Interaction": lambda: kd.krause(np.array([[0.5], [1.0]]), kd.Within(1.0), normalised=False),
    "LatitudeCells": lambda: LatitudeCells(8, 3),
    "LineCells": lambda: LineCells(8, 0.0, 1.0),
    "MixedResponse": lambda: MixedResponse(2.0),
    "RandomKeys": lambda: kd.RandomKeys(4, seed=3, tokens=12),
    "PerLayer": lambda: kd.PerLayer((kd.softmax(1.0), kd.softmax(2.0))),
    "RandomRelocation": lambda: kd.opinions.RandomRelocation(0.1),
    "SoftCapped": lambda: SoftCapped(kd.DotProduct(0.5), 20.0),
    "Segments": lambda: kd.Segments(np.array([0, 3, 5])),
    "StepNoise": lambda: kd.StepNoise(0.1),
    "TopK": lambda: kd.TopK(3, ties="keep"),
    "Torus": lambda: kd.Torus(2.0),
    "TruthSeeking": lambda: kd.TruthSeeking(0.3, np.array([0.0, 1.0])),
    "Window": lambda: kd.Window(5, two_sided=True),
    "Within": lambda: kd.Within(np.array([0.5, 1.0]), closed=False),
}
FUNCTIONS = ("Radial",)  # holds a user's function, which no dictionary can


def _classes():
    """Of the whole package, modules that nothing else imports included."""
    for module in pkgutil.walk_packages(kd.__path__, "krause_dynamics."):
        if ".triton" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    ours = {name: kind for name, kind in kinds_of(Value).items() if kind.__module__.startswith("krause_dynamics.")}
    return sorted(set(ours) - set(FUNCTIONS))


@pytest.mark.parametrize("name", _classes())
def test_round_trip(name):
    value = NEEDED[name]() if name in NEEDED else kinds_of(Value)[name]()
    again = kd.from_dict(json.loads(json.dumps(value.to_dict())))
    assert type(again) is type(value)
    assert again == value
    assert hash(again) == hash(value)
    assert repr(value).startswith(f"{name}(")


def test_no_two_classes_of_values_bear_one_name():
    """A dictionary names a class by its bare name, so the second of two would hide the first."""
    below = {Value}
    while more := {sub for kind in below for sub in kind.__subclasses__()} - below:
        below |= more
    names = [kind.__name__ for kind in below if kind.__module__.startswith("krause_dynamics.")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "Spher"}, "unknown type 'Spher'; did you mean 'Sphere'"),
        ({"type": "Torus", "lenght": 2.0}, "unknown key of Torus 'lenght'; did you mean 'length'"),
        ({"type": "Torus"}, "Torus needs length"),
        ({"length": 2.0}, "the dictionary must name its type"),
        ({"type": "Torus", "length": "long"}, "Torus: length must be a number"),
        ({"type": "All", "members": [{"type": "Windw"}]}, "unknown type 'Windw'; did you mean 'Window'"),
    ],
)
def test_bad_dictionaries(content, message):
    with pytest.raises(ValueError, match=message):
        kd.from_dict(content)


@pytest.mark.parametrize("name", ["Graph", "Grid", "TopK", "Window", "Within"])
def test_everyone_is_the_unit_of_joining(name):
    part = NEEDED[name]()
    assert part & kd.Everyone() == kd.Everyone() & part == part
    assert part & kd.Causal() & kd.Everyone() == All((part, kd.Causal()))


def test_a_value_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"unknown space.type 'Causal'; known: Circle, "):
        value_from({"type": "Causal"}, kd.spaces.Space, "space")


def test_a_new_class_is_known_once_it_is_defined():
    @dataclass(frozen=True, eq=False)
    class _Cylinder(kd.Euclidean):
        height: float = 2.0

    try:
        assert value_from({"type": "_Cylinder", "height": 3.0}, kd.spaces.Space) == _Cylinder(3.0)
        assert _Cylinder(3.0) != _Cylinder(2.0)
    finally:
        del Value._types["_Cylinder"]


def test_classes_are_found_in_rooms_that_nobody_has_entered():
    import subprocess
    import sys

    code = "import krause_dynamics as kd; print(kd.from_dict({'type': 'StepNoise', 'std': 0.5}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("StepNoise(std=0.5")


def test_an_unknown_class_is_asked_for_at_the_door_of_the_package(monkeypatch):
    from krause_dynamics import _value

    class Door:
        def __init__(self, package):
            self.package = package

        def __getattr__(self, name):
            asked.append((self.package, name))
            raise AttributeError(name)

    asked = []
    monkeypatch.setattr(_value.importlib, "import_module", Door)
    with pytest.raises(ValueError, match="unknown type 'Cylinder'"):
        kd.from_dict({"type": "Cylinder"})
    kd.from_dict({"type": "Sphere"})
    assert asked == [("krause_dynamics", "Cylinder")]
