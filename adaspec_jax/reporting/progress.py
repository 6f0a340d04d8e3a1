"""Progress of a long loop: a rich bar in a terminal, a plain line every few seconds in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, Any

_REDRAW_SECONDS = 0.5


def track(
    total: int | None,
    *,
    description: str,
    unit: str = "step",
    unit_scale: bool = False,
    initial: int = 0,
    interval: float = 10.0,
    stream: IO[str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """A context manager whose `advance(n, **values)` shows how far `description` has come, how fast, and time left.

    `initial` is what earlier sessions did: it counts as done, but not towards rate or time left. `unit_scale` writes
    large numbers as 12.3k. Off a terminal a line appears at most every `interval` seconds, and one at the end.
    `stream` is standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    terminal = hasattr(stream, "isatty") and stream.isatty()
    show = _Bar(stream, description, total, initial) if terminal else _Lines(stream)
    return Progress(
        total,
        description=description,
        unit=unit,
        unit_scale=unit_scale,
        initial=initial,
        interval=min(interval, _REDRAW_SECONDS) if terminal else interval,
        show=show,
        clock=clock,
    )


class Progress:
    """What `track` returns: `done` counts from `initial`; `advance` reports now and then; leaving the block reports."""

    def __init__(self, total, *, description, unit, unit_scale, initial, interval, show, clock) -> None:
        self.done, self.total, self.description = initial, total, description
        self._initial, self._unit, self._scale = initial, unit, unit_scale
        self._interval, self._show, self._clock = interval, show, clock
        self._values: dict[str, Any] = {}
        self._started = clock()
        self._warm: tuple[int, float] | None = None  # done and time after the first advance
        self._last_report = float("-inf")

    def __enter__(self) -> Progress:
        self._started = self._clock()
        self._show.start()
        return self

    def advance(self, n: int = 1, **values: Any) -> None:
        """Counts `n` more as done. `values` (numbers or 0-d arrays) are read only when shown, so a step stays async."""
        self.done += n
        self._values.update(values)
        now = self._clock()
        if self._warm is None:
            self._warm = (self.done, now)
        if now - self._last_report >= self._interval and self.done != self.total:
            self._last_report = now
            # The first advance holds the compilation: a rate made from it would promise hours.
            rate = self._rate_and_left(now) if self.done > self._warm[0] else []
            parts = [self._count(), *self._shown_values(), *rate]
            self._show.line(self.done, f"{self.description}: {', '.join(parts)}")

    def __exit__(self, kind, *_) -> None:
        now = self._clock()
        rate = self._rate_and_left(now)[:1]
        took = f"{'stopped after' if kind else 'took'} {duration(now - self._started)}"
        line = f"{self.description}: {', '.join([self._count(), *self._shown_values(), *rate, took])}"
        self._show.line(self.done, line)
        self._show.stop(line)

    def _count(self) -> str:
        total = "" if self.total is None else f"/{self._number(self.total)}"
        return f"{self._unit} {self._number(self.done)}{total}"

    def _shown_values(self) -> list[str]:
        return [f"{name.replace('_', ' ')} {_value(value)}" for name, value in self._values.items()]

    def _rate_and_left(self, now: float) -> list[str]:
        """["5.1 steps/s", "1m34s left"], as far as known, from this session's work alone."""
        done, since = self._initial, self._started
        if self._warm is not None and self.done > self._warm[0]:
            done, since = self._warm  # the first advance holds the compilation, which the rest will not pay again
        worked, elapsed = self.done - done, now - since
        if worked <= 0 or elapsed <= 0:
            return []
        rate = worked / elapsed
        speed = f"{self._number(rate)} {self._unit}s/s" if rate >= 1 else f"{elapsed / worked:.3g} s/{self._unit}"
        left = [] if self.total is None else [f"{duration(max(0, self.total - self.done) / rate)} left"]
        return [speed, *left]

    def _number(self, value: float) -> str:
        if self._scale:
            for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
                if value >= size:
                    return f"{value / size:.3g}{suffix}"
        if isinstance(value, int) or value >= 100:
            return f"{value:.0f}"
        return f"{value:.1f}"


class _Lines:
    """Plain lines, flushed, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self) -> None:
        pass

    def line(self, done: int, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def stop(self, text: str) -> None:
        pass


class _Bar:
    """One rich progress bar; leaves the last line behind when it stops."""

    def __init__(self, stream: IO[str], description: str, total: int | None, initial: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(file=stream, highlight=False)
        text = TextColumn("{task.fields[line]}", markup=False)
        self._progress = Progress(BarColumn(bar_width=24), text, console=self._console, transient=True)
        self._task = self._progress.add_task(description, total=total, completed=initial, line=description)

    def start(self) -> None:
        self._progress.start()

    def line(self, done: int, text: str) -> None:
        self._progress.update(self._task, completed=done, line=text)

    def stop(self, text: str) -> None:
        self._progress.stop()
        self._console.print(text, markup=False)


def duration(seconds: float) -> str:
    """1h02m, 1m34s or 12s; 0.3s below ten seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.4g}" if not isinstance(value, int) else str(value)
