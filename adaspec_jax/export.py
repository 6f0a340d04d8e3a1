"""python -m adaspec_jax.export --workdir DIR --stage target|reference|draft --out DIR

Writes a finished stage as a Hugging Face directory with its tokenizer, for transformers, vLLM or SGLang.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adaspec_jax.command_line import parse_arguments
from adaspec_jax.errors import UserError, exit_with_one_line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m adaspec_jax.export", description=__doc__.split("\n\n", 1)[1])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--stage", required=True, choices=("target", "reference", "draft"))
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    arguments = parse_arguments(parser)

    from adaspec_jax import data, models
    from adaspec_jax.workdir import Workdir

    workdir, out = Workdir(arguments.workdir), Path(arguments.out)
    if not workdir.path.is_dir():
        raise UserError(f"--workdir {workdir.path} does not exist")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is there already and not an empty directory; choose another")
    model = workdir.load(arguments.stage, dtype=arguments.dtype)
    models.save(model, out, tokenizer=data.load_tokenizer(workdir.tokenizer))
    print(f"{out}: {arguments.stage}, {model.num_params:,} parameters, {arguments.dtype}")


if __name__ == "__main__":
    exit_with_one_line(main)
