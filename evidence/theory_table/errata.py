"""Printed statements that fail or need more than they say, each with a case in exact numbers: ``figures/errata.md``."""

from __future__ import annotations

from fractions import Fraction
from math import comb

from evidence.theory_table._erratum import ERRATA, Finding, erratum
from evidence.theory_table._row import CHECKS
from krause_dynamics.theory import stack_influence


def minimising_steps(until: int) -> list[tuple[Fraction, Fraction]]:
    """Two tokens on a line, each drawn to the one of least product with it by 2/(t + 2), from (3, -1)."""
    first, second = Fraction(3), Fraction(-1)
    path = [(first, second)]
    for t in range(until):
        share = Fraction(2, t + 2)
        aims = [min((first, second), key=lambda other, own=own: own * other) for own in (first, second)]
        first, second = first + share * (aims[0] - first), second + share * (aims[1] - second)
        path.append((first, second))
    return path


@erratum(
    source="2508.09628, cluster theorem as quoted in a machine-checked review; d = 1, B* = 1, J = x^2/2",
    statement="tokens that step towards the token of least product by 2/(t + 2) take J to its minimum over their hull",
    verdict="fails",
    right="from t = 2 on the tokens are 1/3 + 8/(t (t + 1)) and 1/3, so both tend to 1/3 and J to 1/18, though the "
    "hull of the start holds 0; with the maximising sign nothing moves at all",
)
def frank_wolfe() -> Finding:
    """Hard attention as Frank-Wolfe does not always minimise."""
    path = minimising_steps(60)
    exact = all(x == (Fraction(1, 3) + Fraction(8, t * (t + 1)), Fraction(1, 3)) for t, x in enumerate(path) if t >= 2)
    lines = [f"t = {t}: ({path[t][0]}, {path[t][1]})" for t in (0, 1, 2, 3, 10, 60)]
    lines.append(f"the closed form holds at every t from 2 to 60: {exact}")
    objective = path[60][1] ** 2 / 2
    return Finding("0", str(objective), exact and objective != 0, tuple(lines))


@erratum(
    source="2604.01978",
    statement="inner products of tokens under random values obey rho' = rho + (1 - rho) g - rho (rho + (1 - rho) f)",
    verdict="fails",
    right="the mean speed is ((d - 2 + rho^2) c - (d - 1) rho p)/d with p = rho + (1 - rho) f, c = rho + (1 - rho) g "
    "(`theory.random_value_rate`); the closure is its limit of high dimension",
)
def simplex_closure() -> Finding:
    """The simplex closure of random value matrices holds in high dimension only."""
    d, n, rho = 2, 2, Fraction(0)
    own = other = Fraction(1, 2)
    f, g = own**2 + other**2, 2 * own * other + (n - 2) * other**2
    p, c = rho + (1 - rho) * f, rho + (1 - rho) * g
    closure, exact = c - rho * p, ((d - 2 + rho**2) * c - (d - 1) * rho * p) / d
    lines = (
        "two orthogonal tokens in the plane at beta = 0: both hear (x_1 + x_2)/2, so f = g = 1/2",
        "V and its mirror image at the diagonal are equally likely and turn the angle oppositely: no mean speed",
    )
    return Finding(str(closure), str(exact), closure != exact, lines)


