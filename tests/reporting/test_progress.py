"""Plain lines in a log: seldom enough, with this session's rate; a bar in a terminal."""

import io
import json
import re

import numpy as np
import pytest

from adaspec_jax import voice
from adaspec_jax.reporting import track
from adaspec_jax.reporting.progress import duration, roughly, working
from tests.running import in_a_terminal


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
    assert lines[0] == "target: resumed at step 500 of 600"
    assert lines[1] == "target: step 501/600, loss 2.5"  # no rate from a step that compiled
    assert lines[3] == "target: step 541/600, loss 2.46, 2.0 steps/s, 30s left"
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


def test_steps_that_are_fetched_together_make_no_rate():
    """As of a stage that is resumed a few steps before its end, which are all fetched at once."""
    clock, stream = Clock(), io.StringIO()
    with track(600, description="draft", stream=stream, clock=clock, initial=590) as progress:
        clock.now += 20  # the first compiled
        for _ in range(10):
            clock.now += 1e-4
            progress.advance(loss=1.5)
    assert stream.getvalue().splitlines()[-1] == "draft: step 600/600, loss 1.5, took 20s"


def test_tokens_and_memory_are_said_where_they_are_known():
    clock, stream = Clock(), io.StringIO()
    with track(40, description="draft", stream=stream, clock=clock, memory=lambda: 3 * 2**29) as progress:
        for _ in range(40):
            clock.now += 0.5
            progress.advance(tokens=600)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "draft: step 21/40, 2.0 steps/s, 1,200 tokens/s, 9.5s left, 1.50 GiB"
    assert lines[-1] == "draft: step 40/40, 2.0 steps/s, 1,200 tokens/s, 1.50 GiB, took 20s"


def test_what_takes_long_is_named_until_something_is_done():
    clock, stream = Clock(), io.StringIO()
    with track(3, description="benchmark", unit="prompt", stream=stream, clock=clock) as progress:
        for name in ("plain", "vanilla"):
            progress.doing(f"compiling {name}")
            clock.now += 12
        progress.advance()
        progress.doing("compiling plain")  # a log has had a line less than the interval ago
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        f"benchmark: prompt {what}" for what in ("0/3, compiling plain", "0/3, compiling vanilla", "1/3")
    ]
    assert len(lines) == 4
    drawn = Terminal()
    with track(3, description="benchmark", unit="prompt", stream=drawn, clock=clock) as progress:
        shown = []
        progress._show.line = lambda done, text, record: shown.append(text)
        for name in ("plain", "vanilla"):
            progress.doing(f"compiling {name}")
    assert [text.rpartition(" ")[2] for text in shown] == ["plain", "vanilla"]


def test_a_program_reads_the_same_as_json_and_quiet_is_quiet():
    voice.speak(log_format="json")
    try:
        clock, stream = Clock(), Terminal()
        with track(30, description="draft", stream=stream, clock=clock, initial=10) as progress:
            for _ in range(20):
                clock.now += 1
                progress.advance(loss=1.5, tokens=100)
        events = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [event["event"] for event in events] == ["resumed", "progress", "progress", "done"]
        assert events[2]["done"] == 21 and events[2]["seconds_left"] == 9 and events[2]["tokens_per_second"] == 100
        assert events[-1] | {"stage": "draft", "loss": 1.5, "total": 30, "seconds": 20} == events[-1]
        voice.speak(quiet=True)
        for stream in (Terminal(), io.StringIO()):
            with working("loading", stream=stream), track(3, description="draft", stream=stream) as progress:
                progress.advance()
            assert not stream.getvalue()
    finally:
        voice.speak()


LOOP = """
import time
from adaspec_jax.reporting import track, working
now = [0.0]
with working("compiling the steps of a stage", patience=0.01):
    time.sleep(0.1)
how = {"clock": lambda: now[0], "memory": lambda: 3 * 2**29, "initial": 100}
with track(1000, description="draft", **how) as progress:
    for _ in range(900):
        now[0] += 0.05
        progress.advance(loss=2.125, tokens=2000)
"""
COLOUR = r"\x1b\[[0-9;]*3[0-9]"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_in_a_terminal_of_any_width_no_figure_is_cut(columns):
    _, shown = in_a_terminal(LOOP, columns=columns)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= columns and "…" not in shown
    last = " ".join(line.strip() for line in lines[-4:])
    for figures in ("step 1000/1000", "loss 2.125", "steps/s", "tokens/s", "1.50 GiB", "took 45s"):
        assert figures in last, shown
    assert any("resumed at step 100" in line for line in lines) and ("━" in shown) == (columns >= 80)


def test_a_dumb_terminal_gets_plain_lines():
    _, shown = in_a_terminal(LOOP, TERM="dumb")
    assert "\x1b" not in shown and shown.startswith("compiling the steps of a stage ...\n")
    assert "draft: step 101/1000, loss 2.125, 1.50 GiB" in shown.splitlines()


def test_without_colour_there_is_none():
    assert re.search(COLOUR, in_a_terminal(LOOP)[1]) and not re.search(COLOUR, in_a_terminal(LOOP, NO_COLOR="1")[1])


def test_what_follows_a_loop_is_told_beside_its_own_time_and_in_json_too(monkeypatch):
    after = lambda done, seconds: None if done < 100 else 10 * seconds  # noqa: E731
    lines = run(600, 0.2, after=after)
    assert lines[1].endswith("5.0 steps/s, 1m50s left")
    assert lines[3].endswith("1m30s left, run: about 6 min left")  # after 30 s
    assert "run:" not in lines[-1]
    monkeypatch.setattr(voice, "speaks_json", lambda: True)
    records = [json.loads(line) for line in run(600, 0.2, after=after)]
    assert records[3]["run_seconds_left"] == pytest.approx(90 + 300, abs=1)
    assert "run_seconds_left" not in records[1] and "run_seconds_left" not in records[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "1 min"),
        (290, "5 min"),
        (700, "10 min"),
        (1500, "25 min"),
        (3900, "65 min"),
        (7700, "2 h"),
        (150_000, "42 h"),
    ],
)
def test_an_estimate_promises_no_more_digits_than_it_has(seconds, said):
    assert roughly(seconds) == said
