"""On a GPU: every implementation against the definition in float64, the same sets as on the CPU, compilation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import KrauseAttention, explain, krause_attention
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.attention import answer
from krause_dynamics.nn.first_tokens import beside_of
from krause_dynamics.nn.hearing import within

pytestmark = pytest.mark.gpu
WORKERS = 8
NEVER = -float("inf")

OPTIONS = {
    "window 32": {"window": 32, "top_k": 16},
    "window 128": {"window": 128, "top_k": 96},
    "centred": {"neighbourhood": kd.Window(65, two_sided=True), "top_k": 9},
    "window only": {"window": 128},
    "picture": {"grid": kd.Grid(16, 24, radius=2, prefix=1), "top_k": 8},
    "cross": {"grid": kd.Grid(11, 35, metric="manhattan")},
    "softmax": {"causal": True, "score": "dot"},
    "causal top-k": {"causal": True, "top_k": 20},
    "random keys": {"neighbourhood": kd.RandomKeys(9, seed=3, tokens=385, prefix=1)},
    "random keys, rank": {"neighbourhood": kd.RandomKeys(30, seed=3, tokens=65, prefix=1) & kd.TopK(6)},
}
FEW = {
    "causal top-k": 120,
    "random keys, rank": 65,
}  # tokens, where a row hears all: as many tiles as keys would compile for half a minute
TOKENS = 385  # 16 x 24 + 1 and 11 x 35


# Head dimension, dtype, what is unusual: windows past the register kernel, padded heads, fewer queries than keys.
SHAPES = {
    "16 bf16": (16, torch.bfloat16, {"window": 32, "top_k": 16}),
    "32 fp16": (32, torch.float16, {"window": 300, "top_k": 200}),
    "80 bf16": (80, torch.bfloat16, {"window": 128, "top_k": 96}),
    "80 fp32": (80, torch.float32, {"window": 32, "top_k": 16, "query_offset": 0}),
    "96 bf16": (96, torch.bfloat16, {"window": 700, "top_k": 64}),
    "128 bf16": (128, torch.bfloat16, {"neighbourhood": kd.Window(65, two_sided=True), "top_k": 20}),
    "128 fp32": (128, torch.float32, {"neighbourhood": kd.Window(601, two_sided=True), "top_k": 100}),
    "256 bf16": (256, torch.bfloat16, {"window": 128, "query_offset": 300}),
    "256 fp32": (256, torch.float32, {"window": 32}),
}


@pytest.fixture(scope="module", autouse=True)
def kernels_compiled_side_by_side(request):
    """Kernels compile for seconds each: processes of their own run the tests first and leave them in Triton's cache."""
    chosen = [item.nodeid for item in request.session.items if item.path == request.path]
    if len(chosen) < 3 * WORKERS or {"KRAUSE_GPU_WORKER", "PYTEST_XDIST_WORKER"} & os.environ.keys():
        return
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, "KRAUSE_GPU_WORKER": "1"}
    workers = [
        subprocess.Popen([*command, *chosen[i::WORKERS]], env=environment, cwd=request.config.rootpath,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for i in range(WORKERS)
    ]  # fmt: skip
    for worker in workers:
        worker.wait()


def qkv(dtype, n=TOKENS, d=64, kv_heads=2, grad=False, seed=0, m=None):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 4, n, d), (2, kv_heads, m or n, d), (2, kv_heads, m or n, d)]
    return [torch.randn(s, generator=generator).to("cuda", dtype).requires_grad_(grad) for s in shapes]


def run(impl, q, k, v, sigma, options):
    out, log_partition = krause_attention(q, k, v, sigma=sigma, impl=impl, return_log_partition=True, **options)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    loss = (out * weights).sum() + torch.where(log_partition > NEVER, log_partition, 0.0).sum().to(out.dtype)
    return out, log_partition, *torch.autograd.grad(loss, [q, k, v, sigma])


# Every option in bfloat16, some in the other types; FlexAttention compiles for seconds and knows no top-k.
CASES = [(name, torch.bfloat16, "triton") for name in OPTIONS]
CASES += [(name, dtype, "triton") for name in ("window 32",) for dtype in (torch.float32, torch.float16)]
CASES += [(name, torch.float32, "banded") for name in OPTIONS]
CASES += [(name, torch.bfloat16, "flex") for name in ("window only", "cross")]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # FlexAttention's own, of a captured tensor
@pytest.mark.parametrize(("name", "dtype", "impl"), CASES)
def test_equals_the_definition(name, dtype, impl):
    compare(impl, dtype, OPTIONS[name], *qkv(dtype, n=FEW.get(name, TOKENS), grad=True))


