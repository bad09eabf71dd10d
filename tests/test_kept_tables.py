"""Tables on a device that a captured CUDA graph reads: never dropped from the cache that made them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from krause_dynamics.forms.attention import kept, listed

CPU = torch.device("cpu")


def keys(number):
    """Random keys of one table each: degree 2, causal or not, seed, prefix, as `Reach.random` holds them."""
    return [(2, seed, 0, 0) for seed in range(number)]


@pytest.fixture
def capturing(monkeypatch):
    """A stream that says it is being captured, and nothing kept for graphs of other tests."""
    monkeypatch.setattr(kept, "_read_by_graphs", {})
    said = {"now": False}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: said["now"])
    return said


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_table_that_a_capture_read_outlives_any_number_of_others(capturing, asked_before):
    """Of layers with keys of their own the 129th dropped the first one's table, whose address a graph had."""
    first, *others = keys(400)
    ask = {"drawn": (4,), "chosen": (4, 4)}
    for name, sizes in ask.items():
        make = getattr(listed, name)
        if asked_before:  # by the steps that warm up before a capture
            make(first, *sizes, CPU)
        capturing["now"] = True
        address = make(first, *sizes, CPU).data_ptr()
        alive = weakref.ref(make(first, *sizes, CPU))
        capturing["now"] = False
        for other in others:
            make(other, *sizes, CPU)
        gc.collect()
        assert alive() is not None
        assert make(first, *sizes, CPU).data_ptr() == address


def test_what_no_capture_read_is_dropped(capturing):
    first, *others = keys(400)
    alive = weakref.ref(listed.drawn(first, 5, CPU))
    for other in others:
        listed.drawn(other, 5, CPU)
    gc.collect()
    assert alive() is None


def test_tables_are_kept_apart_by_function_and_by_sizes(capturing):
    capturing["now"] = True
    (first,) = keys(1)
    assert listed.drawn(first, 4, CPU).shape != listed.drawn(first, 6, CPU).shape
    assert listed.chosen(first, 4, 4, CPU).dtype != listed.bits(first, 0, 4, 4, CPU).dtype
    assert listed.bits(first, 0, 4, 4, CPU) is listed.bits(first, 0, 4, 4, CPU)
