"""The protocol and the experiments that are run are the same thing."""

from collections import Counter
from pathlib import Path

import pytest

from evidence import experiments
from evidence.plan import Run
from krause_dynamics.models import KARMConfig, KrauseLMConfig, KrauseViTConfig

PROTOCOL = Path(experiments.__file__).with_name("PROTOCOL.md").read_text(encoding="utf-8")
KINDS = {"kvit": KrauseViTConfig, "karm": KARMConfig, "lm": KrauseLMConfig}


def test_the_tables_of_the_protocol_are_those_that_are_run():
    printed = "\n".join(experiments.table()) + "\n"
    assert PROTOCOL.endswith(printed)


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS.values(), ids=lambda e: e.name)
def test_contrasts_compare_arms_that_are_run_and_sum_to_nothing(experiment):
    beside = experiments.EXPERIMENTS[experiment.beside].arms if experiment.beside else ()
    known = {arm.name for arm in (*experiment.arms, *beside)}
    for weights in (*experiment.primary.values(), *experiment.exploratory.values()):
        assert set(weights) <= known
        assert sum(weights.values()) == 0
    assert set(experiment.tuning_arms) <= known
    fixed = "learning_rate" in experiment.tables["training"]
    assert sum(map(bool, (experiment.beside, experiment.learning_rates, fixed))) == 1
    assert set(experiment.kept) <= known


OWN = [e for e in experiments.EXPERIMENTS.values() if e.tables["model"]["kind"] in KINDS]


def test_adapters_differ_in_the_branch_alone():
    tables = [
        experiments.configuration(run, 1e-3, "data") for run in experiments.runs(experiments.EXPERIMENTS["smollm2"])
    ]
    own = {"branch", "window", "top_k", "sigma"}
    shared = [({k: v for k, v in t["model"].items() if k not in own}, t["data"]) for t in tables]
    assert all(other == shared[0] for other in shared)
    assert [t["model"]["branch"] for t in tables] == [False, True] * 2
    assert tables[0]["training"] == tables[1]["training"]


@pytest.mark.parametrize("experiment", OWN, ids=lambda e: e.name)
def test_arms_differ_in_their_rule_alone(experiment):
    own = {
        "score",
        "support",
        "read_out",
        "norm",
        "gate",
        "window",
        "attention_top_k",
        "attention_top_k_last",
        "random_seed",
    }
    shared = []
    for arm in experiment.arms:
        tables = experiments.configuration(Run(experiment.name, arm.name, 1), 1e-3, "data")
        keys = {k: v for k, v in tables["model"].items() if k not in ("kind", "size")}
        config = KINDS[tables["model"]["kind"]](**keys)
        assert (config.score, config.support) == (arm.model["score"], arm.model["support"])
        shared.append(({k: v for k, v in keys.items() if k not in own}, tables["data"], tables["training"]))
    assert all(other == shared[0] for other in shared)


def test_a_fixed_temperature_is_not_compared_with_a_learned_scale_of_another_score_in_a_primary_contrast():
    for experiment in experiments.EXPERIMENTS.values():
        for weights in experiment.primary.values():
            assert not any(name.startswith("dot.") for name in weights)


def test_runs_go_seed_after_seed_and_tuning_has_a_seed_of_its_own():
    experiment = experiments.EXPERIMENTS["fashion"]
    found = experiments.runs(experiment)
    assert [run.seed for run in found] == sorted(run.seed for run in found)
    assert Counter(run.arm for run in found) == {arm.name: arm.seeds for arm in experiment.arms}
    tuned = experiments.tuning_runs(experiment)
    assert not {run.seed for run in tuned} & {run.seed for run in found}
    assert len({run.name for run in (*found, *tuned)}) == len(found) + len(tuned)
    first = experiments.configuration(tuned[0], 0.5, "data")["training"]
    assert (first["learning_rate"], first["epochs"]) == (tuned[0].learning_rate, experiment.tuning_epochs)


def test_a_starting_sigma_is_that_of_softmax_attention():
    for experiment in OWN:
        keys = {k: v for k, v in experiment.tables["model"].items() if k not in ("kind", "size")}
        size = {"tiny": (192, 3), "small": (384, 6)}.get(experiment.tables["model"].get("size", ""))
        config = KINDS[experiment.tables["model"]["kind"]](**keys)
        width, heads = size or (config.hidden_size, config.num_attention_heads)
        assert config.sigma**-2 == pytest.approx((width / heads) ** -0.5)
