"""Families of transformers under our attention: with dot products and no window each must equal its own eager model."""
