"""python -m adaspec_jax.export --workdir DIR --stage target|reference|draft|qualifier --out DIR [--push OWNER/NAME]

Writes a finished stage as a Hugging Face directory with its tokenizer, for transformers, vLLM, SGLang and others. A
draft or reference gets as many vocabulary rows as the run's target, those without a token such that none is guessed,
and a generation_config.json with a constant draft length. A stage that is a head on the target's features is written in
the layout of vLLM (and tpu-inference) or of SGLang (and sglang-jax), as --for says; a head that no server takes only
with --for adaspec_jax. README.md in it is a model card: target, data, recipe, acceptance, how to serve it; adaspec.json
has all settings. Then it is said which engines can serve the two. --push writes it to the hub as a new repository.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from adaspec_jax.drafter_file import kind_in
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import GUESSES, add_dtype_option, one_of, parse_arguments, parser_of
from adaspec_jax.places import near_place
from adaspec_jax.program import called_as

if TYPE_CHECKING:
    from adaspec_jax import serving
    from adaspec_jax.pipeline.workdir import Workdir

OURS = "adaspec_jax"


def main() -> None:
    arguments = parse_arguments(_parser())
    if arguments.private and not arguments.push:
        raise UserError("--private is of --push OWNER/NAME; give both")
    if arguments.push:
        from adaspec_jax import serving

        serving.check_name(arguments.push)

    from adaspec_jax.pipeline.workdir import Workdir

    workdir, out = Workdir(arguments.workdir), Path(arguments.out)
    if not workdir.path.is_dir():
        raise UserError(f"--workdir {workdir.path} does not exist{near_place(workdir.path)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already and not an empty directory; choose another")
    finished = workdir.finished(arguments.stage) is not None
    kind = kind_in(workdir.stage(arguments.stage)) if finished else None
    if kind is not None:
        _export_head(workdir, kind, arguments, out)
    elif arguments.reader is not None and finished:
        raise UserError(f"--for {arguments.reader} is for heads, and {arguments.stage} is a whole model: leave it out")
    else:
        _export_model(workdir, arguments, out)
    if arguments.push:
        from adaspec_jax import reporting

        with reporting.working(f"pushing {out} to {arguments.push}"):
            place = serving.push(out, arguments.push, private=arguments.private)
        print(f"pushed: {place}")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("export", __doc__)
    parser.add_argument("--workdir", required=True, help="of a finished run")
    parser.add_argument("--stage", required=True, help="target, reference, draft, or another draft of the run")
    parser.add_argument("--out", required=True, help="the directory that is made")
    add_dtype_option(parser, "float16")
    parser.add_argument("--for", dest="reader", **one_of("vllm", "sglang", OURS), help="of a head (default: vllm)")
    parser.add_argument(
        "--draft_length", type=GUESSES, help="guesses per round (default: the run's evaluation, else 5)"
    )
    parser.add_argument(
        "--target_name", help="what the card calls the target: its hub name, or a path seen from --out's directory"
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="also make this repository on the hub, of the same files")
    parser.add_argument("--private", action="store_true", help="of --push: for its owner alone")
    return parser


def _whole(out: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder that becomes `out` when all of it is written."""
    from adaspec_jax import files

    out = out.absolute()  # "." has no name
    files.clear_beginnings_of(out)
    return files.making_folder(out)


def _export_model(workdir: Workdir, arguments: argparse.Namespace, out: Path) -> None:
    from adaspec_jax import data, models, serving
    from adaspec_jax.models.stop_head import FOLDER

    stage = arguments.stage
    model, tokenizer = workdir.load(stage, dtype=arguments.dtype), data.load_tokenizer(workdir.tokenizer)
    generation = None
    if stage != "target":
        rows = workdir.vocab_size("target") or model.config.vocab_size
        model = model.with_vocabulary(data.rows_needed(tokenizer)).with_vocabulary_size(rows)
        length = arguments.draft_length or workdir.draft_length() or serving.DRAFT_LENGTH
        generation = serving.pinned_generation(length)
    if workdir.settings_of(stage).get("tokenizer.init") == "train":
        data.name_unknown(tokenizer)
    names = _names(workdir, arguments, out)
    with _whole(out) as unfinished:
        models.save(model, unfinished, tokenizer=tokenizer, generation=generation)
        if (beside := workdir.stage(stage) / FOLDER).is_dir():
            shutil.copytree(beside, unfinished / FOLDER)
        verdicts = {}
        if generation and workdir.finished("target") is not None:
            pair = serving.read_pair(str(workdir.stage("target")), str(unfinished))
            verdicts = serving.judge(pair.called(names.target, names.own))
        alone = serving.served_alone(names.own, model.config.model_type) if stage == "target" else []
        served = serving.served_by(verdicts) or alone
        _write_account(workdir, arguments, unfinished, None, model.num_params, names, served)
    part = models.cut_from(model)
    print(f"{out}: {stage}, {model.num_params:,} parameters, {arguments.dtype}{f', {part}' if part else ''}")
    _print_verdicts(verdicts, str(workdir.stage("target")), out)
    if verdicts:
        print(serving.NO_PLAIN_DRAFT)


