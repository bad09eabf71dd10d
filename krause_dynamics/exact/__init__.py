"""Exact and fast forms of the one operation on a CPU (numpy and numba, no torch).

`sorted1d`: opinions on a line, sorted, two pointers and compensated prefix sums. `neighbours`: any dimension, through
cells or a tree chosen from the data. Each module has ``supports(interaction, request)`` and ``aggregate(interaction,
request)``.
"""
