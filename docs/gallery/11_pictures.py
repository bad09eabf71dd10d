"""Patches of photographs merge over depth.

DINOv2 of size S on twelve squares of two photographs (of scikit-learn, CC BY 2.0), 256 patches each. Trained, the
patches come together to one cluster; with random weights most stay where they were. There is no massive first token.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("dinov2")
with kd.plots.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    kd.plots.clusters(data, ax=left).legend()
    left.set_title("clusters of patches")
    kd.plots.cluster_map(data.sel(control="as given", drop=True), ax=right)
    right.set_title("how they merge, trained")
    fig.savefig(sys.argv[1])
