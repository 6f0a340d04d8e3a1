"""python -m adaspec_jax.train --config configs/NAME.py[:variant] --workdir DIR [--config.key=value ...]

Fine-tunes the target, distils the reference (DistillSpec) and the draft (AdaSPEC), measures acceptance, and writes
DIR/report.json and DIR/report.html. The same command again resumes; --print_config prints the resolved config.
"""

from __future__ import annotations

import contextlib
import shlex
import sys

from adaspec_jax import voice
from adaspec_jax.command_line import parse_experiment, print_config
from adaspec_jax.config import Data
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import TASKS
from adaspec_jax.program import called_as


def main() -> None:
    config, flags = parse_experiment(sys.argv, description=__doc__)
    if flags.print_config:
        return print_config(config)
    if not flags.workdir:
        raise UserError("--workdir is missing: say where stages and reports go, e.g. --workdir runs/first")
    workdir: str = flags.workdir
    from adaspec_jax.reporting.sinks import check_metrics

    if config.distributed == "off":  # of several processes the first alone has metrics, and looks when it knows itself
        check_metrics(config.metrics)
    from adaspec_jax import pipeline, reporting
    from adaspec_jax.devices import processes
    from adaspec_jax.pipeline.kept import kept_in_words

    processes.join(config.distributed)
    with keeping(lambda: kept_in_words(workdir)):
        report = processes.run(lambda: pipeline.run(config, workdir, command=flags.command))
    if not processes.first():
        return
    evidence = None
    with contextlib.suppress(UserError):  # of a run that another version finished: the verdict is a sentence shorter
        evidence = reporting.read_evidence(workdir)
    reporting.print_table(report, evidence=evidence)
    print(f"\n{flags.workdir}/report.json and report.html are written.", flush=True)
    for line in what_next(flags.workdir, config.data):
        voice.say(line)


def what_next(workdir: str, spec: Data) -> list[str]:
    """The commands that a finished run is for, each with the question that it answers."""
    place = workdir.rstrip("/")
    pair = f"--target {shlex.quote(f'{place}/target')} --draft {shlex.quote(f'{place}/draft')}"
    run, own = f"--workdir {shlex.quote(place)}", spec.prompt_column or spec.text_column or spec.mixture
    methods = "--methods vanilla,specinfer,auto,prompt_lookup --json benchmark.json"
    if spec.task == "chat" and not spec.mixture:
        talk, prompts = (
            "--chat --interactive",
            f"--chat --prompts {shlex.quote(spec.evaluation or spec.train or 'FILE')}",
        )
    else:
        named = spec.task in TASKS and not own
        talk = f"--task {spec.task}" if named and not spec.task.endswith("_chats") else "--interactive"
        prompts = f"--task {spec.task}" if named else "--prompts FILE"
    asked = {
        "why is acceptance what it is?": ("diagnose", run),
        "what does the pair write?": ("generate", f"{pair} {talk}"),
        "which method is the fastest here?": ("benchmark", f"{pair} {prompts} {methods}"),
        "where can it be served?": ("export", f"{run} --stage draft --out my-draft"),
    }
    lines = ([f"  {why}", f"    {called_as(name)} {given}"] for why, (name, given) in asked.items())
    return ["What next:", *(line for pair in lines for line in pair)]


if __name__ == "__main__":
    exit_with_one_line(main)
