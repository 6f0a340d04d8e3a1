"""Exact decoding: in bfloat16, where logits tie, a text does not depend on who guessed, to the bit."""

import dataclasses
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    ChainDrafter,
    Context,
    Lenient,
    NoDraft,
    Sampling,
    TreeDrafter,
    engine,
    generate,
    rejection_sample,
    stream,
)
from adaspec_jax.decoding.drafters.models.growth import GrowthDrafter
from adaspec_jax.decoding.drafters.text.copying import PromptLookup
from adaspec_jax.decoding.exact import Widened, check_backend
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.models.causal_lm import parameter_shapes
from tests.decoding.bag_model import BagModel
from tests.models.conftest import TINY_OF
from tests.running import slow

GREEDY, KEY, NODES = Sampling(0.0), jax.random.key(0), 4
LOOKUP = PromptLookup(2, 3)
ONE_LAYER = {"gpt2": {"n_layer": 1}, "codegen": {"n_layer": 1}}
FAMILIES = [name if name in ("llama", "gpt2") else slow(name) for name in TINY_OF]


def target(family, dtype=jnp.bfloat16):
    """A model in which few bits decide: ties are common."""
    keys = TINY_OF[family] | ONE_LAYER.get(family, {"num_hidden_layers": 1})
    config, draw = models.config_from_hf(keys), np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: jnp.asarray(0.3 * draw.normal(size=shape.shape), dtype), parameter_shapes(config)
    )
    return models.CausalLM(params, config)


def prompts(batch=6):
    rng = np.random.default_rng(0)
    return Context(np.tile(rng.integers(3, 61, (batch, 3)), (1, 3)), rng.integers(3, 10, batch))


def decode(target, drafter, **knobs):
    knobs = {"max_new_tokens": 30, "sampling": GREEDY} | knobs
    return jax.device_get(generate(target, drafter, prompts(), KEY, **knobs))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_a_text_is_plain_decodings_to_the_bit(family):
    there = target(family)
    plain, ours = (decode(there, drafter, exact=NODES) for drafter in (NoDraft(), LOOKUP))
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.accepted_BN.sum() > 0 and (plain.rounds_B == 30).all()
    assert ours.accepted_BN.shape[1] == plain.accepted_BN.shape[1] == NODES


def test_a_draft_model_a_stream_and_shared_noise_too():
    there, noise = target("llama"), {"sampling": Sampling(1.0, shared_noise=True), "exact": NODES}
    draft = dataclasses.replace(there, params=jax.tree.map(lambda x: x + x.mean(), there.params))
    plain, ours = (decode(there, drafter, **noise) for drafter in (NoDraft(), ChainDrafter(draft, 4)))
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert 0 < ours.accepted_BN.sum() < ours.judged_BN.sum()
    *_, last = stream(there, LOOKUP, prompts(), KEY, max_new_tokens=30, **noise)
    np.testing.assert_array_equal(last.tokens_BS, plain.tokens_BS)


def lowered(drafter, exact):
    there = target("llama")
    if exact is not False:
        there, drafter = engine.checked_exactly(there, drafter, prompts(), 30, exact, GREEDY, rejection_sample)
    arguments, slots = engine.program_arguments(there, drafter, prompts(), KEY, 30, -1)
    return engine._decode.lower(*arguments, slots=slots, sampling=GREEDY, accept=rejection_sample).as_text()


def test_the_target_is_called_at_one_width_between_barriers():
    usual, exact, plain = lowered(LOOKUP, False), lowered(LOOKUP, NODES), lowered(NoDraft(), NODES)
    assert "optimization_barrier" in exact and "optimization_barrier" not in usual
    assert "stablehlo.case" in usual and "stablehlo.case" not in exact  # narrower verifications, and plain steps
    logits = f"tensor<6x{NODES + 1}x61x"
    assert logits in exact and logits in plain and logits not in usual


def test_what_has_no_exact_text_is_refused_by_name():
    there, how = BagModel.random(0), {"max_new_tokens": 4, "sampling": GREEDY}
    deep = target("llama", jnp.float32)
    layers = dataclasses.replace(deep, config=dataclasses.replace(deep.config, num_layers=4))
    exits = METHODS["layerskip"].make(Given(target=layers))
    within = namedtuple("Within", "num_nodes asks")(3, namedtuple("Asks", "layers likeliest")((2,), 0))
    for drafter, exact, knobs, says in (
        (TreeDrafter(there, (2, 2)), True, {}, "exact decoding is for chains, and TreeDrafter guesses a tree"),
        (TreeDrafter(there, (1, 1)), True, {}, "exact decoding is for chains, and TreeDrafter guesses a tree"),
        (GrowthDrafter(there, budget=3, depth=9), True, {}, "exact decoding is for chains, and GrowthDrafter"),
        (exits, True, {}, "EarlyExitDrafter from states within the target"),
        (within, True, {}, "Within reads states within the target"),
        (LOOKUP, 2, {}, "PromptLookup guesses 3 tokens; exact=2 is too few"),
        (LOOKUP, True, {"sampling": Sampling(1.0)}, "temperature 0, or of shared noise"),
        (LOOKUP, True, {"accept": Lenient(0.9)}, "a lossy rule writes another"),
    ):
        with pytest.raises(ValueError, match=says):
            generate(there, drafter, Context(np.ones((2, 3), int), [3, 2]), KEY, exact=exact, **{**how, **knobs})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unsteady(BagModel):
    """Its last bits depend on where a row stands (the first scale), or on who else is in the batch (the second)."""

    scales_2: jax.Array = None

    def unembed(self, hidden_BTV):
        place_T = jnp.arange(hidden_BTV.shape[1], dtype=jnp.float32)[None, :, None]
        others = jnp.mean(hidden_BTV, axis=(0, 1), keepdims=True)
        return super().unembed(hidden_BTV) + self.scales_2[0] * place_T + self.scales_2[1] * others


def test_a_backend_on_which_bits_depend_on_more_than_the_text_is_refused():
    table_VV = BagModel.random(0, vocab=11).table_VV
    check_backend(Unsteady(table_VV, jnp.zeros(2)), 3, 2, 16)
    for scales, batch in (((1e-5, 0.0), 4), ((0.0, 1e-5), 5)):  # what is known of a shape is not measured again
        with pytest.raises(ValueError, match=r"refused on cpu: .* its place or on its neighbours \(. rows of 3 tokens"):
            check_backend(Unsteady(table_VV, jnp.asarray(scales)), batch, 2, 16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rows_bits_depend_on_its_text_alone_here(dtype):
    there = target("llama", jnp.dtype(dtype))
    for batch, nodes in ((1, 5), (8, 2)):
        check_backend(there.for_decoding(), batch, nodes, 64)


def test_a_widened_chain_is_the_same_chain():
    there = BagModel.random(0, vocab=11, scale=2.0)
    context = {"max_new_tokens": 20, "sampling": GREEDY}
    prompt = Context(np.tile(np.arange(5), (2, 3)), [15, 9])
    ours = jax.device_get(generate(there, Widened(LOOKUP, 7), prompt, KEY, **context))
    alone = jax.device_get(generate(there, LOOKUP, prompt, KEY, **context))
    np.testing.assert_array_equal(ours.tokens_BS, alone.tokens_BS)
    np.testing.assert_array_equal(ours.histogram_BM[:, :4], alone.histogram_BM)
    assert ours.drafted_B.tolist() == alone.drafted_B.tolist() and not ours.judged_BN[:, 3:].any()
