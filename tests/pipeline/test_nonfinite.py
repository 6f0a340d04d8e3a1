"""A stage whose loss is no number any more leaves behind what it takes to look into it."""

import json

import jax
import numpy as np

from adaspec_jax import models
from tests.running import command_line

SIZES = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
TINY = {f"target.architecture.{key}": value for key, value in SIZES.items()} | {
    "data.num_train": 48,
    "data.buckets": "(256,)",
    "tokenizer.vocab_size": 320,
    "draft.architecture.vocab_size": 320,
    "target.batch_size": 8,
    "target.lr": 1000,  # the logits of the second step are far apart, and those of a later one overflow
    "target.eps": 1,
    "target.clip_norm": 0,
    "checkpoint_every": 3,
}


def train(capsys, monkeypatch, workdir, **overrides):
    settings = [f"--config.{key}={value}" for key, value in (TINY | overrides).items()]
    where = ("--config", "configs/quickstart.py", "--workdir", workdir)
    return command_line(capsys, monkeypatch, "train", *where, *settings)


def test_the_batch_and_the_last_good_model_are_there_and_the_run_may_go_on_without_such_batches(
    capsys, monkeypatch, tmp_path
):
    status, _, said = train(capsys, monkeypatch, tmp_path / "run")
    place = tmp_path / "run" / "target" / "nonfinite"
    complaint = said.strip().splitlines()[-1]
    assert status == 2 and str(place) in complaint and "--config.nonfinite=skip" in complaint, said
    about = json.loads((place / "step.json").read_text())
    assert f"at step {about['step']};" in complaint and None in (about["loss"], about["grad_norm"])
    model = models.load(place)
    # The model is that of the steps before: the one that a checkpoint there holds.
    train(capsys, monkeypatch, tmp_path / "other", checkpoint_every=about["step"] - 1)
    assert (tmp_path / "other" / "target" / "checkpoints" / str(about["step"] - 1)).is_dir()
    before = models.load(tmp_path / "other" / "target" / "nonfinite")
    jax.tree.map(np.testing.assert_array_equal, model.params, before.params)
    with np.load(place / "batch.npz") as batch:
        assert batch["tokens_BT"].shape == (8, 256) and batch["loss_mask_BT"].any()

    status, out, said = train(capsys, monkeypatch, tmp_path / "run", nonfinite="skip", most_skipped=1)
    left_out = [line for line in out.splitlines() if "is left out: its loss is" in line]
    assert status == 2 and left_out[0].startswith("target: step "), out  # another program rounds otherwise
