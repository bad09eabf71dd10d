"""Kernels compiled without a GPU for three generations: registers, local and shared memory, as the assembler reports.

A driver that names a target and launches nothing stands in for the GPU; calls of the launch functions then compile
exactly the kernels, tile sizes and options that such a GPU would be given.
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from krause_dynamics.forms.attention.slots import Ring  # noqa: E402
from krause_dynamics.forms.attention.triton import along_rows, few, launch, primitives, sums  # noqa: E402
from krause_dynamics.interaction.reach import Reach  # noqa: E402
from tests.triton_oracle import launched  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(primitives.INTERPRETED.value), reason="needs the compiler"),
]
# Shared memory that one program may have (CUDA programming guide, compute capabilities), bytes.
SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
# Bytes of stack a thread that a kernel may have, and why; the others have none.
CAPPED = "its registers are capped so that one more block shares a multiprocessor"
SPILLS = {
    "forward_kernel": (128, "windows of 256 keys: a few words beside 160 scores a thread; 16 bytes at most below"),
    "backward_queries_kernel": (144, CAPPED),
    "sweep_kernel": (64, "carries the sums of two blocks of keys along; 8 without a distance"),
    "streaming_kernel": (24, CAPPED),
    "grid_kernel": (320, "one warp holds all candidates of its patch; " + CAPPED),
}
CALLS = {
    "W = 32, k = 16": {"left": 31, "right": 0, "top_k": 16},
    "W = 128, k = 96": {"left": 127, "right": 0, "top_k": 96},
    "W = 256, k = 192": {"left": 255, "right": 0, "top_k": 192},
    "W = 1024, k = 256": {"left": 1023, "right": 0, "top_k": 256},
    "causal, k = 64": {"right": 0, "top_k": 64},
    "W = 128": {"left": 127, "right": 0},
    "W = 64, first tokens": {"left": 63, "right": 0, "first": 4},
    "causal": {"right": 0},
    "grid, k = 8": {"grid": (14, 14, 2, "chebyshev"), "prefix": 1, "top_k": 8},
    "grid, k = 8, exempt": {"grid": (8, 8, 2, "chebyshev"), "prefix": 1, "top_k": 8, "exempt": 1},
    "grid": {"grid": (64, 64, 2, "chebyshev")},
}


class Target:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        # Compiled kernels are kept by device: each generation is one.
        return self.capability

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """Function (capability) -> list that fills with (name, kernel) as kernels are launched."""
    kernels = []
    run = JITFunction.run

    def record(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        kernels.append((self.fn.__name__, kernel.result() if hasattr(kernel, "result") else kernel))
        return kernel

    def pretend(capability):
        monkeypatch.setattr(JITFunction, "run", record)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: divmod(capability, 10))
        monkeypatch.setattr(triton.runtime.driver, "_active", Target(capability))
        return kernels

    return pretend


def resources(kernel, folder):
    """(registers, bytes of stack, bytes of local memory) a thread; the stack is where spilled registers go."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    report = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(name + r":(\d+)", report)[1]) for name in ("REG", "STACK", "LOCAL"))


def call(where, dim=64, dtype=torch.bfloat16, *, bias=True, backward=True):
    """Forward and backward pass of tokens that are there in name only."""
    n = where["grid"][0] * where["grid"][1] + where.get("prefix", 0) if "grid" in where else 2048
    q, k, v, g = (torch.empty(1, 2, n, dim, dtype=dtype) for _ in range(4))
    key_bias = torch.empty(1, 2, n) if bias else None
    out, log_partition, selected = launch.forward(q, k, v, scale=0.125, key_bias=key_bias, **launched(**where))
    if backward:
        # As a layer calls them: the bias is that of a distance, and has no gradient of its own.
        more = {"scale": 0.125, "key_bias": key_bias, "distance": bias, "need_key_bias": not bias}
        launch.backward(g, q, k, v, out, log_partition, selected, **more, **launched(**where))


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("name", CALLS)
def test_local_memory(name, capability, compiled, tmp_path):
    """bfloat16, heads of 64, with a key bias: scores, sums and selections stay in registers, but for what is stated."""
    kernels = compiled(capability)
    call(CALLS[name])
    assert len(kernels) >= 3
    for kernel_name, kernel in kernels:
        registers, stack, local = resources(kernel, tmp_path)
        assert registers <= 255
        assert local == 0
        assert stack <= SPILLS.get(kernel_name, (0, ""))[0], (kernel_name, stack)
        assert kernel.metadata.shared <= SHARED[capability]


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [16, 128, 256])
def test_every_head_dimension_has_room(dim, dtype, capability, compiled):
    """The kernels of several passes find their shared memory on every generation (the last ones of 8.6 have 99 KiB)."""
    kernels = compiled(capability)
    for name in ("W = 1024, k = 256", "W = 128"):
        call(CALLS[name], dim, dtype, bias=name == "W = 128", backward=False)
    assert {name for name, _ in kernels} == {"streaming_kernel", "softmax_kernel"}
    assert max(kernel.metadata.shared for _, kernel in kernels) <= SHARED[capability]


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize(("heads", "dim", "window"), [(8, 32, 128), (8, 64, 256), (8, 32, 132)])
def test_a_ring_is_read_in_wide_loads_and_stays_in_registers(heads, dim, window, capability, compiled, tmp_path):
    kernels, first = compiled(capability), window % 8
    q, k, v = (torch.empty(2, heads, 1, dim, dtype=torch.bfloat16) for _ in range(3))
    kept = [torch.empty(2, heads, window, dim, dtype=torch.bfloat16) for _ in range(2)]
    ring = Ring(*kept, torch.zeros(2, window, dtype=torch.bool), torch.zeros(1, dtype=torch.int64), first)
    reach = Reach(window - first - 1, 0, top_k=96, first=first)
    launch.ring_step(q, k, v, ring, scale=torch.ones(1, heads), norm=None, valid=None, distance=True, reach=reach)
    ((name, kernel),) = kernels
    registers, stack, local = resources(kernel, tmp_path)
    assert (name, stack, local) == ("ring_kernel", 0, 0)
    assert registers <= 255
    # A row of a tile is 8 numbers a thread and load: 2 tiles, of which a thread has its share.
    threads, width = 32 * kernel.metadata.num_warps, 1 << (window - 1).bit_length()
    assert len(re.findall(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])) >= 2 * width * dim // 8 // threads


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_weights_stay_in_registers(dtype, capability, compiled, tmp_path):
    """Heads of 128, keys of 8 heads shared by 32, as models of 8B have them."""
    kernels = compiled(capability)
    q, k, z = (
        torch.empty(1, 32, 2048, 128, dtype=dtype),
        torch.empty(1, 8, 2048, 128, dtype=dtype),
        torch.empty(1, 32, 2048),
    )
    sums.sums(q, k, z, 0.1, -1, 0, 4)
    few.rows(q, k, z, torch.arange(32), 0.1, -1, 0)
    few.columns(q, k, z, torch.zeros(1, 32, 8, dtype=torch.int64), 0.1, -1, 0, 4)
    along_rows.describe(torch.empty(4, 8192), 8)
    assert {name for name, _ in kernels} == {"by_key", "by_query", "rows_kernel", "columns_kernel", "along_rows"}
    for name, kernel in kernels:
        registers, stack, local = resources(kernel, tmp_path)
        assert local == 0
        # With Triton 3.9 alone: a word or two on 8.6, and of float32, which has no tensor cores, some on 9.0.
        assert stack <= (160 if dtype == torch.float32 else 16), (name, stack)
        assert registers <= 255
        assert kernel.metadata.shared <= SHARED[capability]
