"""What `generate` shows: a text as it comes, its figures, and a loop of prompts at the terminal (--interactive)."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from adaspec_jax import voice
from adaspec_jax.errors import UserError, did_you_mean

_GUESSED, _OWN = "cyan", "underline"
_LEGEND = "cyan: the draft's accepted guesses; underlined: the target's own tokens"
_COMMANDS = {
    "/help": "this list",
    "/new": "begins a new conversation",
    "/quit": "ends, and so does Ctrl-D; Ctrl-C ends an answer alone",
}
_VISIBLE = {n: f"\\x{n:02x}" for n in (*range(32), 127, *range(128, 160)) if chr(n) not in "\n\t"}


class Screen:
    """Standard output; in a terminal with colours accepted guesses and the target's own tokens are told apart."""

    def __init__(self, *, guesses: bool) -> None:
        self._terminal = sys.stdout.isatty()
        self.coloured = guesses and voice.draws_on(sys.stdout) and not os.environ.get("NO_COLOR")
        if self.coloured:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)

    def write(self, text: str, style: str = "") -> None:
        """Text of a model is no command to a terminal."""
        text = text.translate(_VISIBLE) if self._terminal else text
        if not (self.coloured and style):
            return print(text, end="", flush=True)
        from rich.text import Text

        drawn = Text(end="")
        for part in re.split(r"(\s+)", text):  # what separates words is not underlined
            drawn.append(part, style if part.strip() else "")
        self._console.print(drawn, end="")
        sys.stdout.flush()

    def write_pieces(self, before: str, pieces: Iterable[Any]) -> None:
        """`before`, and each piece as it comes; until the first one a terminal is told what takes so long."""
        from adaspec_jax.reporting import working

        pieces = iter(pieces)
        with working("reading the prompt, and compiling where that is new", said_in_a_log=False):
            first = next(pieces, None)
        self.write(before)
        for piece in filter(None, [first]):
            self.write(piece.text, _GUESSED if piece.guessed else _OWN)
        for piece in pieces:
            self.write(piece.text, _GUESSED if piece.guessed else _OWN)

    def explain(self) -> None:
        """The colours, once."""
        if self.coloured:
            voice.say(_LEGEND)


def figures(made: Any, new_tokens: int) -> str:
    """How a text of one row was decoded."""
    accepted, judged, rounds = int(made.accepted_BN.sum()), int(made.judged_BN.sum()), int(made.rounds_B[0])
    alpha = f"acceptance {accepted}/{judged} = {accepted / judged:.3f}, " if judged else ""
    return f"[{new_tokens} tokens in {rounds} target calls, {alpha}{new_tokens / rounds:.2f} tokens per call]"


def say_pace(pace: Any) -> None:
    """How fast it came, on standard error: what differs from call to call stays out of the result."""
    rate = pace.tokens_per_second
    if voice.speaks_json() and not voice.is_quiet():
        how = {"tokens": pace.last[0], "tokens_per_second": rate, "seconds_to_first": pace.seconds_to_first}
        return voice.write_event("generated", **how)
    fast = f"{rate:.1f} tokens/s after " if rate else ""
    voice.say(f"[{fast}{pace.seconds_to_first:.1f} s to the first tokens, reading and compiling included]")


def interact(answer: Callable[[str], None], begin_anew: Callable[[], None] | None) -> None:
    """Answers each line of standard input until its end; `begin_anew` where there is a conversation."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (history and editing, for `input`)

    commands = {name: said for name, said in _COMMANDS.items() if begin_anew or name != "/new"}
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    voice.say(f"{'say something' if begin_anew else 'a text to go on with'}, or /help")
    while True:
        try:
            line = input("> " if at_terminal else "")
        except EOFError:
            return print() if at_terminal else None
        except KeyboardInterrupt:
            print()
            voice.say("/quit or Ctrl-D ends")
            continue
        command = line.rstrip()
        if command == "/quit":
            return
        if re.fullmatch(r"/\w+", command):
            _obey(command, commands, begin_anew)
        elif command:
            _answered(answer, line)


def _obey(command: str, commands: dict[str, str], begin_anew: Callable[[], None] | None) -> None:
    if command == "/help":
        print("\n".join(f"{name:<7}{said}" for name, said in commands.items()))
    elif command in commands:
        begin_anew()
    else:
        voice.complain(f"there is no {command}{did_you_mean(command, commands)} (with a space before it, it is a text)")


def _answered(answer: Callable[[str], None], line: str) -> None:
    """The loop goes on whatever comes of it."""
    try:
        answer(line)
    except KeyboardInterrupt:
        print()
        voice.say("[ended by Ctrl-C]")
    except UserError as error:
        voice.complain(f"error: {error}")
