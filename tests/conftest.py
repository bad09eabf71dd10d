"""Fixtures shared by all tests: array libraries, seeds, and calm hypothesis profiles."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", max_examples=400, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# Of two workers one would wait at the end for a long test that began late.
LONG = ("test_triton_interpreter", "test_fused_kernels", "test_figures", "test_models_compiled", "test_evidence_run")


def pytest_collection_modifyitems(items):
    """The longest tests begin first, notebooks after them."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240611)


@pytest.fixture(params=["numpy", "torch"])
def library(request):
    """A function that moves a numpy array into the library under test."""
    if request.param == "numpy":
        return np.asarray
    import torch

    return torch.as_tensor


@pytest.fixture
def light_training():
    """Runs of training without their figure; see `tests.training_data.light`."""
    from tests.training_data import light

    with light():
        yield


@pytest.fixture
def light_pictures():
    """Pages without pictures, figures of few pixels; see `tests.drawn_lightly`."""
    from tests.drawn_lightly import coarse, undrawn

    with coarse(), undrawn():
        yield


@pytest.fixture(autouse=True, scope="session")
def _files_name_their_encoding():
    """What the package reads and writes must not depend on the platform: a text without an encoding fails its test."""
    given, package = io.text_encoding, str(Path(__file__).parents[1] / "krause_dynamics") + os.sep

    def checked(encoding, stacklevel=2):
        caller = sys._getframe(2).f_code.co_filename
        assert encoding is not None or not caller.startswith(package), f"no encoding: {caller}"
        return given(encoding, stacklevel + 1)

    io.text_encoding = checked
    yield
    io.text_encoding = given


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard():
    """Shells start background jobs deaf to Ctrl-C, which the library respects; the tests of Ctrl-C need to be heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _launches_reach_the_device_of_their_tensors():
    """In Triton's interpreter: a kernel launched outside `on_device` would, beside a second GPU, run on the first."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from tests.launches import guarded, unburdened

    with guarded(), unburdened():
        yield