def _export_head(workdir: Workdir, kind: str, arguments: argparse.Namespace, out: Path) -> None:
    """Refused before anything is written where none of the layout's servers takes such a head beside such a target."""
    from adaspec_jax import files, models, serving

    target, sha256 = workdir.load("target", dtype=arguments.dtype), workdir.weights_sha256("target")
    head = models.load_head(workdir.stage(arguments.stage), target, dtype=arguments.dtype, fingerprint=sha256)
    config, layout = head.config.hf_config(), arguments.reader or "vllm"
    target_config = files.read_json(workdir.stage("target") / "config.json")
    if layout != OURS:
        config, head = serving.config_for(layout, kind, config), head.with_other_rows_ruled_out()
        if why := serving.refusal(kind, target_config, config, layout):
            raise UserError(f"{why}; --for {OURS} writes it for this package alone")
    names = _names(workdir, arguments, out)
    length = arguments.draft_length or workdir.draft_length() or serving.DRAFT_LENGTH
    verdicts = serving.judge_head(names.target, target_config, names.own, kind, config, length)
    with _whole(out) as unfinished:
        models.save_head(head, unfinished, config=config, fingerprint=sha256)
        _write_account(workdir, arguments, unfinished, kind, head.num_params, names, serving.served_by(verdicts))
    print(f"{out}: {arguments.stage}, a head of the kind {kind}, {head.num_params:,} parameters, {arguments.dtype}")
    _print_verdicts(verdicts, str(workdir.stage("target")), out)


def _names(workdir: Workdir, arguments: argparse.Namespace, out: Path) -> serving.Names:
    """By which readers of the card find the two: on the hub, or beside the directory that is written."""
    from adaspec_jax import serving
    from adaspec_jax.places import on_the_hub

    settings, out = workdir.settings_of(arguments.stage), out.absolute()
    own, target = arguments.push or out.name, arguments.target_name
    where = "" if arguments.push else f"Commands are run in the directory that holds `{out.name}`."
    if arguments.stage == "target":
        return serving.Names(own, own, where)
    if target is None and not settings.get("target.epochs", 1):
        target = on_the_hub(str(settings.get("target.init")))
    there = on_the_hub(target) if target else None
    if target is None and not arguments.push:
        beside = os.path.relpath(workdir.stage("target").absolute(), out.parent)
        target = None if beside.startswith("..") else Path(beside).as_posix()
    if target is None:
        target = "my-target"
        where += (
            " `my-target` is the target of the same run, which its maker writes there with "
            "`python -m adaspec_jax.export --workdir RUN --stage target --out my-target`."
        )
    return serving.Names(own, target, where.strip(), there)


def _write_account(
    workdir: Workdir,
    arguments: argparse.Namespace,
    folder: Path,
    kind: str | None,
    parameters: int,
    names: serving.Names,
    served: list[serving.Served],
) -> None:
    """README.md and adaspec.json of what lies in the folder."""
    from adaspec_jax import files, serving
    from adaspec_jax.pipeline import account

    said = account.account(workdir, arguments.stage, kind=kind, parameters=parameters, dtype=arguments.dtype)
    command = f"python -m adaspec_jax.export --workdir RUN --stage {shlex.quote(arguments.stage)}"
    options = {"dtype": arguments.dtype, "for": arguments.reader, "draft_length": arguments.draft_length}
    command += "".join(f" --{name} {value}" for name, value in options.items() if value is not None)
    command += f" --out {shlex.quote(Path(arguments.out).absolute().name)}"
    draft = "" if arguments.stage == "target" else f" --draft {shlex.quote(names.own)}"
    ours = f"python -m adaspec_jax.generate --target {shlex.quote(names.target)}{draft} --prompt 'Tom has 3 apples.'"
    files.write_text(
        folder / "README.md", serving.card(said, names, [serving.Served(OURS, ours, []), *served], command)
    )
    files.write_json(folder / account.FILE, said)


def _print_verdicts(verdicts: dict[str, serving.Verdict], target: str, out: Path) -> None:
    print(*(f"{verdict.in_one_line(engine)}\n" for engine, verdict in verdicts.items()), sep="", end="")
    if any(verdict.can_serve for verdict in verdicts.values()):
        pair = f"--target {shlex.quote(target)} --draft {shlex.quote(str(out))}"
        print(f"with which commands: {called_as('doctor')} {pair}")


if __name__ == "__main__":
    exit_with_one_line(main)
