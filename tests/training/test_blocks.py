"""Heads that guess blocks at slots: training is decoding step for step, and loss and gradient are a plain reading's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.models import heads, save_head
from adaspec_jax.models.heads.parts import layer
from adaspec_jax.models.heads.parts.blocks import BlocksOnTarget
from adaspec_jax.training import Batch, Chunking, Frozen
from adaspec_jax.training.objectives import Now, distill_head
from adaspec_jax.training.selection import select_top_fraction
from tests.running import some
from tests.training.test_heads import LENGTH, ROWS, VOCABULARY, batch, close, minimised, target  # noqa: F401
from tests.training.test_heads import a_head as of_any_kind

KINDS = {"dflash": {"block": 4, "depth": 2, "hard": False, "anchors": 64}}
KINDS |= {"p_eagle": {"steps": 3, "depth": 2, "keep": 0.8, "mask": 5}}


def a_head(target, name, **how):  # noqa: F811
    return of_any_kind(target, name, **KINDS[name] | how)


@pytest.mark.parametrize("name", KINDS)
def test_blocks_of_whole_texts_are_what_decoding_would_do_from_every_position(target, name):  # noqa: F811
    """At each position: hidden states up to there in the head's cache, and the token after it as the last committed."""
    head = a_head(target, name)
    tokens_BT = jax.random.randint(jax.random.key(7), (2, 9), 0, VOCABULARY)
    features = heads.features_of(target, tokens_BT, head.config.layers)
    along, on = jax.jit(lambda features: head.guessed(target, tokens_BT, features)), BlocksOnTarget(head, target.ends())
    whole = along(features)
    laws = jnp.stack([head.config.spread(head, head.logits(target, made)) for made in whole], axis=2)
    read, guess = jax.jit(BlocksOnTarget.read), jax.jit(BlocksOnTarget.guess)
    for t in (0, 3, 6):
        # What is written and rolled back, as after a refusal, leaves nothing behind.
        _, cache = read(on, features[:, :8] + 1, tokens_BT[:, 1:], on.init_cache(2, 16))
        made, cache = read(on, features[:, :8], tokens_BT[:, 1:], cache.roll_back(jnp.zeros(2, jnp.int32)))
        guessed = guess(on, made[:, t], tokens_BT[:, t + 1], cache.roll_back(jnp.full(2, t + 1)))
        np.testing.assert_allclose(guessed, laws[:, t], atol=2e-4)
    later = features.at[:, 5:].add(1.0)
    changed = along(later)
    np.testing.assert_array_equal(changed[0][:, :5], whole[0][:, :5])  # the block's own first token: no hidden state
    assert np.abs(changed[0][:, 5] - whole[0][:, 5]).max() > 1e-3


@pytest.mark.parametrize("features", [8, 64, 128])
def test_a_query_that_is_its_key_scores_the_same_at_heads_of_every_width_when_training_begins(target, features):  # noqa: F811
    """As at heads of 128, whose norms then are those of the released code: of ones."""
    kind = heads.made_for(
        "dflash", KINDS["dflash"], dataclasses.replace(heads.Sizes.of(target.config), head_dim=features)
    )
    norms = heads.new(kind, target, jax.random.key(0), np.ones(VOCABULARY)).params["layer_1"]["attention"]
    vector_K = jax.random.normal(jax.random.key(1), (features,))
    query_K, key_K = (layer.normed(kind.layer, norms[name], vector_K) for name in ("q_norm", "k_norm"))
    np.testing.assert_allclose(query_K @ key_K / features**0.5, 128**0.5, rtol=1e-4)
    assert features != 128 or norms["q_norm"]["scale"] == pytest.approx(1.0)


def placed(head, batch, key=None):  # noqa: F811
    """Where the head's guesses begin; without a key as in a step without a clock."""
    key = jax.random.key(0) if key is None else key
    labels_BT = jnp.roll(batch.loss_mask_BT, -1, axis=1).at[:, -1].set(False)
    return head.config.places(labels_BT, batch.segments_BT, key)


@pytest.mark.parametrize(("name", "knobs"), [("dflash", {"anchors": 5}), ("dflash", {}), ("p_eagle", {})])
def test_the_labels_that_a_plan_counts_are_those_that_a_step_draws(target, name, knobs):  # noqa: F811
    head, whole = a_head(target, name, **knobs), Batch(jnp.ones((2, 24), jnp.int32), jnp.ones((2, 24), bool))
    real_BIN = placed(head, whole).real_BIN
    drawn_B = jnp.broadcast_to(real_BIN, (2, len(head.config.terms), real_BIN.shape[2])).sum((1, 2))
    # A block begins before a token whose successor is a label.
    np.testing.assert_array_equal(drawn_B, head.config.labels_of(22))


