"""python -m adaspec_jax.parity --workdir DIR

A certificate that a finished run's pair does in PyTorch what it does here. transformers loads the run's stages, which
are Hugging Face directories; both sides continue the same held-out prompts greedily in float32, there with assisted
generation (constant schedule, threshold 0), and logits, tokens and acceptance counts must agree. The certificate is
stored in DIR/report.json under "parity" (of the reference: "parity_reference"). Exit status 1: they do not agree.
Needs `pip install torch`.
"""

from __future__ import annotations

from pathlib import Path

from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import COUNT, check_outputs, one_of, parse_arguments, parser_of
from adaspec_jax.places import near_place


@keeping("nothing is kept, for the certificate is stored at the end: the same command begins anew")
def main() -> None:
    parser = parser_of("parity", __doc__)
    parser.add_argument("--workdir", required=True, help="of a finished run")
    parser.add_argument("--num_prompts", type=COUNT, default=20, help="of the run's held-out prompts")
    parser.add_argument("--draft_stage", **one_of("draft", "reference"), default="draft")
    parser.add_argument("--json", help="where the certificate goes as well")
    arguments = parse_arguments(parser)
    if not Path(arguments.workdir).is_dir():
        near = near_place(arguments.workdir)
        raise UserError(f"--workdir {arguments.workdir} is not a directory; give that of a finished run{near}")
    check_outputs(arguments, "json")

    from adaspec_jax import reporting
    from adaspec_jax.parity import certificate, in_words, store

    found = certificate(arguments.workdir, num_prompts=arguments.num_prompts, draft_stage=arguments.draft_stage)
    store(arguments.workdir, found)
    if arguments.json:
        reporting.write_json(arguments.json, found)
    print(in_words(found))
    if not found["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    exit_with_one_line(main)
