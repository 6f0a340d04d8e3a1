"""One run per family, from fitting its target to a draft that PyTorch decodes with as we do."""

import dataclasses

import jax
import numpy as np
import pytest

from adaspec_jax import models, parity, pipeline
from adaspec_jax.config import Tokenizer, architecture_of
from adaspec_jax.reporting import read_metrics
from tests.models.conftest import TINY_OF
from tests.pipeline.test_pipeline import FEW, experiment
from tests.running import some

WINDOW = 40  # shorter than every text here
SIZES = {"vocab_size": 320, "max_position_embeddings": 256, "initializer_range": 0.1, "pad_token_id": 0}


def architecture(family, **keys):
    longer = {"n_positions": SIZES["max_position_embeddings"]} if "n_positions" in TINY_OF[family] else {}
    windows = {"sliding_window": WINDOW} if "sliding_window" in TINY_OF[family] else {}
    hf = TINY_OF[family] | SIZES | longer | windows | keys
    return architecture_of({key: value for key, value in hf.items() if key != "eos_token_id"})


def run_of(family):
    config = experiment()
    config.target.architecture = architecture(family)
    narrow = {"n_layer": 1} if "n_layer" in TINY_OF[family] else {"num_hidden_layers": 1}
    config.draft.architecture = architecture(family, **narrow)
    config.target.epochs, config.reference.epochs, config.draft.epochs = 4, 2, 2
    knobs = FEW | {"num_prompts": 6, "max_new_tokens": 24}
    return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **knobs))


@pytest.mark.parametrize("family", some(sorted(TINY_OF)))
def test_a_run_of_a_family_learns_exports_and_has_its_certificate(family, tmp_path):
    pytest.importorskip("torch")
    report = pipeline.run(run_of(family), tmp_path / "run")
    for stage in ("target", "reference", "draft"):
        losses = [row["loss"] for row in read_metrics(tmp_path / "run" / stage / "metrics.jsonl")]
        assert losses[-1] < losses[0] and np.isfinite(losses).all()
    assert all(report["speed"][name]["identical_to_plain"] == 6 for name in report["drafts"])
    fitted = models.load(tmp_path / "run" / "target").config
    assert fitted.model_type == family and (WINDOW in fitted.windows) == ("sliding_window" in TINY_OF[family])
    found = parity.certificate(tmp_path / "run", num_prompts=6)
    assert found["passed"], found


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(TINY_OF))
def test_a_target_fitted_by_low_rank_updates_has_a_head_on_its_features(family, tmp_path):
    config = run_of(family)
    config.reference.epochs = config.draft.epochs = 1
    pipeline.run(config, tmp_path / "before")
    config = run_of(family)
    config.target = dataclasses.replace(config.target, init=str(tmp_path / "before" / "target"), epochs=1, lora_rank=2)
    config.tokenizer = Tokenizer(init=str(tmp_path / "before" / "tokenizer"))
    config.draft = dataclasses.replace(config.draft, architecture=None, kind="eagle3", head="steps=2", epochs=1)
    report = pipeline.run(config, tmp_path / "run")
    before, after = (models.load(tmp_path / name / "target") for name in ("before", "run"))
    assert before.config == after.config
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), before.params, after.params)
    assert any(jax.tree.leaves(moved["layers_0"]["attention"])) and not all(jax.tree.leaves(moved))
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert all(report["speed"][name]["identical_to_plain"] == 6 for name in report["drafts"])
