"""Pages and figure follow from the kept logs, and say what logs of a known truth hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from evidence import logs
from evidence.experiments import EXPERIMENTS, runs
from evidence.verdicts import figure, further, judgement, notes, plain, reach, sampling, subjects, tables, words
from evidence.verdicts.__main__ import HERE, PAGES, main
from evidence.verdicts.claims import Claim
from evidence.verdicts.found import Judged, all_found

# Points of each part of the rule: the window helps, top-k takes it back, the score does nothing.
TRUTH = {"window": 3.0, "top_k": -3.0, "gaussian": 0.0, "random": -2.0}


@pytest.fixture
def made(tmp_path):
    """Logs of `fashion` whose truth is known, with noise of 0.15 points."""
    rng, rows, answers = np.random.default_rng(0), [], []
    examples = np.arange(10_000)
    for run in runs(EXPERIMENTS["fashion"]):
        if run.arm == "dot.full" and run.seed == 2:
            continue  # one run is missing
        accuracy = 90.0 + sum(TRUTH.get(word, 0.0) for part in run.arm.split(".") for word in part.split("+"))
        right = examples < round(100 * (accuracy + 0.15 * rng.normal()))
        common = {"experiment": "fashion", "part": "reported", "seconds_per_step": 0.004, "device": "none"}
        rows.append(
            {"run": run.name, "arm": run.arm, "seed": run.seed, "test": right.mean(), "trained_parameters": 5} | common
        )
        answers.append({"run": run.name, "right": logs.packed(right)})
    logs.write(tmp_path, "fashion", "results", rows)
    logs.write(tmp_path, "fashion", "answers", answers)
    return tmp_path


def test_the_committed_pages_are_those_of_the_kept_logs():
    found = all_found()
    for name, page in PAGES.items():
        assert (HERE / name).read_text(encoding="utf-8") == page(found), f"{name} is old: make evidence"


def test_a_known_truth_is_found(made):
    found = all_found(made)
    primary = {judged.label: judged for judged in found["fashion"].contrasts("primary")}
    assert primary["window - full"].found.estimate == pytest.approx(3.0, abs=0.3)
    assert primary["window - full"].verdict == "differs"
    assert primary["top-k inside the window - window"].found.estimate == pytest.approx(-3.0, abs=0.3)
    assert primary["score: Gaussian - dot product"].verdict == "no difference"
    assert found["fashion"].counts == (36, 37)
    assert found["fashion"].pooled.error == pytest.approx(0.15, rel=0.4)
    # Answers that are nested differ on 300 of 10 000 pictures: sqrt(0.03 x 0.97 / 10 000) = 0.17 points.
    assert primary["top-k inside the window - window"].test_error == pytest.approx(0.17, abs=0.02)


def test_pages_say_it_and_what_is_missing(made):
    found = all_found(made)
    page, plain = tables.page(found, made), words.page(found, made)
    claim = next(line for line in page.splitlines() if "Fashion-MNIST, ViT-T: the full rule" in line)
    assert "| differs |" in claim or "| undecided |" in claim  # the truth is 0 points where the paper has 1.18
    assert page.count("| not run |") > 5
    assert (
        "| cifar: CIFAR-10 (lossy copy), ViT-S (d 384, 12 layers, 8 x 8 patches), mixup and cutmix | 0 | 24 |" in page
    )
    assert "Hearing the near tokens alone, instead of all: +" in plain
    assert "it **helps**" in plain
    assert "- Hearing the near tokens alone, instead of all: helps on Fashion-MNIST." in plain
    assert "Top-k inside the window: -" in plain
    assert "fashion (1 of 37 runs), pair (2 of 2 runs)" in plain
    assert "Not run yet." in plain
    for block in page.split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_what_stands_beside_is_shown(made):
    measures = ("sink_rate", "importance_first", "published_importance_first", "entropy", "order_parameter")
    row = {"run": "krause-trained", "model": "krause", "control": "trained", "effective_clusters": 12.34}
    logs.write(made, "twins", "results", [row | {key: i / 8 for i, key in enumerate(measures)}])
    row = {"run": "smollm2", "requests": 7, "difference_by_hand": 3e-5, "lm_eval": "0.4", "difference_lm_eval": 2e-5}
    logs.write(made, "scorers", "results", [row])
    results = logs.read(made, "fashion", "results")
    learned = [
        one | {"sigma": "[1, 3]" if one["seed"] else "[2, 4]"} for one in results if one["arm"] == "gaussian.full"
    ]
    logs.write(made, "fashion", "results", learned)
    asked = {"experiment": "novels", "arm": "dot.full", "lambada_perplexity": 8.0}
    parts = {0: "reported", 1: "reported", 100: "tuning"}
    logs.write(made, "novels", "results", [asked | {"run": f"{i}", "seed": i, "part": parts[i]} for i in parts])
    page = tables.page(all_found(made), made)
    answered = "".join(further.language(all_found(made)["novels"]))
    assert "| `dot.full` | 2 | 8 +- 0 |" in answered  # runs that chose the learning rate are no seeds
    assert "| krause | trained | 0 | 0.125 | 0.25 | 0.375 | 0.5 | 12.34 |" in page
    assert "in float64: 3e-05; from lm_eval 0.4: 2e-05." in page
    assert "- `gaussian.full`: 1.20, 3.20" in page  # seeds 1 to 4, and 0


def test_the_figure_holds_every_contrast_with_results(made):
    drawn = figure.draw(all_found(made))
    (ax,) = drawn.axes
    labels = [text.get_text() for text in ax.get_yticklabels()]
    fashion = EXPERIMENTS["fashion"]
    assert labels == [*fashion.primary, *fashion.exploratory]
    assert figure.draw(all_found(Path(made / "nothing"))) is None


def test_the_command_writes_both_pages(made, tmp_path, capsys):
    main(["--logs", str(made), "--out", str(tmp_path), "--figure", str(tmp_path / "figure.png")])
    assert capsys.readouterr().out.startswith("fashion: 36 of 37 runs\n")
    assert {"krause_paper.md", "README.md", "figure.png", "figure.json"} <= {path.name for path in tmp_path.iterdir()}


def test_every_contrast_has_words():
    for experiment in EXPERIMENTS.values():
        for label in (*experiment.primary, *experiment.exploratory):
            assert subjects.subject(label)[0].isupper()


def test_notes_say_how_the_runs_were_made(made):
    """Three of the five seeds of one arm and all of another were compiled; one arm counts less than is useful."""
    rows = logs.read(made, "fashion", "results")
    for row in rows:
        row["compiled"] = row["arm"] == "dot+temperature.random" or (row["arm"] == "gaussian.full" and row["seed"] > 1)
        row |= {"workers": 1, "multiply_adds_executed": 7, "multiply_adds_useful": 7}
    logs.write(made, "fashion", "results", rows)
    told = notes.of_arms(all_found(made)["fashion"])
    assert "6 of these 36 runs: seeds 2, 3, 4 of `gaussian.full`; seeds 0, 1, 2 of `dot+temperature.random`." in told
    assert "Shared" not in told
    assert "Executed" not in told
    rows[0] |= {"workers": 4, "multiply_adds_useful": 8}
    logs.write(made, "fashion", "results", rows)
    told = notes.of_arms(all_found(made)["fashion"])
    assert "*Shared*: steps were timed while several runs shared the machine" in told
    assert "*Executed* was counted" in told
    # Noise of 0.15 points: five seeds tell half a point, three of 0.43 would not.
    assert "cannot come out" not in notes.of_contrasts(all_found(made)["fashion"])
    for row in rows:
        row["test"] += 0.01 * (row["seed"] % 2)
    logs.write(made, "fashion", "results", rows)
    assert "*no difference* cannot come out of it" in notes.of_contrasts(all_found(made)["fashion"])


def test_a_bracket_without_zero_that_holms_correction_leaves_undecided_is_explained(made):
    found = all_found(made)["fashion"]
    contrast = replace(found.contrasts("primary")[0].found, low=0.1, high=1.5, estimate=0.8)
    judged = replace(found.contrasts("primary")[0], found=contrast, p=0.08, verdict="undecided")
    assert "the bracket leaves out 0, but 4 questions were asked: corrected p 0.08" in words.sentence(judged, found)


@pytest.fixture
def whole(tmp_path):
    """Logs of every run of every experiment: noise alone, so that no difference is there."""
    rng = np.random.default_rng(1)
    for name, experiment in EXPERIMENTS.items():
        rows = []
        for run in runs(experiment):
            row = {"run": run.name, "experiment": name, "arm": run.arm, "seed": run.seed, "part": "reported"}
            row |= {"test": 0.8 + 0.001 * rng.normal(), "trained_parameters": 5, "device": "none", "workers": 4}
            if name == "smollm2":
                row |= {"sink_rate_softmax": 0.4 + 0.001 * rng.normal(), "trained_parameters": 4 + ("k" in run.arm)}
                row |= {"sink_rate_krause": 0.25} if "k" in run.arm else {}
            rows.append(row | {"seconds_per_step": 0.05, "learning_rate": 1e-3})
        logs.write(tmp_path, name, "results", rows)
    return tmp_path


def test_every_experiment_has_its_place(whole):
    found = all_found(whole)
    page, plain_page = tables.page(found, whole), words.page(found, whole)
    assert "not run" not in page.replace("| no arm was planned | not run |", "")
    assert "Planned and not run yet" not in plain_page
    for block in page.split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block
    assert "The same of two further models on Fashion-MNIST" in plain_page
    assert "no difference with mean read-out and with post-norm" in plain_page.replace("\n  ", " ")
    assert "25% more weights learn" in plain_page.replace("\n  ", " ")
    assert plain.branches(whole).endswith("beside a Krause branch (25.0 % of that branch's own).")
    drawn = figure.draw(found)
    with_contrasts = [one for one in EXPERIMENTS.values() if one.primary or one.exploratory]
    assert [ax.get_title() for ax in drawn.axes] == [one.title for one in with_contrasts]


def test_an_arm_of_one_seed_has_neither_interval_nor_verdict(whole):
    found = all_found(whole)
    page = tables.page(found, whole)
    assert "| `linear.full` | 1 | 0." in page
    assert page.count("| no interval |") == 4  # two arms of mnist, two of the pair
    line = next(line for line in page.splitlines() if "linear attention (LARM)" in line)
    assert "(no interval), 1 seed;" in line
    assert "| one seed |" in line
    judged = found["mnist"].of("KARM - ARM", {"linear.full": 1.0, "dot.full": -1.0})
    assert judged.verdict == "one seed"
    assert judged.blocked is None
    assert words.sentence(replace(judged, label="KARM - ARM"), found["mnist"]).endswith("so no bracket.")
    assert words.outcome(judged, found["mnist"]) == "one seed"


@pytest.mark.parametrize(("low", "high", "paper", "word"), [
    (0.2, 0.9, 0.7, "reproduced"),
    (0.2, 0.9, None, "holds here"),
    (0.1, 0.4, 0.7, "reproduced, negligibly"),
    (-0.9, -0.2, 0.7, "differs"),
    (-0.3, 0.3, 0.7, "differs"),  # nothing that counts, where the paper has something
    (-0.3, 0.3, 0.4, "no difference, nor is the paper's"),
    (-0.3, 0.3, None, "differs"),
    (-0.3, 0.9, 0.4, "undecided"),
    (-np.inf, np.inf, 0.7, "one seed"),
])  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
def test_words_of_a_claim(made, low, high, paper, word, sign):
    contrast = replace(all_found(made)["fashion"].contrasts("primary")[0].found, low=low, high=high)
    if sign < 0:
        contrast = replace(contrast, low=-high, high=-low)
    claim = Claim("", "", sign, "fashion", difference=None if paper is None else sign * paper)
    assert judgement.word(claim, Judged("", found=contrast), 0.5) == word


def test_speed_is_read_from_the_page_of_the_benchmark(tmp_path):
    page = tmp_path / "speed.md"
    assert sampling.sampled("mnist", page) is None
    page.write_text(
        "| shape | KARM, pictures a second | batch | softmax |\n| --- | --- | --- | --- |\n| mnist | 90 | 8 | 120.0 |"
    )
    found = sampling.sampled("mnist", page)
    assert found.words.startswith("120 -> 90 (H200")
    assert "0.75 times" in found.words
    assert found.verdict == "differs"
    assert sampling.sampled("cifar", page) is None
    kept = [sampling.sampled(shape) for shape in ("mnist", "cifar")]
    assert all(one is not None and one.krause > 0 for one in kept), "the committed page"


def test_steps_timed_alone_are_shown_where_they_are(whole):
    row = {"run": "cifar-dot.full-0", "experiment": "cifar", "arm": "dot.full", "milliseconds": 7.125}
    logs.write(whole, "costs", "results", [row | {"memory_mib": 812.4, "device": "card", "captured": True}])
    page = tables.page(all_found(whole), whole)
    assert "| 7.12 | 812 | card |" in page
    assert "(captured, not compiled) with nothing beside it" in page
    assert "where that was measured." in page
    assert "| shared | - | none |" in page


def test_accuracy_against_window_and_keys_is_a_table_of_means_with_pooled_intervals(tmp_path):
    own = EXPERIMENTS["fashion-reach"]
    rows = [
        {"run": f"{arm.name}-{seed}", "experiment": own.name, "arm": arm.name, "seed": seed, "part": "reported",
         "test": 0.8 + 0.01 * i + 0.002 * seed}
        for i, arm in enumerate(own.arms) for seed in range(2)
    ]  # fmt: skip
    logs.write(tmp_path, own.name, "results", rows)
    (text,) = reach.section(all_found(tmp_path)[own.name])
    found = {line.split(" | ")[0]: line.rstrip(" |").split(" | ")[1:] for line in text.splitlines() if line[:1] == "|"}
    # Seeds of an arm are 0.2 points apart: the error of a run is sqrt(0.02), of a mean of two 0.1; a degree an arm.
    half = f"+-{0.1 * scipy.stats.t.ppf(0.975, len(own.arms)):.2f}"
    place = {arm.name: i for i, arm in enumerate(own.arms)}
    expected = {
        "| 1 (6)": ["gaussian.window+top_k.r1.k2", "gaussian.window+top_k.r1.k4", None, "gaussian.window.r1"],
        "| all (50)": [*(f"gaussian.top_k.k{k}" for k in (2, 4, 8)), "gaussian.full"],
    }
    for row, names in expected.items():
        assert found[row] == [f"{80.1 + place[name]:.2f} {half}" if name else "as all" for name in names]
