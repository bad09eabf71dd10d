"""A keyword that does not exist is answered with what to write instead, and that call works."""

import re

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics._arguments.meant import MEANT
from tests.keywords.public import callables, parameters

X = kd.initial.uniform(12, 2, rng=0)


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        (kd.krause, {"radius": 0.5}, kd.krause(1.0, kd.Within(0.5))),
        (kd.krause, {"epsilon": 0.5}, kd.krause(1.0, kd.Within(0.5))),
        (kd.krause, {"window": 5}, kd.krause(1.0, kd.Window(5))),
        (kd.krause, {"top_k": 3}, kd.krause(1.0, kd.TopK(3))),
        (kd.krause, {"causal": True}, kd.krause(1.0, kd.Causal())),
        (kd.krause, {"bandwidth": 0.5}, kd.krause(0.5)),
        (kd.krause, {"beta": 4}, kd.krause(0.5)),
        (kd.krause, {"temperature": 4}, kd.krause(2.0)),
        (kd.softmax, {"sigma": 0.5}, kd.softmax(4.0)),
        (kd.softmax, {"temperature": 0.5}, kd.softmax(2.0)),
        (kd.softmax, {"radius": 0.5}, kd.softmax(1.0, kd.Within(0.5))),
        (kd.bounded_confidence, {"eps": 0.5}, kd.bounded_confidence(0.5)),
        (kd.Within, {"eps": 0.5}, kd.Within(0.5)),
        (kd.TopK, {"top_k": 3}, kd.TopK(3)),
        (kd.Window, {"window": 5}, kd.Window(5)),
        (kd.Gaussian, {"bandwidth": 2.0}, kd.Gaussian(2.0)),
    ],
)
def test_the_advice_is_the_rule_that_was_meant(call, given, meant):
    with pytest.raises(TypeError, match="has no argument") as caught:
        call(**given)
    keyword, _, value = re.fullmatch(r".*; write (.*)", str(caught.value))[1].partition("=")
    assert call(**{keyword: eval(value, {"kd": kd})}) == meant


def test_other_calls_too():
    dynamics = kd.Dynamics(kd.krause(0.5))
    with pytest.raises(TypeError, match=r"simulate\(\) has no argument 't_max'; write t_end=3"):
        kd.simulate(dynamics, X, t_max=3)
    with pytest.raises(TypeError, match=r"write dynamics=kd.Dynamics\(rule, space\)"):
        kd.simulate(kd.krause(0.5), X, 3.0, space=kd.Sphere())
    with pytest.raises(TypeError, match=r"find\(\) has no argument 'epsilon'; write radius=0.1"):
        kd.clusters.find(X, epsilon=0.1)
    with pytest.raises(TypeError, match=r"write neighbourhood=kd.Within\(radius\)"):
        kd.krause(radius=np.ones(12))  # an array is not printed
    with pytest.raises(TypeError, match="krause.. has no argument 'sigam'; did you mean 'sigma'"):
        kd.krause(sigam=1.0)
    with pytest.raises(TypeError, match="winning_mode.. has no argument 'bet'; did you mean 'beta'"):
        kd.theory.winning_mode(bet=20.0)
    with pytest.raises(TypeError, match="Window has no argument 'past'; it has size, two_sided"):
        kd.Window(5, past=True)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'radius'"):
        kd.Within(closed=False)


def test_whatever_is_written_is_an_argument_of_something():
    """A renamed argument leaves no advice behind that nobody can follow."""
    keywords = {name for thing in callables().values() for name in parameters(thing)}
    assert {form.partition("=")[0] for forms in MEANT.values() for form in forms} <= keywords


def test_attention_has_no_radius_in_space():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="radius=0.5 needs grid="):
        kd.nn.KrauseAttention(8, 2, radius=0.5)
    with pytest.raises(TypeError, match="has no argument 'bandwidth'; write sigma=0.5"):
        kd.nn.krause_attention(*torch.zeros(3, 1, 1, 4, 2), bandwidth=0.5)
