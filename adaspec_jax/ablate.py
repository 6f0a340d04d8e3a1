"""python -m adaspec_jax.ablate --config configs/NAME.py[:variant] --workdir DIR [--seeds 3] [--arms A,B] [--config.K=V]

Trains several selection rules against one target and says, with intervals over seeds and prompts, what each gains over
plain distillation (DistillSpec), and over plain distillation on the same data. Every seed is a run in DIR/seed<N> with
its own reference and drafts; the target is that of the first. The same command again resumes. Results: the printed
table, DIR/ablation.json, and --markdown FILE.

An arm is KIND:k. top, bottom, random: which share k of the labels is trained on. self: top, against the draft's own
moving average instead of a reference. plain: all labels, on the data that share k gets under budget "official". k = 1
is the reference itself. --budgets official,equal_compute runs the selective arms under both.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from adaspec_jax import files
from adaspec_jax.command_line import parse_experiment, print_config, take_option
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import COUNT, check_output, number_of
from adaspec_jax.pipeline.ablation import (
    ARMS,
    parse_arms,
    seeded,
    summarised,
    table,
)


def main() -> None:
    argv = list(sys.argv)
    seeds = number_of("seeds", take_option(argv, "seeds") or "3", COUNT)
    arms = parse_arms(take_option(argv, "arms") or ARMS, take_option(argv, "budgets") or "official")
    markdown = take_option(argv, "markdown")
    if markdown is not None:
        check_output(markdown, "markdown")
    config, flags = parse_experiment(argv, description=__doc__)
    if flags.print_config:
        return print_config(config)
    if not flags.workdir:
        raise UserError("--workdir is missing: say where runs and results go, e.g. --workdir runs/ablation")
    if not config.reference.epochs:
        raise UserError("reference.epochs is 0; every arm is compared with the reference")

    config.qualifier.epochs = 0.0  # no arm, and of no use to any

    from adaspec_jax.reporting.sinks import check_metrics

    if config.distributed == "off":
        check_metrics(config.metrics)
    from adaspec_jax import pipeline, reporting
    from adaspec_jax.devices import processes

    processes.join(config.distributed)
    workdir = Path(flags.workdir).resolve()  # later seeds name the first one's target by it
    own = {"draft": config.draft, "reference": config.reference}
    specs = {arm.name: arm.settings(**own) for arm in arms}
    specs = {name: spec for name, spec in specs.items() if spec != config.draft}  # that one is the run's own draft
    reports = []
    for number in range(seeds):
        processes.say(f"seed {number} of {seeds}")
        run = seeded(config, workdir, number)
        reports.append(
            processes.run(lambda run=run, number=number: pipeline.run(run, workdir / f"seed{number}", specs))
        )
    if not processes.first():
        return
    recorded = {"resamples": config.evaluation.resamples, "settings": dataclasses.asdict(config)}
    results = summarised(arms, workdir, reports, **own, **recorded)
    reporting.write_json(workdir / "ablation.json", results)
    lines = table(results)
    print("\n".join(lines))
    if markdown:
        files.write_text(markdown, "\n".join(lines) + "\n")


if __name__ == "__main__":
    exit_with_one_line(main)
