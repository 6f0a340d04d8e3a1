"""Controllers of draft length: read once more in plain Python, lossless, and following a text that changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    Analytical,
    ChainDrafter,
    Confident,
    ConfidentEnough,
    Context,
    Fallback,
    FiniteState,
    NoDraft,
    Sampling,
    Survival,
    engine,
    pytree,
    rejection_sample,
)
from tests.decoding.bag_model import BagModel
from tests.decoding.enumeration import enumerated, largest_error, plain_law
from tests.decoding.test_engine import GREEDY, KEY, chi_square_p, decode, pair, ragged_prompt  # noqa: F401
from tests.running import slow

COSTS = [1.0, 1.43, 1.55, 1.7, 1.86, 2.05, 2.21, 2.4, 2.61]  # of rounds with 0, 1, ... guesses
DEAR = [1.0, 3.1, 3.4, 3.6, 3.9, 4.0, 4.3, 4.4, 4.6]


class FiniteStateRead:
    """One row of `FiniteState`."""

    def __init__(self, first, up, down, least, limit, slip=None):
        self.limit, self.moves, self.ends, self.slip = first, (up, down), (least, limit), slip

    def next(self, accepted, judged, ended):
        up, down = self.moves
        if judged == accepted and (judged > 0 or self.slip == "nothing judged counts"):
            self.limit = min(self.limit + up, self.ends[1])
        elif judged > accepted:
            self.limit = max(self.limit - down, self.ends[0])
        return self.limit


class AnalyticalRead:
    """All rows of `Analytical`, of which `rows` are asked for one shared number."""

    def __init__(self, rows, costs, window, probe, prior, slip=None):
        self.costs, self.window, self.probe, self.prior, self.slip = costs, window, probe, prior, slip
        self.seen, self.rested = [[] for _ in range(rows)], 0

    def next(self, rounds):
        """`rounds`: per row (accepted, judged, whether it has ended)."""
        for seen, (accepted, judged, _) in zip(self.seen, rounds, strict=True):
            if judged:
                seen.append((accepted, judged > accepted))
        rates = []
        for n, cost in enumerate(self.costs):
            tokens = 0.0
            for seen, (_, _, ended) in zip(self.seen, rounds, strict=True):
                if ended and self.slip != "ended rows count":
                    continue
                last = seen[-self.window - (self.slip == "a round too many") :]
                kept, refused = sum(a for a, _ in last), sum(r for _, r in last)
                alpha = (kept + self.prior) / (kept + refused + 1)
                tokens += sum(alpha**k for k in range(n + 1))
            rates.append(tokens / cost)
        best = rates.index(max(rates))
        if best == 0 and self.rested >= self.probe and self.slip != "never comes back":
            best = rates.index(max(rates[1:]))
        self.rested = 0 if best else self.rested + 1
        return best


def scripted(stop, rows, rounds, seed=0):
    """[(what rows were told, the limits that followed)]: a text whose kind changes, rows that end one after another."""
    rng, begin = np.random.default_rng(seed), jax.jit(lambda state, context: stop.begin(state, context))
    lengths_B, told = np.full(rows, 5), [(0, 0, False)] * rows
    prompt = Context(np.zeros((rows, 5), np.int32), jnp.asarray(lengths_B))
    state, found = stop.init(prompt), []
    for number in range(rounds):
        counts = (jnp.asarray([row[place] for row in told], jnp.int32) for place in (0, 1))
        context = dataclasses.replace(
            prompt, lengths_B=jnp.asarray(lengths_B), **dict(zip(("accepted_B", "judged_B"), counts, strict=True))
        )
        limit_B, state = begin(state, context)
        found.append((told, np.asarray(limit_B).tolist()))
        kept = 0.92 if (number // 60) % 2 == 0 else 0.15
        told = []
        for row, limit in enumerate(found[-1][1]):
            ended = row > 0 and number > 70 * row
            limit = 0 if ended else min(limit, rng.integers(0, 9) if rng.random() < 0.1 else limit)  # less room
            accepted = int(np.argmin([*(rng.random(limit) < kept ** (1 + 0.3 * row)), False]))
            told.append((accepted, accepted + (accepted < limit), ended))
            lengths_B[row] += 0 if ended else accepted + 1
    return found


FINITE = {"first": 3, "up": 2, "down": 1, "least": 1, "limit": 12}


@pytest.mark.parametrize("knobs", [FINITE, FINITE | {"up": 1, "down": 3, "least": 2}], ids=["heuristic", "other"])
def test_the_finite_state_is_what_a_plain_reading_has(knobs):
    found = scripted(FiniteState(**knobs), 3, 300)
    limits = np.array([limits for _, limits in found])
    assert limits.min() == knobs["least"] and limits.max() == knobs["limit"]

    def read(slip=None):
        rows = [FiniteStateRead(**knobs, slip=slip) for _ in range(3)]
        return [[row.next(*told) for row, told in zip(rows, all_told, strict=True)] for all_told, _ in found]

    assert read() == limits.tolist()
    assert read("nothing judged counts") != limits.tolist()


@pytest.mark.parametrize("costs", [COSTS, DEAR], ids=["cheap", "dear"])
def test_the_analytical_controller_is_what_a_plain_reading_has(costs):
    knobs = {"window": 6, "probe": 5, "prior": 0.55}
    found = scripted(Analytical({3: jnp.array(costs)}, **knobs), 3, 300)
    limits = [limits for _, limits in found]
    assert all(len(set(row)) == 1 for row in limits) and len({row[0] for row in limits}) >= 4

    def read(slip=None):
        reading = AnalyticalRead(3, costs, **knobs, slip=slip)
        return [reading.next(told) for told, _ in found]

    assert read() == [row[0] for row in limits]
    for slip in ("ended rows count", "a round too many", *(["never comes back"] if costs is DEAR else [])):
        assert read(slip) != [row[0] for row in limits], slip


def test_one_rows_estimate_is_its_maximum_likelihood_where_nothing_else_weighs():
    stop = Analytical({1: jnp.array(COSTS)}, window=8, weight=0.0)
    state = stop.init(Context(np.zeros((1, 4), np.int32), jnp.array([4])))
    state = state._replace(kept_BH=state.kept_BH.at[0, :3].set(jnp.array([4, 0, 5])))
    state = state._replace(refused_BH=state.refused_BH.at[0, :2].set(1))
    shares = np.linspace(0.001, 0.999, 999)
    likelihood = shares**9 * (1 - shares) ** 2
    assert float(stop.alpha(state)[0]) == pytest.approx(shares[likelihood.argmax()], abs=1e-3)


def test_costs_are_those_of_the_nearest_batch_size():
    by_size = {1: jnp.array(COSTS), 16: jnp.array(DEAR)}
    for rows, costs in ((3, COSTS), (5, DEAR)):
        found, alone = (scripted(Analytical(c), rows, 3) for c in (by_size, {rows: jnp.array(costs)}))
        assert found == alone


def survival_read(probs_NV, threshold, least, slip=None):
    """How many guesses one row makes."""
    survival, made = 1.0, 0
    for law in probs_NV:
        before, survival = survival, survival * max(law)
        if made >= least and 1 - (before if slip == "the guess itself left out" else survival) > threshold:
            break
        made += 1
    return made


def test_survival_is_what_a_plain_reading_has():
    rng = np.random.default_rng(0)
    probs_RNV = rng.dirichlet(np.full(5, 0.12), size=(60, 12))
    stop = Survival(threshold=0.5, least=2, limit=12)
    context = Context(np.zeros((60, 1), np.int32), jnp.ones((60,), jnp.int32))
    limit_B, state = stop.begin(stop.init(context) * 0.3, context)  # a round begins anew
    going_B, made_B = np.ones(60, bool), np.zeros(60, int)
    for n in range(12):
        goes_B, state = stop.go_on(state, jnp.int32(n), jnp.asarray(probs_RNV[:, n], jnp.float32), None)
        going_B &= np.asarray(goes_B) & (n < np.asarray(limit_B))
        made_B += going_B
    assert made_B.tolist() == [survival_read(row, 0.5, 2) for row in probs_RNV] and len(set(made_B.tolist())) > 4
    assert made_B.tolist() != [survival_read(row, 0.5, 2, "the guess itself left out") for row in probs_RNV]


@pytree("looks_back")
class Head:
    """Says that a guess stays where the hidden state says so."""

    weight_D: jax.Array
    looks_back: bool = True

    def __call__(self, probs_BV, hidden_BD):
        return jax.nn.sigmoid(hidden_BD @ self.weight_D)


def test_a_head_that_looks_back_says_nothing_of_what_is_committed():
    hidden_NBD = jnp.array([[[-9.0]], [[9.0]], [[1.0]], [[-1.0]]])
    for looks_back, goes in ((True, [True, True, True, False]), (False, [False] * 4)):
        stop, context = Survival(Head(jnp.ones(1), looks_back), least=0), Context(np.zeros((1, 1)), jnp.ones((1,)))
        _, state = stop.begin(stop.init(context), context)
        found = []
        for n, hidden_BD in enumerate(hidden_NBD):
            goes_B, state = stop.go_on(state, jnp.int32(n), None, hidden_BD)
            found.append(bool(goes_B[0]))
        assert found == goes


# ---- in the rounds


def chain_of(draft, stop):
    return ChainDrafter(draft, 6, stop, (0, 2))


STOPS = {
    "analytical": Analytical({1: jnp.array(COSTS[:7]), 4: jnp.array(DEAR[:7])}, window=4, probe=3),
    "finite state": FiniteState(2, limit=6),
    "survival": Survival(threshold=0.6, limit=6),
}


@pytest.mark.parametrize("name", ["analytical", slow("finite state"), slow("survival")])
def test_greedy_text_is_plain_decodings(pair, name):  # noqa: F811
    target, draft = pair
    for batch in (1, 4):
        plain = decode(target, NoDraft(), ragged_prompt(batch), eos_id=7, max_new_tokens=40)
        ours = decode(target, chain_of(draft, STOPS[name]), ragged_prompt(batch), eos_id=7, max_new_tokens=40)
        np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
        assert (ours.rounds_B <= plain.rounds_B).all() and ours.judged_BN.sum() > 0


def test_other_costs_compile_nothing_again(pair):  # noqa: F811
    target, draft = pair
    made, known = [], []
    for scale in (1.0, 3.0):
        costs_M = jnp.array([1.0, *(scale * cost for cost in COSTS[1:7])])
        stop = Analytical({1: costs_M}, window=4, probe=int(3 * scale))
        made.append(decode(target, chain_of(draft, stop), ragged_prompt(1), max_new_tokens=40))
        known.append(engine._decode._cache_size())
    assert known[0] == known[1]
    assert made[0].judged_BN.sum() > made[1].judged_BN.sum()


# ---- lossless

TARGET, DRAFT = BagModel.random(0, vocab=3), BagModel.random(1, vocab=3)


@pytest.mark.parametrize(
    "stop", [Survival(threshold=0.67, least=1), slow(Confident(0.5715))], ids=["survival", "confident"]
)
def test_a_chain_whose_length_follows_its_own_guesses_keeps_the_targets_law(stop):
    """Of three guesses as many are made as the draft's laws say, which depend on the guesses before."""
    knobs = {"sampling": Sampling(), "horizon": 4}
    found = enumerated(TARGET, ChainDrafter(DRAFT, 3, stop), rejection_sample, loops=2, **knobs)
    expected = plain_law(TARGET, (), Sampling(), 4)
    assert max(abs(found.law[text] - mass) for text, mass in expected.items()) < 1e-6
    one, three = (enumerated(TARGET, ChainDrafter(DRAFT, n), rejection_sample, **knobs).accepted for n in (1, 3))
    assert one + 0.01 < found.accepted < three - 0.01


