"""python -m adaspec_jax.plan --config FILE.py[:variant] [--topology v5e:1x1] [--json OUT] [--config.key=value ...]

Will the run fit, and how fast can it be: compiles every stage and the decoding loop ahead of time for a TPU slice that
need not be there (v5e:1x1, v6e:1x1, v5e:2x4, v5p:2x2x1, v5e:16x16, ...) or for this machine (cpu). Needs no weights,
tokenizer, data or network, but for the config.json of a model whose architecture is None; for TPUs it needs libtpu
(pip install "jax[tpu]"), and without it gives a rough estimate, labelled so. --stages draft,decode plans some stages
alone; --no_search leaves out the largest batches that fit, which come last. What a compiler said is kept, below
ADASPEC_CACHE or the user's cache directory, and not asked again. --full_effort compiles training stages for TPUs as
they would run there, in twice the time or more, in place of at the compiler's lowest effort.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adaspec_jax import files, voice
from adaspec_jax.command_line import Options, parse_experiment, print_config, say_notes, take_option
from adaspec_jax.config import CUT, Experiment
from adaspec_jax.errors import UserError, did_you_mean, exit_with_one_line, keeping
from adaspec_jax.options import check_output


@keeping("nothing is kept but what is printed: the same command begins anew")
def main() -> None:
    arguments = list(sys.argv)
    name = take_option(arguments, "topology")
    out = take_option(arguments, "json")
    asked = take_option(arguments, "stages")
    search = take_option(arguments, "no_search", flag=True) is None
    full_effort = take_option(arguments, "full_effort", flag=True) is not None
    own = ("topology", "json", "stages", "no_search", "full_effort")
    config, options = parse_experiment(arguments, description=__doc__, others=own)
    if options.print_config:
        return print_config(config)
    if out is not None:
        check_output(out, "json")
    if config.answers.source in ("draft", "mixed"):
        print("planned on the data set's answers: what sampling others on the way costs is not counted", flush=True)
        config.answers.source = "dataset"
    import jax

    from adaspec_jax import planning
    from adaspec_jax.devices import topologies

    name = name or "v5e:1x1"
    there = [stage for stage in planning.STAGES if stage != "qualifier" or config.qualifier.epochs]
    stages = asked.split(",") if asked else there
    for stage in stages:
        if stage not in there:
            raise UserError(f'--stages: there is no stage "{stage}"{did_you_mean(stage, there)}')
    if name != "cpu":
        topologies.parse(name)
        jax.config.update("jax_platforms", "cpu")  # what is described must not be mistaken for what is here
    _say_models(config, options)
    compiling = name == "cpu" or topologies.have_libtpu()
    if not compiling:
        print(f'libtpu is not installed (pip install "jax[tpu]"): figures for {name} are rough estimates', flush=True)
    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", name == "cpu" and kept)  # it cannot read a TPU's programs here
    try:
        _plan(config, name, stages, compiling=compiling, full_effort=full_effort, search=search, out=out)
    finally:
        jax.config.update("jax_enable_compilation_cache", kept)


def _say_models(config: Experiment, options: Options) -> None:
    """Where the sizes come from that are planned with, if not from the config file."""
    from adaspec_jax import planning
    from adaspec_jax.models.cutting import in_words

    for name, hf in options.described.items():
        model = getattr(config, name)
        say_notes(planning.left_out(model.architecture, hf, model.init))
        print(f"{name}: the sizes of {model.init}, as its config.json says", flush=True)
    for name in ("draft", "qualifier"):
        part = getattr(config, name)
        if part.init == CUT and (name == "draft" or part.epochs):
            print(f"{name}: {in_words(part.layers, 'the target')}", flush=True)


def _plan(
    config, name: str, stages: list[str], *, compiling: bool, full_effort: bool, search: bool, out: str | None
) -> None:
    import jax

    from adaspec_jax import planning, reporting
    from adaspec_jax.devices import sharding, topologies

    topology = topologies.find(name) if compiling else topologies.stand_in(name)
    kept = planning.Kept(planning.folder() if topology.backend == "tpu" and compiling else None)
    made = planning.Plan(config, topology, compiling=compiling, full_effort=full_effort, kept=kept)
    print(f"{name}: {sharding.in_words(made.mesh)}, {in_gib(made.limit)} GiB per device", flush=True)
    if made.assumed:
        say_notes([made.assumed])
    if said := planning.answering(config.answers, made.examples, config.reference.batch_size):
        print(said, flush=True)
    found: dict[str, Any] = {}

    def follow(what: str, planned: Iterator, stages: list[str], told: Callable[[str, Mapping], list[str]]) -> None:
        """Says of each stage what is known as it comes, and keeps all of it where that is asked for."""
        for stage in stages:
            with reporting.working(f"{what} {stage}", said_in_a_log=False):
                _, found[stage] = next(planned)
            print("\n".join(told(stage, found[stage])), flush=True)
        if out:
            document = {"topology": name, "jax": jax.__version__, "stages": found}
            files.write_text(out, json.dumps(document, indent=1) + "\n")

    follow("planning", made.stages(stages), stages, lines)
    if search and compiling and made.limit:
        trained = [stage for stage in stages if "skipped" not in found[stage]]
        searched = made.stages(trained, known=dict(found))
        follow("the largest batch of", searched, trained, lambda stage, now: [largest(stage, now)])
    if kept.unwritable:
        voice.say(f"note: what the compiler said could not be kept: {kept.unwritable}")


def largest(stage: str, figures: Mapping[str, Any]) -> str:
    """A stage's largest batch in words."""
    return f"{stage}: largest batch that fits so: {figures['largest_batch']:,}"


