"""python -m adaspec_jax.export --workdir DIR --stage target|reference|draft|qualifier --out DIR

Writes a finished stage as a Hugging Face directory with its tokenizer, for transformers, vLLM or SGLang. A draft or
reference gets as many vocabulary rows as the run's target, those without a token such that none is guessed, and a
generation_config.json with a constant draft length. A stage that is a head on the target's features is written in the
layout of vLLM (and tpu-inference) or of SGLang (and sglang-jax), as --for says; a head that no server takes only with
--for adaspec_jax. Then it is said which engines can serve the two.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from adaspec_jax.drafter_file import kind_in
from adaspec_jax.errors import UserError, exit_with_one_line
from adaspec_jax.options import GUESSES, parse_arguments, parser_of

if TYPE_CHECKING:
    from adaspec_jax.pipeline.workdir import Workdir

OURS = "adaspec_jax"


def main() -> None:
    parser = parser_of("export", __doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--stage", required=True, help="target, reference, draft, or another draft of the run")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--for", dest="reader", choices=("vllm", "sglang", OURS), help="who reads a head (default: vllm)"
    )
    parser.add_argument(
        "--draft_length", type=GUESSES, help="guesses per round (default: the run's evaluation, else 5)"
    )
    arguments = parse_arguments(parser)

    from adaspec_jax.pipeline.workdir import Workdir

    workdir, out = Workdir(arguments.workdir), Path(arguments.out)
    if not workdir.path.is_dir():
        raise UserError(f"--workdir {workdir.path} does not exist")
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


def _whole(out: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder that becomes `out` when all of it is written."""
    from adaspec_jax import files

    out = out.absolute()  # "." has no name
    files.clear_beginnings_of(out)
    return files.making_folder(out)


def _export_model(workdir: Workdir, arguments: argparse.Namespace, out: Path) -> None:
    from adaspec_jax import data, models, serving

    model, tokenizer = workdir.load(arguments.stage, dtype=arguments.dtype), data.load_tokenizer(workdir.tokenizer)
    generation = None
    if arguments.stage != "target":
        rows = workdir.vocab_size("target") or model.config.vocab_size
        model = model.with_vocabulary(data.rows_needed(tokenizer)).with_vocabulary_size(rows)
        length = arguments.draft_length or workdir.draft_length() or serving.DRAFT_LENGTH
        generation = serving.pinned_generation(length)
    with _whole(out) as unfinished:
        models.save(model, unfinished, tokenizer=tokenizer, generation=generation)
    part = models.cut_from(model)
    print(f"{out}: {arguments.stage}, {model.num_params:,} parameters, {arguments.dtype}{f', {part}' if part else ''}")
    if generation and workdir.finished("target") is not None:
        verdicts = serving.judge(serving.read_pair(str(workdir.stage("target")), str(out)))
        print(*(verdict.in_one_line(engine) for engine, verdict in verdicts.items()), sep="\n")
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
    with _whole(out) as unfinished:
        models.save_head(head, unfinished, config=config, fingerprint=sha256)
    print(f"{out}: {arguments.stage}, a head of the kind {kind}, {head.num_params:,} parameters, {arguments.dtype}")
    length = arguments.draft_length or workdir.draft_length() or serving.DRAFT_LENGTH
    names = str(workdir.stage("target")), str(out)
    verdicts = serving.judge_head(names[0], target_config, names[1], kind, config, length)
    print(*(verdict.in_one_line(engine) for engine, verdict in verdicts.items()), sep="\n")


if __name__ == "__main__":
    exit_with_one_line(main)
