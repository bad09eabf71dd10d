"""kd.models.branch_circuits: circuits of that model's matrices, pulls of these sequences."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from tests.keywords import over_sequences
from tests.keywords.row import row
from tests.keywords.table_models_branches import IDS, gated, same

CIRCUITS = "kd.models.branch_circuits"


def told(model=0, inputs=IDS, **options):
    return kd.models.branch_circuits(gated(model) if isinstance(model, int) else model, inputs, **options)


@row(CIRCUITS, "model", 0, 1, "traces of the products of that model's matrices")
def model(first, second):
    for seed in (first, second):
        part = gated(seed).model.layers[0].self_attn
        product = part.v_proj_krause.weight.T[:, :8] @ part.o_proj_krause.weight.T[:8]
        found = told(seed)["ov_real"].sel(branch="krause")[0, 0]
        np.testing.assert_allclose(found.sum(), float(product.trace().detach()), rtol=1e-4)


@row(CIRCUITS, "inputs", IDS, IDS[::-1], "pulls of these sequences, in that order")
def inputs(first, second):
    one, other = (told(inputs=sequences)["pull"].sel(side="measured", branch=["softmax", "krause"]) for sequences in
                  (first, second))  # fmt: skip
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-5)
    assert not np.allclose(one, other, atol=1e-3)


over_sequences.batches(CIRCUITS, told, same, IDS)
over_sequences.options(CIRCUITS, told, same, IDS)
