"""Softmax and Krause on the circle.

The same 64 tokens: under softmax attention all meet, within a radius of one half several clusters remain.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd

circle = kd.Circle()
x0 = circle.sample(n=64, d=2, rng=1)
rules = {"softmax, beta = 1": kd.softmax(1.0), "Krause, sigma = 1, radius 0.5": kd.krause(1.0, kd.Within(0.5))}
with kd.plots.style():
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.5), sharey=False)  # each circle is cut open elsewhere
    for ax, (name, rule) in zip(panels, rules.items(), strict=True):
        kd.plots.angles(kd.simulate(kd.Dynamics(rule, circle), x0, 15.0), ax=ax)
        ax.set_title(name)
    figure.savefig(sys.argv[1])
