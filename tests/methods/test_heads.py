"""Methods of heads: a row for every kind there is, found by the kind's own shape, and directories that hold a head."""

import json
import re

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, NoDraft, Sampling, Typical, generate
from adaspec_jax.decoding.drafters.target.adapter import AdapterDrafter
from adaspec_jax.decoding.drafters.target.blocks import BlockDrafter
from adaspec_jax.decoding.drafters.target.collapse import FrameTree
from adaspec_jax.decoding.drafters.target.coupled import CoupledChain, CoupledGrowth
from adaspec_jax.decoding.drafters.target.features import FeatureDrafter, FeatureGrowth, FeatureTree
from adaspec_jax.decoding.drafters.target.look_ahead import LookAheadDrafter
from adaspec_jax.decoding.drafters.target.parallel_heads import ParallelChain, ParallelTree
from adaspec_jax.decoding.drafters.target.sequential_heads import SequentialChain, SequentialTree
from adaspec_jax.decoding.drafters.target.slots import SlotChain, SlotTree
from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, Given, load_drafter, method_for
from adaspec_jax.methods import heads as methods_of_heads
from adaspec_jax.methods.heads import HEADS, chain_of
from adaspec_jax.models.heads.eagle import Eagle
from adaspec_jax.models.heads.kangaroo import Kangaroo
from adaspec_jax.models.heads.medusa import Medusa
from tests.decoding.drafters.heads import KNOBS, VOCAB, target, untrained
from tests.decoding.test_engine import ragged_prompt

NAMES = [method.name for method in HEADS]
OF_EACH = {
    "amphista": (SlotTree, 61),
    "amphista_chain": (SlotChain, 3),
    "amphista_typical": (SlotTree, 61),
    "ctc": (FrameTree, 63),
    "ctc_chain": (FeatureDrafter, 5),
    "eagle": (FeatureTree, 25),
    "eagle2": (FeatureGrowth, 59),
    "eagle_chain": (FeatureDrafter, 5),
    "eagle3": (FeatureGrowth, 59),
    "eagle3_chain": (FeatureDrafter, 5),
    "mtp": (FeatureGrowth, 59),
    "mtp_chain": (FeatureDrafter, 5),
    "dflash": (BlockDrafter, 3),
    "p_eagle": (BlockDrafter, 3),
    "falcon": (CoupledGrowth, 59),
    "falcon_chain": (CoupledChain, 5),
    "pass": (LookAheadDrafter, 4),  # three slots, and the target's own next token
    "kangaroo": (AdapterDrafter, 6),
    "kangaroo_chain": (AdapterDrafter, 5),
    "medusa": (ParallelTree, 61),  # of 63, with three heads of four
    "medusa_chain": (ParallelChain, 3),
    "medusa_typical": (ParallelTree, 61),
    "vadusa": (ParallelTree, 61),
    "hydra": (SequentialTree, 61),
    "hydra_chain": (SequentialChain, 3),
    "hydra_typical": (SequentialTree, 61),
    "hydra_plus": (SequentialTree, 61),
    "hydra_plus_chain": (SequentialChain, 3),
    "hydra_plus_typical": (SequentialTree, 61),
}


@pytest.fixture(scope="module")
def given():
    return Given(target=target(), heads={name: untrained(name, target(), spread=0.1) for name in KNOBS})


def test_every_kind_has_its_rows_with_the_papers_trees(given):
    assert set(OF_EACH) == set(NAMES)
    for name, (drafter, nodes) in OF_EACH.items():
        made = METHODS[name].make(given)
        assert type(made) is drafter and made.num_nodes == nodes, name
    four = Given(target=target(), heads={"m": untrained("medusa", target(), heads=5)})
    assert METHODS["medusa"].make(four).num_nodes == 63
    assert METHODS["medusa"].set(depth="2").make(four).num_nodes == 38
    assert METHODS["eagle"].set(depth="2").make(given).num_nodes == 12
    narrow = METHODS["eagle2"].set(least="0.01", budget="20").make(given)
    assert narrow.widths == (5, 10) and METHODS["eagle2"].make(given).widths == ()


