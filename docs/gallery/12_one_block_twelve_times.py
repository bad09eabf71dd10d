"""One trained block, applied twelve times.

The ALBERT of rxnmapper on a chemical reaction. With random weights one block applied again and again brings all tokens
together, as theory has it; the trained one keeps them apart. [The course](../notebooks/06_checkpoints.ipynb) goes on to
800 times.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("albert").sel(control=["as given", "random_weights"])
with kd.plots.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    kd.plots.synchronization(data, ax=left, tokens="without_first")
    left.set(ylabel="order parameter R", title="alignment, without [CLS]")
    kd.plots.clusters(data, ax=right).legend()
    right.set_title("clusters of tokens")
    fig.savefig(sys.argv[1])
