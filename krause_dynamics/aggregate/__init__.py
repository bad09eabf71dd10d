"""The one operation of the package: checks its arguments, picks a form, returns mean and log-partition."""

from krause_dynamics.aggregate.border import as_points, check_masses
from krause_dynamics.aggregate.operation import aggregate, supported, weights
from krause_dynamics.aggregate.plans import Plan, plan, plan_request
from krause_dynamics.aggregate.registry import FORMS, Form, choose, form
from krause_dynamics.aggregate.row_statistics import statistics
from krause_dynamics.aggregate.row_sums import RowSums, Statistics
from krause_dynamics.aggregate.weight_blocks import Block, blocks

__all__ = [
    "FORMS",
    "Block",
    "Form",
    "Plan",
    "RowSums",
    "Statistics",
    "aggregate",
    "as_points",
    "blocks",
    "check_masses",
    "choose",
    "form",
    "plan",
    "plan_request",
    "statistics",
    "supported",
    "weights",
]
