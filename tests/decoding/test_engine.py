"""Speculation changes how many target calls a continuation takes, never the continuation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax.decoding import (
    GUESS,
    PROMPT,
    TARGET,
    Asks,
    ChainDrafter,
    Context,
    NoDraft,
    Proposal,
    Sampling,
    TreeDrafter,
    Verdict,
    engine,
    generate,
    rejection_sample,
)
from tests.decoding.bag_model import BagModel, next_logits
from tests.running import slow

GREEDY = Sampling(temperature=0.0)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def pair():
    target = BagModel.random(0, vocab=11, scale=2.0)
    noise = BagModel.random(1, vocab=11, scale=0.5)
    return target, BagModel(target.table_VV + noise.table_VV)


def ragged_prompt(batch=8, longest=6, vocab=11):
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, longest + 1, size=batch)
    lengths[0], lengths[-1] = 1, longest
    return Context(rng.integers(0, vocab, size=(batch, longest)), lengths)


def decode(target, drafter, prompt, **knobs):
    knobs = {"max_new_tokens": 23, "sampling": GREEDY, "eos_id": -1} | knobs
    return jax.device_get(generate(target, drafter, prompt, KEY, **knobs))


@pytest.mark.parametrize("length", [1, slow(2), 3, *map(slow, (4, 5, 6, 7)), 8])
def test_greedy_speculation_equals_plain_decoding(pair, length):
    target, draft = pair
    for prompt in (ragged_prompt(8), ragged_prompt(1)):
        for eos in (-1, 7):
            plain = decode(target, NoDraft(), prompt, eos_id=eos)
            ours = decode(target, ChainDrafter(draft, length=length), prompt, eos_id=eos)
            np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
            np.testing.assert_array_equal(ours.lengths_B, plain.lengths_B)
            assert ours.rounds_B.sum() <= plain.rounds_B.sum()


# tests/decoding/test_laws.py has further shapes.
@pytest.mark.parametrize("branching", [slow((1,)), slow((3,)), slow((2, 2, 1)), (2, 1, 2), slow((1, 1, 1, 1))])
def test_greedy_tree_speculation_equals_plain_decoding(pair, branching):
    target, draft = pair
    plain = decode(target, NoDraft(), ragged_prompt())
    ours = decode(target, TreeDrafter(draft, branching=branching), ragged_prompt())
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.rounds_B.sum() < plain.rounds_B.sum()


def test_a_tree_of_width_one_is_the_chain(pair):
    target, draft = pair
    chain = decode(target, ChainDrafter(draft, length=3), ragged_prompt(), eos_id=7)
    tree = decode(target, TreeDrafter(draft, branching=(1, 1, 1)), ragged_prompt(), eos_id=7)
    for name in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B", "histogram_BM", "rejected_BS"):
        np.testing.assert_array_equal(getattr(chain, name), getattr(tree, name), err_msg=name)


def test_plain_decoding_equals_an_argmax_loop_in_numpy(pair):
    target, _ = pair
    prompt = ragged_prompt()
    plain = decode(target, NoDraft(), prompt, eos_id=7)
    for row in range(8):
        tokens = prompt.tokens_BS[row, : prompt.lengths_B[row]].tolist()
        for _ in range(23):
            tokens.append(int(np.argmax(next_logits(target, tokens))))
            if tokens[-1] == 7:
                break
        assert plain.tokens_BS[row, : plain.lengths_B[row]].tolist() == tokens
        assert plain.rounds_B[row] == len(tokens) - prompt.lengths_B[row]
        assert not plain.tokens_BS[row, plain.lengths_B[row] :].any()


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(temperature=0.7, top_k=3, top_p=0.9)])
def test_the_target_as_its_own_draft_is_always_accepted(pair, sampling):
    target, _ = pair
    ours = decode(target, ChainDrafter(target, length=3), ragged_prompt(), sampling=sampling, eos_id=7)
    assert ours.judged_BN.sum() > 0
    np.testing.assert_array_equal(ours.accepted_BN, ours.judged_BN)


@pytest.mark.parametrize("eos", [-1, 7])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_counts_equal_a_brute_force_walk_over_both_models(pair, length, eos):
    target, draft = pair
    prompt = ragged_prompt()
    ours = decode(target, ChainDrafter(draft, length=length), prompt, eos_id=eos)
    for row in range(8):
        text = ours.tokens_BS[row, : ours.lengths_B[row]].tolist()
        at, rounds = int(prompt.lengths_B[row]), 0
        end, budget = len(text), int(prompt.lengths_B[row]) + 23
        accepted, judged, drafted = np.zeros(length, int), np.zeros(length, int), 0
        while at < end:
            rounds += 1
            guesses = []
            while len(guesses) < length and at + len(guesses) < budget and eos not in guesses:
                guesses.append(int(np.argmax(next_logits(draft, text[:at] + guesses))))
            drafted += len(guesses)
            for n, guess in enumerate(guesses):
                judged[n] += 1
                if guess != text[at]:
                    at += 1
                    break
                accepted[n] += 1
                at += 1
            else:
                at += at < budget and eos not in guesses
        assert at == end
        assert (rounds, drafted) == (ours.rounds_B[row], ours.drafted_B[row])
        np.testing.assert_array_equal(ours.accepted_BN[row], accepted)
        np.testing.assert_array_equal(ours.judged_BN[row], judged)
        assert ours.histogram_BM[row].sum() == rounds
        assert ours.histogram_BM[row] @ np.arange(length + 1) == accepted.sum()


def test_every_token_knows_where_it_came_from(pair):
    target, draft = pair
    prompt = ragged_prompt()
    ours = decode(target, ChainDrafter(draft, length=3), prompt)
    for row in range(8):
        start, end = prompt.lengths_B[row], ours.lengths_B[row]
        origin = ours.origin_BS[row]
        assert (origin[:start] == PROMPT).all()
        assert (origin[start:end] == GUESS).sum() == ours.accepted_BN[row].sum()
        assert (origin[start:end] == TARGET).sum() == end - start - ours.accepted_BN[row].sum()
        refused = ours.rejected_BS[row, :end]
        assert (origin[:end][refused >= 0] == TARGET).all()
        assert (refused[refused >= 0] != ours.tokens_BS[row, :end][refused >= 0]).all()


def law_after(target, prompt, steps, sampling):
    """{continuation: probability} by exact enumeration."""
    law = {(): 1.0}
    for _ in range(steps):
        law = {
            (*text, token): mass * float(probs[token])
            for text, mass in law.items()
            for probs in [np.asarray(sampling.probs(jnp.asarray(next_logits(target, [*prompt, *text]))))]
            for token in range(4)
        }
    return law


def chi_square_p(drafter, accept, *, steps=3, seeds=(0, 1), sampling=None, rows=20_000):
    sampling = sampling or Sampling()
    target = BagModel.random(5)
    law = {text: mass for text, mass in law_after(target, [1, 2], steps, sampling).items() if mass > 0}
    counts = dict.fromkeys(law, 0)
    prompt = Context(np.tile([1, 2], (rows, 1)), np.full(rows, 2))
    for seed in seeds:
        knobs = {"max_new_tokens": steps, "sampling": sampling, "eos_id": -1, "accept": accept}
        ours = generate(target, drafter, prompt, jax.random.key(seed), **knobs)
        texts, times = np.unique(np.asarray(ours.tokens_BS[:, 2 : 2 + steps]), axis=0, return_counts=True)
        for text, number in zip(texts, times, strict=True):
            counts[tuple(int(t) for t in text)] += number  # a KeyError: a text the law forbids
    expected = np.array(list(law.values())) * rows * len(seeds)
    observed = np.array(list(counts.values()))
    common = expected >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    kept = expected > 0
    return stats.chisquare(observed[kept], expected[kept] * observed.sum() / expected[kept].sum()).pvalue


DRAFT = BagModel.random(6)
DRAFTERS = [
    NoDraft(),
    ChainDrafter(DRAFT, length=2),
    ChainDrafter(DRAFT, length=5),
    TreeDrafter(DRAFT, branching=(3, 2)),
]


@pytest.mark.parametrize("drafter", DRAFTERS, ids=lambda d: f"{type(d).__name__}-{d.num_nodes}")
def test_sampled_output_keeps_the_targets_law(drafter):
    assert chi_square_p(drafter, rejection_sample) > 1e-4


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.6), Sampling(top_k=2), Sampling(top_p=0.8)], ids=str)
def test_filtered_sampling_keeps_the_filtered_law(sampling):
    assert chi_square_p(ChainDrafter(DRAFT, length=3), rejection_sample, sampling=sampling) > 1e-4


def accept_everything(key, proposal, logits_BMV, sampling):
    verdict = rejection_sample(key, proposal, logits_BMV, sampling)
    all_BN = proposal.valid_BN
    return Verdict(all_BN, all_BN, verdict.next_token_B)


def correct_from_the_target(key, proposal, logits_BMV, sampling):
    """Rejection sampling whose correction forgets to subtract the draft's law: the classic mistake."""
    verdict = rejection_sample(key, proposal, logits_BMV, sampling)
    stop = jnp.sum(verdict.accepted_BN, axis=1)[:, None, None]
    probs_BV = jnp.take_along_axis(sampling.probs(logits_BMV), stop, axis=1)[:, 0]
    return Verdict(verdict.accepted_BN, verdict.judged_BN, sampling.draw(jax.random.fold_in(key, 1), probs_BV))


