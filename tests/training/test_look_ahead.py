"""PaSS's training: slots at drawn places of a text are what decoding meets there, and one step read in PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.config import Draft, Experiment, Llama, Target, validate
from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from adaspec_jax.models.heads.parts.look_ahead import OnSlots
from adaspec_jax.training import Batch, Frozen
from adaspec_jax.training.objectives import Now, distill_ahead, distill_head
from adaspec_jax.training.objectives.look_ahead import cut_at
from tests.models.conftest import shaken
from tests.running import some

VOCABULARY, LENGTH, SLOTS = 24, 13, 3
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 64}
FAMILIES = {
    "llama": {"model_type": "llama"} | SIZES,
    "windows": {"model_type": "mistral", "sliding_window": 4} | SIZES,
    "gpt2": {"model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    | {"initializer_range": 0.3},
}


def a_target(family="llama"):
    return models.build(FAMILIES[family], jax.random.key(0))


def a_head(target, **knobs):
    kind = heads.made_for("pass", {"slots": SLOTS} | knobs, heads.Sizes.of(target.config))
    return heads.Head(shaken(heads.new(kind, target, jax.random.key(1), np.zeros(VOCABULARY)).params, 1), kind)


@pytest.fixture(scope="module")
def batch():
    tokens_BT = jax.random.randint(jax.random.key(2), (3, LENGTH), 0, VOCABULARY)
    return Batch(tokens_BT, jnp.asarray(np.arange(LENGTH)[None] >= np.asarray([[3], [1], [10]])))


@pytest.mark.parametrize("family", some(FAMILIES, "windows"))
def test_slots_after_every_place_are_what_decoding_meets_there(family, batch):
    """The last token and the slots behind it, in a cache of what came before."""
    target = a_target(family)
    head, tokens_1T = a_head(target), batch.tokens_BT[:1]
    made, on = head.guessed(target, tokens_1T, jnp.zeros((1, LENGTH, 16))), OnSlots(head, target)
    whole_1TV, _ = target(tokens_1T)
    for t in (0, 7):
        cache = target.init_cache(1, 32)
        if t:
            _, cache = target(tokens_1T[:, :t], cache)
        logits_1NV, after = on.ahead(tokens_1T[:, t : t + 1], cache.roll_back(jnp.array([t])), SLOTS)
        assert after.lengths_B.tolist() == [t + 1 + SLOTS]
        np.testing.assert_allclose(logits_1NV[:, 0], whole_1TV[:, t], atol=2e-5)
        for i in range(SLOTS):
            np.testing.assert_allclose(logits_1NV[:, 1 + i], head.logits(target, made[i])[:, t], atol=2e-5)


def test_a_slot_begins_as_the_mean_of_the_tokens_embeddings():
    target = a_target().with_vocabulary(VOCABULARY - 2)
    kind = heads.made_for("pass", {}, heads.Sizes.of(target.config))
    head = heads.new(kind, target, jax.random.key(0), np.zeros(VOCABULARY))
    mean_D = np.asarray(target.params["embed"]["embedding"])[: VOCABULARY - 2].mean(0)
    np.testing.assert_allclose(head.params["ahead"]["embedding"], np.tile(mean_D, (4, 1)), rtol=1e-5)
    assert head.num_params == 4 * 16


def test_places_are_drawn_anew_at_every_step_where_a_label_is_guessed(batch):
    found = [np.asarray(cut_at(batch, 4, jax.random.key(seed))) for seed in range(10)]
    for places_BT in found:
        assert places_BT.sum(axis=1).tolist() == [4, 4, 3]
        for b, t in zip(*np.nonzero(places_BT), strict=True):
            assert t + 2 < LENGTH and batch.loss_mask_BT[b, t + 2]
    assert len({each.tobytes() for each in found}) == 10


def test_the_loss_at_some_places_is_that_of_slots_everywhere_counted_there(batch):
    target = a_target()
    head, reference = a_head(target, cuts=4), heads.new(a_head(target).config, target, jax.random.key(5), None)
    now = Now(jnp.int32(3), jax.random.key(3))
    frozen = Frozen(target=target, reference=reference, now=now)
    places_BT = cut_at(batch, 4, jax.random.fold_in(now.key, 3))
    everywhere = dataclasses.replace(head, config=dataclasses.replace(head.config, cuts=LENGTH))
    for how in ({}, {"fraction": 0.4}):
        ours, metrics = distill_ahead(**how)(head, frozen, batch)
        theirs, _ = distill_head(**how)(everywhere, frozen, dataclasses.replace(batch, places_BT=places_BT))
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
        assert metrics["tokens"] == 11 and ("share_kept" in metrics) == bool(how)


def test_loss_and_gradient_norm_of_a_step_are_those_of_a_reading_in_pytorch(batch, tmp_path):
    """By transformers' own Llama: each text cut off, its slots behind it, one after another."""
    torch = pytest.importorskip("torch", reason="torch is not installed (the `test` extra has it)")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (the `test` extra has it)")
    target = a_target()
    models.save(target, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    head = a_head(target, cuts=LENGTH)

    def ours(params):
        return distill_ahead()(dataclasses.replace(head, params=params), Frozen(target=target), batch)[0]

    loss, gradient = jax.jit(jax.value_and_grad(ours))(head.params)
    slots = torch.tensor(np.asarray(head.params["ahead"]["embedding"]), dtype=torch.float64).requires_grad_()
    tokens_BT, lags = torch.tensor(np.array(batch.tokens_BT)).long(), [[] for _ in range(SLOTS)]
    with torch.no_grad():
        law_BTV = torch.log_softmax(theirs(tokens_BT).logits, -1)
        embedded_BTD = theirs.get_input_embeddings()(tokens_BT)
    for b in range(3):
        for t in range(LENGTH):
            logits = theirs(inputs_embeds=torch.cat([embedded_BTD[b, : t + 1], slots])[None]).logits[0, t + 1 :]
            for i in range(SLOTS):
                label = t + 2 + i
                if t + 2 < LENGTH and batch.loss_mask_BT[b, t + 2] and label < LENGTH and batch.loss_mask_BT[b, label]:
                    law = law_BTV[b, label - 1]
                    lags[i].append((law.exp() * (law - torch.log_softmax(logits[i], -1))).sum())
    expected = sum(torch.stack(each).mean() for each in lags) / SLOTS
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    assert float(jnp.linalg.norm(gradient["ahead"]["embedding"])) == pytest.approx(float(slots.grad.norm()), rel=1e-4)
    np.testing.assert_allclose(gradient["ahead"]["embedding"], slots.grad, atol=1e-5)


def test_what_a_run_cannot_have_is_refused_in_a_line():
    sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    target = Target(architecture=Llama(**sizes, num_key_value_heads=4, intermediate_size=64))
    for changes, key in (({"teacher": "hidden"}, 'teacher is "hidden"'), ({"teacher_store": "x"}, "teacher_store is")):
        with pytest.raises(UserError, match=f'{key}.*draft.kind "pass" runs the whole target at every step'):
            validate(Experiment(target=target, draft=Draft(kind="pass"), **changes))
    with pytest.raises(UserError, match='a head of the kind "pass": slots is 0; it must be at least 1'):
        a_head(a_target(), slots=0)