@pytest.mark.parametrize("weights_by", ["decay", "dpace"])
def test_dflashs_step_is_that_of_a_plain_reading_in_pytorch(target, batch, weights_by, tmp_path):  # noqa: F811
    torch = pytest.importorskip("torch")
    from tests.models.heads.torch_blocks import DFlash

    head = a_head(target, "dflash", hard=True, weights_by=weights_by, anchors=6, mask=5)
    save_head(head, tmp_path)
    rows = np.asarray(target.params["embed"]["embedding"]), np.asarray(target.output_matrix()).T
    features, places = heads.features_of(target, batch.tokens_BT, head.config.layers), placed(head, batch)
    given = features, batch.tokens_BT, batch.loss_mask_BT, places.at_BN + 1, places.real_BIN[:, 0]
    given = [torch.tensor(np.asarray(x)) for x in given]
    given[1], given[3] = given[1].long(), given[3].long()
    reading = DFlash(tmp_path, *rows)
    theirs = reading.loss(*given, alpha=0.5 if weights_by == "dpace" else None)
    value, _, gradient = minimised(distill_head(), head, Frozen(target=target), batch)
    assert float(value) == pytest.approx(theirs.item(), rel=1e-4)
    norm = float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient))))
    assert norm == pytest.approx(reading.gradient_norm(theirs), rel=1e-3)


def plain_reading(target, head, batch, places, kept=None):  # noqa: F811
    """The loss by loops over rows, places and guesses; `kept` [B, I, N]: of which labels."""
    kind, total, count = head.config, 0.0, 0
    features = heads.features_of(target, batch.tokens_BT, kind.layers)
    law = np.asarray(jax.nn.log_softmax(target.unembed(target.features(batch.tokens_BT)[0])), np.float64)
    made = head.guessed(target, batch.tokens_BT, features)
    guessed = [np.asarray(jax.nn.log_softmax(head.logits(target, x, i)), np.float64) for i, x in enumerate(made)]
    labels, gaps = np.asarray(batch.loss_mask_BT), np.zeros((ROWS, len(made), places.at_BN.shape[1]))
    mask = np.zeros(gaps.shape, bool)
    for b in range(ROWS):
        for n, t in enumerate(np.asarray(places.at_BN[b])):
            for i, term in enumerate(kind.terms):
                label = t + term.shift + 1
                real = places.real_BIN[b, i if places.real_BIN.shape[1] > 1 else 0, n]
                if label >= LENGTH or not labels[b, label] or not real:
                    continue
                p, q = law[b, t + term.shift], guessed[i][b, t]
                gaps[b, i, n], mask[b, i, n] = (np.exp(p) * (p - q)).sum(), True
                if kept is None or kept[b, i, n]:
                    total += term.weight * gaps[b, i, n]
                    count += 1
    return total / count, gaps, mask


@pytest.mark.parametrize("name", some(KINDS, "dflash"))
def test_a_selection_keeps_the_labels_where_the_head_lags_most_of_those_that_were_drawn(target, batch, name):  # noqa: F811
    few = {"anchors": 5} if name == "dflash" else {"keep": 0.5}
    head, reference = a_head(target, name, **few), a_head(target, name, **few, seed=3)
    frozen = Frozen(target=target, reference=reference, now=Now(jnp.int32(0), jax.random.key(4)))
    places = placed(head, batch, jax.random.fold_in(jax.random.key(4), 1))
    whole, ours, mask = plain_reading(target, head, batch, places)
    assert mask.sum() and float(minimised(distill_head(), head, frozen, batch)[0]) == pytest.approx(whole, rel=2e-4)
    gap = ours - plain_reading(target, reference, batch, places)[1]
    kept = [select_top_fraction(jnp.asarray(gap[:, i]), jnp.asarray(mask[:, i]), 0.4) for i in range(gap.shape[1])]
    kept = np.stack(kept, axis=1)
    value, metrics, _ = minimised(distill_head(fraction=0.4), head, frozen, batch)
    assert float(value) == pytest.approx(plain_reading(target, head, batch, places, kept)[0], rel=5e-4)
    assert float(metrics["share_kept"]) == pytest.approx(kept[:, 0].sum() / mask[:, 0].sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_parts_packs_and_rematerialisation_change_nothing(target, batch, name):  # noqa: F811
    """Of all chains: of some, a pack draws others than the rows it holds."""
    all_of_them = {"keep": 1.0} if name == "p_eagle" else {}
    head, reference = (a_head(target, name, seed=seed, **all_of_them) for seed in (2, 3))
    frozen = Frozen(target=target, reference=reference)
    whole = minimised(distill_head(fraction=0.5), head, frozen, batch)
    in_parts = distill_head(fraction=0.5, micro_batches=2, chunking=Chunking(logits=VOCABULARY * 5))
    again = dataclasses.replace(head, config=dataclasses.replace(head.config, rematerialise=True, attention_block=9))
    close(minimised(in_parts, again, frozen, batch), whole)
    tokens_BT = jax.random.randint(jax.random.key(5), (2, 9), 0, VOCABULARY)
    labels_BT = jnp.asarray(np.arange(9)[None] >= np.asarray([[3], [1]]))
    apart = Batch(tokens_BT, labels_BT)
    segments_BT = jnp.asarray([[1] * 9 + [2] * 9])
    packed = Batch(tokens_BT.reshape(1, 18), labels_BT.reshape(1, 18), segments_BT=segments_BT)
    for how in ({}, {"fraction": 0.5, "scope": "sequence"}):
        each = [minimised(distill_head(**how), head, frozen, given) for given in (packed, apart)]
        close(*each)


def test_p_eagles_step_is_that_of_a_plain_reading_in_pytorch(target, batch, tmp_path):  # noqa: F811
    torch = pytest.importorskip("torch")
    from tests.models.heads.torch_blocks import PEagle

    head = a_head(target, "p_eagle", keep=0.5)
    save_head(head, tmp_path)
    rows = np.asarray(target.params["embed"]["embedding"]), np.asarray(target.output_matrix()).T
    features, places = heads.features_of(target, batch.tokens_BT, head.config.layers), placed(head, batch)
    laws = jax.nn.log_softmax(target.unembed(target.features(batch.tokens_BT)[0]))
    real, chains = np.asarray(places.real_BIN), []
    for b, at in enumerate(np.asarray(places.at_BN)):
        chains.append([(int(at[n]), d) for d in (1, 2) for n in np.flatnonzero(real[b, d])])
    assert real[:, 0].sum() > real[:, 1].sum() > real[:, 2].sum() > 0
    given = [torch.tensor(np.asarray(x)) for x in (features, batch.tokens_BT, batch.loss_mask_BT, laws)]
    given[1] = given[1].long()
    reading = PEagle(tmp_path, *rows)
    theirs = reading.loss(*given, chains)
    value, _, gradient = minimised(distill_head(), head, Frozen(target=target), batch)
    assert float(value) == pytest.approx(theirs.item(), rel=1e-4)
    norm = float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient))))
    assert norm == pytest.approx(reading.gradient_norm(theirs), rel=1e-3)


