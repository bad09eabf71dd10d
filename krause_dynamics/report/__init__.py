"""A Dataset of a trained model in words, tables, figures and files."""

from krause_dynamics.report.report import (
    EPS,
    RADIUS,
    check_folder,
    findings,
    layer_table,
    legend,
    print_report,
    progress_bar,
    token_count,
    write_all,
    write_dataset,
    write_figures,
)

__all__ = [
    "EPS",
    "RADIUS",
    "check_folder",
    "findings",
    "layer_table",
    "legend",
    "print_report",
    "progress_bar",
    "token_count",
    "write_all",
    "write_dataset",
    "write_figures",
]
