"""CLI: pytorch_model*.bin -> safetensors, once: `python -m adaspec_jax.convert --in DIR --out DIR`.

Needs PyTorch (`pip install torch`), and reads tensors only: a pickle that holds code is refused.
"""

from __future__ import annotations

from pathlib import Path

from adaspec_jax.errors import exit_with_one_line, keeping
from adaspec_jax.options import parse_arguments, parser_of


@keeping("files that are there are whole; the same command begins anew")
def main(argv: list[str] | None = None) -> None:
    parser = parser_of("convert", __doc__)
    parser.add_argument("--in", dest="source", required=True, help="directory with pytorch_model*.bin")
    parser.add_argument("--out", dest="target", required=True, help="directory to write; may be the same")
    arguments = parse_arguments(parser, argv)

    from adaspec_jax.models.files.pickles import convert

    for path in convert(Path(arguments.source), Path(arguments.target)):
        print(path)


if __name__ == "__main__":
    exit_with_one_line(main)
