"""What lies in a workdir is asked by one process for all: answers that differ would part them before a collective."""

import dataclasses
import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from adaspec_jax import data, pipeline
from adaspec_jax.config import Answers
from adaspec_jax.data import token_store
from adaspec_jax.devices import processes
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.training import Checkpoints
from tests.pipeline.test_arms import short
from tests.running import slow

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
QUESTIONS = {
    Workdir: [
        *("claim", "finished_report", "finished", "trained_on", "decision", "weights_sha256", "vocab_size"),
        *("draft_length", "begin", "decide", "finish"),
    ],
    data.TokenStore: ["begin", "check_room", "holds", "bytes_missing"],
}
OF_A_PATH = ("is_file", "is_dir", "exists", "iterdir", "glob", "read_text", "stat")


@pytest.fixture
def asked_alone(monkeypatch):
    """What was asked of the disk outside `processes.once`, where every process asks for itself."""
    found, depth = [], [0]
    real = processes.once

    def once(function):
        depth[0] += 1
        try:
            return real(function)
        finally:
            depth[0] -= 1

    def watch(owner, name, by_ours=False):
        kept = getattr(owner, name)

        def watched(*args, **kwargs):
            caller = sys._getframe(1).f_globals["__name__"]
            if not depth[0] and (not by_ours or caller.startswith("adaspec_jax.pipeline")):
                found.append(f"{name} by {caller}")
            return kept(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for owner, names in QUESTIONS.items():
        for name in names:
            watch(owner, name)
    for name in OF_A_PATH:
        watch(Path, name, by_ours=True)
    for module in (data, token_store):
        watch(module, "free_bytes")
    latest = ocp.training.Checkpointer.latest.fget

    def watched_latest(checkpointer):
        if not depth[0]:
            found.append("the newest checkpoint")
        return latest(checkpointer)

    monkeypatch.setattr(ocp.training.Checkpointer, "latest", property(watched_latest))
    monkeypatch.setattr(processes, "once", once)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "auto", "answers": Answers(source="target", max_new_tokens=8)},
        slow({"teacher": "top_k", "teacher_top_k": 4}),
        slow({"teacher": "auto", "answers": Answers(source="mixed", max_new_tokens=8)}),
    ],
    ids=["auto on the target's answers", "top_k", "on the way"],
)
def test_no_process_asks_the_disk_for_itself(tmp_path, asked_alone, changes):
    config = short(**changes)
    config.reference.equal_data = True
    arms = {"random_0.4": dataclasses.replace(config.draft, selection="random")}
    pipeline.run(config, tmp_path / "run", arms)
    (tmp_path / "run" / "draft" / "stage.json").unlink()
    pipeline.run(config, tmp_path / "run", arms)  # restores the others
    assert set(asked_alone) == set()


def test_all_processes_go_on_from_the_checkpoint_that_the_first_one_finds(tmp_path, monkeypatch):
    state = {"a": jnp.arange(3.0)}
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state, {"next_index": step})
    checkpoints.close()
    monkeypatch.setattr(processes, "once", lambda function: min(function(), 1))  # the first process has seen step 1
    assert Checkpoints(tmp_path).restore(state)[0] == 1
    monkeypatch.setattr(processes, "once", lambda function: None)  # or nothing yet
    assert not Checkpoints(tmp_path).any and Checkpoints(tmp_path).restore(state) is None


def test_a_process_takes_the_blocks_of_a_store_that_the_first_one_has_to_write(tmp_path, monkeypatch):
    """Its own view of the directory may be older, or newer; the column is whole for all when the last block is."""
    tokens = partial(np.arange, dtype=np.int32)
    rows = [data.Encoded(tokens(length), 1) for length in (3, 4, 5, 6)]
    first, second = (data.TokenStore(tmp_path, rows, rows_per_block=2) for _ in range(2))
    column = {"shape": (), "dtype": "float32"}
    blocks = first.begin("x", **column, origin={})
    for number in blocks:
        first.write("x", number, [tokens(len(rows[i].tokens) - 1) for i in first.blocks[number]])
    second.begun_elsewhere("x", blocks, **column)  # though the files are there by now
    assert second.padded([0], 8) == {}
    for number in blocks:
        second.written_elsewhere("x", number)
    assert second.padded([0], 8)["x"].tolist() == first.padded([0], 8)["x"].tolist()
