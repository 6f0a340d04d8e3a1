"""With shared noise one text is sampled for a seed, whatever the drafter, the rule, the batch and the way to decode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax import models
from adaspec_jax.decoding import (
    ChainDrafter,
    Confident,
    Context,
    Dialogue,
    GrowthDrafter,
    Lenient,
    NoDraft,
    Proposal,
    Sampling,
    TreeDrafter,
    block_verification,
    generate,
    generate_from_queue,
    k_sequential,
    match_sample,
    pytree,
    rejection_sample,
    request_keys,
    stream,
)
from adaspec_jax.decoding.noise import check_shared, noise_at
from tests.decoding.bag_model import next_logits
from tests.decoding.test_engine import KEY, chi_square_p, decode, pair, ragged_prompt  # noqa: F401
from tests.decoding.test_laws import DRAFT
from tests.running import slow

SAMPLINGS = [
    Sampling(0.7, shared_noise=True),
    Sampling(1.0, shared_noise=True),
    Sampling(1.0, top_k=3, shared_noise=True),
    Sampling(0.7, top_p=0.8, shared_noise=True),
]
SHARED = SAMPLINGS[1]


@pytree("num_nodes")
class Guessing:
    """Draws guesses in its own way, and knows nothing of noise."""

    num_nodes: int = 3

    def init(self, prompt, slots):
        return ()

    def propose(self, key, state, context):
        laws_BNV = jnp.full((len(context.lengths_B), self.num_nodes, 11), 1 / 11)
        return Proposal(Sampling().draw(key, laws_BNV), probs_BNV=laws_BNV), state


def drafters(draft):
    return {
        "one": (ChainDrafter(draft, 1), rejection_sample),
        "chain": (ChainDrafter(draft, 4), rejection_sample),
        "longer than the room": (ChainDrafter(draft, 9), block_verification),
        "stopping": (ChainDrafter(draft, 5, Confident(0.3), (2,)), match_sample),
        "tree": (TreeDrafter(draft, (2, 1, 2)), k_sequential),
        "siblings that differ": (TreeDrafter(draft, (3, 1), replacement=False), rejection_sample),
        "grown tree": (GrowthDrafter(draft, budget=6, beams=2, branch=3, depth=3), match_sample),
        "ignorant": (Guessing(), rejection_sample),
    }


EVERY = [(kind, sampling) for sampling in SAMPLINGS for kind in drafters(None)]
QUICK = {*EVERY[:: len(SAMPLINGS) - 1], *((kind, SAMPLINGS[0]) for kind in drafters(None))}  # every value of both


@pytest.mark.parametrize("kind, sampling", [way if way in QUICK else slow(*way) for way in EVERY], ids=str)
def test_every_drafter_samples_plain_decodings_text(pair, kind, sampling):  # noqa: F811
    target, draft = pair
    drafter, accept = drafters(draft)[kind]
    for prompt in (ragged_prompt(8), ragged_prompt(1))[: 2 if sampling == SHARED else 1]:
        knobs = {"sampling": sampling, "eos_id": (7, 2), "max_new_tokens": 7 if "room" in kind else 23}
        plain, ours = (
            decode(target, NoDraft(), prompt, **knobs),
            decode(target, drafter, prompt, accept=accept, **knobs),
        )
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
        assert ours.rounds_B.sum() < plain.rounds_B.sum() or len(prompt.lengths_B) == 1


def test_another_seed_samples_another_text_and_another_row_too(pair):  # noqa: F811
    target, _ = pair
    prompt, knobs = Context(np.ones((2, 3), int), np.full(2, 3)), {"max_new_tokens": 23, "eos_id": -1}
    first, other = (
        np.asarray(generate(target, NoDraft(), prompt, jax.random.key(seed), sampling=SHARED, **knobs).tokens_BS)
        for seed in (0, 1)
    )
    assert (first != other).any() and (first[0] != first[1]).any()


@pytest.mark.parametrize("raw", [slow(False), True])
def test_a_request_keeps_its_text_in_any_company(pair, raw):  # noqa: F811
    target, draft = pair
    whole, chosen = ragged_prompt(8), np.asarray([5, 2, 6])
    key = jax.random.PRNGKey(0) if raw else KEY
    knobs = {"max_new_tokens": 23, "sampling": SHARED, "eos_id": 7}
    expected = np.asarray(generate(target, NoDraft(), whole, key, **knobs).tokens_BS)[chosen]
    few = Context(whole.tokens_BS[chosen], whole.lengths_B[chosen], noise_B=request_keys(key, chosen))
    ours = generate(target, ChainDrafter(draft, 3), few, key, **knobs)
    np.testing.assert_array_equal(ours.tokens_BS, expected)
    queued = generate_from_queue(target, ChainDrafter(draft, 3), few, key, rows=2, **knobs)
    np.testing.assert_array_equal(queued.tokens_BS, expected)
    *_, streamed = stream(target, ChainDrafter(draft, 2), few, key, **knobs)
    np.testing.assert_array_equal(streamed.tokens_BS, expected)


@pytest.mark.parametrize("rows, refill", [(3, 2), slow(1, 1), slow(30, 2)])
@pytest.mark.parametrize("kind", ["plain", "chain", "tree"])
def test_a_queue_samples_what_a_batch_does(pair, rows, refill, kind):  # noqa: F811
    target, draft = pair
    drafter = {"plain": NoDraft(), "chain": ChainDrafter(draft, 3), "tree": TreeDrafter(draft)}[kind]
    prompts, knobs = ragged_prompt(13), {"sampling": SAMPLINGS[3], "eos_id": 7, "max_new_tokens": 23}
    ours = generate_from_queue(target, drafter, prompts, KEY, rows=rows, refill=refill, **knobs)
    np.testing.assert_array_equal(ours.tokens_BS, decode(target, NoDraft(), prompts, **knobs).tokens_BS)


def test_a_dialogue_samples_what_whole_prompts_do(pair):  # noqa: F811
    target, draft = pair
    knobs = {"max_new_tokens": 9, "sampling": SHARED, "eos_id": -1}
    talk, prompt = Dialogue(target, ChainDrafter(draft, 3), **knobs), ragged_prompt(4)
    for _ in range(2):
        plain = jax.device_get(generate(target, NoDraft(), prompt, KEY, **knobs))
        np.testing.assert_array_equal(talk.turn(prompt, KEY).tokens_BS, plain.tokens_BS)
        prompt = Context(plain.tokens_BS, plain.lengths_B)
    assert (talk.read_B < prompt.lengths_B).all()


def test_plain_decoding_equals_a_loop_over_noise_in_numpy(pair):  # noqa: F811
    target, _ = pair
    prompt, sampling = ragged_prompt(3), SAMPLINGS[0]
    ours = decode(target, NoDraft(), prompt, sampling=sampling, max_new_tokens=8)
    for row, key in enumerate(request_keys(KEY, np.arange(3))):
        text = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        for _ in range(8):
            noise = jax.random.gumbel(jax.random.fold_in(key, len(text)), (11,))
            text.append(int(np.argmax(next_logits(target, text) / 0.7 + np.asarray(noise))))
        assert ours.tokens_BS[row, : len(text)].tolist() == text


@pytest.mark.parametrize("drafter", [NoDraft(), ChainDrafter(DRAFT, 3)], ids=["plain", "chain"])
@pytest.mark.parametrize("sampling", [SAMPLINGS[0], slow(SAMPLINGS[3])], ids=str)
def test_over_requests_the_text_follows_the_targets_law(drafter, sampling):
    assert chi_square_p(drafter, rejection_sample, sampling=sampling) > 1e-4


def test_noise_is_gumbels_and_differs_from_token_to_token():
    noise_BTV = np.asarray(noise_at(request_keys(KEY, np.arange(20)), jnp.tile(jnp.arange(10)[None], (20, 1)), 50))
    assert stats.kstest(noise_BTV.ravel(), "gumbel_r").pvalue > 1e-3
    assert len(np.unique(noise_BTV)) > 0.99 * noise_BTV.size


def test_a_guess_stays_as_often_as_the_coupling_says(pair):  # noqa: F811
    """sum_x 1 / sum_y max(p_y / p_x, q_y / q_x), below what rejection keeps and above its known bound."""
    target, draft = pair
    rows, begun = 20_000, [1, 2]
    prompt = Context(np.tile([begun], (rows, 1)), np.full(rows, 2))
    p, q = (np.asarray(jax.nn.softmax(jnp.asarray(next_logits(m, begun)))) for m in (target, draft))
    coupled = sum(1 / np.maximum(p / p[x], q / q[x]).sum() for x in range(11))
    shared = np.minimum(p, q).sum()
    assert shared / (2 - shared) <= coupled < shared - 0.02
    ours = decode(target, ChainDrafter(draft, 1), prompt, sampling=SHARED, max_new_tokens=2)
    first = ours.accepted_BN[:, 0] > 0  # of one round, or of two
    one_round = decode(target, ChainDrafter(draft, 1), prompt, sampling=SHARED, max_new_tokens=1)
    assert abs(one_round.accepted_BN.mean() - coupled) < 4 * (0.25 / rows) ** 0.5
    assert first.mean() >= one_round.accepted_BN.mean()


def test_lossy_rules_and_rounds_without_noise_are_refused(pair):  # noqa: F811
    target, draft = pair
    with pytest.raises(ValueError, match="a lossy rule has nothing to decide"):
        decode(target, ChainDrafter(draft, 2), ragged_prompt(2), sampling=SHARED, accept=Lenient(0.5))
    with pytest.raises(ValueError, match="rounds inside others take their noise_B"):
        check_shared(None, rejection_sample)
    greedy = Sampling(0.0, shared_noise=True)
    plain = decode(target, NoDraft(), ragged_prompt(), sampling=Sampling(0.0))
    ours = decode(target, ChainDrafter(draft, 2), ragged_prompt(), sampling=greedy)
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)


def test_a_transformer_and_its_drafters_share_their_text_too():
    hf = {"model_type": "llama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    hf |= {"num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3}
    target, draft = (models.build(hf, jax.random.key(seed)) for seed in (0, 0))
    prompt = ragged_prompt(4, vocab=61)
    plain = decode(target, NoDraft(), prompt, sampling=SHARED)
    for drafter in (ChainDrafter(draft, 3), TreeDrafter(draft, (2, 2))):
        ours = decode(target, drafter, prompt, sampling=SHARED)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        assert ours.rounds_B.sum() < 0.6 * plain.rounds_B.sum()


def test_keys_of_requests_say_nothing_where_noise_is_not_shared(pair):  # noqa: F811
    """A draft that went by them would guess with noise, or divide by a temperature of 0."""
    target, _ = pair
    prompt = ragged_prompt()
    keys = request_keys(KEY, np.arange(len(prompt.lengths_B)))
    given = Context(prompt.tokens_BS, prompt.lengths_B, noise_B=keys)
    for sampling in (Sampling(0.0), Sampling(1.0)):
        knobs = {"max_new_tokens": 8, "sampling": sampling, "eos_id": -1}
        ours, plain = (generate(target, ChainDrafter(target, 3), each, KEY, **knobs) for each in (given, prompt))
        np.testing.assert_array_equal(ours.accepted_BN, plain.accepted_BN)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
