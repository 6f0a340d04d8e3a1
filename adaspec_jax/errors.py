"""A user's mistake is one line on stderr and exit status 2; anything else keeps its traceback and exits with 1."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and how to mend it."""


class Stopped(Exception):
    """A signal asked for an end, and what was done until then is saved. The message says where."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(known)}"


def first_line(error: Exception) -> str:
    """What an error of another library says, its name where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def exit_with_one_line(main: Callable[[], None]) -> None:
    """Runs a command-line `main`; a `UserError`, or a platform that jax lacks, is one line on stderr and status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stop:
        print(f"{stop}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(143) from None  # as a shell reports SIGTERM
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    except (AssertionError, RuntimeError) as error:
        if (complaint := _absent_platform(error)) is None:
            raise
        print(f"error: {complaint}", file=sys.stderr)
        raise SystemExit(2) from None
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        # A path the user gave; whatever else the system refuses keeps its traceback.
        print(f"error: {error.filename}: {error.strerror}; choose another path", file=sys.stderr)
        raise SystemExit(2) from None


def _absent_platform(error: Exception) -> str | None:
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


def _passed_over(jax, error: Exception) -> bool:
    """Whether jax left out "cuda" for want of a GPU and then, nothing else being asked for, failed an assertion."""
    if not isinstance(error, AssertionError):
        return False
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as again:
        return isinstance(again, AssertionError)
    return False


def _platforms(jax) -> list[str]:
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
