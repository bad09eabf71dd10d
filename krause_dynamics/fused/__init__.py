"""Fused forms of the interaction on torch tensors: each must equal the dense reference, and none imports another."""