def compare(impl, dtype, options, q, k, v):
    """Output, log-partition and gradients of q, k, v and a bandwidth per head against the definition in float64."""
    d = q.shape[-1]
    sigma = (torch.tensor([3.0, 4.0, 5.0, 6.0], device="cuda") * (d / 64) ** 0.5).requires_grad_()
    mine = run(impl, q, k, v, sigma, options)
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    theirs = run("reference", *exact, sigma.detach().double().requires_grad_(), options)
    # A pair whose score ties with the k-th to rounding may be in one set and not in the other; its row is left out.
    eps = torch.finfo(dtype).eps
    rows = ((mine[0].double() - theirs[0]).abs().amax(-1) < 8 * eps + 1e-4).double()
    assert float(rows.mean()) > 0.995
    for a, b in zip(mine[2:], theirs[2:], strict=True):
        error = (a.double() - b).norm() / b.norm()
        assert float(error) < 20 * eps + 2e-3


@pytest.mark.parametrize("name", list(SHAPES))
def test_head_dimensions_and_long_windows(name):
    """Two query heads a key head; with a query offset, 100 queries meet 400 keys."""
    d, dtype, options = SHAPES[name]
    n, m = (100, 400) if "query_offset" in options else (800, 800)
    compare("triton", dtype, options, *qkv(dtype, n=n, m=m, d=d, grad=True))


@pytest.mark.parametrize("impl", ["banded", "triton"])
@pytest.mark.parametrize("ties", ["index", "keep"])
def test_small_integers_give_the_sets_of_the_cpu(impl, ties):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randint(-2, 3, (1, 2, 200, 16), generator=generator).float() for _ in range(2))
    v = torch.zeros(1, 2, 200, 16)
    options = {"neighbourhood": kd.Window(33) & kd.TopK(7, ties), "sigma": 2.0}
    for column in range(0, 200, 16):
        v.zero_()
        for c in range(min(16, 200 - column)):
            v[:, :, column + c, c] = 1.0
        here = krause_attention(q, k, v, **options) > 0
        there = krause_attention(q.cuda(), k.cuda(), v.cuda(), impl=impl, **options) > 0
        assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("impl", ["banded", "triton"])
def test_padding_may_hold_nan(impl):
    q, k, v = qkv(torch.float32, n=300)
    valid = torch.arange(300, device="cuda") >= torch.tensor([[0], [70]], device="cuda")
    options = {"window": 64, "top_k": 20, "sigma": 4.0, "impl": impl}
    clean = krause_attention(q, k, v, key_valid=valid, **options)
    dirty = [x.masked_fill(~valid[:, None, :, None], float("nan")).requires_grad_() for x in (q, k, v)]
    out = krause_attention(*dirty, key_valid=valid, **options)
    heard = valid[:, None, :, None].expand_as(out)
    torch.testing.assert_close(out[heard], clean[heard], rtol=1e-4, atol=1e-4)
    assert bool((out[1, :, :70] == 0).all())
    for gradient in torch.autograd.grad(torch.where(heard, out, 0.0).sum(), dirty):
        assert bool(gradient.isfinite().all())


def test_offset_tokens_keep_their_digits_in_float32():
    q, k, v = qkv(torch.float32)
    exact = krause_attention(q.double() + 100, k.double() + 100, v.double(), sigma=4.0, window=64, impl="reference")
    mine = krause_attention(q + 100, k + 100, v, sigma=4.0, window=64, impl="triton")
    assert float((mine.double() - exact).abs().max()) < 1e-3


def test_auto_takes_the_kernels_and_says_so():
    q, k, v = qkv(torch.bfloat16)
    assert explain(q, k, v, window=32, top_k=16)[0] == "triton"
    name, reason = explain(q, k, v, window=32, top_k=16, dropout=0.1)
    assert name == "banded"
    assert "not triton: the kernels take no pair bias, packed sequences or dropout" in reason
    assert explain(q.double(), k.double(), v.double(), window=32)[0] == "banded"


def test_compiles_whole_and_once():
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter, dynamic=True)
    def attend(q, k, v, log_sigma):
        return krause_attention(q, k, v, sigma=log_sigma.exp(), window=32, top_k=16)

    log_sigma, compiled = torch.ones(4, device="cuda", requires_grad=True), []
    for n in (300, 700, 1000):
        q, k, v = qkv(torch.bfloat16, n=n, grad=True)
        out = attend(q, k, v, log_sigma)
        out.float().sum().backward()
        assert torch.equal(out, krause_attention(q, k, v, sigma=log_sigma.exp(), window=32, top_k=16))
        compiled.append(counter.frame_count)
    assert compiled[0] == compiled[-1]


