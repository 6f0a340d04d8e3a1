"""python -m adaspec_jax.train --config configs/NAME.py[:variant] --workdir DIR [--config.key=value ...]

Fine-tunes the target, distils the reference (DistillSpec) and the draft (AdaSPEC), measures acceptance, and writes
DIR/report.json and DIR/report.html. The same command again resumes; --print_config prints the resolved config.
"""

from __future__ import annotations

import sys

from adaspec_jax.command_line import parse_experiment, print_config
from adaspec_jax.errors import UserError, exit_with_one_line


def main() -> None:
    config, flags = parse_experiment(sys.argv, description=__doc__)
    if flags.print_config:
        return print_config(config)
    if not flags.workdir:
        raise UserError("--workdir is missing: say where stages and reports go, e.g. --workdir runs/first")
    from adaspec_jax.reporting.sinks import check_metrics

    if config.distributed == "off":  # of several processes the first alone has metrics, and looks when it knows itself
        check_metrics(config.metrics)
    from adaspec_jax import pipeline, reporting
    from adaspec_jax.devices import processes

    processes.join(config.distributed)
    report = processes.run(lambda: pipeline.run(config, flags.workdir, command=flags.command))
    if not processes.first():
        return
    reporting.print_table(report)
    print(f"\n{flags.workdir}/report.json and report.html are written.")


if __name__ == "__main__":
    exit_with_one_line(main)
