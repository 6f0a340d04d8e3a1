"""Progress of a long loop: a rich bar in a terminal, a plain line every few seconds in a log, or lines of JSON."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from adaspec_jax import voice

_REDRAW_SECONDS = 0.5
_AT_ONCE_SECONDS = 0.1  # steps whose results are fetched together are reported within so long
_BAR_FROM, _BAR = 80, 24  # columns of a terminal that has room for a bar beside the figures, and of that


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
    memory: Callable[[], int | None] = lambda: None,
    after: Callable[[int, float], float | None] = lambda done, seconds: None,
) -> Progress:
    """A context manager whose `advance(n, **values)` shows how far `description` has come, how fast, and time left.

    `initial` is what earlier sessions did: it counts as done, but not towards rate or time left. `unit_scale` writes
    large numbers as 12.3k. `memory`: bytes in use, where that is known. `after`: seconds that what follows will take,
    by how much was done in how many, where that is known. Off a terminal, and in one that is dumb, a line appears at
    most every `interval` seconds, and one at the end. `stream` is standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    terminal = voice.draws_on(stream) and not voice.is_quiet()
    show = _Bar(stream, description, total, initial) if terminal else _plain(stream)
    return Progress(
        total,
        description=description,
        unit=unit,
        unit_scale=unit_scale,
        initial=initial,
        interval=min(interval, _REDRAW_SECONDS) if terminal else interval,
        show=show,
        clock=clock,
        memory=memory,
        after=after,
    )


@contextlib.contextmanager
def working(
    what: str, *, stream: IO[str] | None = None, said_in_a_log: bool = True, patience: float = 5.0
) -> Iterator[None]:
    """While something runs that cannot be counted, says what it is: in a terminal at once, and with its seconds.

    Elsewhere it is a line, once it has taken `patience` seconds.
    """
    stream = sys.stderr if stream is None else stream
    if voice.is_quiet() or not voice.draws_on(stream):
        record = {"event": "working", "what": what}
        said = threading.Timer(patience, lambda: _plain(stream).line(0, f"{what} ...", record))
        said.daemon = True
        if said_in_a_log:
            said.start()
        try:
            yield
        finally:
            said.cancel()
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False, table_column=_folded())
    columns = SpinnerColumn(), text, TimeElapsedColumn()
    with Progress(*columns, console=_console(stream), transient=True, redirect_stdout=_on_screen()) as shown:
        shown.add_task(what, total=None)
        yield


class Progress:
    """What `track` returns: `done` counts from `initial`; `advance` reports now and then; leaving the block reports."""

    def __init__(self, total, *, description, unit, unit_scale, initial, interval, show, clock, memory, after) -> None:
        self.done, self.total, self.description = initial, total, description
        self._initial, self._unit, self._scale = initial, unit, unit_scale
        self._interval, self._show, self._clock, self._memory, self._after = interval, show, clock, memory, after
        self._values: dict[str, Any] = {}
        self._doing: list[str] = []
        self._tokens = 0.0
        self._started = clock()
        self._began: float | None = None  # when the first advance came
        self._warm = (initial, 0.0, self._started)  # done, tokens and time after the advances that came with it
        self._last_report = float("-inf")

    def __enter__(self) -> Progress:
        self._started = self._clock()
        self._show.start()
        if self._initial:
            text = f"{self.description}: resumed at {self._unit} {self._number(self._initial)} of {self.total}"
            self._show.line(self.done, text, self._record("resumed", {}))
        return self

    def doing(self, what: str) -> None:
        """Says what takes so long, until the next advance."""
        self._doing = [what]
        # A terminal would show what came before for as long as this takes.
        if (now := self._clock()) - self._last_report >= self._interval or self._interval <= _REDRAW_SECONDS:
            self._report(now)

    def advance(self, n: int = 1, *, tokens: float = 0, **values: Any) -> None:
        """Counts `n` more as done. `values` (numbers or 0-d arrays) are read only when shown, so a step stays async."""
        self.done, self._tokens, self._doing = self.done + n, self._tokens + tokens, []
        self._values.update(values)
        now = self._clock()
        self._began = now if self._began is None else self._began
        # What comes first holds the compilation: a rate made from it would promise hours, or, at once, nothing.
        if now - self._began < _AT_ONCE_SECONDS:
            self._warm = (self.done, self._tokens, now)
        if now - self._last_report >= self._interval and self.done != self.total:
            self._report(now)

    def _report(self, now: float) -> None:
        self._last_report, rates = now, self._rates(now)
        parts = [self._count(), *self._doing, *self._shown_values(), *self._in_words(rates), *self._in_use(rates)]
        record = self._record("progress", rates | ({"doing": self._doing[0]} if self._doing else {}))
        self._show.line(self.done, f"{self.description}: {', '.join(parts)}", record)

    def __exit__(self, kind, *_) -> None:
        now = self._clock()
        rates = self._rates(now)
        rates.pop("seconds_left", None)
        rates.pop("run_seconds_left", None)
        took = f"{'stopped after' if kind else 'took'} {duration(now - self._started)}"
        parts = [self._count(), *self._shown_values(), *self._in_words(rates), *self._in_use(rates), took]
        record = self._record("stopped" if kind else "done", rates | {"seconds": now - self._started})
        self._show.stop(f"{self.description}: {', '.join(parts)}", record)

    def _count(self) -> str:
        total = "" if self.total is None else f"/{self._number(self.total)}"
        return f"{self._unit} {self._number(self.done)}{total}"

    def _shown_values(self) -> list[str]:
        self._values = {name: v if isinstance(v, str | int) else float(v) for name, v in self._values.items()}
        return [f"{name.replace('_', ' ')} {_value(value)}" for name, value in self._values.items()]

    def _rates(self, now: float) -> dict[str, float]:
        """What this session's work alone tells, as far as known."""
        done, tokens, since = self._warm
        worked, elapsed = self.done - done, now - since
        found: dict[str, float] = {}
        if worked > 0 and elapsed > 0:
            found["per_second"] = worked / elapsed
            if self._tokens > tokens:
                found["tokens_per_second"] = (self._tokens - tokens) / elapsed
            if self.total is not None:
                found["seconds_left"] = max(0, self.total - self.done) * elapsed / worked
                if (after := self._after(worked, elapsed)) is not None:
                    found["run_seconds_left"] = found["seconds_left"] + after
        if (used := self._memory()) is not None:
            found["memory_bytes"] = used
        return found

    def _in_words(self, rates: Mapping[str, float]) -> list[str]:
        """["5.1 steps/s", "900 tokens/s", "1m34s left", "run: about 5 min left"]."""
        if "per_second" not in rates:
            return []
        rate = rates["per_second"]
        said = [f"{self._number(rate)} {self._unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self._unit}"]
        if "tokens_per_second" in rates:
            said.append(f"{rates['tokens_per_second']:,.0f} tokens/s")
        said += [f"{duration(rates['seconds_left'])} left"] if "seconds_left" in rates else []
        return [
            *said,
            *([f"run: about {roughly(rates['run_seconds_left'])} left"] if "run_seconds_left" in rates else []),
        ]

    def _in_use(self, rates: Mapping[str, float]) -> list[str]:
        return [f"{rates['memory_bytes'] / 2**30:.2f} GiB"] if "memory_bytes" in rates else []

    def _record(self, event: str, more: Mapping[str, float]) -> dict[str, Any]:
        """The same for a program to read."""
        of_loop = {"event": event, "stage": self.description, "unit": self._unit, "done": self.done}
        return {**of_loop, "total": self.total, **self._values, **more}

    def _number(self, value: float) -> str:
        if self._scale:
            for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
                if value >= size:
                    return f"{value / size:.3g}{suffix}"
        if isinstance(value, int) or value >= 100:
            return f"{value:.0f}"
        return f"{value:.1f}"