def test_a_new_kind_gets_its_rows_by_its_shape_alone():
    one, other = type("One", (Eagle,), {"name": "one"}), type("Other", (Medusa,), {"name": "other"})
    assert [row.name for row in methods_of_heads._rows(one)] == ["one", "one_chain"]
    early = type("Early", (Kangaroo,), {"name": "early"})
    assert [row.name for row in methods_of_heads._rows(early)] == ["early", "early_chain"]
    assert [row.name for row in methods_of_heads._rows(other)] == ["other", "other_chain", "other_typical"]
    assert methods_of_heads._rows(other)[0].lacks(Given(target=None)) == "needs a head of the kind other (--draft DIR)"


@pytest.mark.parametrize("name", ["eagle", "eagle2", "medusa_typical", "vadusa", "hydra_plus"])
def test_greedy_text_is_plain_decodings_with_the_papers_numbers(given, name):
    method, how = METHODS[name], {"max_new_tokens": 12, "sampling": Sampling(0.0), "eos_id": -1}
    prompt, key = ragged_prompt(4, vocab=VOCAB), jax.random.key(0)
    ours = generate(target(), method.make(given), prompt, key, accept=method.accept, **how)
    plain = generate(target(), NoDraft(), prompt, key, **how)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)


def test_typical_acceptance_has_its_numbers_as_knobs():
    method = METHODS["medusa_typical"]
    assert method.accept == Typical(0.09, 0.3) and not method.lossless
    assert method.set(epsilon="0.2").accept == Typical(0.2, 0.3)


def test_a_method_takes_one_head_of_its_kind(given):
    two = Given(target=target(), heads={"a": untrained("eagle", target()), **given.heads})
    assert METHODS["eagle"].heads_in(two) == ["a", "eagle"] and METHODS["eagle3"].heads_in(two) == ["eagle3"]
    assert METHODS["plain"].heads_in(two) == []
    with pytest.raises(UserError, match="the method eagle takes one head, and a and eagle are of its kind"):
        METHODS["eagle"].make(two)
    lacking = Given(target=target(), heads={"a": given.heads["eagle3"]})
    assert METHODS["eagle2"].lacks(lacking) == "needs a head of the kind eagle (--draft DIR)"
    with pytest.raises(UserError, match=r"given: a \(a head of the kind eagle3\)"):
        METHODS["eagle2"].make(lacking)
    assert METHODS["kangaroo"].set(threshold="0.4", length="4").make(given).widths == (1, 2)
    with pytest.raises(UserError, match="depth is 6; the tree has levels 1 to 5"):
        METHODS["eagle"].set(depth=6).make(given)


def test_heads_change_with_the_target_that_they_read(given):
    changed = given.changed(lambda model: model.astype("bfloat16"))
    made = METHODS["eagle"].make(changed)
    assert made.head.head.dtype == made.head.target.dtype == "bfloat16"
    np.testing.assert_array_equal(
        made.head.target.params["embed"]["embedding"], changed.target.params["embed"]["embedding"]
    )


def test_a_chain_of_whatever_drafts(given):
    plain = chain_of(target(), target(), 4)
    assert isinstance(plain, ChainDrafter) and plain.length == 4 and plain.model is target()
    assert isinstance(chain_of(given.heads["eagle3"], target(), 4), FeatureDrafter)
    assert chain_of(given.heads["hydra"], target(), 16).length == 3


def test_a_directory_says_which_head_it_holds(given, tmp_path):
    models.save_head(given.heads["eagle3"], tmp_path)
    drafter = load_drafter(str(tmp_path), length=3, target=target())
    assert isinstance(drafter, FeatureDrafter) and drafter.length == 3
    assert drafter.head.head.config == given.heads["eagle3"].config
    assert method_for([str(tmp_path)]) == "eagle3_chain" and method_for([]) == "plain"
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} holds a head of the kind eagle3, which guesses from")):
        load_drafter(str(tmp_path))
    (tmp_path / "drafter.json").write_text(json.dumps({"kind": "meduza"}))
    with pytest.raises(UserError, match='the kind "meduza"; did you mean "medusa"'):
        load_drafter(str(tmp_path), target=target())
