"""What a stage gives up to fit, and that giving it up changes nothing but memory, or as little as it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaspec_jax.devices import sharding
from adaspec_jax.devices.ahead_of_time import short_of_memory
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import memory
from adaspec_jax.pipeline.memory import Memory
from adaspec_jax.training import (
    Chunking,
    Frozen,
    adamw,
    adapting,
    init_lora,
    init_state,
    make_step,
    merged,
    objectives,
)
from adaspec_jax.training.optimizers import kept_in_bfloat16, round_stochastically
from tests.running import slow
from tests.training import setting

MAKERS = {
    "fine_tune": objectives.fine_tune,
    "distill": objectives.distill,
    "selective": lambda **knobs: objectives.selective_distill(fraction=0.4, **knobs),
}


def train(objective, model, steps=3, frozen=None, optimizer=None, place=lambda batch: batch, **begin):
    optimizer = optimizer or adamw(1e-2, eps=1e-3)
    state, step, found = init_state(model, optimizer, jax.random.key(0), **begin), make_step(objective, optimizer), []
    for number in range(steps):
        state, metrics = step(state, frozen or setting.frozen(), place(setting.batch(number, rows=8, length=32)))
        found.append(jax.device_get(metrics))
    return state, found


@functools.cache
def trained_plainly(name):
    """What the ways to save memory are held against: trained once."""
    return train(MAKERS[name](), setting.model(2, layers=2))


# Every way with some objective, the ways together with every objective.
CHANGES, SOME = ("micro-batches", "rematerialised", "scanned", "all"), [("selective", "micro-batches")]
SOME += [("distill", "rematerialised"), ("fine_tune", "scanned"), *((name, "all") for name in MAKERS)]
REST = [slow(name, change) for name in MAKERS for change in CHANGES if (name, change) not in SOME]


@pytest.mark.parametrize("name, change", [*SOME, *REST])
def test_what_saves_memory_alone_changes_no_loss_choice_or_weight(name, change):
    model = setting.model(2, layers=2)
    plain, expected = trained_plainly(name)
    knobs = {"micro_batches": 4} if change in ("micro-batches", "all") else {}
    model = model.with_rematerialisation(change in ("rematerialised", "all"))
    model = model.stacked() if change in ("scanned", "all") else model
    state, found = train(MAKERS[name](**knobs), model)
    for key in expected[0]:
        np.testing.assert_allclose([m[key] for m in found], [m[key] for m in expected], rtol=2e-5, err_msg=key)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)  # noqa: E731
    jax.tree.map(same, state.model.unstacked().params, plain.model.params)


@pytest.mark.parametrize("shape", [slow((8, 1, 1)), (2, 2, 2)], ids=str)
def test_micro_batches_of_a_mesh_are_those_of_one_device(shape):
    mesh, (data, fsdp, _) = sharding.make_mesh(*shape), shape
    chunking = Chunking(tokens=4, groups=data * fsdp)
    objective = objectives.selective_distill(fraction=0.4, chunking=chunking, micro_batches=8 // (data * fsdp))
    with jax.set_mesh(mesh):
        model = sharding.shard(setting.model(2, layers=2).stacked(), mesh)
        frozen = sharding.shard(setting.frozen(), mesh)
        _, found = train(objective, model, frozen=frozen, place=lambda batch: sharding.shard_rows(batch, mesh))
    _, expected = trained_plainly("selective")
    for key in ("loss", "share_kept", "gap"):
        np.testing.assert_allclose([m[key] for m in found], [m[key] for m in expected], rtol=1e-5, err_msg=key)


def temporary_bytes(objective, model):
    optimizer = adamw(1e-3)
    step, state = make_step(objective, optimizer), init_state(model, optimizer, jax.random.key(0))
    batch = setting.batch(0, rows=16, length=256)
    return step.lower(state, Frozen(), batch).compile().memory_analysis().temp_size_in_bytes


def test_micro_batches_and_rematerialised_layers_need_less():
    model = setting.model(2, hidden=64, layers=4)
    whole = temporary_bytes(objectives.fine_tune(), model)
    assert temporary_bytes(objectives.fine_tune(micro_batches=8), model) < 0.5 * whole
    assert temporary_bytes(objectives.fine_tune(), model.stacked().with_rematerialisation(True)) < 0.7 * whole


def test_rows_that_do_not_divide_into_micro_batches_are_refused():
    with pytest.raises(ValueError, match="a batch of 8 rows does not divide into 3 micro-batches"):
        train(objectives.fine_tune(micro_batches=3), setting.model(2))


def test_rounding_is_up_or_down_to_the_neighbours_and_right_on_average():
    values = jnp.float32([1.0, 1.001, -3.14159, 1e-20, 0.0, 65504.7])
    rounded = jax.vmap(lambda key: round_stochastically(values, key))(jax.random.split(jax.random.key(0), 20_000))
    assert rounded.dtype == jnp.bfloat16
    rounded = np.asarray(rounded, np.float64)
    exact = np.asarray(values, np.float64)
    unit = np.abs(exact) * 2.0**-7
    assert np.all(np.abs(rounded - exact) <= unit)
    error = rounded.mean(0) - exact
    assert np.all(np.abs(error) <= 5 * unit / np.sqrt(20_000))
    assert np.isnan(round_stochastically(jnp.float32([np.nan]), jax.random.key(0))[0])


def test_small_updates_of_bfloat16_weights_are_not_lost():
    """An update below half a unit in the last place: nearest rounding would never move."""
    model = jax.tree.map(jnp.ones_like, setting.model(2))
    optimizer = optax.sgd(1.0)
    objective = lambda model, frozen, batch: (  # noqa: E731
        sum(1e-4 * jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(model.params)),
        {},
    )
    state, _ = train(objective, model, steps=50, optimizer=optimizer, master=jnp.bfloat16)
    kernel = np.asarray(state.model.params["head"]["kernel"], np.float64)
    assert state.model.dtype == jnp.bfloat16
    assert kernel.mean() == pytest.approx(1 - 50 * 1e-4, abs=3e-4)


@functools.cache
def distilled(moments):
    optimizer = adamw(3e-3, moments=moments)
    return train(objectives.distill(), setting.model(2, hidden=128, layers=1), steps=30, optimizer=optimizer)


@pytest.mark.parametrize("moments, bytes_per_weight", [slow("float32", 8), ("bfloat16", 4), slow("factored", 1)])
def test_moments_take_what_they_say_and_learn_alike(moments, bytes_per_weight):
    state, found = distilled(moments)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))
    assert held <= bytes_per_weight * 1.05 * state.model.num_params
    _, expected = distilled("float32")
    fell = lambda metrics: metrics[0]["loss"] - metrics[-1]["loss"]  # noqa: E731
    assert fell(found) > (0.9 if moments == "bfloat16" else 0.5) * fell(expected) > 0


def test_a_second_moment_in_bfloat16_still_follows_its_mean():
    transformation = kept_in_bfloat16(optax.scale_by_adam(b2=0.999))
    params = jnp.ones((4000,))
    state = transformation.init(params)
    update = jax.jit(lambda state: transformation.update(jnp.full_like(params, 0.5), state, params)[1])
    for _ in range(300):
        state = update(state)
    assert state.inner.nu.dtype == jnp.bfloat16
    assert float(jnp.mean(state.inner.nu.astype(jnp.float32))) == pytest.approx(0.25 * (1 - 0.999**300), rel=0.01)


@pytest.mark.parametrize("stacked", [slow(False), True], ids=["layer by layer", "stacked"])
def test_adapters_train_alone_and_merge_into_the_model_they_made(stacked):
    base = setting.model(2, layers=2)
    base = base.stacked() if stacked else base
    adapters = init_lora(base, 4, jax.random.key(1))
    assert adapters.num_params < 0.5 * base.num_params
    before, _ = objectives.fine_tune()(base, Frozen(), setting.batch(0))
    start, _ = adapting(objectives.fine_tune())(adapters, Frozen(base=base), setting.batch(0))
    assert start == before
    state, found = train(adapting(objectives.fine_tune()), adapters, steps=10, frozen=Frozen(base=base))
    assert found[-1]["loss"] != found[0]["loss"]
    tuned, _ = adapting(objectives.fine_tune())(state.model, Frozen(base=base), setting.batch(0))
    whole = merged(base, state.model)
    assert jax.tree.structure(whole) == jax.tree.structure(base)
    again, _ = objectives.fine_tune()(whole, Frozen(), setting.batch(0))
    assert float(again) == pytest.approx(float(tuned), rel=1e-5) and float(tuned) < float(before)


def test_adapters_leave_how_the_base_is_computed_to_the_base():
    base = setting.model(2, hidden=64, layers=6).stacked()
    objective, adapters, optimizer = (
        adapting(objectives.fine_tune()),
        init_lora(base, 4, jax.random.key(1)),
        adamw(1e-3),
    )
    step, state = make_step(objective, optimizer), init_state(adapters, optimizer, jax.random.key(0))
    batch = setting.batch(0, rows=16, length=256)

    def temporary(base):
        return step.lower(state, Frozen(base=base), batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary(base.with_rematerialisation(True)) < 0.7 * temporary(base)


def sizes(**smaller):
    """Bytes by knob: what each one saves of 100."""

    def bytes_of(chosen):
        saved = sum(smaller[name] for name in smaller if getattr(chosen, name) != getattr(Memory(), name))
        return 100 - saved + (10 if chosen.micro_batches == 2 and "micro_batches" in smaller else 0)

    return bytes_of


@pytest.mark.parametrize(
    "limit, chosen",
    [
        (100, {}),
        (95, {"micro_batches": 2}),
        (85, {"micro_batches": 4}),
        (70, {"micro_batches": 8, "rematerialise": True}),
        (60, {"micro_batches": 8, "rematerialise": True, "moments": "bfloat16"}),
        (50, {"micro_batches": 8, "rematerialise": True, "moments": "bfloat16", "master": "bfloat16"}),
        (35, {"micro_batches": 8, "rematerialise": True, "lora_rank": memory.LORA_RANK}),
    ],
)
def test_auto_takes_the_first_step_that_fits(limit, chosen):
    saves = {"micro_batches": 15, "rematerialise": 15, "moments": 10, "master": 10, "lora_rank": 40}
    asked = []

    def bytes_of(candidate):
        asked.append(candidate)
        return sizes(**saves)(candidate)

    taken, size = memory.choose(Memory(), rows=8, may_adapt=True, limit=limit, bytes_of=functools.cache(bytes_of))
    assert dataclasses.asdict(taken) == dataclasses.asdict(Memory()) | chosen
    assert size <= limit and len(asked) == len(set(asked))


def test_the_last_step_of_the_ladder_is_not_the_last_that_was_asked_about():
    """Single rows are asked about beforehand; where they do not fit and nothing else is left, the ladder ends above."""
    everything = Memory(rematerialise=True, moments="factored", master="bfloat16")
    asked = []

    def bytes_of(candidate):
        asked.append(candidate)
        return 2**29

    rows = {"rows": 4, "may_adapt": False, "limit": 2**28}
    memory_taken, size = memory.descend(everything, **rows, bytes_of=bytes_of)
    assert memory_taken == list(memory.ladder(everything, rows=4, may_adapt=False, fits=lambda _: False))[-1]
    assert (memory_taken, size) == (everything, 2**29) and asked[-1].micro_batches == 1
    assert dataclasses.replace(everything, micro_batches=4) in asked


def test_where_nothing_fits_it_says_by_how_much():
    with pytest.raises(
        UserError, match=r"a step needs 0\.50 GiB per device with .*factored.*, 0\.25 more than there are"
    ):
        memory.choose(Memory(), rows=4, may_adapt=False, limit=2**28, bytes_of=lambda memory: 2**29)


def test_a_device_s_words_for_too_little_memory_become_one_line_with_the_remedy():
    with pytest.raises(UserError, match="the draft stage needs more memory.*; buy some") as error:
        with short_of_memory("the draft stage", "buy some"):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nmore")
    assert "12 bytes" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), short_of_memory("decoding", ""):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
