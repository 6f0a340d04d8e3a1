"""Objectives: equal to each other where the theory says so, and to PyTorch step by step."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax import models
from adaspec_jax.devices import sharding
from adaspec_jax.training import Chunking, adamw, init_state, make_step, objectives
from adaspec_jax.training.divergences import DIVERGENCES, forward_kl, gap
from adaspec_jax.training.optimizers import learning_rate
from adaspec_jax.training.selection import rejected, select_top_fraction
from tests.running import optimised, slow
from tests.training import setting


def losses(objective, frozen, *, steps=6, place=lambda x: x, put=lambda x: x, optimizer=None, to_the_bit=False):
    optimizer = optimizer or adamw(1e-2)
    state = put(init_state(setting.model(2), optimizer, jax.random.key(0)))
    step, history = make_step(objective, optimizer), []
    step = optimised(step, state, put(frozen), place(setting.batch(0))) if to_the_bit else step
    for number in range(steps):
        state, metrics = step(state, put(frozen), place(setting.batch(number)))
        history.append({name: float(value) for name, value in metrics.items()})
    return history, state


@pytest.mark.parametrize(
    "divergence, normalize",
    [(forward_kl, "paper"), slow(forward_kl, "official"), slow(DIVERGENCES["total_variation"], "paper")],
)
def test_selecting_everything_is_plain_distillation_step_by_step(divergence, normalize):
    frozen = setting.frozen()
    plain, a = losses(objectives.distill(divergence), frozen, to_the_bit=True)
    selecting = objectives.selective_distill(divergence, fraction=1.0, normalize=normalize)
    selective, b = losses(selecting, frozen, to_the_bit=True)
    assert [m["loss"] for m in plain] == [m["loss"] for m in selective]
    assert all(m["share_kept"] == 1 and m["kl_dropped"] == 0 for m in selective)
    jax.tree.map(np.testing.assert_array_equal, a.model.params, b.model.params)


def test_official_loss_is_the_papers_times_the_share_kept():
    frozen, batch, model = setting.frozen(), setting.batch(0), setting.model(2)
    paper, metrics = objectives.selective_distill(fraction=0.4)(model, frozen, batch)
    official, _ = objectives.selective_distill(fraction=0.4, normalize="official")(model, frozen, batch)
    np.testing.assert_allclose(official, paper * metrics["share_kept"], rtol=1e-6)
    assert 0.4 <= metrics["share_kept"] < 0.45
    np.testing.assert_allclose(metrics["kl_kept"], paper, rtol=1e-6)


def test_no_gradient_flows_into_frozen_models_or_the_choice():
    batch, model = setting.batch(0), setting.model(2)
    objective = objectives.selective_distill(fraction=0.4)
    gradient = jax.grad(lambda frozen: objective(model, frozen, batch)[0], allow_int=True)(setting.frozen())
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_the_shard_scope_is_the_choice_each_device_would_make_alone():
    frozen, batch, model = setting.frozen(), setting.batch(0), setting.model(2)
    scoped = objectives.selective_distill(fraction=0.4, scope="shard", shards=4, normalize="official")
    loss, metrics = scoped(model, frozen, batch)
    logits = [m(batch.tokens_BT)[0][:, :-1] for m in (model, frozen.reference, frozen.target)]
    gap_BT, mask_BT = gap(forward_kl, *logits), jnp.asarray(batch.loss_mask_BT[:, 1:])
    kept = [select_top_fraction(gap_BT[i : i + 2], mask_BT[i : i + 2], 0.4) for i in range(0, 8, 2)]
    by_hand = (forward_kl(logits[0], logits[2]) * jnp.concatenate(kept)).sum() / mask_BT.sum()
    np.testing.assert_allclose(loss, by_hand, rtol=1e-6)
    with pytest.raises(ValueError, match="shards"):
        objectives.selective_distill(scope="shard", shards=3)(model, frozen, batch)


@pytest.mark.parametrize("scope", ["global", "sequence"])
def test_refused_labels_are_those_whose_likeliest_token_is_not_the_targets(scope):
    frozen, batch, model = setting.frozen(), setting.batch(0), setting.model(2)
    loss, metrics = objectives.selective_distill(fraction=0.1, rule=rejected, scope=scope)(model, frozen, batch)
    ours, theirs = (m(batch.tokens_BT)[0][:, :-1] for m in (model, frozen.target))
    refused_BT = jnp.asarray(batch.loss_mask_BT[:, 1:]) & (jnp.argmax(ours, -1) != jnp.argmax(theirs, -1))
    assert 0 < refused_BT.sum() < batch.loss_mask_BT[:, 1:].sum()
    np.testing.assert_allclose(loss, (forward_kl(ours, theirs) * refused_BT).sum() / refused_BT.sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["share_kept"], 1 - metrics["agreement"], rtol=1e-6)


@pytest.mark.parametrize("knobs", [{"fraction": 0}, {"fraction": 1.1}, {"normalize": "mean"}, {"scope": "local"}])
def test_impossible_knobs_are_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        objectives.selective_distill(**knobs)


OBJECTIVES = {
    "fine_tune": objectives.fine_tune,
    "distill": objectives.distill,
    "selective": partial(objectives.selective_distill, fraction=0.4),
}


@pytest.mark.parametrize(
    "name, shape",
    [slow("fine_tune", (8, 1, 1)), ("distill", (2, 2, 2)), slow("selective", (8, 1, 1)), ("selective", (2, 4, 1))],
    ids=str,
)
def test_eight_devices_give_the_losses_of_one(name, shape):
    mesh = sharding.make_mesh(*shape)
    frozen = setting.frozen()
    one, _ = losses(OBJECTIVES[name](), frozen)
    by_device = OBJECTIVES[name](chunking=Chunking(tokens=4, groups=shape[0] * shape[1]))
    on_mesh = {"place": lambda x: sharding.shard_rows(x, mesh), "put": lambda x: sharding.shard(x, mesh)}
    many, state = losses(by_device, frozen, **on_mesh)
    assert len(state.model.params["embed"]["embedding"].sharding.device_set) == 8
    np.testing.assert_allclose([m["loss"] for m in many], [m["loss"] for m in one], rtol=1e-5)


def test_accumulated_batches_update_with_their_mean_gradient():
    smooth = {"eps": 1.0, "clip_norm": 0}  # Adam's first step would otherwise be the sign of rounding errors
    optimizer = adamw(1e-2, accumulate=2, **smooth)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    step, start = make_step(objectives.fine_tune(), optimizer), setting.model(2)
    state, _ = step(state, setting.Frozen(), setting.batch(0))
    jax.tree.map(np.testing.assert_array_equal, state.model.params, start.params)
    state, _ = step(state, setting.Frozen(), setting.batch(1))

    def gradient(seed):
        loss = lambda p: objectives.fine_tune()(models.CausalLM(p, start.config), None, setting.batch(seed))[0]  # noqa: E731
        return jax.grad(loss)(start.params)

    mean = jax.tree.map(lambda a, b: (a + b) / 2, gradient(0), gradient(1))
    once = adamw(1e-2, **smooth)
    updates, _ = once.update(mean, once.init(start.params), start.params)
    by_hand = optax.apply_updates(start.params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.model.params, by_hand)


def test_schedules_end_where_they_should():
    for name, last in (("constant", 1e-3), ("linear", 0.0), ("cosine", 0.0)):
        rate = learning_rate(1e-3, steps=100, schedule=name, warmup_steps=10)
        assert float(rate(0)) == 0.0
        np.testing.assert_allclose(float(rate(10)), 1e-3, rtol=1e-6)
        np.testing.assert_allclose(float(rate(100)), last, atol=1e-9)
    with pytest.raises(ValueError, match="cosine"):
        learning_rate(1e-3, steps=10, schedule="step")


class TorchStep:
    """The same mathematics in PyTorch, written independently: transformers' models, torch's AdamW and quantile."""

    def __init__(self, folder, *, fraction, normalize):
        self.torch = pytest.importorskip("torch")
        from transformers import AutoModelForCausalLM

        read = lambda name: AutoModelForCausalLM.from_pretrained(folder / name, dtype=self.torch.float32)  # noqa: E731
        self.target, self.reference, self.draft = (read(name).eval() for name in ("target", "reference", "draft"))
        decayed = [p for p in self.draft.parameters() if p.ndim >= 2]
        rest = [p for p in self.draft.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = self.torch.optim.AdamW(groups, lr=1e-2)
        self.fraction, self.normalize = fraction, normalize

    def kl(self, model, tokens, mask, log_p):
        log_q = self.torch.log_softmax(model(tokens).logits[:, :-1][mask].float(), -1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def __call__(self, batch):
        torch = self.torch
        tokens, mask = torch.tensor(batch.tokens_BT).long(), torch.tensor(batch.loss_mask_BT[:, 1:])
        with torch.no_grad():
            log_p = torch.log_softmax(self.target(tokens).logits[:, :-1][mask].float(), -1)
        kl = self.kl(self.draft, tokens, mask, log_p)
        kept, delta, threshold = torch.ones_like(kl, dtype=bool), None, None
        if self.fraction is not None:
            with torch.no_grad():
                delta = kl.detach() - self.kl(self.reference, tokens, mask, log_p)
            threshold = torch.quantile(delta, 1 - self.fraction)
            kept = delta >= threshold
        loss = kl[kept].sum() / (len(kl) if self.normalize == "official" else kept.sum())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
        self.optimizer.step()
        return loss.item(), kept.numpy(), None if delta is None else (delta.numpy(), float(threshold))


@pytest.mark.parametrize(
    "fraction, normalize",
    [(None, "paper"), (0.4, "paper"), (0.4, "official")],
    ids=["reference", "selective, paper", "selective, official"],
)
def test_twenty_steps_equal_pytorch(tmp_path, fraction, normalize):
    frozen, draft = setting.frozen(), setting.model(2)
    for name, value in {"target": frozen.target, "reference": frozen.reference, "draft": draft}.items():
        models.save(value, tmp_path / name)
    theirs = TorchStep(tmp_path, fraction=fraction, normalize=normalize)
    objective = (
        objectives.distill() if fraction is None else objectives.selective_distill(fraction=0.4, normalize=normalize)
    )
    optimizer = adamw(1e-2)
    state, step = init_state(draft, optimizer, jax.random.key(0)), make_step(objective, optimizer)

    @jax.jit
    def choice(model, frozen, batch):
        logits = (m(batch.tokens_BT)[0][:, :-1] for m in (model, frozen.reference, frozen.target))
        return select_top_fraction(gap(forward_kl, *logits), batch.loss_mask_BT[:, 1:], fraction)

    for number in range(20):
        batch = setting.batch(number)
        if fraction:
            kept_BT = np.asarray(choice(state.model, frozen, batch))[batch.loss_mask_BT[:, 1:]]
        state, metrics = step(state, frozen, batch)
        loss, kept, by = theirs(batch)
        np.testing.assert_allclose(float(metrics["loss"]), loss, rtol=1e-4, err_msg=f"step {number}")
        if fraction:
            delta, threshold = by
            swapped = kept_BT != kept
            assert np.abs(delta[swapped] - threshold).max(initial=0) < 1e-5, f"step {number}"


def test_bfloat16_computes_in_bfloat16_and_learns_in_float32():
    optimizer = adamw(1e-5, weight_decay=0)
    state = init_state(setting.model(2), optimizer, jax.random.key(0))
    before = jax.tree.map(np.array, state.model.params)
    seen = []

    def objective(model, frozen, batch):
        seen.append(model.dtype)
        return objectives.fine_tune()(model, frozen, batch)

    step = make_step(objective, optimizer, compute_dtype=jnp.bfloat16)
    state, _ = step(state, setting.Frozen(), setting.batch(0))
    assert seen == [jnp.bfloat16]
    moved = jax.tree.map(lambda a, b: float(np.mean(a != b)), before, jax.device_get(state.model.params))
    # A step of 1e-5 is far below what bfloat16 can tell apart at 0.2.
    assert moved["layers_0"]["mlp"]["up"]["kernel"] > 0.9


def test_what_is_selected_is_counted_by_class_as_counting_by_hand_does():
    batch, model, frozen = setting.batch(0), setting.model(2), setting.frozen()
    classes_V = (np.arange(setting.VOCAB) % 4).astype(np.int8)
    objective = objectives.selective_distill(fraction=0.4)
    value, without = objective(model, frozen, batch)
    counted, metrics = objective(model, replace(frozen, classes_V=classes_V), batch)
    assert "kept_by_class" not in without and counted == value
    labels = [t for row, mask in zip(batch.tokens_BT, batch.loss_mask_BT, strict=True) for t in row[1:][mask[1:]]]
    expected = np.bincount([classes_V[t] for t in labels], minlength=len(metrics["labels_by_class"]))
    np.testing.assert_array_equal(metrics["labels_by_class"], expected)
    assert np.all(metrics["kept_by_class"] <= metrics["labels_by_class"])
    assert metrics["kept_by_class"].sum() == round(float(metrics["share_kept"] * metrics["tokens"]))
    zero_gap = replace(frozen, classes_V=classes_V, reference=model)  # all gaps are equal: everything is kept
    everything = objective(model, zero_gap, batch)[1]
    np.testing.assert_array_equal(everything["kept_by_class"], expected)