class Withdrawing(ChainDrafter):
    """Takes a guess back that was drawn against the odds, and all after it."""

    def propose(self, key, state, context):
        proposal, state = super().propose(key, state, context)
        drawn_BN = jnp.take_along_axis(proposal.probs_BNV, proposal.tokens_BN[..., None], axis=2)[..., 0]
        kept_BN = jnp.cumprod(drawn_BN > 0.3, axis=1).astype(bool)
        return dataclasses.replace(proposal, valid_BN=proposal.valid_BN & kept_BN), state


pytree("length", "widths")(Withdrawing)


def test_a_length_that_depends_on_the_guess_itself_is_found():
    drafter = Withdrawing(DRAFT, 2, Confident(0.0))
    assert largest_error(TARGET, drafter, rejection_sample, horizon=2, loops=1) > 1e-3


def test_two_rounds_of_a_finite_state_keep_the_targets_law():
    """One guess, then two where it stayed, and one where not."""
    drafter = ChainDrafter(DRAFT, 2, FiniteState(1, limit=2))
    assert largest_error(TARGET, drafter, rejection_sample, horizon=4, loops=1, rounds=2) < 1e-6


@pytest.mark.slow
def test_sampled_text_keeps_the_targets_law():
    stop = Analytical({1: jnp.array(COSTS[:7])}, window=2, probe=1, prior=0.3)
    assert chi_square_p(chain_of(BagModel.random(1), stop), rejection_sample, seeds=(0,)) > 1e-4