def test_the_compiler_of_torch_autocast_and_checkpointing():
    """Inductor's code takes the operator; one graph for all lengths; the same numbers as eager calls."""
    from torch.utils.checkpoint import checkpoint

    layer = KrauseAttention(128, 2, window=32, top_k=16, sigma_per_head=True).cuda()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for n in (300, 700, 1000):
        x = torch.randn(1, n, 128, device="cuda", generator=torch.Generator("cuda").manual_seed(n))
        grads = []
        for attend in (layer, compiled, lambda x: checkpoint(layer, x, use_reentrant=False)):
            layer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                out = attend(x)
            out.float().square().sum().backward()
            grads.append([out.detach().float(), *(p.grad.float() for p in layer.parameters())])
        for eager, other, again in zip(*grads, strict=True):
            # bfloat16 products round differently when the compiler fuses the projections' biases.
            assert float((other - eager).norm() / eager.norm()) < 3e-2
            assert float((again - eager).norm() / eager.norm()) < 3e-2


@pytest.mark.parametrize("options", [{"window": 32, "top_k": 16}, {"window": 32, "top_k": 16, "score": "dot"}])
def test_repeated_calls_follow_their_inputs(options):
    """Later calls of a signature repeat recorded launches: on new tensors, with the scratch of their own."""
    for seed in range(5):
        q, k, v = qkv(torch.bfloat16, seed=seed, grad=True)
        mine = krause_attention(q, k, v, sigma=4.0, impl="triton", **options)
        theirs = krause_attention(q.double(), k.double(), v.double(), sigma=4.0, impl="reference", **options)
        pairs = zip(*(torch.autograd.grad(x.double().square().sum(), (q, k, v)) for x in (mine, theirs)), strict=True)
        for a, b in ((mine.detach().double(), theirs.detach()), *pairs):
            assert float((a - b).double().norm() / b.double().norm()) < 2e-2  # bfloat16, its weights rounded


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node")  # nothing is accumulated here
def test_a_captured_graph_repeats_forward_and_backward():
    q, k, v = qkv(torch.bfloat16, grad=True)
    sigma = torch.full((4,), 4.0, device="cuda", requires_grad=True)

    def step():
        out = krause_attention(q, k, v, sigma=sigma, window=32, top_k=16)
        return out, *torch.autograd.grad(out.float().square().sum(), [q, k, v, sigma])

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = step()
    with torch.no_grad():
        for x, seed in ((q, 5), (k, 6), (v, 7)):
            x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"window": 32, "top_k": 16, "rotary": 1e4},
        {"neighbourhood": kd.Window(24, prefix_tokens=5) & kd.TopK(9), "kv_heads": 2, "sink": True},
        {"window": 100, "score": "dot", "norm": 0.2},
    ],
)
def test_a_captured_decoding_step_equals_the_full_pass(options):
    """One graph, replayed for every token: the ring does all its counting on the device."""
    torch.manual_seed(0)
    layer = KrauseAttention(128, 4, **options).cuda().eval()
    x = torch.randn(2, 150, 128, device="cuda")
    cache, token = layer.new_cache(static=True), torch.zeros(2, 1, 128, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        layer(token, cache=cache)
    torch.cuda.current_stream().wait_stream(side)
    cache.reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = layer(token, cache=cache)
    cache.reset()
    steps = []
    for i in range(150):
        token.copy_(x[:, i : i + 1])
        graph.replay()
        steps.append(answer.clone())
    close = (torch.cat(steps, 1) - layer(x)).abs().amax(-1) < 1e-3
    assert float(close.double().mean()) > 0.98


@pytest.mark.parametrize("rule", [kd.Window(24, prefix_tokens=5), kd.Window(24, prefix_tokens=5) & kd.TopK(9)])
def test_first_tokens_behind_padding_equal_the_definition(rule):
    """In two passes of the kernels, or by tiles where a rank is asked for."""
    generator = torch.Generator("cuda").manual_seed(0)
    valid = torch.arange(200, device="cuda") >= torch.tensor([[0], [70], [198]], device="cuda")
    found = []
    for form in ("auto", "reference"):
        x = [torch.randn(3, 2, 200, 64, generator=generator.manual_seed(i), device="cuda") for i in range(3)]
        q, k, v = (each.requires_grad_() for each in x)
        call = call_of(q, k, v, within(rule)[0], key_valid=valid)
        call = call._replace(beside=beside_of(call.reach, (200, 200), 0, valid, None))
        out = answer(call, form)[0] * valid[:, None, :, None]
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for mine, exact in zip(*found, strict=True):
        close = (mine - exact).abs().amax(-1) < 1e-4
        assert float(close.double().mean()) > 0.98  # a rank at a tie of rounded scores may fall elsewhere


@torch.no_grad()
def test_decoding_equals_the_full_pass():
    torch.manual_seed(0)
    layer = KrauseAttention(128, 4, window=32, top_k=16).cuda().eval()
    x = torch.randn(2, 150, 128, device="cuda")
    cache = layer.new_cache()
    steps = torch.cat([layer(x[:, i : i + 1], cache=cache) for i in range(150)], 1)
    close = (steps - layer(x)).abs().amax(-1) < 1e-3
    assert float(close.double().mean()) > 0.98
