"""A user's mistake is one line on stderr and exit status 2; anything else keeps its traceback and exits with 1."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from adaspec_jax import voice


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and how to mend it."""


class Stopped(Exception):
    """A signal asked for an end, and what was done until then is saved. The message says where."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    return nearest(name, known) or f"; known: {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` when a known name is close to `name`, else nothing."""
    near = nearest_of(name, known)
    return f'; did you mean "{near}"?' if near else ""


def nearest_of(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The known name closest to `name`, whose likeness is at least `cutoff` (of 1)."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def first_line(error: BaseException) -> str:
    """What an error of another library says, its name where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_a_failure(error: BaseException) -> bool:
    """Whether it is an error of a program, and no request to end: a panic of tokenizers' Rust is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def exit_with_one_line(main: Callable[[], None]) -> None:
    """Runs a command-line `main`. What the user or the machine is to blame for is one line on stderr and status 2.

    That is a `UserError`, a platform that jax lacks, and what the system refuses: no room, no permission, a name that
    is too long. Where nobody reads the output any more the command ends, as others do, without a word. Ctrl-C is
    status 130, and a line with what `keeping` says.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without UTF-8 lacks most characters
    threading.excepthook = _of_a_thread
    logging.getLogger("absl").addFilter(_of_a_log)
    try:
        _run(main)
    except UserError as error:
        _end(str(error))
    except Stopped as stop:
        voice.complain(f"{stop}; the same command goes on from there")
        raise SystemExit(143) from None  # as a shell reports SIGTERM
    except KeyboardInterrupt as interrupt:
        voice.complain(f"interrupted; {interrupt.args[0] if interrupt.args else _NOTHING_KEPT}")
        raise SystemExit(130) from None
    except BaseException as error:
        if not is_a_failure(error):
            raise
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            _leave_output()
            raise SystemExit(141) from None  # as a shell reports SIGPIPE
        complaint = refused_by_the_system(error) or _absent_platform(error) or _panic(error)
        if complaint is None:
            raise
        _end(complaint)
    finally:
        voice.speak()  # as ever, to whoever calls the next command in this process


_NOTHING_KEPT = "nothing is kept, and the same command begins anew"


@contextlib.contextmanager
def keeping(words: str | Callable[[], str]) -> Iterator[None]:
    """Inside it Ctrl-C is told what is kept, and how to go on; the innermost says it. A decorator too."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args:
            raise
        raise KeyboardInterrupt(words if isinstance(words, str) else words()) from None


def _run(main: Callable[[], None]) -> None:
    """`main`, and all that it printed, which a help that ends by `SystemExit` has not yet written."""
    try:
        main()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def refused_by_the_system(error: BaseException) -> str | None:
    """What to say where the system would not write, read or name a file, whichever library met it; else None."""
    met: BaseException | None = error
    while met is not None:
        error = met
        if isinstance(error, MemoryError) or "Out of memory" in str(error):  # the latter of XLA
            said = " ".join(str(error).split())[:200] or "out of memory"
            return f"there is not enough memory ({said}); take less at once"
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror}; {_REFUSALS[error.errno]}"
        if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # of NumPy
            return f"the disk, or what may be written to it, is full; {_ROOM}"
        for number in _TOLD:
            if not isinstance(error, OSError) and os.strerror(number) in str(error):
                path = re.search(r"(?<![^\s\"'=])/[^\s\"':;,\[\]]+", str(error))
                return f"{path[0] + ': ' if path else ''}{os.strerror(number)}; {_REFUSALS[number]}"
        met = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


_ROOM = "make room; the same command then goes on from what is there"
_PATH = "choose another path"
_REFUSALS = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM, errno.EROFS: _PATH, errno.EACCES: _PATH}
_TOLD = tuple(_REFUSALS)  # by libraries in C++, in words alone
_REFUSALS |= {errno.EPERM: _PATH, errno.ENOTDIR: _PATH, errno.EISDIR: _PATH, errno.ELOOP: _PATH}
_REFUSALS |= {errno.ENAMETOOLONG: "choose a shorter path", errno.EIO: "look at the disk, or choose another path"}


def _of_a_thread(said: threading.ExceptHookArgs) -> None:
    """What the system refuses a library's thread, the thread that waits for it says."""
    if said.exc_value is None or refused_by_the_system(said.exc_value) is None:
        threading.__excepthook__(said)


def _of_a_log(record: logging.LogRecord) -> bool:
    """The same of what orbax logs of its threads, each with its traceback."""
    return not (record.exc_info and record.exc_info[1] and refused_by_the_system(record.exc_info[1]))


def _panic(error: BaseException) -> str | None:
    if isinstance(error, Exception):
        return None
    return f"a library gave up on what it was given ({first_line(error)}): look at the tokenizer and the texts"


def _end(complaint: str) -> NoReturn:
    voice.complain(f"error: {' '.join(complaint.split())}")
    try:
        sys.stdout.flush()
    except OSError:
        _leave_output()
    raise SystemExit(2) from None


def _nobody_reads() -> bool:
    """Whether a reader of this command's output went away: a broken pipe may also be a connection's, or a child's."""
    if not hasattr(select, "poll"):
        return True
    waiting = select.poll()
    for stream in (sys.stdout, sys.stderr):
        waiting.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def _leave_output() -> None:
    """Nothing more is written on standard output, not even what Python keeps for its own end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _absent_platform(error: BaseException) -> str | None:
    """What to say where jax does not find a platform that JAX_PLATFORMS names; None where the error is another."""
    jax = sys.modules.get("jax")
    asked = jax and jax.config.jax_platforms
    if not asked:
        return None
    said = re.match(r"Unable to initialize backend '\w+': (.*?)( \(set JAX_PLATFORMS=.*)?$", first_line(error))
    if said is None and not _passed_over(jax, error):
        return None
    reason = f" ({said[1]})" if said and "known backends" not in said[1] else ""
    here = " or ".join(_platforms(jax))
    return f'JAX_PLATFORMS asks for "{asked}", which jax does not find here{reason}; unset it, or set it to {here}'


def _passed_over(jax: Any, error: BaseException) -> bool:
    """Whether jax left out "cuda" for want of a GPU and then, nothing else being asked for, failed an assertion."""
    if not isinstance(error, AssertionError):
        return False
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as again:
        return isinstance(again, AssertionError)
    return False


def _platforms(jax: Any) -> list[str]:
    """Those that jax finds, TPUs left out: where there is none, looking for one is slow and prints much."""
    from jax.extend.backend import backends

    asked = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda,cpu")  # it passes over the first in silence where there is no GPU
    try:
        return sorted(backends())
    except RuntimeError:  # a GPU, and no plugin that works
        return ["cpu"]
    finally:
        jax.config.update("jax_platforms", asked)
