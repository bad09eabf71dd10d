"""Who is within a radius: sorted lines, spatial hashes, trees, merging clouds; exact sums.

`line, line_kernels, sorted1d`: one dimension. `neighbours, near_kernels, search, pencils, tree, cloud, fixed_point`:
more. `cell_lists`: the same in torch.
"""
