"""Triton kernels of windowed top-k attention: `launch` is the border, the other modules hold device code.

`launch.forward`, `launch.backward` and `launch.decode` take plain tensors and return plain tensors; autograd, custom-
operator registration and the lowering of an `Interaction` live one level up. Nothing here is imported by `import
krause_dynamics`.
"""