def test_a_round_that_judged_nothing_teaches_nothing():
    prompt, none_B = Context(np.zeros((1, 4), np.int32), jnp.array([4])), jnp.zeros((1,), jnp.int32)
    idle = dataclasses.replace(prompt, accepted_B=none_B, judged_B=none_B)
    following = ConfidentEnough().init(prompt)._replace(matched_B=jnp.array([0.95]), drafted_B=jnp.array([3]))
    _, after = ConfidentEnough().begin(following, idle)
    assert float(after.matched_B[0]) == pytest.approx(0.95) and after.threshold_B[0] == following.threshold_B[0]
    fallen = Fallback().init(prompt)._replace(depth_B=jnp.array([6]), score_B=jnp.array([-5.0]))
    assert Fallback().begin(fallen, idle) == fallen.threshold_B
    assert Fallback().begin(fallen, dataclasses.replace(idle, judged_B=none_B + 1)) > fallen.threshold_B


# ---- a text whose kind changes


def cost_of(pick, kept, costs):
    """What the rounds cost until a text is written of whose places `kept` says whether a guess there stays."""
    at, cost, accepted, judged = 0, 0.0, 0, 0
    while at < len(kept):
        guesses = min(pick(accepted, judged), len(kept) - at)
        accepted = 0
        while accepted < guesses and kept[at + accepted]:
            accepted += 1
        judged = accepted + (accepted < guesses)
        cost += costs[guesses]
        at += accepted + 1
    return cost


