"""Plain lines in a log: seldom enough, with this session's rate; a bar in a terminal."""

import io

import numpy as np
import pytest

from adaspec_jax.reporting import track
from adaspec_jax.reporting.progress import duration


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(steps, seconds, *, total=600, **knobs):
    clock, stream = Clock(), io.StringIO()
    with track(total, description="target", stream=stream, clock=clock, **knobs) as progress:
        for step in range(steps):
            clock.now += seconds
            progress.advance(loss=np.float32(2.5 - step / 1000))
    return stream.getvalue().splitlines()


def test_a_line_says_step_loss_rate_and_time_left():
    lines = run(600, 0.2)
    assert lines[1] == "target: step 51/600, loss 2.45, 5.0 steps/s, 1m50s left"
    assert lines[-1] == "target: step 600/600, loss 1.901, 5.0 steps/s, took 2m00s"


def test_lines_are_at_least_the_interval_apart_with_one_at_the_end():
    assert len(run(600, 0.2)) == 12 + 1  # 120 seconds, one line each 10 of them, the first at once
    assert len(run(600, 0.2, interval=60)) == 2 + 1
    assert len(run(1, 0.2, total=1)) == 1


def test_a_resumed_run_counts_only_its_own_steps_in_rate_and_time_left():
    lines = run(100, 0.5, initial=500)
    assert lines[0] == "target: step 501/600, loss 2.5"  # no rate from a step that compiled
    assert lines[2] == "target: step 541/600, loss 2.46, 2.0 steps/s, 30s left"
    assert lines[-1].startswith("target: step 600/600") and lines[-1].endswith("2.0 steps/s, took 50s")


def test_the_first_step_which_compiles_does_not_spoil_the_rate():
    clock, stream = Clock(), io.StringIO()
    with track(100, description="draft", stream=stream, clock=clock) as progress:
        clock.now += 60
        progress.advance()
        for _ in range(20):
            clock.now += 1
            progress.advance()
    assert stream.getvalue().splitlines()[0] == "draft: step 1/100"
    assert "step 11/100, 1.0 steps/s, 1m29s left" in stream.getvalue()


def test_slow_steps_are_given_in_seconds_per_step():
    assert "4 s/step" in run(10, 4.0)[-1]


def test_values_are_read_only_when_a_line_is_printed():
    class Device:
        reads = 0

        def __float__(self):
            Device.reads += 1
            return 1.0

    clock = Clock()
    with track(1000, description="target", stream=io.StringIO(), clock=clock) as progress:
        for _ in range(1000):
            clock.now += 0.1
            progress.advance(loss=Device())
    assert Device.reads == 10 + 1


def test_a_failure_is_reported_as_a_stop_and_passes_through():
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), track(10, description="target", stream=stream) as progress:
        progress.advance(3)
        raise KeyboardInterrupt
    assert "target: step 3/10" in stream.getvalue() and "stopped after" in stream.getvalue().splitlines()[-1]


def test_nothing_done_and_no_total_are_fine():
    assert len(run(0, 1.0)) == 1 and run(0, 1.0)[0].startswith("target: step 0/600")
    assert run(3, 1.0, total=None, unit="file")[-1].startswith("target: file 3, ")


def test_large_numbers_are_scaled_on_request():
    assert "token 12.3k/50k" in run(12_300, 0.001, total=50_000, unit="token", unit_scale=True)[-1]


def test_a_terminal_gets_a_bar_and_keeps_the_last_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with track(3, description="[target]", stream=stream) as progress:
        for _ in range(3):
            progress.advance(loss=1.5)
    assert "\x1b[" in stream.getvalue() and "━" in stream.getvalue()
    assert "[target]: step 3/3, loss 1.5" in stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (94, "1m34s"), (3599.7, "1h00m"), (3725, "1h02m")],
)
def test_durations_read_naturally(seconds, words):
    assert duration(seconds) == words
