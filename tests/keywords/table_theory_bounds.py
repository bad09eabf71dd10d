"""Rows of `kd.theory`: contraction of softmax, spectra near consensus, errors of sampling; against small matrices."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta as beta_law

from tests.keywords.against import against


def softmax(scores):
    """Rows of weights."""
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def variation(scores):
    """Largest total variation between two rows of softmax(scores)."""
    weights = softmax(np.asarray(scores))
    return 0.5 * np.abs(weights[:, None] - weights).sum(axis=-1).max()


@against(
    "kd.theory.softmax_total_variation_bound",
    "the total variation of the two rows that attain it",
    oscillation=([1.0, 4.0], [0.3, 9.0]),
)  # fmt: skip
def attained_variation(oscillation):
    return [variation([[d / 4, -d / 4], [-d / 4, d / 4]]) for d in oscillation]


@against(
    "kd.theory.score_oscillation",
    "the largest s_ij - s_kj - s_il + s_kl over all four indices",
    scores=tuple(np.random.default_rng(4).normal(size=(2, 5, 7))),
)  # fmt: skip
def largest_difference(scores):
    difference = scores[:, None, :] - scores[None, :, :]
    return (difference[..., :, None] - difference[..., None, :]).max()


@against(
    "kd.theory.dobrushin_bound",
    "the total variation where it is attained; a number added to a row of scores changes nothing",
    scores=([[1.0, -1.0], [-1.0, 1.0]], [[2.3, 1.7], [-0.3, 0.3]]),
)  # fmt: skip
def variation_of_scores(scores):
    return variation(scores)


@against(
    "kd.theory.attention_contraction_bound",
    "the total variation of two queries and two keys at the ends of their diameters",
    coupling=(0.4, 1.1), query_diameter=(2.0, 0.7), key_diameter=(1.5, 3.0),
)  # fmt: skip
def variation_of_pairs(coupling, query_diameter, key_diameter):
    ends = np.array([-0.5, 0.5])
    return variation(coupling * np.outer(query_diameter * ends, key_diameter * ends))


@against(
    "kd.theory.layer_factor",
    "what a relaxed layer of two tokens leaves of their difference",
    eigenvalue=(0.3, -0.2), step=(1.0, 0.4),
)  # fmt: skip
def difference_after_layer(eigenvalue, step):
    mean = np.array([[1 + eigenvalue, 1 - eigenvalue], [1 - eigenvalue, 1 + eigenvalue]]) / 2
    x = np.array([0.5, -0.5])
    x = (1 - step) * x + step * mean @ x
    return x[0] - x[1]


@against(
    "kd.theory.ring_eigenvalues",
    "the Fourier transform of one row of the averaging matrix, in the order of its modes",
    atol=1e-14,
    tokens=(9, 12), window=(5, 3),
)  # fmt: skip
def transform_of_row(tokens, window):
    mean = np.zeros(tokens)
    mean[np.arange(window) - window // 2] = 1 / window
    return np.fft.fft(mean).real


def spectrum(support):
    """Eigenvalues, descending, of the mean over the rows of a symmetric support."""
    return np.sort(np.linalg.eigvals(support / support.sum(axis=1, keepdims=True)).real)[::-1]


@against(
    "kd.theory.band_eigenvalues",
    "the spectrum of the averaging matrix, descending",
    atol=1e-12,
    tokens=(9, 12), window=(5, 3),
)  # fmt: skip
def spectrum_of_band(tokens, window):
    return spectrum(np.array([[abs(i - j) <= window // 2 for j in range(tokens)] for i in range(tokens)]))


PATCHES = {"height": (4, 5), "width": (3, 6), "pattern": ("cross", "square"), "radius": (1, 2)}


def patch_support(height, width, pattern, radius):
    """Who hears whom: patches near each other, and a class token (last) that all hear and that hears all."""
    cells = [(row, column) for row in range(height) for column in range(width)]
    apart = np.abs(np.array(cells)[:, None] - np.array(cells))
    near = (apart.sum(axis=-1) if pattern == "cross" else apart.max(axis=-1)) <= radius
    return np.pad(near, (0, 1), constant_values=True)


@against("kd.theory.vit_allowed_pairs", "the pairs counted in the mask of all patches and the class token", **PATCHES)
def counted_pairs(**patches):
    return patch_support(**patches).sum()


@against(
    "kd.theory.vit_eigenvalues",
    "the spectrum of the average over the mask of all patches and the class token",
    atol=1e-12,
    **PATCHES,
)
def spectrum_of_patches(**patches):
    return spectrum(patch_support(**patches))


def squared_distance(particles):
    """Mean squared W2 of sorted uniform particles to [0, 1]: order statistics against the quantiles of their cells."""
    i = np.arange(1, particles + 1)
    law = beta_law(i, particles + 1 - i)
    middle = (i - 0.5) / particles
    return np.mean(law.var() + (law.mean() - middle) ** 2) + 1 / (12 * particles**2)


@against(
    "kd.theory.linear_model_error",
    "order statistics of uniform particles: the variance of their mean stays, the rest shrinks twice as fast as they",
    times=([0.0, 0.7], [0.3, 2.0]), particles=(20, 50),
)  # fmt: skip
def error_of_order_statistics(times, particles):
    mean = 1 / 12 / particles
    return mean + (squared_distance(particles) - mean) * np.exp(-np.asarray(times)) ** 2


@against(
    "kd.theory.quantile_start_error",
    "the root mean square of quantiles minus the midpoints of their cells, on a fine grid",
    rtol=1e-5,  # square of the cells over the grid
    particles=(5, 12),
)  # fmt: skip
def error_on_grid(particles):
    quantile = (np.arange(60_000) + 0.5) / 60_000
    return np.sqrt(np.mean((quantile - (np.floor(quantile * particles) + 0.5) / particles) ** 2))


@against(
    "kd.theory.sampling_rate_exponent",
    "the slower of the mean of a sample and of the distance to its nearest point, from 1e4 to 1e6 points",
    rtol=1e-3,  # (1 - r^d)^N against exp(-N r^d)
    dimension=(1, 4),
)  # fmt: skip
def slower_exponent(dimension):
    radius = np.linspace(0, 1, 400_001)

    def nearest(points):  # in a ball of volume 1 around a place
        return np.trapezoid(np.exp(points * np.log1p(-np.minimum(radius**dimension, 1 - 1e-15))), radius)

    return max(-0.5, np.log(nearest(10**6) / nearest(10**4)) / np.log(100))