def following(stop):
    begin, at = jax.jit(lambda state, context: stop.begin(state, context)), {"length": 1}
    tokens_BS = np.zeros((1, 1), np.int32)
    at["state"] = stop.init(Context(tokens_BS, jnp.array([1])))

    def pick(accepted, judged):
        at["length"] += accepted + 1
        counts = {"accepted_B": jnp.array([accepted]), "judged_B": jnp.array([judged])}
        context = Context(tokens_BS, jnp.array([at["length"]]), **counts)
        limit_B, at["state"] = begin(at["state"], context)
        return int(limit_B[0])

    return pick


def test_a_text_that_changes_costs_less_than_with_any_fixed_length():
    """Half of it easy and half of it hard, by the stated costs: nothing is timed."""
    rng = np.random.default_rng(0)
    kept = np.concatenate([rng.random(700) < 0.93, rng.random(700) < 0.2])
    costs = [1.0, *(1.15 + 0.15 * n for n in range(1, 9))]
    fixed = {n: cost_of(lambda accepted, judged, n=n: n, kept, costs) for n in range(9)}
    ours = cost_of(following(Analytical({1: jnp.array(costs)}, window=12)), kept, costs)
    halves = [{n: cost_of(lambda a, j, n=n: n, half, costs) for n in range(9)} for half in np.split(kept, 2)]
    best_of_halves = [min(half, key=half.get) for half in halves]
    assert best_of_halves[0] >= 6 and best_of_halves[1] <= 1
    assert ours < 0.95 * min(fixed.values())
    assert ours < 1.1 * sum(half[n] for half, n in zip(halves, best_of_halves, strict=True))
