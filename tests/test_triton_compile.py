"""Kernels compiled without a GPU for three generations: registers and local memory, as the assembler reports."""

import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from krause_dynamics.fused.triton import forward, neighbourhood, primitives  # noqa: E402
from krause_dynamics.fused.triton.arguments import launch_options  # noqa: E402
from krause_dynamics.fused.triton.forward import forward_kernel  # noqa: E402

NUMBERS = ("scale_value", "z_score", "slope_unit")


def signature(kernel, constants, pointers):
    def kind(name):
        if name in constants:
            return "constexpr"
        return pointers.get(name, "fp32" if name in NUMBERS else "i32")

    return {name: kind(name) for name in kernel.arg_names}


def resources(compiled, folder):
    """(registers, bytes of stack, bytes of local memory) a thread."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    report = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(name + r":(\d+)", report)[1]) for name in ("REG", "STACK", "LOCAL"))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90])
def test_short_windows_stay_in_registers(capability, tmp_path):
    """The kernel of 32-key windows (bfloat16, heads of 64): scores, products and selection stay in registers."""
    if primitives.INTERPRETED.value:
        pytest.skip("needs the compiler")
    hood = neighbourhood.neighbourhood(31, 0, 16, "index", None, 0, 4096)
    asm, constraints = forward._count_program(3)
    tiles = {"FULL": False, "B": 16, "T": 16, "NT": 3, "WORDS": 2, "HOLD": True, "SAMPLE_FROM": 1, "SAMPLE_TO": 2}
    constants = {"TOP_K": 16, "KEEP_TIES": False, "D": 64, "DP": 64, "HAS_BIAS": True, "SCALE_TENSOR": True}
    constants |= {**hood.constants, **tiles, "NEWTON": 3, "ASM": asm, "CONSTRAINTS": constraints}
    half, single = "*bf16", "*fp32"
    pointers = {"Q": half, "K": half, "V": half, "OUT": half, "BIAS": single, "SCALE": single, "LOGZ": single}
    types = signature(forward_kernel, constants, pointers | {"BITS": "*i32"})
    # Rows of 64 numbers: what a launch finds out about pointers and strides.
    rows = tuple(f"stride_{x}" for x in "qkvo")
    aligned = [n for n, (name, t) in enumerate(types.items()) if t.startswith("*") or name.startswith(rows)]
    source = ASTSource(
        fn=forward_kernel,
        signature=types,
        constexprs=constants,
        attrs={(n,): [["tt.divisibility", 16]] for n in aligned},
    )
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=launch_options(1))
    registers, stack, local = resources(compiled, tmp_path)
    assert registers <= 255
    # A few words beside the loops at most.
    assert stack <= 64
    assert local == 0
