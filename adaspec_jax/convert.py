"""CLI: pytorch_model*.bin -> safetensors, once: `python -m adaspec_jax.convert --in DIR --out DIR`.

Needs PyTorch (`pip install "adaspec-jax[parity]"`), and reads tensors only: a pickle that holds code is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adaspec_jax.command_line import parse_arguments
from adaspec_jax.errors import exit_with_one_line


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m adaspec_jax.convert", description=__doc__.splitlines()[0])
    parser.add_argument("--in", dest="source", required=True, type=Path, help="directory with pytorch_model*.bin")
    parser.add_argument("--out", dest="target", required=True, type=Path, help="directory to write; may be the same")
    arguments = parse_arguments(parser, argv)

    from adaspec_jax.models.files.pickles import convert

    for path in convert(arguments.source, arguments.target):
        print(path)


if __name__ == "__main__":
    exit_with_one_line(main)