@pytest.mark.parametrize("wrong", [accept_everything, correct_from_the_target])
def test_a_wrong_rule_is_caught_by_the_distribution_test(wrong):
    assert chi_square_p(ChainDrafter(DRAFT, length=2), wrong) < 1e-6


def test_nothing_is_compiled_again_after_warm_up(pair):
    target, draft = pair
    decode(target, ChainDrafter(draft, length=3), ragged_prompt(longest=6), max_new_tokens=20)
    before = engine._decode._cache_size()
    for longest, budget, eos in ((3, 9, 2), (9, 30, -1), (32, 32, 5)):
        decode(target, ChainDrafter(draft, length=3), ragged_prompt(longest=longest), max_new_tokens=budget, eos_id=eos)
    assert engine._decode._cache_size() == before


def test_several_end_tokens_and_numpy_prompts_are_taken(pair):
    target, draft = pair
    prompt = ragged_prompt()
    ours = decode(target, ChainDrafter(draft, length=3), prompt, eos_id=(7, 2))
    ends = [set(ours.tokens_BS[r, prompt.lengths_B[r] : ours.lengths_B[r] - 1]) & {2, 7} for r in range(8)]
    assert not any(ends)


def test_bad_prompts_are_refused_in_one_line(pair):
    target, _ = pair
    with pytest.raises(ValueError, match="between 1 and 3"):
        decode(target, NoDraft(), Context(np.ones((2, 3), int), np.array([0, 3])))
    with pytest.raises(ValueError, match="lengths_B"):
        decode(target, NoDraft(), Context(np.ones((2, 3), int), np.array([3])))
    with pytest.raises(ValueError, match="max_new_tokens"):
        decode(target, NoDraft(), ragged_prompt(), max_new_tokens=0)
    with pytest.raises(ValueError, match="top_p"):
        Sampling(top_p=0.0)


