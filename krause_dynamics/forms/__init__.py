"""Faster forms of the one operation, each equal to `interaction.reference`; a form knows no dynamics and no layer.

`near`: who is within a radius. `lattice`: uniform grids. `attention`: index windows, pictures and top-k. `blocked`,
`recomputed`: any rule, a block of rows at a time.
"""
