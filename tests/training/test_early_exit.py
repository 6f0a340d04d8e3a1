"""LayerSkip's loss: plain fine-tuning where it must be, and a reading in PyTorch where layers are left out."""

import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.training import Frozen, objectives
from adaspec_jax.training.objectives import Now, early_exit
from adaspec_jax.training.objectives.early_exit import exits_on
from tests.training import setting

LAYERS = 4
MODEL, BATCH = setting.model(3, layers=LAYERS), setting.batch(1)


def minimised(objective, step=None, model=MODEL):
    now = None if step is None else Now(jnp.int32(step), jax.random.key(7))

    def loss(params):
        return objective(dataclasses.replace(model, params=params), Frozen(now=now), BATCH)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-4), ours, theirs)


@pytest.mark.parametrize("knobs", [{"scale": 0.0, "curriculum": "all"}, {"curriculum": "gradual", "steps": 1000}])
def test_without_dropout_and_with_the_last_exit_alone_it_is_plain_fine_tuning(knobs):
    (value, metrics), gradient = minimised(early_exit(p_max=0.0, **knobs), step=0)
    (plain, said), expected = minimised(objectives.fine_tune())
    close((value, gradient, metrics["accuracy"]), (plain, expected, said["accuracy"]))
    assert float(metrics["exits"]) == 1


def test_without_a_step_nothing_is_left_out():
    close(*(minimised(early_exit(p_max=p, curriculum="all"))[1] for p in (0.0, 0.9)))
    dropped, kept = (minimised(early_exit(p_max=p, curriculum="all"), step=5)[0][0] for p in (0.9, 0.0))
    assert abs(float(dropped - kept)) > 1e-3


def test_parts_of_a_batch_and_stacked_layers_change_nothing():
    how = {"p_max": 0.5, "curriculum": "all"}
    whole = minimised(early_exit(**how), step=3)
    close(minimised(early_exit(**how, micro_batches=2), step=3), whole)
    (value, _), _ = minimised(early_exit(**how), step=3, model=MODEL.stacked())
    close(value, whole[0][0])


def test_which_exits_are_on():
    def on(curriculum, step, **how):
        return [int(n) for n in np.flatnonzero(exits_on(curriculum, 4, jnp.int32(step), **{"steps": 80} | how))]

    # Layer l of four from the share (4 - l) / 8 on: steps 10, 20, 30 and 40 of 80.
    assert [on("gradual", n) for n in (0, 19, 20, 30, 39, 40, 79)] == [
        [3],
        [3],
        [2, 3],
        *[[1, 2, 3]] * 2,
        *[[*range(4)]] * 2,
    ]
    assert [on("rotational", n, period=2) for n in range(3)] == [[0, 2, 3], [1, 3], [0, 2, 3]]
    assert [on("one", n) for n in range(4)] == [[0, 3], [1, 3], [2, 3], [0, 3]]


def test_one_exit_a_step_with_uniform_weights_is_trls_loss():
    (value, metrics), _ = minimised(early_exit(p_max=0.0, scale=0.5, weights="uniform", curriculum="one"), step=1)
    last = float(metrics["last_loss"])
    early = reading(np.zeros((8, LAYERS), bool))[1]
    assert float(value) == pytest.approx((0.5 * early + last) / 1.5, rel=1e-5)


def reading(skips_BL):
    """Mean cross entropy after each layer, in PyTorch, of a model of the GPT-NeoX family with layers left out."""
    torch = pytest.importorskip("torch")
    from transformers import GPTNeoXForCausalLM

    with tempfile.TemporaryDirectory() as place:
        models.save(MODEL, place)
        theirs = GPTNeoXForCausalLM.from_pretrained(place).eval()
    tokens_BT = torch.tensor(np.asarray(BATCH.tokens_BT), dtype=torch.long)
    kept, outputs = ~torch.tensor(np.asarray(skips_BL)), []

    def hook(layer):
        def after(_, args, kwargs, out):
            entered = args[0] if args else kwargs["hidden_states"]
            made = out[0] if isinstance(out, tuple) else out
            made = torch.where(kept[:, layer, None, None], made, entered)
            outputs.append(made)
            return (made, *out[1:]) if isinstance(out, tuple) else made

        return after

    for n, layer in enumerate(theirs.gpt_neox.layers):
        layer.register_forward_hook(hook(n), with_kwargs=True)
    with torch.no_grad():
        theirs(tokens_BT)
        labels, counted = tokens_BT[:, 1:], torch.tensor(np.asarray(BATCH.loss_mask_BT))[:, 1:]
        logits = [theirs.get_output_embeddings()(theirs.gpt_neox.final_layer_norm(x))[:, :-1] for x in outputs]
        return [torch.nn.functional.cross_entropy(x[counted], labels[counted]).item() for x in logits]


@pytest.mark.parametrize(("weights", "raw"), [("linear", [1, 2, 3, 4]), ("cumulative", [1, 3, 6, 10])])
def test_the_loss_is_that_of_a_reading_in_pytorch_with_the_same_rows_left_out(weights, raw):
    how = {"p_max": 0.6, "scale": 0.5, "weights": weights, "curriculum": "all"}
    (value, _), _ = minimised(early_exit(**how), step=9)
    shares = 0.6 * (np.exp(np.arange(LAYERS) * np.log(2) / (LAYERS - 1)) - 1)
    skips_BL = np.asarray(jax.random.bernoulli(jax.random.key(7), jnp.asarray(shares)[None], (8, LAYERS)))
    assert not skips_BL[:, 0].any() and 0 < skips_BL.sum()
    scaled = np.array(raw) * [0.5, 0.5, 0.5, 1]
    assert float(value) == pytest.approx(float(np.dot(scaled / scaled.sum(), reading(skips_BL))), rel=2e-5)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [({"weights": "odd"}, "weights must be one of"), ({"p_max": 1.0}, "p_max 1.0"), ({"scale": -1}, "-1")],
)
def test_what_cannot_work_is_refused(knobs, says):
    with pytest.raises(ValueError, match=says):
        early_exit(**knobs)
