"""Rows of `kd.theory`: low temperature, bipartite consensus, what keeps tokens apart, heads, trees, waves."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize_scalar

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row
from tests.keywords.table_theory_sphere import follow, speed_of_gap

VALUE = np.array([[1.0, 0.4, 0.0], [-0.3, 0.2, 0.1], [0.5, 0.0, -0.6]])
START = np.array([[0.6, 0.8, 0.0], [0.0, -1.0, 0.0]])


@against(
    "kd.theory.low_temperature_flow",
    "Oja's equation integrated for each token",
    rtol=1e-8, atol=1e-10,
    times=([0.5], [0.5, 2.0]), start=(START, START[:, ::-1].copy()), value=(VALUE, VALUE.T.copy()),
)  # fmt: skip
def oja_each(times, start, value):
    return np.stack([follow(lambda x: value @ x - (x @ value @ x) * x, x, times).T for x in start], axis=1)


@against(
    "kd.theory.moderate_times",
    "V's gap, the largest logarithmic growth of a density by sums over points, and 1/speed integrated",
    rtol=1e-8,
    beta=(4.0, 7.0), gap=(0.5, 0.2), angle=(1.5, 2.0),
)  # fmt: skip
def three_phases(beta, gap, angle):
    points = 2 * np.pi * np.arange(400) / 400
    kernel = np.exp(beta * np.cos(points))
    mass = np.array([np.mean(kernel * np.cos(mode * points)) for mode in range(12)])
    growth = max(mode**2 * mass[mode] / mass[0] / beta for mode in range(1, 12))
    merging = quad(lambda a: -1.0 / speed_of_gap(a, beta, True), angle / 2, angle, epsrel=1e-11, limit=200)[0]
    return [1.0 / gap, 1.0 / growth, merging]


@against(
    "kd.theory.low_temperature_consensus_probability",
    "all signs of n coins counted",
    tokens=(3, 5),
)  # fmt: skip
def equal_coins(tokens):
    signs = (np.arange(2**tokens)[:, None] >> np.arange(tokens)) & 1
    return np.mean(np.ptp(signs, axis=1) == 0)


def sa_speeds(x, beta, value):
    """Velocities of SA, loops over tokens."""
    out = np.zeros_like(x)
    for i, own in enumerate(x):
        weight = np.exp(beta * (x @ own))
        mean = value @ (weight @ x) / weight.sum()
        out[i] = mean - (own @ mean) * own
    return out


@against(
    "kd.theory.bipartite_rates",
    "differences of velocities of ten tokens on an axis: inside each end, and of both ends as wholes",
    rtol=1e-6, atol=1e-8, read=lambda rates: np.array([rates.first, rates.second, *rates.ends[0]]),
    eigenvalue=(1.5, 0.8), others=([0.7], [-0.4]), beta=(0.6, 1.2), mass=(0.5, 0.7),
)  # fmt: skip
def ends_by_differences(eigenvalue, others, beta, mass):
    plus, eta = round(10 * mass), 1e-5
    sign = np.where(np.arange(10) < plus, 1.0, -1.0)
    value = np.diag([eigenvalue, others[0]])

    def answer(side):
        speeds = [
            sa_speeds(np.stack([sign * np.cos(s * eta * side), np.sin(s * eta * side)], axis=1), beta, value)
            for s in (1, -1)
        ]
        return (speeds[0] - speeds[1])[:, 1] / (2 * eta)

    inside = [answer(np.eye(10)[a] - np.eye(10)[b])[a] for a, b in ((0, 1), (8, 9))]
    ends = np.array([answer((sign == s).astype(float))[[0, 9]] for s in (1, -1)]).T
    return [*inside, *np.sort(np.linalg.eigvals(ends).real)]


@against(
    "kd.theory.consensus_attraction",
    "the fall of the difference of two tokens near a consensus, loops over tokens",
    rtol=1e-6, atol=1e-9,
    position=(np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.6, 0.8])), value=(VALUE, VALUE.T @ VALUE),
)  # fmt: skip
def falling_difference(position, value):
    aside, eta = np.cross(position, [0.36, 0.48, 0.8]), 1e-5
    aside /= np.linalg.norm(aside)
    x = np.stack([position + eta * aside, position - eta * aside])
    speeds = sa_speeds(x / np.linalg.norm(x, axis=1, keepdims=True), 1.3, value)
    return -(speeds[0] - speeds[1]) @ aside / (2 * eta)


@against(
    "kd.theory.holding_strength",
    "the largest eigenvalue of USA of two tokens a cluster, by differences of a double sum, over m",
    rtol=1e-6,
    clusters=(3, 2), beta=(2.0, 1.0),
)  # fmt: skip
def strength_by_differences(clusters, beta):
    angle, eta = np.repeat(2 * np.pi * np.arange(clusters) / clusters, 2), 1e-5

    def speeds(theta):
        gap = theta[None, :] - theta[:, None]
        return np.mean(np.exp(beta * np.cos(gap)) * np.sin(gap), axis=1)

    columns = [(speeds(angle + eta * e) - speeds(angle - eta * e)) / (2 * eta) for e in np.eye(2 * clusters)]
    return max(0.0, np.linalg.eigvals(np.array(columns)).real.max()) / clusters


@against(
    "kd.theory.frozen_position_angle",
    "the maximum of the energy of two groups, by search",
    rtol=1e-6,
    beta=(2.0, 1.2), strength=(0.5, 0.9), opening=(1.0, 1.3),
)  # fmt: skip
def angle_of_most_energy(beta, strength, opening):
    def energy(theta):
        y = np.array(
            [
                [np.cos(s * theta) + strength * np.cos(s * opening), np.sin(s * theta) + strength * np.sin(s * opening)]
                for s in (1, -1)
            ]
        )
        return -np.log(np.sum(np.exp(beta * (y @ y.T))))

    start = min(np.linspace(0, opening, 400), key=energy)
    bounds = (max(start - 0.01, 0.0), start + 0.01)
    return minimize_scalar(energy, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x


@against(
    "kd.theory.multi_head_rates",
    "differences of velocities of two tokens, loops over heads",
    rtol=1e-6, atol=1e-9,
    heads=(2, 3), beta=(1.3, 3.5), normalised=(False, True),
)  # fmt: skip
def two_tokens_of_heads(heads, beta, normalised):
    d, eta = 2 * heads, 1e-5
    x = np.full(d, d**-0.5)
    across = np.tile([1.0, -1.0], heads) * d**-0.5
    between = np.repeat(np.eye(heads)[0] - np.eye(heads)[1], 2) / 2.0

    def speed(u):
        pair = np.stack([x + eta * u, x - eta * u])
        pair /= np.linalg.norm(pair, axis=1, keepdims=True)
        moved = np.zeros_like(pair)
        for h in range(heads):
            part = np.zeros_like(pair)
            part[:, 2 * h : 2 * h + 2] = pair[:, 2 * h : 2 * h + 2]
            weight = np.exp(beta * (part @ part.T))
            moved += weight @ part / (weight.sum(axis=1, keepdims=True) if normalised else 2.0)
        moved -= np.sum(moved * pair, axis=1, keepdims=True) * pair
        return -(moved[0] - moved[1]) @ u / (2 * eta)

    return [speed(across), speed(between)]


@against(
    "kd.theory.open_tree_parts",
    "the chance of a closed edge, by quadrature over the two opinions, times n - 1, and one",
    rtol=1e-9,
    agents=(5, 12), radius=(0.2, 0.5),
)  # fmt: skip
def closed_edges(agents, radius):
    apart = quad(lambda x: max(0.0, x - radius) + max(0.0, 1 - radius - x), 0, 1, points=[radius, 1 - radius])[0]
    return 1 + (agents - 1) * apart


@against(
    "kd.theory.winning_wave",
    "the mode of largest growth, each by quadrature of the drift of a wave",
    radius=(1.0, 0.5), length=(12.0, 20.0), noise=(0.2, 0.25), normalised=(False, True),
)  # fmt: skip
def mode_by_quadrature(radius, length, noise, normalised):
    def growth(mode):
        k = 2 * np.pi * mode / length
        drift = quad(lambda z: z * np.sin(k * z), -radius, radius)[0]  # of a wave cos(k x), at its node
        scale = 2 * radius if normalised else length
        return k * drift / scale - noise**2 * k**2 / 2

    rates = [growth(mode) for mode in range(1, 30)]
    return 1 + int(np.argmax(rates)) if max(rates) > 0 else 0


@against(
    "kd.theory.merging_times",
    "three tokens of SA by loops, integrated implicitly until each gap has halved",
    rtol=0.03,  # of the pull of the third, e^{-beta (difference of cosines)}
    angles=([0.0, 1.0, 3.0], [0.0, 0.9, 2.8]), beta=(5.0, 6.0),
)  # fmt: skip
def mergers_by_integration(angles, beta):
    def speeds(_, theta):
        gap = theta[None, :] - theta[:, None]
        weight = np.exp(beta * (np.cos(gap) - 1.0))
        return np.sum(weight * np.sin(gap), axis=1) / weight.sum(axis=1)

    first = lambda _, a: a[1] - a[0] - 0.5 * (angles[1] - angles[0])  # noqa: E731
    rest = angles[2] - 0.5 * (angles[0] + angles[1])
    second = lambda _, a: a[2] - 0.5 * (a[0] + a[1]) - 0.5 * rest  # noqa: E731
    run = solve_ivp(speeds, (0.0, 1e6), angles, "LSODA", rtol=1e-9, atol=1e-11, events=(first, second))
    return [run.t_events[0][0], run.t_events[1][0]]


NAMED = (
    ("BipartiteRates", "bipartite_rates", {"eigenvalue": 1.5, "others": [0.7], "beta": 0.6, "mass": 0.7}),
    ("HeadRates", "multi_head_rates", {"heads": 2, "beta": 1.3, "normalised": False}),
    ("PolygonRates", "polygon_rates", {"tokens": 5, "beta": 1.2, "turn": 0.4}),
    ("ModerateTimes", "moderate_times", {"beta": 4.0, "gap": 0.5, "angle": 1.5}),
)


def rows_of_named(kind: str, function: str, arguments: dict) -> None:
    for name in getattr(theory, kind)._fields:

        @row(f"kd.theory.{kind}", name, 0.0, 0.5, "stands in its place, and in that of the answer of its function")
        def stands(first, second, name=name):
            whole = getattr(theory, function)(**arguments)
            for value in (first, second):
                changed = whole._replace(**{name: value})
                assert [getattr(changed, field) is getattr(whole, field) for field in whole._fields] == [
                    field != name for field in whole._fields
                ]
                assert getattr(changed, name) == value
            assert type(whole) is getattr(theory, kind)


for named in NAMED:
    rows_of_named(*named)
