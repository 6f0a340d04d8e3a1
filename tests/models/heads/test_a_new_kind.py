"""A new kind of head is one file: stage, methods, directory and drafter follow from it."""

import importlib
import sys

import jax
import numpy as np
import pytest

from adaspec_jax import models, pipeline
from adaspec_jax.decoding import NoDraft, Sampling, generate
from adaspec_jax.methods import Given
from adaspec_jax.models import heads
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import distill_head
from tests.decoding.drafters.heads import VOCAB, target, texts
from tests.decoding.test_engine import ragged_prompt
from tests.pipeline.test_heads import with_head

FILE = '''
"""Two guesses further on, of which the second alone reads the token between."""

from dataclasses import dataclass

from adaspec_jax.models.heads.parts.several import Several


@dataclass(frozen=True, kw_only=True)
class Late(Several):
    name = "late"
    paper = "none"

    heads: int = 2
    blocks: int = 2
    hard: bool = False

    def pieces(self, i: int) -> int:
        return i


KIND = Late
'''


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """The methods of heads, with the new kind's among them."""
    (tmp_path / "late.py").write_text(FILE)
    monkeypatch.setattr(heads, "__path__", [*heads.__path__, str(tmp_path)])
    heads.kinds.cache_clear()
    found = importlib.import_module("adaspec_jax.methods.heads")
    yield {method.name: method for method in importlib.reload(found).HEADS}
    monkeypatch.undo()
    heads.kinds.cache_clear()
    sys.modules.pop("adaspec_jax.models.heads.late", None)
    importlib.reload(found)


def test_a_run_trains_it_by_its_name(rows, few_costs, tmp_path):
    config = with_head("late", "heads=2,hard=true")
    config.data.num_train = 24
    report = pipeline.run(config, tmp_path / "run")
    target = models.load(tmp_path / "run" / "target").with_vocabulary(320)
    for stage in ("reference", "draft"):
        kept = models.load_head(tmp_path / "run" / stage, target)
        assert type(kept.config).__name__ == "Late" and kept.config.guesses == 2
    assert report["drafts"]["draft"]["judged"] > 0 and report["speed"]["draft_length"] == 2
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]


def test_it_is_trained_kept_and_decoded(rows, tmp_path):
    assert "late" in heads.kinds() and {"late", "late_chain", "late_typical"} <= set(rows)
    kind = heads.made_for("late", {}, heads.Sizes.of(target().config))
    head = heads.new(kind, target(), jax.random.key(0), np.zeros(VOCAB))
    batch = Batch(texts(), np.ones(texts().shape, bool))
    loss, metrics = distill_head()(head, Frozen(target=target()), batch)
    assert float(loss) > 0 and 0 < float(metrics["acceptance"]) < 1
    models.save_head(head, tmp_path / "kept")
    kept = models.load_head(tmp_path / "kept", target())
    jax.tree.map(np.testing.assert_array_equal, kept.params, head.params)
    how = {"max_new_tokens": 12, "sampling": Sampling(0.0), "eos_id": -1}
    prompt = ragged_prompt(4, vocab=VOCAB)
    plain = generate(target(), NoDraft(), prompt, jax.random.key(1), **how)
    for name in ("late", "late_chain"):
        drafter = rows[name].make(Given(target=target(), heads={"kept": kept}))
        ours = generate(target(), drafter, prompt, jax.random.key(1), **how)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
