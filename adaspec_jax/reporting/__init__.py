"""Acceptance statistics, a run's report, evidence and page, progress, metrics files; knows nothing of models or jax."""

from adaspec_jax.reporting.evidence import read_evidence, write_evidence
from adaspec_jax.reporting.methods import methods_list, methods_table, verdict_in_words, write_speedups
from adaspec_jax.reporting.metrics_file import MetricsFile
from adaspec_jax.reporting.metrics_file import read as read_metrics
from adaspec_jax.reporting.page import write_page
from adaspec_jax.reporting.progress import Progress, track, working
from adaspec_jax.reporting.report import environment, print_table, read_report, table, write_json
from adaspec_jax.reporting.runs import DIAGNOSIS, read_diagnosis, read_run
from adaspec_jax.reporting.schedule import schedule_table, write_schedule
from adaspec_jax.reporting.statistics import Counts, across_runs, paired, summarize
from adaspec_jax.reporting.tables import columns_of
from adaspec_jax.reporting.verdict import verdict

__all__ = [
    "DIAGNOSIS",
    "Counts",
    "MetricsFile",
    "Progress",
    "across_runs",
    "columns_of",
    "environment",
    "methods_list",
    "methods_table",
    "paired",
    "print_table",
    "read_evidence",
    "read_metrics",
    "read_report",
    "read_diagnosis",
    "read_run",
    "schedule_table",
    "summarize",
    "table",
    "track",
    "verdict",
    "verdict_in_words",
    "working",
    "write_evidence",
    "write_json",
    "write_page",
    "write_schedule",
    "write_speedups",
]