def test_places_are_drawn_anew_at_every_step_where_decoding_may_begin(target, batch):  # noqa: F811
    head = a_head(target, "dflash", anchors=4)
    drawn = [placed(head, batch, jax.random.key(seed)) for seed in range(30)]
    assert {tuple(np.sort(each.at_BN[0]).tolist()) for each in drawn} != {tuple(drawn[0].at_BN[0].tolist())}
    labels = np.asarray(batch.loss_mask_BT)
    for row in range(ROWS):
        found = {int(t) for each in drawn for t in each.at_BN[row][each.real_BIN[row, 0]]}
        assert found == {t for t in range(LENGTH - 2) if labels[row, t + 2]}
    none = dataclasses.replace(batch, loss_mask_BT=batch.loss_mask_BT.at[1].set(False))
    assert not placed(head, none).real_BIN[1].any()
    assert np.isfinite(float(minimised(distill_head(), head, Frozen(target=target), none)[0]))


@pytest.mark.parametrize(
    ("kind", "knobs", "says"),
    [
        ("dflash", {"block": 1}, "block is 1; it must be at least 2, of which the first token is known"),
        ("dflash", {"anchors": 0}, "anchors is 0; it must be at least 1"),
        ("dflash", {"weights_by": "pace"}, 'weights_by is "pace"; it must be one of decay, dpace'),
        ("dflash", {"weights_by": "dpace", "hard": False}, "is for the text's own tokens: leave hard=false out"),
        ("dflash", {"decay": 0.0}, "decay is 0.0; it must be above 0"),
        ("dflash", {"taps": (2, 1)}, "must be ascending, each once"),
        ("dflash", {"mask": VOCABULARY}, f"mask is {VOCABULARY}; the target has {VOCABULARY} vocabulary rows"),
        ("dflash", {"depht": 2}, 'has no "depht"; did you mean "depth"'),
        ("p_eagle", {"keep": 0.0}, "keep is 0.0; it must be above 0 and at most 1"),
        ("p_eagle", {"mask": -2}, "mask is -2; the target has"),
        ("p_eagle", {"depth": 0}, "depth is 0; it must be at least 1"),
    ],
)
def test_a_knob_that_cannot_work_is_one_line(target, kind, knobs, says):  # noqa: F811
    with pytest.raises(UserError, match=says) as error:
        heads.made_for(kind, knobs, heads.Sizes.of(target.config))
    assert "\n" not in str(error.value)


def test_dflash_reads_as_many_layers_as_it_has_evenly_from_the_second_on(target):  # noqa: F811
    sizes = dataclasses.replace(heads.Sizes.of(target.config), num_layers=36)
    assert heads.made_for("dflash", {}, sizes).layers == (1, 9, 17, 25, 33)
    assert heads.made_for("dflash", {"depth": 1}, sizes).layers == (18,)
    few = dataclasses.replace(sizes, num_layers=3)
    assert heads.made_for("dflash", {}, few).layers == (0, 1, 2)
