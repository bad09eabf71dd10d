"""What surrounds the kernels on the host, without a GPU: refusals, what one token reads of a cache, recorded calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import krause_dynamics as kd
from krause_dynamics.forms.attention import kernels
from krause_dynamics.forms.attention.call import Call, split_heads
from krause_dynamics.interaction.reach import Reach

REFUSED = {
    "a grid or a window, not both": (kd.krause(1.0, kd.Grid(3, 4) & kd.Window(3)), {}),
    "no pair bias, packed sequences": (kd.krause(1.0, kd.Segments(np.array([0, 5, 12]))), {}),
    "values of the keys' dimension": (kd.krause(1.0, kd.Window(4)), {"values": (12, 3)}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_the_kernels_refuse_what_they_would_compute_wrongly(words):
    """On tensors that say that they lie on a GPU and hold nothing: all is decided before anything is read."""
    rule, shapes = REFUSED[words]
    with FakeTensorMode():
        x = torch.empty(12, 8, device="cuda")
        given = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        values = given.pop("values", None)
        assert words in kd.supported(rule, x, None, values, **given)["triton"]


def test_the_kernels_refuse_to_rank_by_mass():
    """Padding alone they may take; masses join after the ranking, which the kernels cannot do."""
    with FakeTensorMode():
        q, mass = torch.empty(1, 2, 12, 8, device="cuda"), torch.empty(1, 1, 12, device="cuda")
        call = Call(q, q, q, 1.0, True, Reach(left=3, right=0, top_k=2), mass)
        assert "rank by mass" in kernels.serves(call)
        # Refused for another reason: neither padding nor masses without a rank are ranked.
        for other in (call._replace(mask_only=True), call._replace(reach=Reach(3, 0))):
            assert "dimension" in kernels.serves(other._replace(v=torch.empty(1, 2, 12, 3, device="cuda")))


def test_the_kernels_refuse_large_heads():
    with FakeTensorMode():
        x = torch.empty(12, kernels.LARGEST_HEAD + 1, device="cuda")
        assert "head dimensions up to" in kd.supported(kd.krause(1.0, kd.Window(4)), x)["triton"]


def test_first_tokens_and_exempt_rows_of_a_picture_take_one_pass(monkeypatch):
    """Rows whose sequences begin at different keys, and exempt rows that no patch kernel serves, take two."""
    tiling, passes = pytest.importorskip("krause_dynamics.forms.attention.triton.tiling"), []
    assert kernels.PATCHES == (tiling.LARGEST_RADIUS, tiling.LARGEST_PREFIX)

    def passed(call):
        passes.append(call.joint)
        return torch.zeros(1, 2, call.q.shape[2], 8), torch.zeros(1, 2, call.q.shape[2])

    monkeypatch.setattr(kernels, "_attend", passed)
    monkeypatch.setattr(kernels.definition, "attend", passed)
    whole = torch.zeros(1, 26, 6, 8)
    call = Call(*split_heads(whole, 2), 1.0, True, Reach(3, 0, first=2), joint=whole)
    beside = torch.tensor([0, 2])[None, :, None].expand(1, 2, 26)
    picture = Reach(grid=(5, 5, 2, 0, 1), top_k=4, exempt=1)
    wide = picture._replace(grid=(5, 5, 5, 0, 1))
    for changed, number in (({}, 1), ({"beside": beside}, 2), ({"reach": picture}, 1), ({"reach": wide}, 2)):
        passes.clear()
        kernels.attend(call._replace(**changed))
        assert [joint is not None for joint in passes] == [number == 1] * number


@pytest.mark.parametrize("position", [0, 2, 7, 19, 25])
@pytest.mark.parametrize(("left", "right"), [(-1, 0), (4, 0), (0, 0), (3, 2), (-1, -1), (2, -1)])
def test_one_token_reads_all_keys_within_its_reach_and_no_others(left, right, position):
    """Keys that know their place; a token beyond the end of the cache reads none that are too far."""
    places = torch.arange(20.0)
    k = places[None, None, :, None].expand(1, 2, 20, 3)
    call = Call(torch.zeros(1, 2, 1, 3), k, k, 1.0, False, Reach(left, right), places[None, None], offset=position)
    found = kernels._within_reach(call)
    first = 0 if left == -1 else position - left
    last = 19 if right == -1 else position + right
    expected = [j for j in range(20) if first <= j <= last]
    assert found.k[0, 1, :, 2].tolist() == expected == found.v[0, 0, :, 0].tolist()
    assert found.log_mass[0, 0].tolist() == expected
    assert expected == [] or found.offset + expected[0] == position


@pytest.fixture
def recorded(monkeypatch):
    """The function that records, where no kernel is launched and no device is asked for its stream."""
    pytest.importorskip("triton")
    from krause_dynamics.forms.attention.triton import replay

    monkeypatch.setattr(replay, "_launch_on", lambda device, launches, held: None)
    return replay.recorded


def test_a_recorded_call_is_repeated_for_its_own_alignment_only(recorded):
    """Compiled kernels rely on the alignment for which they were compiled, so another one is another signature."""
    calls = []

    def allocates(x):
        calls.append(x.data_ptr() % 16)
        return (torch.empty_like(x),)

    memory = torch.zeros(64)
    start = -memory.data_ptr() % 16 // 4
    aligned, beside = memory[start : start + 8], memory[start + 1 : start + 9]
    for _ in range(4):
        recorded(allocates, (aligned,), ())
    assert calls == [0, 0]  # seen once, recorded once, then repeated without the function
    recorded(allocates, (beside,), ())
    assert calls == [0, 0, 4]


def test_a_recorded_call_tells_shapes_options_and_shared_tensors_apart(recorded):
    calls = []

    def allocates(x, y, number):
        calls.append((x.shape[0], x is y, number))
        return (torch.empty_like(x),)

    one, other = torch.zeros(16), torch.zeros(16)
    for _ in range(3):
        recorded(allocates, (one, other), (1,))
    assert len(calls) == 2
    recorded(allocates, (one, one), (1,))
    recorded(allocates, (one, other), (2,))
    recorded(allocates, (one[:8], other[:8]), (1,))
    assert calls[2:] == [(16, True, 1), (16, False, 2), (8, False, 1)]