@erratum(
    source="common rule for stacked windows (a horizon of 1.5 W at residual weight 0.95)",
    statement="with residual weight alpha the influence at distance d is about (1 - alpha)^(d/W), whatever the depth",
    verdict="fails",
    right="the number of hops is Binomial(L, 1 - alpha), so the mean lag L (1 - alpha)(W - 1)/2 grows with the depth "
    "(`theory.stack_reach`), and distant tokens can weigh more than the token itself",
)
def window_horizon() -> Finding:
    """The reach of a stack of windows grows with its depth."""
    layers, distance = 32, 8  # W = 2 and alpha = 1/2: a lag of 1 with probability 1/4 a layer
    said, ratio = Fraction(1, 2) ** (distance // 2), Fraction(comb(layers, distance), 3**distance)
    lines = []
    for depth in (8, 32, 128):
        far = sum(Fraction(comb(depth, k) * 3 ** (depth - k), 4**depth) for k in range(4, depth + 1))
        lines.append(f"W = 2, alpha = 1/2, {depth} layers: {float(far):.4f} of the influence is 2 W away or further")
    law = stack_influence(layers=100, window=256, residual=0.95)
    lines.append(f"W = 256, alpha = 0.95, 100 layers: {law[384:].sum():.2f} of the influence is beyond 1.5 W")
    lines.append(f"W = 2, alpha = 1/2, 32 layers: the token 8 back weighs {ratio} times what the token itself does")
    return Finding(f"{said} of its own", f"{float(ratio):.0f} times its own", said < ratio, tuple(lines))


@erratum(
    source="2510.05554, where the inner product rho must be positive",
    statement="with beta = gamma log n tokens of equal inner products rho collapse in a layer for gamma < 1/(1 - rho)",
    verdict="needs its hypothesis",
    right="at rho = 0 they collapse for gamma < 1/2 only (`theory.orthogonal_critical_scaling`)",
)
def orthogonal_threshold() -> Finding:
    """The threshold 1/(1 - rho) of long contexts is not that of orthogonal tokens."""
    lines, values = [], []
    for root in (2, 2**4, 2**8, 2**16):
        n, power = root**4, root**3  # n^(3/4)
        own = Fraction(power, power + n - 1)
        square = (own - (1 - own) / (n - 1)) ** 2
        values.append((1 - square) / (1 + (n - 1) * square))
        exact = f"{values[-1]} = " if n == 16 else ""
        lines.append(f"gamma = 3/4, n = {n}: the next inner product is {exact}{float(values[-1]):.3g}")
    falls = all(later < earlier for earlier, later in zip(values, values[1:], strict=False))
    return Finding("tends to 1", "tends to 0", falls and values[-1] < Fraction(1, 1000), tuple(lines))


@erratum(
    source="2312.10794, section 6.2",
    statement="random tokens stay near the equiangular curve with probability at least 1 - 2 n^2 d^(-1/64)",
    verdict="is void",
    right="the bound is positive only for d > (2 n^2)^64; measured deviations fall like d^(-1/2) from d = 128 on "
    "('Random tokens in high dimension', section 3)",
)
def high_dimension() -> Finding:
    """The high-dimensional curve is proved beyond d = 8^64 only."""
    least = (2 * 2**2) ** 64
    lines = (
        f"two tokens, d = 8^64 = {least:.2e}: 1 - 8 (8^64)^(-1/64) = 1 - 8/8 = 0",
        "two tokens, d = 1024: 1 - 8 * 1024^(-1/64) = -6.2",
    )
    return Finding("a probability", "not positive for d <= 8^64", least > 10**50, lines)


@erratum(
    source="2504.14697, whose theorem asks for a density; 2512.01868",
    statement="under USA a law with |R|^2 > 0 tends to one point",
    verdict="needs its hypothesis",
    right="(2/3) delta_e + (1/3) delta_{-e} stands still at every temperature; what is spread escapes at rate "
    "e^{-beta} (`theory.antipodal_rates`)",
)
def density_needed() -> Finding:
    """Clustering from a mean that is not 0 needs a density."""
    mean = Fraction(2, 3) - Fraction(1, 3)
    lines = (
        "the part of e and of -e tangent at e is 0: no token moves, whatever the weights",
        f"R = 2/3 - 1/3 = {mean} for ever, |R|^2 = {mean**2}; at one point it is 1",
    )
    return Finding("|R|^2 tends to 1", f"|R|^2 = {mean**2}", 0 < mean**2 < 1, lines)


def bounded_confidence_steps(start: tuple[int, ...], radius: int) -> list[tuple[Fraction, ...]]:
    """Opinions of the discrete rule with a closed radius until they stop."""
    path = [tuple(Fraction(x) for x in start)]
    while len(path) < 2 or path[-1] != path[-2]:
        heard = ([y for y in path[-1] if abs(y - x) <= radius] for x in path[-1])
        path.append(tuple(sum(near, Fraction(0)) / len(near) for near in heard))
    return path[:-1]


@erratum(
    source="common belief about bounded confidence; 2107.12906 and 2507.14276 find that consensus comes back",
    statement="agents who reach consensus with one radius reach it with every larger one",
    verdict="fails",
    right="an early step with the larger radius can tear the crowd apart: the set of radii with consensus has holes "
    "(also for equally spaced opinions, L1 and L2 of section 1)",
)
def radius_monotone() -> Finding:
    """A larger confidence radius can cost consensus."""
    start = (0, 0, 1, 3, 5, 7)
    near, far = (bounded_confidence_steps(start, radius) for radius in (2, 3))
    lines = [f"six opinions {start}, closed radius 2: one cluster at {near[-1][0]} after {len(near) - 1} steps"]
    for t, opinions in enumerate(far):
        lines.append(f"radius 3, t = {t}: ({', '.join(map(str, opinions))})")
    clusters = len(set(far[-1]))
    return Finding("one cluster", f"{clusters} clusters", len(set(near[-1])) == 1 and clusters > 1, tuple(lines))


@erratum(
    source="2410.13821 (AKOrN), whose proposition asks for Omega c = 0 as well",
    statement="the energy of oscillators falls for a symmetric coupling, one rotation and one stimulus",
    verdict="needs its hypothesis",
    right="dE/dt = -sum |P_i(c_i + sum_j J_ij x_j)|^2 - sum <c_i, Omega x_i> (`theory.oscillator_energy_rate`): the "
    "stimulus must lie on the axis of the rotation",
)
def oscillator_energy_rises() -> Finding:
    """The energy of oscillators can rise where their rotation turns the stimulus."""
    x, stimulus, omega = (Fraction(3, 5), Fraction(4, 5)), Fraction(1), Fraction(2)
    tangent = stimulus * stimulus * x[1] ** 2  # |P c|^2 of c = (1, 0)
    rate = -tangent - stimulus * (-omega * x[1])
    lines = (
        "one oscillator x = (3/5, 4/5) in the plane, c = (1, 0), Omega turns by 2 per unit of time, no coupling",
        f"-|P c|^2 = -{tangent}, -<c, Omega x> = {omega * x[1]}",
        "theta' = 2 - sin theta is never 0: it turns for ever, so that no energy can fall for ever",
    )
    return Finding("dE/dt <= 0", f"dE/dt = {rate}", rate > 0, lines)


@erratum(
    source="2312.10794 and 2405.18273 say it of one head; of several it is sometimes taken for granted",
    statement="under USA with equal queries, keys and values in each head consensus is stable at every beta >= 0",
    verdict="needs its hypothesis",
    right="with H heads on blocks of their own a consensus that uses them equally loses stability at beta = H "
    "(`theory.multi_head_rates`); under SA it contracts at 1 for every H",
)
def several_heads() -> Finding:
    """Consensus of several heads under USA is not stable at every temperature."""
    heads, beta = 2, 3
    slope = 1 - Fraction(beta, heads)
    lines = (
        "H = 2, beta = 3, all tokens at x with |x_1|^2 = |x_2|^2 = 1/2; two tokens moved by +-u, u = (x_1, -x_2)",
        f"the difference falls at e^(3/2) (1 - 3/2) = {slope} e^(3/2): it grows",
    )
    return Finding("it falls", f"rate {slope} e^(3/2)", slope < 0, lines)


OPEN = (
    "The largest mass of a cluster under attention with a perceptron (about 0.574, 2601.21366) comes from a secondary "
    "note: without the hypothesis that it must have it fails, as all tokens at one stable zero of the field stand "
    "still with mass 1 (`theory.holding_strength` of one cluster is 0); with it, neither confirmed nor refuted here. "
    "The angle of the paper, the strength from which neurons hold their clusters and the atoms that are left are "
    "tested (sections 3 and 4), and the growth like sqrt(beta) of the number of clusters that are hardest to hold.",
    "The bounds of low temperature, C sqrt(log(beta + 1)/beta) e^{C t} + e^{-c t} (2605.10931), and of random values, "
    "e^{C T} sqrt(8 T/d log(2 n^2/delta)) (2604.01978), have no values of C and c. What is predicted and measured "
    "instead is the leading order itself with its constant: `theory.low_temperature_lag`, of order 1/beta for even "
    "tokens, below the bound's, and `theory.random_value_deviation`, of the bound's order d^{-1/2}.",
    "Basins (2511.11553): their shares have closed forms at low temperature (2^{1-n}) and where one state alone "
    "attracts (0 or 1); where consensus and triangles both attract, their shares are measured, not predicted.",
    "'Consensus re-enters' on uniform spanning trees (2507.14276): the share of consensus has no closed form here; "
    "number and mean size of the parts at the start have (section 1), trees of 100 000 are run, and six opinions in "
    "exact fractions show that consensus can re-enter. Whether trees have a radius of their own below which parts "
    "remain for ever is not proved here: there are 0.35 n of them at 0.3 after 60 steps, and one at 0.7.",
    "'Modes of a kernel density estimate decay uniformly' is no statement until it says in what and at which beta; no "
    "row claims it.",
    "LN-scaling has two readings: on the sphere, as analysed in 2510.22026, 1 - rho falls like e^{-4 sqrt t}; in a "
    "pre-norm Transformer, as it is used, like 1/t. Both are measured (section 3).",
    "Exponents of random values (section 11) are of the generator: one layer of time 1e-4 from a pair 1e-6 from its "
    "end, with a statistical error of 0.03 to 0.09. Long runs are not part of the table.",
    "The bound on sinks (section 10) is derived for rows that do not depend on contents; it is held against one "
    "trained layer of each kind and one seed.",
)


def markdown() -> str:
    """The page: cases, rows of the table that differ with the reason, and what is not settled."""
    lines = [
        "# Errata",
        "",
        "Printed statements that fail, need a hypothesis or say nothing, each with a case in exact fractions, and rows "
        "of the [table](theory.md) that differ from what is published. Regenerate with `make theory`.",
    ]
    for entry in ERRATA:
        finding = entry.find()
        verdict = entry.verdict if finding.confirmed else "HOLDS in this case: the erratum is wrong"
        lines += ["", f"## {entry.title}", "", f"- Statement ({entry.source}): {entry.statement}."]
        lines += [f"- It {verdict}. Said: {finding.said}; exactly: {finding.found}."]
        lines += [f"  - {line}" for line in finding.evidence]
        lines += [f"- Instead: {entry.right}."]
    lines += ["", "## Rows of the table that differ", ""]
    lines += [f"- {check.result}: {check.disputed}." for check in CHECKS.values() if check.disputed]
    lines += ["", "## Not settled, or settled only as said", "", *(f"- {line}" for line in OPEN)]
    return "\n".join(lines) + "\n"
