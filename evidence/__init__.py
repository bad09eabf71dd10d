"""Predicted against measured: what a checkout holds beside the package and a wheel does not."""