@pytest.mark.parametrize("padding", [-100, 11, 10**6])
def test_padding_may_be_any_number(pair, padding):
    target, draft = pair
    prompt = ragged_prompt()
    inside = np.arange(6)[None] < prompt.lengths_B[:, None]
    padded = Context(np.where(inside, prompt.tokens_BS, padding), prompt.lengths_B)
    for drafter in (NoDraft(), ChainDrafter(draft, length=3)):
        ours, usual = decode(target, drafter, padded), decode(target, drafter, prompt)
        np.testing.assert_array_equal(ours.tokens_BS, usual.tokens_BS)


def test_a_drafter_of_any_class_will_do(pair):
    target, draft = pair

    class Mine:
        num_nodes = 2

        def init(self, prompt, slots):
            return ()

        def propose(self, key, state, context):
            last = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
            return Proposal(jnp.tile(last, (1, 2))), state

    plain, ours = decode(target, NoDraft(), ragged_prompt()), decode(target, Mine(), ragged_prompt())
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.judged_BN.sum() > 0


@jax.tree_util.register_static
class Head:
    """A head on the target's last hidden state, right every time for a `BagModel` whose table it knows."""

    num_nodes = 1
    asks = Asks(layers=(-1,), likeliest=2)

    def __init__(self, table_VV):
        self.table_VV = table_VV

    def init(self, prompt, slots):
        (hidden_BSD,) = prompt.hidden
        assert hidden_BSD.shape[:2] == prompt.tokens_BS.shape
        return ()

    def propose(self, key, state, context):
        # The state that chose the last token is the one before it: at the row where the walk stopped.
        stop_B = jnp.where(context.accepted_B > 0, context.path_BN[:, 0] + 1, 0)
        hidden_BD = jnp.take_along_axis(context.hidden[0], stop_B[:, None, None], axis=1)[:, 0]
        last = jnp.take_along_axis(context.tokens_BS, context.lengths_B[:, None] - 1, axis=1)
        # This model's next hidden state is half of it plus the last token's one-hot: the guess is always right,
        # where the root's hidden state is the one before the last token.
        known = hidden_BD * 0.5 + jax.nn.one_hot(last[:, 0], 11)
        return Proposal(jnp.argmax(known @ self.table_VV, axis=-1)[:, None].astype(jnp.int32)), state


def test_a_drafter_may_ask_for_the_targets_hidden_states(pair):
    """What a head on the target needs: in `init` at every prompt token, later at the root and every node."""
    target, _ = pair
    prompt = ragged_prompt()
    prompt.lengths_B[:] = 6  # a one-token prompt has no state before its root
    ours = decode(target, Head(target.table_VV), prompt)
    np.testing.assert_array_equal(ours.tokens_BS, decode(target, NoDraft(), prompt).tokens_BS)
    assert ours.accepted_BN.sum() == ours.judged_BN.sum() > 0
