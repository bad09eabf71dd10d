"""A few trials of each campaign: nothing lost, nothing silently wrong, no hang; and counts that add up."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from tests.campaigns import damaged, forms, full, kills, writers
from tests.campaigns.frame import Campaign, faults, table


@pytest.mark.parametrize(
    ("campaign", "count"),
    [(kills.CAMPAIGN, 3), (damaged.CAMPAIGN, 30), (writers.CAMPAIGN, 3), (full.CAMPAIGN, 16), (forms.CAMPAIGN, 20)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_few_trials(campaign, count, tmp_path):
    lines = campaign.run(count, 5, tmp_path / "lines.jsonl")
    assert len(lines) == count
    assert faults(lines) == []


CRASHES = 94  # drawn by trial 3 of seed 2


def _counted(rng, folder):
    value = rng.integers(0, 100)
    if value == CRASHES:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"kind": "draw", "outcome": "same", "value": int(value)}


def test_a_campaign_goes_on_and_counts_a_crash_once(tmp_path):
    draws = [int(np.random.default_rng([2, k]).integers(0, 100)) for k in range(9)]
    campaign = Campaign("draws", _counted, lambda rng: "draw")
    part = campaign.run(3, 2, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text() + '{"torn": ')
    assert "3 of 9 trials (partial)" in table(part, 9)
    assert campaign.run(9, 2, tmp_path / "a.jsonl", seconds=0.0) == part
    lines = campaign.run(9, 2, tmp_path / "a.jsonl")
    assert [line["trial"] for line in lines] == list(range(9))
    assert [line.get("value") for line in lines] == [None if value == CRASHES else value for value in draws]
    assert [line["outcome"] == "crash" for line in lines] == [value == CRASHES for value in draws]
    assert len([text for text in (tmp_path / "a.jsonl").read_text().splitlines() if _is_json(text)]) == 9


def _is_json(text):
    try:
        return bool(json.loads(text))
    except ValueError:
        return False