def _plain(stream: IO[str]) -> _Lines:
    return _Silent(stream) if voice.is_quiet() else _Json(stream) if voice.speaks_json() else _Lines(stream)


class _Lines:
    """Plain lines, flushed, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self) -> None:
        pass

    def line(self, done: int, text: str, record: dict[str, Any]) -> None:
        print(text, file=self._stream, flush=True)

    def stop(self, text: str, record: dict[str, Any]) -> None:
        self.line(0, text, record)


class _Silent(_Lines):
    def line(self, done: int, text: str, record: dict[str, Any]) -> None:
        pass


class _Json(_Lines):
    def line(self, done: int, text: str, record: dict[str, Any]) -> None:
        voice.write_event(stream=self._stream, **record)


class _Bar:
    """One rich progress bar, or in a narrow terminal its text alone; leaves the last line behind when it stops."""

    def __init__(self, stream: IO[str], description: str, total: int | None, initial: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = _console(stream)
        text = TextColumn("{task.fields[line]}", markup=False, table_column=_folded())
        columns = [BarColumn(bar_width=_BAR), text] if self._console.width >= _BAR_FROM else [text]
        how = {"transient": True, "redirect_stdout": _on_screen()}
        self._foretold = False
        self._progress = Progress(*columns, console=self._console, **how)
        self._task = self._progress.add_task(description, total=total, completed=initial, line=description)

    def start(self) -> None:
        self._progress.start()

    def line(self, done: int, text: str, record: dict[str, Any]) -> None:
        if not self._foretold and "run_seconds_left" in record:
            self._foretold = True
            self._console.print(f"run: about {roughly(record['run_seconds_left'])} left", markup=False)
        if record["event"] == "resumed":
            self._console.print(text, markup=False)  # stays above the bar
        else:
            self._progress.update(self._task, completed=done, line=text)

    def stop(self, text: str, record: dict[str, Any]) -> None:
        self._progress.stop()
        self._console.print(text, markup=False)


def _on_screen() -> bool:
    """Whether what is printed appears beside a bar, and has to be put above it; else it goes where it is sent."""
    return sys.stdout.isatty()


def _console(stream: IO[str]):
    from rich.console import Console

    return Console(file=stream, highlight=False)


def _folded():
    """A column in which nothing is cut: what is longer goes on in the next line."""
    from rich.table import Column

    return Column(overflow="fold", no_wrap=False)


def duration(seconds: float) -> str:
    """1h02m, 1m34s or 12s; 0.3s below ten seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def roughly(seconds: float) -> str:
    """An estimate, which promises no more digits than it has: 1 min, 25 min, 3 h, 40 h."""
    minutes = max(round(seconds / 60), 1)
    if minutes <= 10 or 55 < minutes < 90:
        return f"{minutes} min"
    return f"{round(minutes / 5) * 5} min" if minutes < 120 else f"{round(minutes / 60)} h"


def _value(value: str | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
