"""What this process does meanwhile: whether it runs programs, reaches others, hangs, or writes elsewhere."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

_RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn")


class Watch:
    """Sees what this process does while a door is open."""

    def __init__(self, seconds: int = 30, *, others: tuple[str, ...] = ()) -> None:
        """Files below `others` may be written too."""
        self._seconds, self._place, self.seen, self._others = seconds, None, [], ("/dev/", "/proc/", *others)
        sys.addaudithook(self._audited)

    def _audited(self, event: str, args: tuple) -> None:
        if self._place is None:
            return
        if event in _RUNS:
            self.seen.append(f"{event} {args}"[:200])
        elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            writes = re.search("[wax+]", args[1]) if args[1] else args[2] & (os.O_WRONLY | os.O_RDWR)
            path = os.path.abspath(os.fsdecode(args[0]))
            if writes and not path.startswith((str(self._place), *self._others)):
                self.seen.append(f"writes {path}"[:200])

    @contextlib.contextmanager
    def over(self, place: Path) -> Iterator[None]:
        def late(*_):
            raise TimeoutError(f"no end after {self._seconds} s")

        before, here = signal.signal(signal.SIGALRM, late), os.getcwd()
        os.chdir(place)
        signal.alarm(self._seconds)
        self._place, self.seen = place, []
        try:
            yield
        finally:
            self._place = None
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            os.chdir(here)
