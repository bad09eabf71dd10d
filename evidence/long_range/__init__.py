"""Tasks whose answer lies D tokens back, against the reach of a stack of windows: ``python -m evidence.long_range``."""
