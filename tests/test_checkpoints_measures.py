"""Every measure of states and attention against its definition on the recorded states, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster import hierarchy

import krause_dynamics as kd
from krause_dynamics.checkpoints import analyze, measures_of_clusters, record
from tests import checkpoint_models as models

IDS = [list(range(1, 25)), [7, 3, 9, 1, 30, 41, 2, 5, 18, 6, 44, 13, 8, 21, 33, 40, 11, 29, 35, 4, 16, 48, 22, 10]]
RADII = [0.5, 1.0]


@pytest.fixture(scope="module")
def model():
    return models.llama()


@pytest.fixture(scope="module")
def states(model):
    """(layers, sequences, T, d)."""
    return record(model, IDS).positions.astype(float)


@pytest.fixture(scope="module")
def found(model):
    return analyze(model, IDS, radii=RADII, measures="all")


def parts(points):
    return {"all": points, "without_first": points[..., 1:, :]}


def test_spectra_and_what_follows_from_them(found, states):
    for layer in range(len(states)):
        for sequence in range(len(IDS)):
            here = found.sel(layer=layer, sequence=sequence)
            for tokens, x in parts(states[layer, sequence]).items():
                at, s = here.sel(tokens=tokens), np.linalg.svd(x, compute_uv=False)
                np.testing.assert_allclose(at["spectrum"][: len(s)], s / s[0], atol=1e-5)
                assert np.isnan(at["spectrum"][len(s) :]).all()
                p = s**2 / np.sum(s**2)
                assert float(at["matrix_entropy"]) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-4)
                assert float(at["stable_rank"]) == pytest.approx(np.sum(s**2) / s[0] ** 2, rel=1e-5)
                c = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
                assert float(at["participation_ratio"]) == pytest.approx(c.sum() ** 2 / (c**2).sum(), rel=1e-4)
            sizes = np.abs(states[layer, sequence])
            assert float(here["massive_activation"]) == pytest.approx(sizes.max() / np.median(sizes), rel=1e-5)


def test_clusters_over_radii(found, states):
    for layer in (0, 2):
        for tokens, x in parts(states[layer, 0]).items():
            at, curve = found.sel(layer=layer, sequence=0, tokens=tokens), kd.clusters.curve(x, metric="chord")
            choice, lives = kd.clusters.choose_radius(curve), kd.clusters.persistence(curve, members=2).ratio[:8]
            assert int(at["plateau_clusters"]) == choice.count
            assert float(at["plateau_ratio"]) == pytest.approx(choice.ratio, rel=1e-4)
            np.testing.assert_allclose(at["persistence"][: len(lives)], lives, rtol=1e-4)
            assert [int(n) for n in at["clusters"]] == [curve.at(radius).count for radius in RADII]


def test_from_layer_to_layer(found, states):
    for name in ("step", "cka", "cka_null", "procrustes", "transport"):
        assert np.isnan(found[name].sel(layer=0)).all()
    for layer in range(1, len(states)):
        for tokens in ("all", "without_first"):
            x, y = (parts(states[at, 1])[tokens] for at in (layer - 1, layer))
            at = found.sel(layer=layer, sequence=1, tokens=tokens)
            steps = np.linalg.norm(y - x, axis=-1) / np.linalg.norm(x, axis=-1)
            assert float(at["step"]) == pytest.approx(steps.mean(), rel=1e-4)
            assert float(at["cka"]) == pytest.approx(float(kd.observables.linear_cka(x, y)), abs=1e-4)
            assert float(at["procrustes"]) == pytest.approx(float(kd.observables.procrustes_residual(x, y)), abs=1e-4)
            size = np.sqrt((x**2).sum(-1).mean())
            expected = kd.measures.sliced(x, y) * np.sqrt(x.shape[1]) / size
            assert float(at["transport"]) == pytest.approx(expected, rel=1e-4)
            # Blocks add little to what the first one made; the same tokens in another order are not alike.
            assert layer == 1 or float(at["cka_null"]) < 0.5 < float(at["cka"])


def test_intrinsic_dimension(found, states):
    for tokens, x in parts(states[1, 0]).items():
        at = found["intrinsic_dimension"].sel(layer=1, sequence=0, tokens=tokens)
        assert float(at) == pytest.approx(kd.observables.two_nn(x), rel=1e-4)


def test_centred_and_standardised_measures_take_the_moments_of_the_corpus(found, states):
    """All tokens but the first of each sequence make the mean; each part is then measured."""
    for layer in range(len(states)):
        pool = states[layer][:, 1:].reshape(-1, states.shape[-1])
        mean, spread = pool.mean(0), pool.std(0)
        for tokens, x in parts(states[layer, 1]).items():
            at = found.sel(layer=layer, sequence=1, tokens=tokens)
            for kind, y in (("centred", x - mean), ("standardised", (x - mean) / spread)):
                for name in ("mean_cosine", "order_parameter", "effective_rank"):
                    expected = float(getattr(kd.observables, name)(y))
                    assert float(at[f"{name}_{kind}"]) == pytest.approx(expected, abs=2e-4), (name, kind)


def test_centring_one_sequence_by_itself_is_refused(model):
    with pytest.raises(ValueError, match="need a corpus, at least 2 sequences"):
        analyze(model, IDS[:1], measures=["mean_cosine_centred"])


def test_attention_measures(found, model):
    run = record(model, IDS)
    for name in ("self_weight", "mean_distance", "distance_profile", "first_by_quarter"):
        np.testing.assert_allclose(found[name].values, run.extras[name].swapaxes(0, 1), atol=1e-6)
    np.testing.assert_allclose(found["distance_profile"].sum("distance"), 1.0, atol=1e-5)
    distance = found["head_distance"].values
    heads = distance.shape[-1]
    mean = distance.sum((-1, -2)) / (heads * (heads - 1))
    np.testing.assert_allclose(found["head_diversity"], mean, atol=1e-6)
    assert not np.allclose(mean, 0)
    strongest = np.take_along_axis(
        run.extras["importance"].swapaxes(0, 1), found["strongest_key"].values[..., None], axis=-1
    )[..., 0]
    np.testing.assert_allclose(found["strongest_importance"], strongest, atol=1e-6)


def test_tiers_are_said_and_agree(model):
    """Full looks at all rows of the maps, which of so short sequences are the sampled ones; auto takes it."""
    import json

    plain = analyze(model, IDS, radii=RADII)
    for attention, tier in (("full", "full"), ("auto", "full"), ("sink", "sink")):
        other = analyze(model, IDS, radii=RADII, attention=attention)
        assert json.loads(other.attrs["meta"])["attention_tier"] == tier
        for name in plain.data_vars:  # on the CPU the sink tier has no reason to leave anything out
            np.testing.assert_allclose(other[name], plain[name], atol=1e-5, err_msg=name)


def heights(rows):
    """Between any two leaves the chord at which they first are of one group, from rows (one, other, chord)."""
    groups, found = {i: [i] for i in range(len(rows) + 1)}, {}
    for number, (one, other, chord) in enumerate(rows, len(rows) + 1):
        found |= {frozenset((a, b)): chord for a in groups[int(one)] for b in groups[int(other)]}
        groups[number] = groups[int(one)] + groups[int(other)]
    return found


def test_merge_trees_are_those_of_scipy_on_the_directions(found, states):
    for layer in range(len(states)):
        tokens = states[layer, 1, 1:]
        known = hierarchy.linkage(tokens / np.linalg.norm(tokens, axis=-1, keepdims=True), "single")
        rows = found["merge_tree"].sel(layer=layer, sequence=1).dropna("merge").values
        ours, theirs = heights(rows[:, :3]), heights(known[:, :3])
        assert set(ours) == set(theirs)
        np.testing.assert_allclose([ours[pair] for pair in theirs], list(theirs.values()), rtol=1e-5)
        assert rows[-1, 3:].sum() == len(tokens)


def test_of_a_large_tree_the_last_joins_are_kept():
    """Eighty pairs on a line: each pair joins first, then the first 17 pairs one another; 64 groups are left."""
    gaps = np.where(np.arange(159) % 2 == 0, 0.001, 1.0 + np.arange(159) / 1000)
    places = np.concatenate([[0.0], np.cumsum(gaps)])
    rows = measures_of_clusters._merges(kd.clusters.curve(places))
    assert rows.shape == (63, 5)
    np.testing.assert_allclose(rows[:, 2], np.sort(gaps[1::2])[-63:])
    assert sorted(rows[:, :2].ravel()) == list(range(126))  # every group but the last joins another, once
    assert rows[-1, 3:].sum() == 160
    np.testing.assert_array_equal(rows[0, [0, 1, 3, 4]], [0, 1, 2 * 17, 2])  # the first 17 pairs are one group by then
