"""kd.compare: relative depth by hand, intervals by their coverage, and what cannot be compared."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from krause_dynamics.analysis import intervals
from tests import checkpoint_models as models
from tests.keywords.figures import analysis

IDS = [[(3 + 7 * i * s) % 50 for i in range(20)] for s in range(1, 7)]


def by_hand(layers, of_layer, of_block, sequences=3):
    """An analysis whose numbers are functions of relative depth, plus the number of the sequence."""
    depth, middle = np.arange(layers + 1) / layers, (np.arange(layers) + 0.5) / layers
    each = np.arange(sequences, dtype=float)
    state = np.broadcast_to(each[:, None] + of_layer(depth), (sequences, layers + 1))
    heads = np.broadcast_to((each[:, None] + of_block(middle))[..., None] + [-1.0, 1.0], (sequences, layers, 2))
    return xarray.Dataset(
        {
            "norm_ratio": (("sequence", "layer"), state),
            "entropy": (("sequence", "block", "head"), heads),
            "length": ("sequence", np.full(sequences, 8)),
        },
        coords={"layer": np.arange(layers + 1), "block": np.arange(1, layers + 1)},
        attrs={"meta": json.dumps({"layers": layers})},
    )


def test_layers_and_blocks_of_unlike_depth_meet_at_their_relative_depth():
    cases = {n: by_hand(n, lambda d: 2 + 3 * d, lambda d: 5 - 4 * d) for n in (3, 7, 12)}
    found = kd.compare(cases)
    np.testing.assert_allclose(found.depth, np.linspace(0, 1, 13))
    np.testing.assert_allclose(found.block_depth, (np.arange(12) + 0.5) / 12)
    for case in cases:
        here = found.sel(case=case).transpose("sequence", ...)
        np.testing.assert_allclose(here.norm_ratio, np.arange(3)[:, None] + 2 + 3 * found.depth.values)
        ends = np.clip(found.block_depth, 0.5 / case, 1 - 0.5 / case)  # the middles of its first and last block
        np.testing.assert_allclose(here.entropy, np.arange(3)[:, None] + 5 - 4 * ends.values)
    np.testing.assert_allclose(found.norm_ratio_difference, 0, atol=1e-12)


def test_layers_that_were_not_reached_are_not_made_up():
    whole = by_hand(4, lambda d: d, lambda d: d)
    half = whole.isel(layer=slice(3), block=slice(2))
    found = kd.compare({"whole": whole, "half": half}).sel(case="half")
    assert np.isfinite(found.norm_ratio.sel(depth=[0, 0.25, 0.5])).all()
    assert np.isnan(found.norm_ratio.sel(depth=[0.75, 1.0])).all()
    assert np.isnan(found.entropy).any("sequence").values.tolist() == [False, False, True, True]


def test_differences_are_those_of_the_means_over_sequences_and_heads():
    one, other = analysis(1), analysis(2)
    found = kd.compare({"one": one, "other": other})
    known = (other.order_parameter - one.order_parameter).mean("sequence")
    np.testing.assert_allclose(
        found.order_parameter_difference.sel(case="other").transpose("depth", "tokens"), known, atol=1e-12
    )
    entropy = (other.entropy - one.entropy).mean(("sequence", "head"))
    np.testing.assert_allclose(found.entropy_difference.sel(case="other"), entropy, atol=1e-12)
    share = 100 * (one.importance_first.values[..., None] > one.eps.values).mean(axis=2)
    np.testing.assert_allclose(found.sink_rate.sel(case="one").transpose("sequence", "block_depth", "eps"), share)
    counts = one.clusters.where(one.clusters != -1).values  # -1: a sequence without tokens left
    np.testing.assert_allclose(
        found.clusters.sel(case="one").transpose("sequence", "depth", "tokens", "radius"), counts
    )
    for name in ("order_parameter", "entropy", "clusters"):
        assert (found[f"{name}_difference"].sel(case="one") == 0).all()
        assert (found[f"{name}_interval"].sel(case="one") == 0).all()
    meta = json.loads(found.attrs["meta"])
    assert (meta["reference"], meta["left_out"]) == ("one", ["strongest_key"])
    assert meta["paired"] == {"one": False, "other": False}  # nobody says what these were shown


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_cover_as_often_as_they_say(paired):
    """Of 600 independent columns of 60 normal numbers: 95 % within three standard errors of a share, and bias of n."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(60, 600)) if paired else 0.0
    one, other = 0.3 + common + rng.normal(size=(60, 600)), common + rng.normal(size=(60, 600))
    low, high = intervals.difference(one, other, paired=paired, level=0.95, draws=500, rng=rng)
    covered = ((low < 0.3) & (high > 0.3)).mean()
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 600) - 0.01 < covered < 0.95 + 3 * np.sqrt(0.95 * 0.05 / 600)
    # Known width of a normal interval; resampling has 60 numbers and 500 draws of it.
    np.testing.assert_allclose((high - low).mean(), 2 * 1.96 * np.sqrt(2 / 60), rtol=0.03)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("sizes", [(3, 3), (5, 9), (9, 20)])
