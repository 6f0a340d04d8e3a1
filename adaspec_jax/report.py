"""python -m adaspec_jax.report RUN [RUN ...] [--out FILE]

One page of finished runs, from what they keep: the verdict first, then acceptance by place, depth and class of token,
calibration, speed by draft length, training, and answers token by token. RUN is a run's directory, or its report.json.
Of several runs the verdicts stand side by side, curves are drawn together, and settings that differ are named.
"""

from __future__ import annotations

from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import check_outputs, parse_arguments, parser_of

_MOST = 12


def main() -> None:
    parser = parser_of("report", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a finished run's directory, or its report.json")
    parser.add_argument("--out", default="report.html", help="where the page goes (default: ./report.html)")
    arguments = parse_arguments(parser)
    if len(arguments.runs) > _MOST:
        raise UserError(f"{len(arguments.runs)} runs are more than a page shows; give at most {_MOST}")
    check_outputs(arguments, "out")

    from adaspec_jax import reporting

    runs = [reporting.read_run(path) for path in arguments.runs]
    reporting.write_page(arguments.out, runs)
    for run in runs:
        for line in [*reporting.verdict(run.report, run.evidence), *run.missing]:
            print(f"{run.name}: {line}" if len(runs) > 1 else line)
    print(f"{arguments.out} is written.")


if __name__ == "__main__":
    exit_with_one_line(main)
