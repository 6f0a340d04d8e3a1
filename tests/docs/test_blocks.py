"""Every code block of README and the documentation runs, has its commands understood, or says why it is not run.

Python is executed, a page's blocks after one another. Of a command of ours the arguments are parsed by its own parser,
which ends there; `test_site.py` runs those of the tutorial for real, with `--slow`.
"""

import argparse
import functools
import importlib
import importlib.util
import os
import re
import runpy
import subprocess
import sys

import jax
import pytest

from adaspec_jax import data, models
from adaspec_jax.errors import UserError
from tests import tiny_pair
from tests.docs.blocks import PAGES, Block, blocks_of, commands_of
from tests.running import CHECKOUT

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL, PYTHON = ("bash", "sh"), "python"
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == PYTHON and not block.mark})
SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELL and not block.mark]
LONG = tiny_pair.GPT_NEOX | {"max_position_embeddings": 1024, "vocab_size": tiny_pair.TOKENS}
CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STAND_INS = ("MODEL", "TARGET", "DRAFT", "OTHER", "DIR")  # names of models in commands


class Parsed(BaseException):
    """The arguments were understood."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory like a checkout after the quickstart, with tiny models under the names that pages use."""
    path = tmp_path_factory.mktemp("reader")
    for name in ("configs", "launch", "benchmarks", "adaspec_jax", "tests"):
        (path / name).symlink_to(CHECKOUT / name)
    tiny_pair.save_run(path / "runs/quickstart", target=LONG, draft=LONG)
    for name in STAND_INS:
        tiny_pair.save(path / name, LONG)
    tokenizer = data.train_bpe(tiny_pair.TEXTS, vocab_size=tiny_pair.TOKENS, chat_template=CHATML)
    for name in ("target", "draft"):
        model = models.build(LONG | {"eos_token_id": tokenizer.eos_token_id}, jax.random.key(0))
        models.save(model, path / "runs/chat" / name, tokenizer=tokenizer)
    return path


def test_every_block_says_what_it_is():
    nameless = [b.where for b in BLOCKS if not b.mark and b.language not in (*SHELL, PYTHON)]
    assert not nameless, "say bash or python, or `<!-- not run: WHY -->` or `<!-- output -->` before these"
    assert len(BLOCKS) > 60  # they are found at all


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {"__name__": "__page__"}
    for block in BLOCKS:
        if block.page == page and block.language == PYTHON and not block.mark:
            exec(compile("\n" * block.line + block.text, str(CHECKOUT / page), "exec"), names)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda block: block.where)
def test_commands_are_understood(block, place, monkeypatch):
    monkeypatch.chdir(place)
    variables: dict[str, str] = {}
    for other in BLOCKS[: BLOCKS.index(block)]:
        if other.page == block.page and other.language in SHELL:
            commands_of(other, variables)
    for words in commands_of(block, variables):
        _understand(block, words, monkeypatch)


def _understand(block: Block, words: list[str], monkeypatch) -> None:
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)] or words
    program, rest = words[0], words[1:]
    if program in ("python", "python3") and rest[:1] == ["-m"] and rest[1].startswith(("adaspec_jax.", "tests.")):
        _parse(block, rest[1], rest[2:], monkeypatch)
    elif program in ("python", "python3") and rest and rest[0].startswith("benchmarks/"):
        _parse(block, rest[0], rest[1:], monkeypatch)
    elif program == "adaspec-jax":
        _parse(block, f"adaspec_jax.{rest[0]}", rest[1:], monkeypatch)
    elif program.startswith("--config."):
        given = ["--config", "configs/quickstart.py", *words]
        _parse(block, "adaspec_jax.train", given, monkeypatch)
    elif program == "bash" and rest[0].startswith("launch/"):
        said = _help_of(rest[0])
        for option in (word.partition("=")[0] for word in rest[1:] if word.startswith("--")):
            assert option in said or option.startswith("--config"), f"{block.where}: {rest[0]} has no {option}"
    elif words != ["source", ".venv/bin/activate"]:
        raise AssertionError(f"{block.where}: {program} is no command of ours; say before the block why it is not run")


@functools.cache
def _help_of(script: str) -> str:
    return subprocess.run(["bash", script, "--help"], capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout


def _parse(block: Block, module: str, arguments: list[str], monkeypatch) -> None:
    """Runs the command up to where its parser has understood the arguments."""
    of_argparse, reached = argparse.ArgumentParser.parse_args, []

    def parse_and_end(parser, args=None, namespace=None):
        of_argparse(parser, args, namespace)
        reached.append(parser.prog)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    with_config = module in ("adaspec_jax.train", "adaspec_jax.ablate", "adaspec_jax.plan")
    given = [*arguments, "--print_config"] if with_config else arguments
    monkeypatch.setattr(sys, "argv", [module, *given])
    try:
        if module.startswith("adaspec_jax."):
            package = importlib.util.find_spec(module).submodule_search_locations
            importlib.import_module(f"{module}.__main__" if package else module).main()
        elif module.endswith(".py"):
            runpy.run_path(os.path.join(CHECKOUT, module), run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__")
    except Parsed:
        return
    except SystemExit as end:
        assert not end.code, f"{block.where}: {module} {arguments}: exit {end.code}"
    except UserError as error:
        raise AssertionError(f"{block.where}: {module} {arguments}: {error}") from None
    finally:
        monkeypatch.undo()
        os.chdir(CHECKOUT)
    assert with_config, f"{block.where}: {module} never parsed its arguments"
