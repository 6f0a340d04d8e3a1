"""Acceptance statistics, report.json, report.html, progress and metrics files; knows nothing of models or jax."""

from adaspec_jax.reporting.html import write_html
from adaspec_jax.reporting.methods import methods_list, methods_table, verdict_in_words, write_speedups
from adaspec_jax.reporting.metrics_file import MetricsFile
from adaspec_jax.reporting.metrics_file import read as read_metrics
from adaspec_jax.reporting.progress import Progress, track
from adaspec_jax.reporting.report import environment, print_table, read_report, table, write_json
from adaspec_jax.reporting.schedule import schedule_table, write_schedule
from adaspec_jax.reporting.statistics import Counts, across_runs, paired, summarize

__all__ = [
    "Counts",
    "MetricsFile",
    "Progress",
    "across_runs",
    "environment",
    "methods_list",
    "methods_table",
    "paired",
    "print_table",
    "read_metrics",
    "read_report",
    "schedule_table",
    "summarize",
    "table",
    "track",
    "verdict_in_words",
    "write_html",
    "write_json",
    "write_schedule",
    "write_speedups",
]
