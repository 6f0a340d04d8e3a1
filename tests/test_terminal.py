"""At a terminal: one spelling of options, near names, what is said and how loudly, and what Ctrl-C leaves."""

import json
import os
import subprocess
import sys

import pytest

from adaspec_jax import voice
from adaspec_jax.command_line import parse_experiment, take_knobs, take_option
from adaspec_jax.data import TASKS
from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import TASKS as NAMED
from adaspec_jax.options import one_of, parse_arguments, parser_of
from adaspec_jax.pipeline.kept import kept_in_words
from tests.house import COMMANDS
from tests.running import CHECKOUT, PATIENCE, command_line


def parsed(*argv):
    parser = parser_of("generate", "python -m x\n\nSays.")
    parser.add_argument("--prompt", action="append")
    parser.add_argument("--max_new_tokens", type=int)
    parser.add_argument("--dtype", **one_of("float32", "bfloat16"))
    return parse_arguments(parser, list(argv))


@pytest.mark.parametrize("name", ["--max_new_tokens", "--max-new-tokens", "--max-new_tokens", "--max-new"])
@pytest.mark.parametrize("apart", [True, False])
def test_both_spellings_of_an_option_are_one(name, apart):
    assert parsed(*([name, "7"] if apart else [f"{name}=7"])).max_new_tokens == 7


@pytest.mark.parametrize("value", ["--max-new-tokens is a-b", "a-b", "--dtype-of it", "-5"])
def test_values_are_never_touched(value):
    assert parsed(f"--prompt={value}").prompt == [value]
    assert parsed("--prompt", value).prompt == [value]


def test_the_options_of_a_config_have_both_spellings_too():
    argv = ["train", "--config", "quickstart", "--config.draft.final-fraction=0.125", "--print-config"]
    config, options = parse_experiment([*argv, "--workdir", "--a-b"], description="x")
    assert config.draft.final_fraction == 0.125 and options.print_config and options.workdir == "--a-b"
    argv = ["plan", "--no-search", "--json=a-b"]
    assert (take_option(argv, "no_search", flag=True), take_option(argv, "json"), argv) == ("", "a-b", ["plan"])
    assert take_knobs(["--method.draft-length=a-b"]) == ([], {"draft_length": "a-b"})


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("generate", ["--targt", "x"], '--targt; did you mean "--target"?'),
        ("generate", ["--target", "x", "--prompt", "a", "--dtype", "bfloat61"], '--dtype is "bfloat61"; did you mean'),
        ("evaluate", ["--target", "x", "--task", "gsm9k", "--json", "y"], '--task is "gsm9k"; did you mean "gsm8k"'),
        ("datastore", ["bild", "--tokenizer", "x", "--out", "y"], 'action is "bild"; did you mean "build"'),
        ("train", ["--config", "quickstart", "--workdri", "x"], '--workdri; did you mean "--workdir"?'),
        ("plan", ["--config", "quickstart", "--stagess", "x"], '--stagess; did you mean "--stages"?'),
        ("ablate", ["--config", "quickstart", "--marcdown", "x"], '--marcdown; did you mean "--markdown"?'),
        ("train", ["--config", "quickstart", "--conifg.draft.lr=1"], '; did you mean "--config.draft.lr"?'),
        ("train", ["--config", "own", "--config.target.init=randm"], 'did you mean "random"?'),
        ("train", ["--config", "quickstart", "--log-format", "jsn"], '--log_format is "jsn"; did you mean "json"'),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest_name(module, arguments, says, capsys, monkeypatch):
    status, _, errors = command_line(capsys, monkeypatch, module, *arguments)
    assert status == 2 and says in errors and errors.count("\n") == 1


