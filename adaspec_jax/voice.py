"""What a command says beside its result: in words, as lines of JSON, or not at all (--log_format, --quiet).

Errors are said in any case, and results, on standard output, are as they are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

FORMATS = ("text", "json")
QUIET_HELP = "no progress and no notes: the result, and errors"
FORMAT_HELP = "of progress and notes on standard error: text, or json, an object a line with its kind as event"


class _Voice:
    quiet, as_json = False, False


def speak(*, quiet: bool = False, log_format: str = FORMATS[0]) -> None:
    """From now on."""
    _Voice.quiet, _Voice.as_json = quiet, log_format == "json"


def is_quiet() -> bool:
    return _Voice.quiet


def speaks_json() -> bool:
    return _Voice.as_json


def write_event(event: str, stream: IO[str] | None = None, **values: Any) -> None:
    """A line of JSON, for programs."""
    print(json.dumps({"event": event, **values}), file=sys.stderr if stream is None else stream, flush=True)


def say(text: str, *, aside: bool = True) -> None:
    """A line on standard error, or where it is no aside on standard output; as JSON on the former, always."""
    if _Voice.quiet:
        return
    if _Voice.as_json:
        return write_event("note", text=text)
    print(text, file=sys.stderr if aside else sys.stdout, flush=True)


def complain(text: str) -> None:
    """Why a command ends without its result; said to whoever is quiet too."""
    if _Voice.as_json:
        return write_event("error", text=text)
    print(text, file=sys.stderr, flush=True)


def draws_on(stream: IO[str]) -> bool:
    """Whether it is a terminal in which lines can be written over; a dumb one is none."""
    there = hasattr(stream, "isatty") and stream.isatty()
    return there and os.environ.get("TERM", "").lower() not in ("dumb", "unknown") and not _Voice.as_json
