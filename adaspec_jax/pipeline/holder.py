"""One run at a time in a directory: two would write into each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from adaspec_jax.errors import UserError, first_line

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

LOCK = ".lock"


@contextlib.contextmanager
def held(directory: Path, say=print, *, option: str = "--workdir") -> Iterator[None]:
    """In it the directory, which is made, is this process' alone; UserError where another process has it.

    The system lets go of a lock when its process ends, however it ends. Where the file system has no locks, that is
    said, and nothing is guarded. `option`: by which another directory is named.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {directory} cannot be made: {error.strerror}") from None
    if fcntl is None:
        yield
        return
    file, locked = _opened(directory / LOCK, say, option)
    try:
        yield
    finally:
        if locked:
            with contextlib.suppress(OSError):
                (directory / LOCK).unlink()  # while it is held: whoever waits for it looks whether it is still there
        os.close(file)


def _opened(path: Path, say, option: str) -> tuple[int, bool]:
    """The lock file, open, and whether it is locked."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return os.open(os.devnull, os.O_RDONLY), False  # what is there can be read all the same
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise UserError(
                f"{path.parent} is in use by {holder}: wait until that run ends, or use another {option}"
            ) from None
        except OSError as error:
            say(f"{path.parent}: its file system has no locks ({first_line(error)}); start no second run there")
            path.unlink()
            return file, False
        if os.fstat(file).st_nlink:  # not one that its last holder has just taken away
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)
            return file, True
        os.close(file)
