"""The one operation of the package: checks its arguments, picks an implementation, returns mean and log-partition."""

from krause_dynamics.aggregate.operation import (
    AUTO,
    MODULES,
    Plan,
    aggregate,
    as_points,
    check_masses,
    choose,
    implementation,
    plan,
    supported,
    weights,
)

__all__ = [
    "AUTO",
    "MODULES",
    "Plan",
    "aggregate",
    "as_points",
    "check_masses",
    "choose",
    "implementation",
    "plan",
    "supported",
    "weights",
]
