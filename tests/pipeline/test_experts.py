"""A mixture of experts as the target of a dense draft, through the whole pipeline, on one device and on eight."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from adaspec_jax import models, pipeline
from adaspec_jax.config import Data, Draft, Evaluation, Experiment, Mesh, Qwen3, Qwen3Moe, Reference, Target, Tokenizer
from adaspec_jax.reporting import read_metrics

STAGES = ("target", "reference", "draft")


def experiment(**keys):
    fit = {"batch_size": 8, "lr": 5e-3}
    shape = {"vocab_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"max_position_embeddings": 256, "initializer_range": 0.1, "hidden_size": 32, "head_dim": 8}
    experts = Qwen3Moe(moe_intermediate_size=24, num_experts=8, num_experts_per_tok=3, **shape)
    dense = Qwen3(intermediate_size=48, **shape)
    return Experiment(
        data=Data(task="word_problems", num_train=32, num_evaluation=8, max_length=256, buckets=(256,)),
        tokenizer=Tokenizer(init="train", vocab_size=320),
        target=Target(architecture=experts, epochs=2, **fit),
        reference=Reference(epochs=2, **fit),
        draft=Draft(architecture=dense, epochs=2, fraction=0.5, **fit),
        evaluation=Evaluation(num_prompts=8, batch_size=8, draft_length=3, max_new_tokens=24, resamples=50),
        teacher="hidden",
        **{"mesh": Mesh(data=1), **keys},
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    directory = tmp_path_factory.mktemp("experts") / "one"
    return directory, pipeline.run(experiment(), directory)


def losses(directory):
    return {name: [row["loss"] for row in read_metrics(directory / name / "metrics.jsonl")] for name in STAGES}


def test_every_stage_learns_and_decoding_is_lossless(one):
    directory, report = one
    for of_stage in losses(directory).values():
        assert of_stage[-1] < of_stage[0]
    assert all(report["speed"][name]["identical_to_plain"] == 8 for name in report["drafts"])
    hf = json.loads((directory / "target" / "config.json").read_text())
    assert hf["num_experts"] == hf["num_local_experts"] == 8
    begun, fitted = models.build(hf, jax.random.key(0)), models.load(directory / "target")
    assert begun.config == fitted.config


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_find_the_losses_and_the_tokens_of_one(one, tmp_path, shape):
    mesh = Mesh(*shape)
    report = pipeline.run(experiment(mesh=mesh), tmp_path / "run")
    for name, expected in losses(one[0]).items():
        np.testing.assert_allclose(losses(tmp_path / "run")[name], expected, rtol=2e-4, err_msg=name)
    for name, entry in report["drafts"].items():
        same = one[1]["drafts"][name]
        assert (entry["accepted"], entry["judged"]) == (same["accepted"], same["judged"])
        assert report["speed"][name]["identical_to_plain"] == 8


def test_low_rank_updates_leave_routers_and_experts_as_they_were(one, tmp_path):
    config = experiment()
    config = dataclasses.replace(
        config,
        target=dataclasses.replace(config.target, init=str(one[0] / "target"), epochs=1, lora_rank=2),
        tokenizer=Tokenizer(init=str(one[0] / "tokenizer")),
    )
    pipeline.run(config, tmp_path / "run")
    before, after = (models.load(directory / "target").params["layers_0"] for directory in (one[0], tmp_path / "run"))
    assert all(np.array_equal(before["mlp"][a][b], after["mlp"][a][b]) for a in before["mlp"] for b in before["mlp"][a])
    assert not np.array_equal(before["attention"]["q"]["kernel"], after["attention"]["q"]["kernel"])