def in_gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.2f}"


def lines(stage: str, figures: dict[str, Any]) -> list[str]:
    """One stage's figures in words."""
    from adaspec_jax import planning

    if "skipped" in figures:
        return [f"{stage}: {figures['skipped']}"]
    size, limit = figures["hbm_bytes"], figures["hbm_limit_bytes"]
    fits = "fits" if figures["fits"] else f"does NOT fit, {in_gib(size - limit)} GiB too much"
    parts = [in_gib(figures[f"{name}_bytes"]) for name in ("arguments", "temporaries", "outputs")]
    split = "" if "?" in parts else f" (arguments {parts[0]}, temporaries {parts[1]}, outputs {parts[2]})"
    said = [
        f"{stage}: {fits}: {in_gib(size)} GiB per device{split}, {figures['how']}; batch {figures['batch']} x "
        f"{figures['length']}; {figures['chosen']}"
    ]
    if figures.get("largest_batch"):
        said.append(f"  largest batch that fits so: {figures['largest_batch']:,}")
    if figures.get("step_seconds"):
        share = planning.DECODING_SHARE if stage == "decode" else planning.TRAINING_SHARE
        said.append(
            f"  {1e3 * figures['step_seconds']:.3g} ms a step, {figures['tokens_per_second']:,.0f} tokens/s "
            f"({100 * share:.0f} % of the roofline bound is assumed, {1e3 * figures['roofline_seconds']:.3g} ms)"
        )
    if figures.get("hours"):
        said.append(
            f"  {figures['hours']:.2f} hours for {figures['epochs']:g} epochs of {figures['examples']:,} examples"
        )
    if figures.get("packed"):
        said.append("  examples share rows (data.packing): how many, and so how many steps, follows from their lengths")
    if found := figures.get("break_even"):
        needs = ", ".join(
            f"{n}: {'never' if alpha is None else f'{100 * alpha:.0f} %'}" for n, alpha in found["alpha_needed"].items()
        )
        cost = f"a draft step costs {found['draft_step_cost']:.3f} of a target step, by the roofline"
        said.append(f"  {cost}; acceptance needed to gain anything, by draft length: {needs}")
        if "published_alpha" in found:
            said.append(
                f"  the published {100 * found['published_alpha']:.1f} % would give {found['best_speedup']:.2f} times "
                f"plain decoding at draft length {found['best_draft_length']}"
            )
    return said


if __name__ == "__main__":
    exit_with_one_line(main)
