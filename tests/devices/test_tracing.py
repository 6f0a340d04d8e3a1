"""Regions have their names in compiled programs and in traces, and are no operations; the asked steps are traced."""

import contextlib
import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.config import Experiment, validate
from adaspec_jax.decoding import ChainDrafter, Context, Sampling, generate
from adaspec_jax.devices import tracing
from adaspec_jax.errors import UserError
from adaspec_jax.training import Batch, Frozen, adamw, init_state, make_step, objectives
from tests.tiny_pair import GPT_NEOX, TOKENS

DECODING, TRAINING = {"draft", "verify", "accept"}, {"loss", "select", "update"}


def tiny_pair():
    return [models.build(GPT_NEOX | {"vocab_size": TOKENS}, jax.random.key(seed)) for seed in (0, 1)]


def decoding():
    """The lowered program of a chain's rounds."""
    target, draft = tiny_pair()
    prompt = Context(jnp.array([[1, 2, 3]]), jnp.array([3]))
    how = {"max_new_tokens": 4, "sampling": Sampling(0.0), "eos_id": -1}

    def run(target, draft, key):
        return generate(target, ChainDrafter(draft, length=2), prompt, key, **how)

    return jax.jit(run).lower(target, draft, jax.random.key(0))


def training():
    """The lowered step of a selective distillation."""
    target, draft = tiny_pair()
    optimizer = adamw(lambda step: 1e-3)
    step = make_step(objectives.selective_distill(fraction=0.5), optimizer)
    batch = Batch(jnp.ones((2, 8), jnp.int32), jnp.ones((2, 8), bool))
    return step.lower(init_state(draft, optimizer, jax.random.key(0)), Frozen(target, draft), batch)


def regions(lowered):
    """Every part of every operation's name in the compiled program."""
    names = re.findall(r'op_name="([^"]*)"', lowered.compile().as_text())
    return {part for name in names for part in re.split(r"[/()]", name)}


@pytest.mark.parametrize(("program", "expected"), [(decoding, DECODING), (training, TRAINING)])
def test_compiled_programs_name_their_regions_and_do_nothing_more_for_it(program, expected, monkeypatch):
    lowered, named = program(), []
    assert expected <= regions(lowered)
    monkeypatch.setattr(jax, "named_scope", lambda name: named.append(name) or contextlib.nullcontext())
    jax.clear_caches()
    assert program().as_text() == lowered.as_text() and expected <= set(named)


def counting_step(seen):
    def step(state, add):
        seen.append(int(state.step) + 1)
        return SimpleNamespace(step=state.step + 1), {"sum": jnp.sum(jnp.arange(8)) + add}

    return step


@pytest.mark.parametrize(
    ("asked", "begun_at", "stops_at", "traced"),
    [
        (range(3, 6), 0, 9, (3, 5)),  # as asked
        (range(3, 6), 4, 9, (5, 5)),  # resumed in the middle
        (range(3, 6), 0, 4, (3, 4)),  # stopped in the middle
        (range(3, 6), 7, 9, None),  # over
        (None, 0, 9, None),
    ],
)
def test_the_asked_steps_are_traced_and_no_others(asked, begun_at, stops_at, traced, monkeypatch, tmp_path):
    events, seen, told = [], [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place, **_: events.append(("on", len(seen))))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append(("off", len(seen))))
    state = SimpleNamespace(step=np.int32(begun_at))
    with tracing.tracing_steps(counting_step(seen), asked, tmp_path, told=told.append) as step:
        for _ in range(begun_at, stops_at):
            state, _ = step(state, 1)
    assert seen == list(range(begun_at + 1, stops_at + 1))
    expected = [] if traced is None else [("on", traced[0] - 1 - begun_at), ("off", traced[1] - begun_at)]
    assert events == expected
    assert len(told) == (traced is not None and traced[1] == 5)


def test_a_trace_is_written_for_a_browser_and_holds_the_steps(tmp_path):
    state = SimpleNamespace(step=np.int32(0))
    with tracing.tracing_steps(counting_step([]), range(2, 4), tmp_path, told=print) as step:
        for _ in range(5):
            state, _ = step(state, 1)
    (file,) = Path(tmp_path).rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert {event["args"].get("step_num") for event in events if event.get("name") == "step"} == {"2", "3"}


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("draft:100-110", None),
        ("", None),
        ("draft", "give a stage and its first and last step, as in draft:100-110"),
        ("draft:0-4", "give a stage"),
        ("draft:9-4", "give a stage"),
        ("drafft:1-4", 'did you mean "draft"'),
        ("qualifier:1-4", "qualifier.epochs is 0"),
    ],
)
def test_a_profile_that_cannot_be_is_one_line(profile, says):
    config = Experiment()
    config.profile = profile
    with contextlib.nullcontext() if says is None else pytest.raises(UserError, match=says):
        validate(config)


def test_a_file_in_the_traces_place_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; name a directory"), tracing.traced(tmp_path / "file"):
        pytest.fail("the block was run")
