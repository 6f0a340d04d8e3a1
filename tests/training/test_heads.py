"""Heads on a target's features: what they minimise, against plain readings of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.recurrent import OnTarget
from adaspec_jax.training import Batch, Chunking, Frozen
from adaspec_jax.training.objectives import Now, distill_head
from adaspec_jax.training.selection import bottom, random, rejected, select_top_fraction
from tests.running import slow

VOCABULARY, LENGTH, ROWS = 24, 17, 4
LLAMA = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24}
LLAMA |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
LLAMA |= {"initializer_range": 0.3}
KINDS = {
    "eagle": {"noise": 0.0},
    "eagle unrolled": {"noise": 0.0, "steps": 2, "decay": 0.5},
    "eagle3": {"steps": 3, "vocabulary": 15},
    "eagle3 normed": {"steps": 2, "norm_fused": True, "norm_output": True},
    "kangaroo": {"exit_layer": 2},
    "medusa": {"heads": 2},
    "hydra": {"heads": 3, "hard": False},
    "hydra_plus": {"heads": 2, "blocks": 2},
    "mtp": {},
    "amphista": {"heads": 3, "blocks": 2},
    "ctc": {"noise": 0.0, "alignment": 0.0, "blank": 0},
    "falcon": {"noise": 0.0},
    "pass": {"slots": 3},
    "falcon unrolled": {"noise": 0.0, "block": 3, "steps": 2, "linear": True},
}


@pytest.fixture(scope="module")
def target():
    return models.build(LLAMA, jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    tokens_BT = jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, VOCABULARY)
    labels_BT = np.zeros((ROWS, LENGTH), bool)
    for row, (start, end) in enumerate([(3, 17), (6, 12), (1, 17), (8, 15)]):
        labels_BT[row, start:end] = True
    return Batch(tokens_BT, jnp.asarray(labels_BT))


def a_head(target, name, seed=2, spread=0.3, **knobs):
    """An untrained head, moved away from its beginning, where much is zero."""
    kind = heads.made_for(name.split()[0], KINDS.get(name, {}) | knobs, heads.Sizes.of(target.config))
    head = heads.new(kind, target, jax.random.key(seed), np.arange(VOCABULARY) % 7)
    leaves, structure = jax.tree.flatten(head.params)
    keys = jax.random.split(jax.random.key(seed + 100), len(leaves))
    moved = [x + spread * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return dataclasses.replace(head, params=jax.tree.unflatten(structure, moved))


def minimised(objective, head, frozen, batch):
    """(loss, metrics, gradient by parameter)."""

    def loss(params):
        return objective(dataclasses.replace(head, params=params), frozen, batch)

    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(head.params)
    return value, metrics, gradient


def close(ours, theirs, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=2e-4), ours, theirs)


def plain_reading(target, head, batch, kept=None):
    """The loss by loops over rows and positions; `kept(i)` [B, T]: labels selected for term i."""
    kind, total = head.config, 0.0
    tokens, labels = np.asarray(batch.tokens_BT), np.asarray(batch.loss_mask_BT)
    features = heads.features_of(target, batch.tokens_BT, kind.layers)
    last, _ = target.features(batch.tokens_BT)
    law = np.asarray(jax.nn.log_softmax(target.unembed(last)), np.float64)
    guessed = head.guessed(target, batch.tokens_BT, features)
    for i, (term, hidden) in enumerate(zip(kind.terms, guessed, strict=True)):
        logits = np.asarray(head.logits(target, hidden, i), np.float64)
        columns = np.arange(VOCABULARY) if head.tables is None else np.asarray(head.tables["kept"])
        of_law, of_features, count = 0.0, 0.0, 0
        for b in range(ROWS):
            for t in range(LENGTH):
                label = t + term.shift + 1
                if label >= LENGTH or not labels[b, label] or not (kept is None or kept(i)[b, t]):
                    continue
                count += 1
                q = logits[b, t] - np.log(np.exp(logits[b, t]).sum())
                p = law[b, t + term.shift]
                if kind.hard:
                    of_law -= q[list(columns).index(tokens[b, label])]
                elif np.argmax(p) in columns:
                    among = p[columns] - np.log(np.exp(p[columns]).sum())
                    of_law += (np.exp(among) * (among - q)).sum()
                if kind.features:
                    apart = np.abs(np.asarray(hidden)[b, t] - np.asarray(last)[b, t + term.shift])
                    of_features += np.where(apart < 1, apart**2 / 2, apart - 0.5).mean()
        total += term.weight * (kind.laws * of_law + kind.features * of_features) / max(count, 1)
    return total


@pytest.mark.parametrize("name", [slow(name) if name == "falcon unrolled" else name for name in KINDS])
def test_the_loss_is_that_of_a_plain_reading(target, batch, name):
    head = a_head(target, name)
    value, metrics, _ = minimised(distill_head(), head, Frozen(target=target), batch)
    assert float(value) == pytest.approx(plain_reading(target, head, batch), rel=2e-4)
    assert 0 < float(metrics["acceptance"]) <= 1
    ahead = 1 + head.config.terms[0].shift
    assert float(metrics["tokens"]) == np.roll(batch.loss_mask_BT, -ahead, axis=1)[:, : LENGTH - ahead].sum()


class Lags:
    """How far a head is behind another at every label of a term, and which labels have a law to learn."""

    def __init__(self, target, head, reference, batch):
        self.law = jax.nn.log_softmax(target.unembed(target.features(batch.tokens_BT)[0]))
        self.head, self.batch = head, batch
        given = batch.tokens_BT, heads.features_of(target, batch.tokens_BT, head.config.layers)
        self.logits = [
            [each.logits(target, hidden, i) for i, hidden in enumerate(each.guessed(target, *given))]
            for each in (head, reference)
        ]

    def taught(self, i):
        return jnp.roll(self.law, -self.head.config.terms[i].shift, axis=1)

    def mask(self, i):
        shift = self.head.config.terms[i].shift
        within = (jnp.arange(LENGTH) < LENGTH - shift - 1)[None]
        return jnp.roll(self.batch.loss_mask_BT, -shift - 1, axis=1) & within

    def inside(self, i):
        law = self.taught(i)
        return jnp.max(self.head.config.among(self.head, law), -1) >= jnp.max(law, -1)

    def gap(self, i):
        p = jnp.exp(jax.nn.log_softmax(self.head.config.among(self.head, self.taught(i))))
        ours, theirs = (-jnp.sum(p * jax.nn.log_softmax(each[i]), -1) for each in self.logits)
        return ours - theirs

    def refused(self, i):
        guess = jnp.argmax(self.head.config.spread(self.head, self.logits[0][i]), axis=-1)
        return guess != jnp.argmax(self.taught(i), axis=-1)

    def kept(self, select):
        """`kept(i)` for `plain_reading`: what `select(i, mask_BT)` has of the labels with a law, and all others."""

        def of_term(i):
            mask, inside = self.mask(i), self.inside(i)
            return np.asarray(select(i, mask & inside) | (mask & ~inside))

        return of_term


@pytest.fixture(scope="module")
def few_owned(target):
    """The same target, of whose vocabulary rows the last two belong to no token."""
    return target.with_vocabulary(VOCABULARY - 2)


@pytest.mark.parametrize("name", ["eagle", "eagle3", "hydra", "kangaroo"])
def test_a_selection_keeps_the_labels_where_the_head_lags_most_behind_its_reference(target, batch, name):
    head, reference = a_head(target, name), a_head(target, name, seed=3)
    objective = distill_head(fraction=0.4)
    value, metrics, _ = minimised(objective, head, Frozen(target=target, reference=reference), batch)
    lags = Lags(target, head, reference, batch)
    kept = lags.kept(lambda i, mask_BT: select_top_fraction(lags.gap(i), mask_BT, 0.4))
    assert float(value) == pytest.approx(plain_reading(target, head, batch, kept), rel=5e-4)
    of_first = lags.mask(0) & lags.inside(0)
    assert float(metrics["share_kept"]) == pytest.approx((kept(0) & of_first).sum() / of_first.sum())
    assert float(metrics["gap"]) == pytest.approx(float(lags.gap(0)[of_first].mean()), rel=1e-3)
    everything = minimised(distill_head(fraction=1.0), head, Frozen(target=target, reference=reference), batch)
    plain = minimised(distill_head(), head, Frozen(target=target), batch)
    close((everything[0], everything[2]), (plain[0], plain[2]))


RULES = {
    "bottom": (bottom, lambda lags: lambda i, mask_BT: select_top_fraction(-lags.gap(i), mask_BT, 0.3)),
    "random": (random, lambda lags: lambda i, mask_BT: random(lags.gap(i), mask_BT, 0.3, jax.random.key(0))),
    "rejected": (rejected, lambda lags: lambda i, mask_BT: mask_BT & lags.refused(i)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["eagle3", "hydra"])
def test_other_rules_choose_among_the_labels_that_have_a_law(few_owned, batch, name, rule):
    """For each term; a label whose likeliest token a head does not guess is of no choice, and counts in the mean."""
    batch = dataclasses.replace(batch, tokens_BT=batch.tokens_BT % few_owned.config.num_tokens)
    head, reference = a_head(few_owned, name), a_head(few_owned, name, seed=3)
    chosen, plainly = RULES[rule]
    objective = distill_head(fraction=0.3, rule=chosen)
    value, metrics, _ = minimised(objective, head, Frozen(target=few_owned, reference=reference), batch)
    lags = Lags(few_owned, head, reference, batch)
    kept, of_first = lags.kept(plainly(lags)), lags.mask(0) & lags.inside(0)
    assert float(value) == pytest.approx(plain_reading(few_owned, head, batch, kept), rel=5e-4)
    assert float(metrics["share_kept"]) == pytest.approx((kept(0) & of_first).sum() / of_first.sum())
    assert bool(of_first.sum() < lags.mask(0).sum()) == (name == "eagle3")


def test_the_sum_over_the_selected_labels_may_be_divided_by_all(target, batch):
    head, reference = (a_head(target, "medusa", seed=seed, heads=1) for seed in (2, 3))
    frozen, found = Frozen(target=target, reference=reference), {}
    for normalize in ("paper", "official"):
        objective = distill_head(fraction=0.4, normalize=normalize)
        found[normalize], metrics, _ = minimised(objective, head, frozen, batch)
    assert float(found["official"]) == pytest.approx(float(found["paper"] * metrics["share_kept"]), rel=1e-5)


def test_labels_may_be_chosen_in_each_row_apart(target, batch):
    head, reference = a_head(target, "hydra"), a_head(target, "hydra", seed=3)
    frozen, lags = Frozen(target=target, reference=reference), Lags(target, head, reference, batch)
    value, _, _ = minimised(distill_head(fraction=0.4, scope="sequence"), head, frozen, batch)

    def in_rows(i, mask_BT):
        gap_BT = lags.gap(i)
        return jnp.stack([select_top_fraction(gap_BT[b], mask_BT[b], 0.4) for b in range(ROWS)])

    assert float(value) == pytest.approx(plain_reading(target, head, batch, lags.kept(in_rows)), rel=5e-4)


def test_a_selection_may_mask_the_laws_alone(target, batch):
    head, reference = a_head(target, "eagle"), a_head(target, "eagle", seed=3)
    frozen = Frozen(target=target, reference=reference)
    objectives = {masks: distill_head(fraction=0.4, masks=masks) for masks in ("all", "laws")}
    values = {masks: minimised(objective, head, frozen, batch) for masks, objective in objectives.items()}
    assert float(values["all"][0]) != pytest.approx(float(values["laws"][0]), rel=1e-3)
    no_law = dataclasses.replace(head, config=dataclasses.replace(head.config, laws=0.0))
    frozen = Frozen(target=target, reference=dataclasses.replace(reference, config=no_law.config))
    laws_masked = minimised(distill_head(fraction=0.4, masks="laws"), no_law, frozen, batch)[0]
    whole = minimised(distill_head(), no_law, Frozen(target=target), batch)[0]
    assert float(laws_masked) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize(
    "name", ["eagle unrolled", "eagle3", "hydra_plus", "amphista", slow("falcon unrolled"), slow("pass")]
)
def test_parts_chunks_and_rematerialisation_change_nothing(target, batch, name):
    head, reference = a_head(target, name), a_head(target, name, seed=3)
    frozen = Frozen(target=target, reference=reference)
    whole = minimised(distill_head(fraction=0.5), head, frozen, batch)
    in_parts = distill_head(fraction=0.5, micro_batches=2, chunking=Chunking(logits=VOCABULARY * 5))
    close(minimised(in_parts, head, frozen, batch), whole)
    close(minimised(distill_head(fraction=0.5), head.with_rematerialisation(True), frozen, batch), whole)


@pytest.mark.parametrize("name", ["eagle unrolled", "hydra_plus"])
def test_a_head_attends_by_the_kernel_and_the_blocks_it_is_told(target, batch, name, monkeypatch):
    head, told, attend = a_head(target, name), [], layer.causal_attention
    monkeypatch.setattr(layer, "causal_attention", lambda *qkv, **how: told.append(how) or attend(*qkv, **how))
    whole = minimised(distill_head(), head, Frozen(target=target), batch)
    in_blocks = dataclasses.replace(head, config=dataclasses.replace(head.config, attention_block=5))
    close(minimised(distill_head(), in_blocks, Frozen(target=target), batch), whole)
    assert [each["block"] for each in told] == [0, 5] and {each["kernel"] for each in told} == {"xla"}
    elsewhere = head.with_attention("xla", "float32", backend="tpu")
    assert elsewhere.config.attention_block == 1024 and "attention_block" not in head.config.knobs()
    fused = dataclasses.replace(head.config, attention="cudnn")
    assert layer.layer_config(fused).attention == "cudnn"
    with pytest.raises(UserError, match="needs an NVIDIA GPU, and this is cpu"):
        head.with_attention("cudnn", "bfloat16", backend="cpu")


@pytest.mark.parametrize("name", ["eagle", "eagle3"])
def test_features_may_be_given_with_the_batch(target, batch, name):
    head = a_head(target, name)
    features = heads.features_of(target, batch.tokens_BT, head.config.layers)
    last = None if head.config.layers[-1] == -1 else target.features(batch.tokens_BT)[0]
    given = dataclasses.replace(batch, target_features_BTF=features, target_hidden_BTD=last)
    ours = minimised(distill_head(), head, Frozen(target=target.ends()), given)
    close(ours, minimised(distill_head(), head, Frozen(target=target), batch))


@pytest.mark.parametrize(
    "name", ["eagle unrolled", "eagle3 normed", "hydra_plus", "amphista", slow("falcon unrolled"), slow("pass")]
)
def test_packed_examples_are_those_of_rows_of_their_own(target, name):
    tokens_BT = jax.random.randint(jax.random.key(5), (2, 9), 0, VOCABULARY)
    labels_BT = jnp.asarray(np.arange(9)[None] >= np.asarray([[3], [1]]))  # the second's begin at its second token
    apart = Batch(tokens_BT, labels_BT)
    segments_BT = jnp.asarray([[1] * 9 + [2] * 9])
    packed = Batch(tokens_BT.reshape(1, 18), labels_BT.reshape(1, 18), segments_BT=segments_BT)
    head, objective = a_head(target, name), distill_head()
    ours = minimised(objective, head, Frozen(target=target), packed)
    close(ours, minimised(objective, head, Frozen(target=target), apart))


@pytest.mark.parametrize("name", ["eagle unrolled", "eagle3", "eagle3 normed", "mtp"])
def test_a_step_over_whole_texts_is_what_decoding_would_do_from_every_position(target, name):
    """At each position: true features up to there in the head's cache, then its own outputs and the text's tokens."""
    head = a_head(target, name)
    tokens_1T = jax.random.randint(jax.random.key(7), (1, 9), 0, VOCABULARY)
    features = heads.features_of(target, tokens_1T, head.config.layers)
    unrolled, on_target = head.guessed(target, tokens_1T, features), OnTarget(head, target)
    entered = on_target.entered(features)
    for t in range(5):
        cache = on_target.init_cache(1, 16)
        made, hidden, cache = on_target.read(entered[:, : t + 1], tokens_1T[:, 1 : t + 2], cache)
        np.testing.assert_allclose(made[:, -1], unrolled[0][:, t], atol=2e-5)
        for step in range(1, head.config.steps):
            following = tokens_1T[:, t + 1 + step : t + 2 + step]
            made, hidden, cache = on_target.read(hidden[:, -1:], following, cache)
            np.testing.assert_allclose(made[:, -1], unrolled[step][:, t], atol=2e-5)


def test_noise_on_hidden_states_is_drawn_anew_at_every_step(target, batch):
    head = a_head(target, "eagle", noise=0.2)

    def at(step):
        now = Now(jnp.int32(step), jax.random.key(step))
        return float(minimised(distill_head(), head, Frozen(target=target, now=now), batch)[0])

    assert at(1) == at(1) != at(2)
    assert at(1) != float(minimised(distill_head(), head, Frozen(target=target), batch)[0])


def test_noise_has_the_width_that_is_set_at_512_tokens(target, batch):
    head, seen = a_head(target, "eagle", noise=0.2), []

    class Looking(type(head.config)):
        def guessed(self, head, target, tokens_BT, features_BTF, segments_BT):
            seen.append(features_BTF)
            return super().guessed(head, target, tokens_BT, features_BTF, segments_BT)

    head = dataclasses.replace(head, config=Looking(**vars(head.config)))
    distill_head()(head, Frozen(target=target, now=Now(jnp.int32(0), jax.random.key(0))), batch)
    noise_BTF, half = seen[0] - heads.features_of(target, batch.tokens_BT, (-1,)), 0.1 * 512 / LENGTH
    assert 0.98 * half < float(jnp.max(jnp.abs(noise_BTF))) <= half * 1.0001
    assert abs(float(jnp.mean(noise_BTF))) < 0.1 * half


def test_an_own_vocabulary_is_the_most_frequent_tokens_and_leaves_the_others_no_probability(target):
    head = a_head(target, "eagle3")
    counts_V = np.arange(VOCABULARY) % 7
    kept = sorted(sorted(range(VOCABULARY), key=lambda token: (-counts_V[token], token))[:15])
    assert head.tables["kept"].tolist() == kept
    made_BTD = jax.random.normal(jax.random.key(0), (1, 2, 16))
    law = jax.nn.softmax(OnTarget(head, target).unembed(made_BTD))
    assert np.flatnonzero(np.asarray(law[0, 0]) > 0).tolist() == kept
    np.testing.assert_allclose(law[..., kept], jax.nn.softmax(head.logits(target, made_BTD)), atol=1e-6)
