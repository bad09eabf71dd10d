"""The one operation of the package: checks its arguments, picks a form, returns mean and log-partition."""

from krause_dynamics.aggregate.border import as_points, check_masses
from krause_dynamics.aggregate.operation import aggregate, supported, weights
from krause_dynamics.aggregate.plans import Plan, plan, plan_request
from krause_dynamics.aggregate.registry import FORMS, Form, choose, form

__all__ = [
    "FORMS",
    "Form",
    "Plan",
    "aggregate",
    "as_points",
    "check_masses",
    "choose",
    "form",
    "plan",
    "plan_request",
    "supported",
    "weights",
]
