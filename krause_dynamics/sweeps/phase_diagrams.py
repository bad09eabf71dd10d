"""Phase diagrams as labelled data: what particles, the mean field and linear theory say on one grid of parameters.

Each function returns an xarray Dataset, and the function of the same name in ``kd.plots`` draws it.
"""

from krause_dynamics.sweeps.final_clusters import branch_point, clusters_over_length, final_clusters
from krause_dynamics.sweeps.order import order_over_beta, order_over_noise

__all__ = ["branch_point", "clusters_over_length", "final_clusters", "order_over_beta", "order_over_noise"]