def test_intervals_of_few_sequences_cover_as_often_as_they_say(sizes, paired):
    """Resampled means alone covered 50 % of pairs of two and 80 % of three; Welch's t covers rather more (his 4.3)."""
    rng = np.random.default_rng(1)
    sizes = (sizes[1], sizes[1]) if paired else sizes
    one, other = (scale * rng.normal(size=(n, 1500)) for scale, n in zip((1.0, 2.0), sizes, strict=True))
    low, high = intervals.difference(one, other, paired=paired, level=0.95, draws=300, rng=rng)
    # Four standard errors of a share, and what 300 draws and 9 numbers leave of the bootstrap (0.02).
    assert abs(((low < 0) & (high > 0)).mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1500) + 0.02


def test_an_interval_is_of_what_is_known_in_both():
    """One known number of four has no spread, and a sequence known in one case alone makes no pair."""
    one, other = np.array([[1.0], [np.nan], [np.nan], [np.nan]]), np.array([[2.0], [2.5], [1.7], [2.2]])
    about = {"level": 0.95, "draws": 50, "rng": np.random.default_rng(0)}
    for paired in (False, True):
        assert np.isnan(intervals.difference(one, other, paired=paired, **about)).all()
    known, beside = np.array([[1.0], [2.0], [np.nan], [4.0]]), np.array([[0.0], [np.nan], [9.0], [2.0]])
    assert intervals.apart(known, beside, paired=True) == 1.5
    pairs = intervals.difference(known, beside, paired=True, **about)
    np.testing.assert_allclose(pairs, intervals.difference(known[::3], beside[::3], paired=True, **about))
    alike = intervals.difference(np.full((3, 1), 2.0), np.full((3, 1), 1.0), paired=False, **about)
    np.testing.assert_array_equal(alike, 1.0)


def test_means_over_depth_are_over_the_depths_of_all_cases():
    """A case that stops half-way is compared with the first half of the others."""
    one = analysis(1)
    other = one.copy(deep=True)
    half = one.sizes["layer"] // 2
    values = other["order_parameter"].transpose("sequence", "tokens", "layer").copy()
    values[..., half:] = np.nan
    other["order_parameter"] = values.transpose(*one["order_parameter"].dims)
    for paired in (False, True):
        found = kd.compare({"one": one, "other": other})
        meta = json.loads(found.attrs["meta"])
        meta["paired"] = dict.fromkeys(meta["paired"], paired)
        rows = kd.report.comparison_rows(found.assign_attrs(meta=json.dumps(meta)))
        ours = [row for row in rows if row["quantity"] == "order_parameter"]
        expected = float(one["order_parameter"].sel(tokens="without_first")[:, :half].mean())
        np.testing.assert_allclose([row["mean"] for row in ours], expected)
        np.testing.assert_allclose([row["difference"] for row in ours], 0.0, atol=1e-12)
        assert ours[1]["low"] <= 1e-12
        assert ours[1]["high"] >= -1e-12
    other["order_parameter"][:] = np.nan
    nothing = kd.compare({"one": one, "other": other})
    words = " ".join(kd.report.comparison_findings(nothing)["other"])
    assert "not known of both at one depth" in words
    assert "nan" not in words.lower()


