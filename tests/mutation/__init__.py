"""Mutation testing: small faults put into the package one at a time; how many of them does some test notice?

    python -m tests.mutation --collect --workers 2      which test runs which line (once, and after changes)
    python -m tests.mutation --workers 2                the sampled faults that have no outcome yet, then the score
    python -m tests.mutation --report                   the score and the survivors

A fault is run against tests that reach its line alone. Compiled code (njit, Triton) takes no part: its tests run
in other languages' time, and its lines are seen by no tracer.
"""
