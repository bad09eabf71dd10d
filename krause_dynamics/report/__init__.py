"""A Dataset of a trained model in words, tables, figures and files."""

from krause_dynamics._thresholds import RADIUS
from krause_dynamics.report.comparison import comparison_rows, print_comparison, write_comparison
from krause_dynamics.report.comparison_page import comparison_findings, write_comparison_page
from krause_dynamics.report.deprecated import progress_bar
from krause_dynamics.report.files import check_folder, write_all, write_dataset, write_figures
from krause_dynamics.report.findings import findings
from krause_dynamics.report.page import check_page, write_html, write_page
from krause_dynamics.report.places import EPS, token_count
from krause_dynamics.report.rows import write_csv
from krause_dynamics.report.table import layer_table, legend, print_report

__all__ = [
    "EPS",
    "RADIUS",
    "check_folder",
    "check_page",
    "comparison_findings",
    "comparison_rows",
    "findings",
    "layer_table",
    "legend",
    "print_comparison",
    "print_report",
    "progress_bar",
    "token_count",
    "write_all",
    "write_comparison",
    "write_comparison_page",
    "write_csv",
    "write_dataset",
    "write_figures",
    "write_html",
    "write_page",
]
