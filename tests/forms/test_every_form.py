"""All rules x all forms: whatever a form says that it computes equals the definition, gradients included.

`kd.supported` drives the table, so a form is tested by being registered. The definition is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from tests.forms.cases import MEETINGS, NEIGHBOURHOODS, SCORES, Meeting, rule_of, rules

# Sums of a dozen terms of size below 10, after exponentials of scores below 10: a hundred roundings.
TOLERANCES = {"float64": 1e-12, "float32": 3e-5}
# Gradients sum a dozen such terms times another dozen derivatives of scores.
GRADIENT_TOLERANCES = {"float64": 1e-11, "float32": 3e-4}
# Every kind of array and of parameter once; that rows are placed right is seen in the values.
DIFFERENTIATED = ["line, masses, absent", "padding", "later queries", "heads", "one query each", "pair bias"]
ARRAYS = ("sources", "values", "log_mass")

Convert = Callable[[np.ndarray], Any]


def numpy_of(dtype: str) -> Convert:
    return lambda x: x.astype(dtype) if x.dtype.kind == "f" else x


def torch_of(dtype: str, device: str = "cpu") -> Convert:
    return lambda x: torch.as_tensor(x if x.dtype.kind != "f" else x.astype(dtype), device=device)


KINDS: dict[str, tuple[Convert, str]] = {
    "numpy float64": (numpy_of("float64"), "float64"),
    "numpy float32": (numpy_of("float32"), "float32"),
    "torch float64": (torch_of("float64"), "float64"),
    "torch float32": (torch_of("float32"), "float32"),
}


class Call:
    """A rule and the arrays that meet it, in one library."""

    def __init__(self, score: str, neighbourhood: str, meeting: Meeting, convert: Convert, *, grad: bool = False):
        self.queries = self._leaf(convert(meeting.queries), grad)
        self.rest = {name: self._leaf(convert(x), grad and name in ARRAYS) for name, x in meeting.rest.items()}
        number = SCORES[score][1] * meeting.parameter
        self.parameter = (
            number if isinstance(number, float) and not grad else self._leaf(convert(np.asarray(number)), grad)
        )
        self.pair_bias = None if meeting.pair_bias is None else self._leaf(convert(meeting.pair_bias), grad)
        self.rule = rule_of(score, neighbourhood, self.parameter, self.pair_bias)

    @staticmethod
    def _leaf(x: Any, grad: bool) -> Any:
        return x.requires_grad_() if grad else x

    def forms(self) -> dict[str, str | None]:
        arrays = [self.rest.get("sources"), self.rest.get("values")]
        return kd.supported(self.rule, self.queries, *arrays, **self._keywords())

    def _keywords(self) -> dict[str, Any]:
        return {name: x for name, x in self.rest.items() if name not in ("sources", "values")}

    def run(self, impl: str) -> kd.Aggregate:
        return kd.aggregate(self.rule, self.queries, **self.rest, impl=impl)

    def gradients(self, impl: str) -> dict[str, torch.Tensor]:
        """Of a sum of means and log-partitions with fixed coefficients, by the name of the array."""
        result = self.run(impl)
        draw = torch.Generator().manual_seed(0)
        weights = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x) for x in result]
        log_partition = torch.where(result.log_partition > -torch.inf, result.log_partition, 0.0)
        total = (result.mean * weights[0]).sum() + (log_partition * weights[1]).sum()
        named = {"queries": self.queries, "parameter": self.parameter, "pair bias": self.pair_bias}
        named |= {name: x for name, x in self.rest.items() if name in ARRAYS}
        named = {name: x for name, x in named.items() if x is not None}
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        return {
            name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(named.items(), found, strict=True)
        }


def close(mine: Any, theirs: Any, tolerance: float, words: str) -> None:
    mine, theirs = (x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x for x in (mine, theirs))
    np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance, err_msg=words)


# The kinds of one neighbourhood and meeting follow each other: the definition is computed once for all of them.
@lru_cache(maxsize=len(SCORES))
def definition(score: str, neighbourhood: str, meeting: str) -> kd.Aggregate:
    return Call(score, neighbourhood, MEETINGS[meeting], numpy_of("float64")).run("reference")


@lru_cache(maxsize=len(SCORES))
def gradients_of_definition(score: str, neighbourhood: str, meeting: str) -> dict[str, torch.Tensor]:
    return Call(score, neighbourhood, MEETINGS[meeting], torch_of("float64"), grad=True).gradients("reference")


def compare(meeting: str, convert: Convert, dtype: str, neighbourhood: str) -> None:
    for score in SCORES:
        call = Call(score, neighbourhood, MEETINGS[meeting], convert)
        exact = definition(score, neighbourhood, meeting)
        for form in [*(name for name, reason in call.forms().items() if reason is None), "auto"]:
            found = call.run(form)
            assert str(found.mean.dtype).endswith(dtype) or form == "convolution"
            close(found.mean, exact.mean, TOLERANCES[dtype], f"mean of {score}, {form}")
            close(found.log_partition, exact.log_partition, TOLERANCES[dtype], f"log Z of {score}, {form}")


def compare_gradients(meeting: str, convert: Convert, dtype: str, neighbourhood: str) -> None:
    for score in SCORES:
        call = Call(score, neighbourhood, MEETINGS[meeting], convert, grad=True)
        exact = gradients_of_definition(score, neighbourhood, meeting)
        for form in [*(name for name, reason in call.forms().items() if reason is None), "auto"]:
            for name, gradient in call.gradients(form).items():
                words = f"gradient of {name}: {score}, {form}"
                close(gradient, exact[name], GRADIENT_TOLERANCES[dtype], words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_mean_and_log_partition(neighbourhood, meeting, kind):
    convert, dtype = KINDS[kind]
    compare(meeting, convert, dtype, neighbourhood)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "torch" in kind])
@pytest.mark.parametrize("meeting", DIFFERENTIATED)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_gradients(neighbourhood, meeting, kind):
    convert, dtype = KINDS[kind]
    compare_gradients(meeting, convert, dtype, neighbourhood)


@pytest.mark.gpu
@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_on_a_gpu(neighbourhood, meeting):
    convert = torch_of("float32", "cuda")
    compare(meeting, convert, "float32", neighbourhood)
    compare_gradients(meeting, convert, "float32", neighbourhood)


def _answers() -> Iterator[dict[str, str | None]]:
    """What the forms say of each case of the table in each library, ``None`` for yes."""
    for meeting in MEETINGS.values():
        for score, neighbourhood in rules():
            for convert, _ in KINDS.values():
                yield Call(score, neighbourhood, meeting, convert).forms()


def test_every_form_computes_some_case_here_or_needs_another_machine():
    reasons: dict[str, set[str]] = {}
    found: set[str] = set()
    for answers in _answers():
        for form, reason in answers.items():
            reasons.setdefault(form, set()).add(str(reason))
        found |= {form for form, reason in answers.items() if reason is None or "CUDA" in reason}
        if found == set(answers):
            return
    assert not (silent := {form: x for form, x in reasons.items() if form not in found}), f"compute nothing: {silent}"
