"""Long campaigns that look for lost work, silent faults and hangs: seeded, resumable, counted.

``python -m tests.campaigns.NAME --count N --seed S --out FILE`` makes trials 0 .. N - 1 of a seed, a line of JSON
each, and goes on where the file ends; `make campaign` runs all of them, `tests/test_campaigns.py` a few of each.
"""
