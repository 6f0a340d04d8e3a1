"""generate at a terminal: guesses are seen, prompts come one by one, Ctrl-C ends an answer; all is plain in a pipe."""

import io
import json
import re
import sys
import types

import pytest

from adaspec_jax import data, generate_screen, voice
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.writing import Pace, Piece
from tests import tiny_pair
from tests.running import command_line, in_a_terminal

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 4096}
PIECES = [Piece("two ", True), Piece("words\x1b[2J", False)]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    directory = tmp_path_factory.mktemp("generate") / "target"
    tiny_pair.save(directory, tiny_pair.GPT_NEOX | SIZES, seed=0)
    return str(directory)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_by(monkeypatch, stream, guesses=True, **environment):
    for name, value in {"TERM": "xterm", "NO_COLOR": None, **environment}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream)
    screen = generate_screen.Screen(guesses=guesses)
    screen.write_pieces("Say ", PIECES)
    return stream.getvalue()


def test_guesses_and_the_targets_own_tokens_are_told_apart_in_a_terminal_alone(monkeypatch):
    own = re.escape("\x1b[4mwords\\x1b[2J\x1b[0m")
    assert re.fullmatch(rf"Say \x1b\[36mtwo\x1b\[0m {own}", shown_by(monkeypatch, Terminal()))
    plain = "Say two words\\x1b[2J"  # what a model writes is no command to a terminal
    for how in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"guesses": False}):
        assert shown_by(monkeypatch, Terminal(), **how) == plain
    assert shown_by(monkeypatch, io.StringIO()) == "Say two words\x1b[2J"


def test_the_pace_leaves_the_first_round_out(capsys):
    pace = Pace(began=10.0, first=(3, 18.0), last=(43, 20.0))
    assert pace.tokens_per_second == 20 and pace.seconds_to_first == 8
    generate_screen.say_pace(pace)
    assert (
        capsys.readouterr().err == "[20.0 tokens/s after 8.0 s to the first tokens, reading and compiling included]\n"
    )
    voice.speak(log_format="json")
    try:
        generate_screen.say_pace(Pace(began=10.0, first=(3, 18.0), last=(3, 18.0)))
    finally:
        voice.speak()
    said = json.loads(capsys.readouterr().err)
    assert said == {"event": "generated", "tokens": 3, "tokens_per_second": None, "seconds_to_first": 8.0}


def test_a_loop_obeys_answers_and_goes_on_after_ctrl_c_and_mistakes(monkeypatch, capsys):
    def answer(line):
        asked.append(line)
        if line == "long":
            raise KeyboardInterrupt
        if line == "wrong":
            raise UserError("too long")

    asked, anew = [], []
    lines = ["/help", "", "one", "/nwe", "/new", "long", "wrong", " /two", "/usr/bin", "/quit", "three"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    generate_screen.interact(answer, lambda: anew.append(1))
    out, errors = capsys.readouterr()
    assert asked == ["one", "long", "wrong", " /two", "/usr/bin"] and anew == [1]
    assert "/new" in out and 'no /nwe; did you mean "/new"?' in errors
    assert "[ended by Ctrl-C]" in errors and "error: too long" in errors
    monkeypatch.setattr(sys, "stdin", io.StringIO("/new\nlast"))
    generate_screen.interact(answer, None)  # to the end of the lines; there is no conversation to begin anew
    assert asked[-1] == "last" and anew == [1]


@pytest.mark.parametrize("how", [[], ["--prompt", "-"]])
def test_a_text_in_a_pipe_is_the_prompt(target, how, capsys, monkeypatch):
    arguments = ["--target", target, "--max-new-tokens", 4, "--quiet"]
    status, expected, _ = command_line(capsys, monkeypatch, "generate", *arguments, "--prompt", "Tom has\ntwo")
    assert status == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("Tom has\ntwo\n"))
    assert command_line(capsys, monkeypatch, "generate", *arguments, *how) == (0, expected, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, *how)
    assert (status, errors.count("\n")) == (2, 1) and "standard input is empty" in errors


def test_a_task_gives_its_first_held_out_prompt(target, capsys, monkeypatch):
    arguments = ["--target", target, "--max-new-tokens", 4, "--quiet"]
    [example] = data.load_examples("word_problems", "test", num=1)
    expected = command_line(capsys, monkeypatch, "generate", *arguments, "--prompt", example.prompt)
    assert (
        expected[0] == 0
        and command_line(capsys, monkeypatch, "generate", *arguments, "--task", "word_problems") == expected
    )
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, "--task", "word_problem_chats")
    assert status == 2 and "has conversations; give --chat" in errors


def test_mistakes_with_prompts_are_one_line(capsys, monkeypatch):
    stdin = types.SimpleNamespace(isatty=lambda: True)
    for how, says in (
        ([], "no --prompt: give one, pipe a text in, or --interactive"),
        (["--interactive", "--prompt", "a"], "--interactive asks for prompts"),
        (["--task", "gsm8k", "--prompt", "a"], "--task has a prompt of its own"),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        status, _, errors = command_line(capsys, monkeypatch, "generate", "--target", "x", *how)
        assert (status, errors.count("\n")) == (2, 1) and says in errors


def test_bytes_that_are_no_text_are_one_line(target, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\xfe"), encoding="utf-8"))
    status, out, errors = command_line(capsys, monkeypatch, "generate", "--target", target, "--max_new_tokens", 4)
    assert (status, out, errors.count("\n")) == (2, "", 1) and "is not UTF-8" in errors


def test_at_a_terminal_prompts_are_answered_ctrl_c_ends_an_answer_and_ctrl_d_all(target):
    keys = [
        (b"> ", b"Tom has\n"),
        (b"tokens per call]", b""),
        (b"> ", b"/hepl\n"),
        (b"did you mean", b""),
        (b"> ", b"Anna\n"),
        (b"Anna", b""),  # its echo
        (b"Anna", b"\x03"),  # the answer has begun
        (b"ended by Ctrl-C", b""),
        (b"> ", b"\x03"),
        (b"Ctrl-D ends", b""),
        (b"> ", b"\x04"),
    ]
    program = ["adaspec_jax.generate", "--target", target, "--max_new_tokens", "3900", "--temperature", "1"]
    program += ["--suppress_tokens", "0"]  # the end of text: an answer takes longer than a key
    _, shown = in_a_terminal([*program, "--interactive"], arguments=("-m",), keys=keys, columns=40)
    assert "loading" in shown and "Traceback" not in shown