def test_a_misspelt_stage_is_answered_with_the_nearest_that_is_finished(tmp_path, capsys, monkeypatch):
    for stage in ("target", "draft", "top_0.4"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "stage.json").write_text("{}")
    where = ["--workdir", tmp_path, "--out", tmp_path / "out"]
    for given, says in (("drafft", 'did you mean "draft"?'), ("top_04", '"top_0.4"?'), ("qualifier", "train with")):
        status, _, errors = command_line(capsys, monkeypatch, "export", "--stage", given, *where)
        assert status == 2 and says in errors and "(finished: draft, target, top_0.4)" in errors


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("report", ["{}"]),
        ("compare", ["--workdir", "{}"]),
        ("diagnose", ["--workdir", "{}"]),
        ("parity.__main__", ["--workdir", "{}"]),
        ("export", ["--workdir", "{}", "--stage", "draft", "--out", "out"]),
        ("generate", ["--target", "./{}", "--prompt", "a"]),
        ("generate", ["--target", "{}", "--prompt", "a"]),
        ("convert", ["--in", "{}", "--out", "out"]),
        ("datastore", ["build", "--tokenizer", "quickstart", "--data", "{}.jsonl", "--out", "out"]),
        ("train", ["--config", "quickstart", "--config.data.train={}.jsonl", "--workdir", "out"]),
        ("benchmark", ["--target", "quickstart", "--prompts", "{}.jsonl", "--methods", "plain", "--json", "out"]),
    ],
)
def test_a_misspelt_place_is_answered_with_what_lies_beside_it(module, arguments, tmp_path, capsys, monkeypatch):
    for there in ("quickstart", "other"):
        (tmp_path / there).mkdir()
        (tmp_path / f"{there}.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    filled = [argument.format("quikstart") for argument in arguments]
    status, _, errors = command_line(capsys, monkeypatch, module, *filled)
    near = next(argument for argument in arguments if "{}" in argument).partition("=")
    near = (near[2] or near[0]).format("quickstart").removeprefix("./")
    assert status == 2 and f'did you mean "{near}"?' in errors


def test_a_stage_in_the_place_of_its_run_is_answered_with_the_run(tmp_path, capsys, monkeypatch):
    (tmp_path / "target").mkdir()
    (tmp_path / "report.json").write_text("{}")
    for command in ("report", "diagnose", "compare"):
        arguments = [*["--workdir"] * (command != "report"), tmp_path / "target"]
        status, _, errors = command_line(capsys, monkeypatch, command, *arguments)
        assert status == 2 and errors.endswith(f'; did you mean "{tmp_path}"?\n')


def test_help_names_every_task():
    assert set(NAMED) == set(TASKS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_takes_a_reader_that_goes_away(command):
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", f"adaspec_jax.{command}", "--help"]
    done = subprocess.run(program, cwd=CHECKOUT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    os.close(writing)
    assert done.returncode in (0, 141) and not done.stderr  # argparse keeps a part of such errors to itself


def said_by(main, capsys, **how):
    def speaking():
        voice.speak(**how)
        main()

    with pytest.raises(SystemExit) as exit:
        exit_with_one_line(speaking)
    return exit.value.code, capsys.readouterr().err


def test_ctrl_c_says_what_the_innermost_keeps(capsys):
    @keeping("the rows stay")
    def door():
        raise KeyboardInterrupt

    @keeping("the rows stay")
    def door_with_a_stage():
        with keeping(lambda: "step 4 stays"):
            raise KeyboardInterrupt

    def bare():
        raise KeyboardInterrupt

    assert said_by(door, capsys) == (130, "interrupted; the rows stay\n")
    assert said_by(door_with_a_stage, capsys) == (130, "interrupted; step 4 stays\n")
    assert said_by(bare, capsys) == (130, "interrupted; nothing is kept, and the same command begins anew\n")


def test_what_a_run_keeps_is_what_lies_there(tmp_path):
    assert "no finished stage and no checkpoint yet" in kept_in_words(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "stage.json").write_text("{}")
    (tmp_path / "draft" / "checkpoints" / "400").mkdir(parents=True)
    (tmp_path / "draft" / "checkpoints" / "800.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "reference" / "checkpoints").mkdir(parents=True)
    words = f"{tmp_path} holds target (finished), draft (saved at step 400): the same command goes on from there"
    assert kept_in_words(tmp_path) == words
    (tmp_path / "runs").mkdir()
    os.rename(tmp_path / "target", tmp_path / "runs" / "target")
    assert "holds runs/target (finished)" in kept_in_words(tmp_path, below="r*s")


def test_quiet_says_errors_alone_and_json_says_all_as_objects(capsys):
    def main():
        voice.say("note: a")
        raise UserError("b")

    assert said_by(main, capsys) == (2, "note: a\nerror: b\n")
    assert said_by(main, capsys, quiet=True) == (2, "error: b\n")
    code, said = said_by(main, capsys, log_format="json")
    events = [json.loads(line) for line in said.splitlines()]
    assert events == [{"event": "note", "text": "note: a"}, {"event": "error", "text": "error: b"}]
    assert not voice.is_quiet() and not voice.speaks_json()  # the next command in this process begins as ever
