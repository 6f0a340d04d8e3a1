"""adaspec-jax COMMAND [options]: all commands under one name, as `python -m adaspec_jax.COMMAND` runs them apart."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from adaspec_jax.errors import UserError, did_you_mean, exit_with_one_line
from adaspec_jax.program import COMMAND, MODULE, versions

COMMANDS = {
    "train": "fit target, reference and draft, measure the drafts, write the report",
    "evaluate": "acceptance and speed of any target and draft on a task's prompts",
    "generate": "continue a text with a target, speeded up by a draft",
    "benchmark": "one table of many speculative methods on the same prompts",
    "schedule": "how many guesses of a draft pay at each batch size",
    "ablate": "selection rules against each other, over several seeds",
    "report": "one page of one or several finished runs",
    "diagnose": "why acceptance is low: sixteen checks, and what to run next",
    "compare": "finished runs beside the paper's figures",
    "parity": "a finished run held against PyTorch and transformers",
    "plan": "will a run fit, and how fast can it be, before it is paid for",
    "export": "a finished stage as a Hugging Face directory",
    "doctor": "can a target and a draft serve together, and with which command",
    "convert": "pytorch_model*.bin to safetensors",
    "datastore": "a store of texts for the methods that copy from one",
    "search_layers": "which of its own sublayers a target best leaves out to draft",
    "rag": "speculative RAG beside plain RAG, on questions with passages",
}


def main() -> None:
    exit_with_one_line(_run)


def _run() -> None:
    program = COMMAND if Path(sys.argv[0]).stem == COMMAND else MODULE
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        return print(_help(program))
    if name in ("-V", "--version", "version"):
        return print(versions())
    command = name.replace("-", "_")
    if command not in COMMANDS:
        raise UserError(f'there is no command "{name}"{did_you_mean(command, COMMANDS)}; see {program} --help')
    sys.argv = [f"{program} {command}", *rest]
    package = f"adaspec_jax.{command}"
    found = importlib.util.find_spec(package)
    inside = found is not None and found.submodule_search_locations
    importlib.import_module(f"{package}.__main__" if inside else package).main()


def _help(program: str) -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND [options]",
            "",
            "Draft distillation (AdaSPEC, DistillSpec) and lossless speculative decoding in JAX.",
            "",
            *rows,
            "",
            f"{program} COMMAND --help says more of one; --version shows those of the package, jax and the device.",
            f"For a first run, minutes on a laptop: {program} train --config=quickstart --workdir runs/quickstart",
        ]
    )


if __name__ == "__main__":
    main()
