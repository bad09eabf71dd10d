"""Every form of the one operation equals its definition."""
