"""A finished run says which commands answer what one asks next, and each is read as it stands."""

import ast
import importlib
import shlex
import sys

import pytest

from adaspec_jax import benchmark, diagnose, export, generate
from adaspec_jax.config import Data
from adaspec_jax.errors import exit_with_one_line
from adaspec_jax.options import parse_arguments
from adaspec_jax.train import what_next
from tests.running import CHECKOUT

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


@pytest.mark.parametrize("program", ["adaspec-jax ", "python -m adaspec_jax ", "python -m adaspec_jax."])
def test_what_one_command_says_of_another_is_called_as_it_was_itself(program, monkeypatch, capsys, tmp_path):
    for command, arguments, named in (
        ("report", [str(tmp_path)], "train"),
        ("generate", ["--help"], "benchmark"),
        ("generate", ["--help"], "datastore"),
    ):
        monkeypatch.setattr(sys, "argv", [f"{program}{command}", *arguments])
        with pytest.raises(SystemExit):
            exit_with_one_line(importlib.import_module(f"adaspec_jax.{command}").main)
        said = " ".join("".join(capsys.readouterr()).split())
        assert f"{program}{named} " in said.replace(",", " ")


def test_no_message_spells_a_command_for_a_checkout_alone():
    """Docstrings do, and cards, which are read elsewhere."""
    cards = ("serving/card.py", "export.py", "program.py")
    for path in (CHECKOUT / "adaspec_jax").rglob("*.py"):
        tree = ast.parse(path.read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
        docs = {id(node.body[0].value) for node in nodes if ast.get_docstring(node) is not None}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        said = [node.value for node in texts if id(node) not in docs and "python -m adaspec_jax" in node.value]
        assert not said or path.as_posix().endswith(cards), (path, said)
