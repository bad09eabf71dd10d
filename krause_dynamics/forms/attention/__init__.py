"""Index windows, pictures, packed sequences and top-k on tensors (batch, heads, tokens, dim).

`cpu`: numba rows and blocks. `tiles`: any device in torch operations. `flex`, `sdpa`: torch's own kernels. `triton`:
NVIDIA GPUs. `compiled`: small particle systems in numba.
"""