def test_a_constant_shift_of_paired_sequences_has_no_width():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(9, 4))
    found = intervals.difference(one + 2.0, one, paired=True, level=0.9, draws=50, rng=rng)
    np.testing.assert_allclose(found, 2.0)
    apart = intervals.difference(one + 2.0, one, paired=False, level=0.9, draws=50, rng=rng)
    assert (apart[1] - apart[0] > 0.1).all()
    assert np.isnan(intervals.difference(one[:1], one, paired=False, level=0.9, draws=50, rng=rng)).all()


def test_models_on_one_text_and_their_analyses_give_one_comparison():
    one, other = models.llama(), models.gpt2()
    found = kd.compare({"llama": one, "gpt2": other}, IDS)
    same = kd.compare({"llama": kd.analyze(one, IDS), "gpt2": kd.analyze(other, IDS)})
    xarray.testing.assert_identical(found, same)
    assert json.loads(found.attrs["meta"])["paired"] == {"llama": True, "gpt2": True}
    texts = kd.compare({"first": IDS[:3], "last": IDS[3:]}, model=one)
    fewer = kd.compare({"first": IDS[:3], "last": IDS[3:5]}, model=one)
    assert np.isnan(fewer.norm_ratio.sel(case="last", sequence=2)).all()
    np.testing.assert_array_equal(fewer.norm_ratio.sel(case="first"), texts.norm_ratio.sel(case="first"))
    assert json.loads(texts.attrs["meta"])["paired"] == {"first": True, "last": False}
    np.testing.assert_allclose(
        texts.norm_ratio.sel(case="last", sequence=[0, 1, 2]), kd.analyze(one, IDS[3:]).norm_ratio
    )


def test_steps_of_a_training_are_found_in_their_order(tmp_path):
    for step in (200, 30, 1000):
        models.llama(seed=step).save_pretrained(tmp_path / f"run2-checkpoint-{step}")
    (tmp_path / "logs-7").mkdir()  # no checkpoint
    found = kd.compare(tmp_path, IDS)
    assert found.case.values.tolist() == [30, 200, 1000]
    np.testing.assert_array_equal(
        found.norm_ratio.sel(case=200).transpose("sequence", "depth"),
        kd.analyze(models.llama(seed=200), IDS).norm_ratio.astype(float),
    )
    models.llama().save_pretrained(tmp_path / "other-200")
    with pytest.raises(ValueError, match="are of one step"):
        kd.compare(tmp_path, IDS)
    with pytest.raises(ValueError, match="holds 0 checkpoints"):
        kd.compare(tmp_path / "logs-7", IDS)
    with pytest.raises(ValueError, match="cases must be a mapping, or a folder"):
        kd.compare(tmp_path / "nowhere", IDS)


def test_unlike_lengths_are_warned_of():
    with pytest.warns(UserWarning, match=r"unlike lengths \(a: 20 to 20, b: 10 to 10 tokens\)"):
        kd.compare({"a": IDS, "b": [ids[:10] for ids in IDS]}, model=models.llama())


def test_ctrl_c_ends_all_of_it():
    def press(done, total):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        kd.compare({"a": models.llama(), "b": models.llama(1)}, IDS, batch_size=2, progress=press)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (({"a": 1},), {}, "cases must be at least two"),
        (({"a": analysis(), "b": analysis()},), {"reference": "c"}, "reference must be one of .* 'c'"),
        (({"a": analysis(), "b": "text"},), {}, "'b' is a str; pass inputs= where cases are models"),
        (({"a": analysis(), "b": analysis()},), {"batch_size": 2}, "analysed already, so that batch_size"),
        (({"a": "x", "b": "y"}, IDS), {"model": "m"}, "pass one of them"),
        (({"a": analysis(), "b": analysis()},), {"level": 1.0}, "level"),
        (({"a": "x", "b": "y"}, IDS), {"controls": "random"}, "without controls"),
        (({"a": analysis().expand_dims("control"), "b": analysis()},), {}, "without controls"),
        (({"a": "x", "b": "y"}, IDS), {"checkpoint": "half.npz"}, "checkpoint= is of one analysis"),
        (({"a": analysis(), "b": analysis()},), {"draws": 0}, "draws"),
    ],
)
def test_what_cannot_be_compared(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        kd.compare(*arguments, **options)
