"""Hypothesis strategies: rules of the family and clouds of particles."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import krause_dynamics as kd

positive = st.floats(0.2, 3.0)
scores = st.one_of(st.builds(kd.DotProduct, st.floats(-2.0, 4.0)), st.builds(kd.Gaussian, positive), st.just(kd.Flat()))
translation_invariant_scores = st.one_of(st.builds(kd.Gaussian, positive), st.just(kd.Flat()))
exchangeable = st.one_of(st.just(kd.Everyone()), st.builds(kd.Within, positive, closed=st.booleans()))
by_index = st.one_of(
    st.just(kd.Others()),
    st.just(kd.Causal()),
    st.builds(kd.Window, st.integers(1, 6)),
    st.builds(lambda half: kd.Window(2 * half + 1, two_sided=True), st.integers(0, 3)),
    st.builds(lambda half: kd.Window(2 * half + 1, two_sided=True, periodic=True), st.integers(0, 2)),
)
top_k = st.builds(kd.TopK, st.integers(1, 6), ties=st.sampled_from(["index", "keep"]))
neighbourhoods = st.one_of(
    exchangeable,
    by_index,
    top_k,
    st.builds(lambda a, b: a & b, exchangeable, by_index),
    st.builds(lambda a, b, c: a & b & c, exchangeable, by_index, top_k),
)
rules = st.builds(kd.Interaction, scores, neighbourhoods)
exchangeable_rules = st.builds(kd.Interaction, scores, exchangeable)


@st.composite
def clouds(draw, min_n=1, max_n=12, max_d=4, d=None):
    """(n, d) positions of moderate size, on a fine grid so that distances meet radii and scores tie now and then."""
    n = draw(st.integers(min_n, max_n))
    d = draw(st.integers(1, max_d)) if d is None else d
    grid = hnp.arrays(np.int64, (n, d), elements=st.integers(-16, 16))
    return draw(grid).astype(float) / 8
