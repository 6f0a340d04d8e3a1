"""A finished run says which commands answer what one asks next, and each is read as it stands."""

import shlex
import sys

import pytest

from adaspec_jax import benchmark, diagnose, export, generate
from adaspec_jax.config import Data
from adaspec_jax.options import parse_arguments
from adaspec_jax.train import what_next

PARSERS = {"diagnose": diagnose._parser, "generate": generate._parser, "benchmark": benchmark._parser}
PARSERS["export"] = export._parser
RUNS = {
    "task": (Data(task="word_problems"), ("--task word_problems ", "--task word_problems --methods vanilla,")),
    "chats of a task": (Data(task="alpaca_chats"), ("--interactive ", "--task alpaca_chats --methods vanilla,")),
    "conversations": (Data(task="chat", train="a b.jsonl"), ("--chat --interactive ", "--chat --prompts 'a b.jsonl' ")),
    "columns": (Data(task="columns", train="f.jsonl", prompt_column="q"), ("--interactive ", "--prompts FILE ")),
    "mixture": (Data(mixture=("gsm8k", "mbpp")), ("--interactive ", "--prompts FILE ")),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_to_run_next_is_read_as_it_stands(name):
    spec, (talk, prompts) = RUNS[name]
    first, *said = what_next("my runs/one/", spec)
    lines = [f"{line} " for line in said[1::2]]
    assert first == "What next:" and len(lines) == len(PARSERS) and all(line.endswith("?") for line in said[::2])
    assert talk in lines[1] and prompts in lines[2]
    for line in lines:
        python, dash, module, *options = shlex.split(line)
        assert (python, dash) == ("python", "-m")
        parsed = parse_arguments(PARSERS[module.removeprefix("adaspec_jax.")](), options)
        places = vars(parsed).get("workdir") or (parsed.target, *parsed.draft)
        assert places in ("my runs/one", ("my runs/one/target", "my runs/one/draft"))


@pytest.mark.parametrize("program", ["adaspec-jax ", "python -m adaspec_jax ", "python -m adaspec_jax."])
def test_what_to_run_next_is_called_as_the_run_was(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{program}train"])
    assert what_next("run", Data())[2] == f"    {program}diagnose --workdir run"
