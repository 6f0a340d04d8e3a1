"""Runs through part of the layers: a run cut in two is the whole, and what is left out adds nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.models.causal_lm import CausalLM
from tests.models.conftest import QUICK

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 9))


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol)


@pytest.fixture(params=["gpt_neox", "llama", "codegen"])
def model(request, tiny_of):
    return tiny_of(request.param)


@pytest.mark.parametrize("stacked", [False, True])
def test_two_halves_are_the_whole(model, stacked):
    model = model.stacked() if stacked else model
    whole = model.run(TOKENS_BT, taps=(0, -1))
    first = model.run(TOKENS_BT, last=1)
    close(first.hidden, whole.taps[0])
    second = model.run(TOKENS_BT, first=1, hidden_BTD=first.hidden)
    close(second.hidden, whole.hidden)
    close(whole.taps[1], whole.hidden)
    close(model.unembed(second.hidden), model(TOKENS_BT)[0], atol=1e-4)


def test_two_halves_share_a_cache_that_then_serves_the_whole(model):
    expected, _ = model(TOKENS_BT)
    cache = model.run(TOKENS_BT[:, :6], model.init_cache(2, 12)).cache
    first = model.run(TOKENS_BT[:, 6:8], cache, last=1)
    back = first.cache.roll_back(cache.lengths_B)
    second = model.run(TOKENS_BT[:, 6:8], back, first=1, hidden_BTD=first.hidden)
    close(model.unembed(second.hidden), expected[:, 6:8], atol=1e-4)
    close(model(TOKENS_BT[:, 8:], second.cache)[0], expected[:, 8:], atol=1e-4)


@pytest.mark.parametrize("traced", [False, True])
def test_sublayers_that_are_left_out_add_nothing(model, traced):
    layers = model.config.num_layers
    run = jax.jit(CausalLM.run, static_argnames=() if traced else ("keep",))

    def kept(*runs):
        return run(model, TOKENS_BT, keep=jnp.asarray(runs) if traced else runs).hidden

    close(kept(*[True] * 2 * layers), model.run(TOKENS_BT).hidden)
    embedded = model.run(TOKENS_BT, last=0).hidden
    close(kept(*[False] * 2 * layers), model.run(TOKENS_BT, first=layers, hidden_BTD=embedded).hidden)
    close(kept(True, True, *[False] * (2 * layers - 2)), normed(model, model.run(TOKENS_BT, last=1).hidden))
    # A layer whose output matrices are zero adds what a layer that is left out does.
    params = dict(model.params)
    params["layers_0"] = jax.tree.map(jnp.zeros_like, params["layers_0"])
    close(
        kept(False, False, *[True] * (2 * layers - 2)), dataclasses.replace(model, params=params).run(TOKENS_BT).hidden
    )


@pytest.mark.parametrize("stacked", [False, True])
def test_a_tap_inside_a_layer_is_what_its_attention_leaves(model, stacked):
    alone = model.run(TOKENS_BT, last=1, keep=(True, False, *[True] * (2 * model.config.num_layers - 2))).hidden
    tapped = (model.stacked() if stacked else model).run(TOKENS_BT, taps=(0.5, 0))
    close(tapped.taps[0], alone)
    close(tapped.taps[1], model.run(TOKENS_BT, last=1).hidden)
    close(tapped.hidden, model.run(TOKENS_BT).hidden)
    with pytest.raises(ValueError, match="cannot be tapped"):
        model.run(TOKENS_BT, last=1, taps=(1.5,))


def normed(model, hidden_BTD):
    return model.run(TOKENS_BT, first=model.config.num_layers, hidden_BTD=hidden_BTD).hidden


def test_an_attention_that_is_left_out_leaves_its_cache_alone(model):
    cache = model.run(TOKENS_BT[:, :6], model.init_cache(2, 12)).cache
    keep = (False, True, *[True] * (2 * model.config.num_layers - 2))
    for given in (keep, jnp.asarray(keep)):
        after = model.run(TOKENS_BT[:, 6:8], cache, keep=given).cache
        np.testing.assert_array_equal(after.keys[0], cache.keys[0])
        assert not np.array_equal(after.keys[1], cache.keys[1])


def test_taps_are_transformers_hidden_states(tiny_of, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from adaspec_jax import models

    model = tiny_of("llama")
    models.save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        hidden = theirs(torch.tensor(TOKENS_BT), output_hidden_states=True).hidden_states
    taps = model.run(TOKENS_BT, taps=(*range(model.config.num_layers - 1), -1)).taps
    for ours, other in zip(taps, hidden[1:], strict=True):
        close(ours, other.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"first": 1}, "must say what enters it"),
        ({"last": 99}, "not among the model's"),
        ({"last": 1, "taps": (-1,)}, "cannot be tapped"),
        ({"taps": (7,)}, "cannot be tapped"),
        ({"keep": (True,)}, "for each of"),
    ],
    ids=str,
)
def test_what_cannot_run_is_said(tiny_of, wrong, says):
    with pytest.raises(ValueError, match=says):
        tiny_of("llama").run(TOKENS_BT, **wrong)


@pytest.mark.parametrize("family", QUICK)
def test_segments_of_a_row_are_rows_of_their_own(family, tiny_of):
    model = tiny_of(family)
    tokens_BT = np.random.default_rng(0).integers(0, 61, (2, 12)).astype(np.int32)
    segments_BT = np.array([[1] * 5 + [2] * 3 + [3] * 4, [1] * 9 + [0] * 3], np.int32)
    hidden_BTD = model.features(tokens_BT, segments_BT=segments_BT)[0]
    alone_BT = np.zeros((4, 12), np.int32)  # one shape for all
    where = [(0, slice(0, 5)), (0, slice(5, 8)), (0, slice(8, 12)), (1, slice(0, 9))]
    for n, (b, at) in enumerate(where):
        alone_BT[n, : at.stop - at.start] = tokens_BT[b, at]
    alone_BTD = model.features(alone_BT)[0]
    for n, (b, at) in enumerate(where):
        np.testing.assert_allclose(hidden_BTD[b, at], alone_BTD[n, : at.stop - at.start], rtol=1e-4, atol=1e-5)
    assert np.isfinite(hidden_BTD).all()  # padding too
    with pytest.raises(ValueError, match="neither a cache nor mask_BTS"):
        model.features(tokens_BT, model.init_cache(2, 12), segments_BT=segments_BT)
