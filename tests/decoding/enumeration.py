"""The exact law of what a drafter and a rule commit: every outcome of a round, weighed by the volume of its uniforms.

A round of `Rounds` is a function of its random numbers, and takes finitely many values. The boxes of numbers on which
it is constant are found by bisection, number after number, to 2^-24; nothing is known here of how drafter or rule use
them. So one run per box gives the law, up to about 1e-7.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from math import prod
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax.decoding import Sampling, pytree
from adaspec_jax.decoding.rounds import Rounds
from tests.decoding.bag_model import next_logits

ROWS = 1024  # boxes run at once
FINEST = 2.0**-24
PROMPT = (1, 2)


@dataclasses.dataclass
class Given:
    """Takes the place of `jax.random.uniform`: hands out the columns of `u_BK` in the order they are asked for."""

    u_BK: jax.Array
    used: int = 0
    told: list = dataclasses.field(default_factory=list)  # what every round decided, those inside others too

    def __call__(self, key, shape=(), *_, **__):
        rows = self.u_BK.shape[0]
        # An inversion takes two numbers a row, the first of which finds a column of tokens; small laws have one column.
        of_inversion = shape[:2] == (2, rows)
        shape = shape[1:] if of_inversion else shape
        assert shape[0] == rows, shape
        columns = slice(self.used, self.used + prod(shape[1:]))
        self.used = columns.stop
        mine = self.u_BK[:, columns].reshape(shape)
        return jnp.stack([jnp.zeros_like(mine), mine]) if of_inversion else mine


@contextlib.contextmanager
def handed_in(u_BK, loops: int = 0):
    """Uniforms come from `u_BK`; scans and rounds inside others are unrolled, so that each step has its own numbers.

    So are loops that go on while something holds, where `loops` says how often they do at most.
    """
    given, scan, decided = Given(u_BK), jax.lax.scan, Rounds._decided

    def telling(rounds, loop, proposal, tree, verdict):
        found = decided(rounds, loop, proposal, tree, verdict)
        committed_BM = jnp.arange(found.tokens_BM.shape[1])[None] < found.count_B[:, None]
        given.told += [jnp.where(proposal.valid_BN, proposal.tokens_BN, -1), verdict.accepted_BN]
        given.told += [jnp.where(committed_BM, found.tokens_BM, -1)]
        return found

    def to_the_end(rounds, loop):
        for _ in range(rounds.max_new_tokens):
            loop = rounds.one_round(loop)
        return loop

    def unrolled(step, carry, xs):
        steps = len(jax.tree.leaves(xs)[0])
        if not steps:
            return scan(step, carry, xs)
        out = []
        for n in range(steps):
            carry, y = step(carry, jax.tree.map(lambda x, n=n: x[n], xs))
            out.append(y)
        return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *out)

    def at_most(goes_on, step, value):
        for _ in range(loops):
            goes, new = goes_on(value), step(value)
            value = jax.tree.map(lambda new, old, goes=goes: jnp.where(goes, new, old), new, value)
        return value

    places = [
        (jax.random, "uniform", given),
        (jax.lax, "scan", unrolled),
        (Rounds, "_decided", telling),
        (Rounds, "to_the_end", to_the_end),
        *([(jax.lax, "while_loop", at_most)] if loops else []),
    ]
    with contextlib.ExitStack() as patched:
        for place, name, ours in places:
            patched.enter_context(mock.patch.object(place, name, ours))
        yield given


@pytree()
class Telling:
    """The drafter, with its last guesses in its state."""

    drafter: object

    def __getattr__(self, name):
        if name == "drafter" or name not in ("num_nodes", "depth", "widths", "asks"):
            raise AttributeError(name)
        return getattr(self.drafter, name)

    def init(self, prompt, slots):
        tokens_BN = jnp.zeros((len(prompt.lengths_B), self.num_nodes), jnp.int32)
        return self.drafter.init(prompt, slots), tokens_BN

    def propose(self, key, state, context):
        proposal, inner = self.drafter.propose(key, state[0], context)
        return proposal, (inner, proposal.tokens_BN)


@dataclasses.dataclass(frozen=True)
class Round:
    """Rounds after `PROMPT`; `run(u_BK)` gives per row what was decided, and then what was committed (-1: none)."""

    target: object
    drafter: object
    accept: object
    sampling: Sampling
    horizon: int
    eos: int = -1
    loops: int = 0
    rounds: int = 1

    def trace(self, u_BK):
        batch, slots = len(u_BK), len(PROMPT) + self.horizon + self.drafter.num_nodes + 1
        ends = jnp.atleast_1d(jnp.int32(self.eos))
        drafter = Telling(self.drafter)
        rounds = Rounds(self.target, drafter, self.horizon, ends, slots, self.sampling, self.accept)
        with handed_in(u_BK, self.loops) as given:
            begun = rounds.start(
                jax.random.key(0),
                jnp.broadcast_to(jnp.asarray(PROMPT, jnp.int32), (batch, len(PROMPT))),
                jnp.full((batch,), len(PROMPT), jnp.int32),
            )
            loop = rounds.one_round(begun)
            for _ in range(self.rounds - 1):
                loop = rounds.one_round(loop)
        counts, context = loop.generation, loop.context
        new_BH = context.tokens_BS[:, len(PROMPT) : len(PROMPT) + self.horizon]
        committed_BH = jnp.arange(self.horizon)[None] < context.lengths_B[:, None] - len(PROMPT)
        seen = (
            *given.told,
            loop.draft_state[1],
            counts.judged_BN,
            counts.accepted_BN,
            jnp.where(committed_BH, new_BH, -1),
        )
        return jnp.concatenate(seen, axis=1), given.used

    def runner(self):
        """(run, how many uniforms a row takes)."""
        used = []
        most = jax.ShapeDtypeStruct((ROWS, 8 * self.rounds * (self.drafter.num_nodes + 1) + 64), jnp.float32)
        jax.eval_shape(lambda u: used.append(self.trace(u)[1]) or 0, most)
        program = jax.jit(lambda u_BK: self.trace(u_BK)[0])

        def run(u_CK):
            padded = np.resize(u_CK, (-(-len(u_CK) // ROWS) * ROWS, used[0])).astype(np.float32)
            return np.concatenate([program(part) for part in np.split(padded, len(padded) // ROWS)])[: len(u_CK)]

        return run, used[0]


def boxes(run, columns: int, order=None):
    """(low_CK, high_CK): boxes that fill the unit cube, in each of which `run` has one value.

    `order`: of the columns, such that what a number decides can be seen when those before it in the order are set,
    whatever those after it are. A wrong order is found out: every box is tried at points drawn within it.
    """
    low_CK, high_CK = np.zeros((1, columns)), np.ones((1, columns))
    for column in range(columns) if order is None else order:
        low_CK, high_CK = _split(run, low_CK, high_CK, column)
    rng = np.random.default_rng(0)
    expected = run((low_CK + high_CK) / 2)
    for _ in range(4):
        inside = low_CK + (high_CK - low_CK) * rng.uniform(0.001, 0.999, low_CK.shape)
        wide = np.all(high_CK - low_CK > 1e-4, axis=1)
        np.testing.assert_array_equal(run(inside)[wide], expected[wide], err_msg="a box with two outcomes in it")
    return low_CK, high_CK


def _split(run, low_CK, high_CK, column: int):
    """The boxes, cut along one column wherever the outcome changes."""
    middle_CK = (low_CK + high_CK) / 2

    def at(box, places):
        points = middle_CK[box].copy()
        points[:, column] = np.minimum(places, 1 - FINEST)
        return run(points)

    box = np.arange(len(low_CK))
    left, right = np.zeros(len(box)), np.ones(len(box))
    at_left, at_right = at(box, left), at(box, right)
    while True:
        differ = np.any(at_left != at_right, axis=1)
        box, left, right, at_left, at_right = (a[differ] for a in (box, left, right, at_left, at_right))
        if not len(box) or right[0] - left[0] <= FINEST:
            break
        middle = (left + right) / 2
        at_middle = at(box, middle)
        box = np.concatenate([box, box])
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        at_left, at_right = np.concatenate([at_left, at_middle]), np.concatenate([at_middle, at_right])
    cuts = [[] for _ in low_CK]
    for index, cut in zip(box, (left + right) / 2, strict=True):
        cuts[index].append(cut)
    pieces = [len(places) + 1 for places in cuts]
    low_CK, high_CK = np.repeat(low_CK, pieces, axis=0), np.repeat(high_CK, pieces, axis=0)
    low_CK[:, column] = np.concatenate([[0.0, *sorted(places)] for places in cuts])
    high_CK[:, column] = np.concatenate([[*sorted(places), 1.0] for places in cuts])
    return low_CK, high_CK


@dataclasses.dataclass(frozen=True)
class Enumerated:
    law: dict[tuple[int, ...], float]  # of the first `horizon` tokens, ended by `eos` at the latest
    accepted: float  # guesses accepted, expected


def enumerated(
    target,
    drafter,
    accept,
    *,
    sampling=Sampling(),  # noqa: B008
    horizon=3,
    eos=-1,
    order=None,
    loops=0,
    rounds=1,
) -> Enumerated:
    """The exact law when one round is followed by plain decoding: then every further round, too, keeps the law."""
    one = Round(target, drafter, accept, sampling, horizon, eos, loops, rounds)
    run, columns = one.runner()
    low_CK, high_CK = boxes(run, columns, order(columns) if order else None)
    outcomes, weights = run((low_CK + high_CK) / 2), np.prod(high_CK - low_CK, axis=1)
    nodes, law, begun = drafter.num_nodes, Counter(), Counter()
    for outcome, weight in zip(outcomes, weights, strict=True):
        begun[tuple(int(token) for token in outcome[-horizon:] if token >= 0)] += weight
    for text, weight in begun.items():
        for whole, mass in plain_law(target, text, sampling, horizon, eos).items():
            law[whole] += weight * mass
    return Enumerated(dict(law), float(weights @ outcomes[:, -horizon - nodes : -horizon].sum(axis=1)))


def plain_law(target, begun, sampling, horizon: int, eos: int = -1) -> dict[tuple[int, ...], float]:
    """The target's own law of texts that begin so, in NumPy."""
    law, whole = {tuple(begun): 1.0}, {}
    while law:
        text, mass = law.popitem()
        if len(text) == horizon or text[-1:] == (eos,):
            whole[text] = mass
            continue
        before = [*PROMPT, *text]
        for token, p in enumerate(_probs(processed(next_logits(target, before), before, sampling), sampling)):
            if p:
                law[*text, token] = mass * p
    return whole


def processed(logits, before, sampling: Sampling):
    """The processors once more, token by token, in float64."""
    logits = np.asarray(logits, np.float64).copy()
    for token, value in sampling.logit_bias:
        logits[token] += value
    for token in set(before):
        logits[token] *= sampling.repetition_penalty ** (-1 if logits[token] > 0 else 1)
    logits[list(sampling.suppress_tokens)] = -np.inf
    return logits


def _probs(logits, sampling: Sampling):
    """Temperature, top-k, top-p and min-p once more, in float64."""
    scaled = logits / sampling.temperature
    if sampling.top_k:
        scaled = np.where(scaled < np.sort(scaled)[-sampling.top_k], -np.inf, scaled)
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    if sampling.top_p < 1:
        order = np.argsort(-p)
        p[order[np.cumsum(p[order]) - p[order] >= sampling.top_p]] = 0
    p[p < sampling.min_p * p.max()] = 0
    return p / p.sum()


def largest_error(target, drafter, accept, *, sampling=Sampling(), horizon=3, eos=-1, **how) -> float:  # noqa: B008
    """The largest difference between a text's probability and the target's."""
    ours = enumerated(target, drafter, accept, sampling=sampling, horizon=horizon, eos=eos, **how).law
    expected = plain_law(target, (), sampling, horizon, eos)
    return max(abs(ours.get(text, 0) - expected.get(text, 0)) for text in ours.keys() | expected.keys())


def last_test_first(guesses: int):
    """The order for a rule that lets the longest passing prefix stay: what a test decides, a later one may hide."""
    return judging_in_order(*reversed(range(guesses)))


def judging_in_order(*nodes: int):
    """The order for a rule that tests the nodes in this one: what a test decides, those before it may hide."""

    def order(columns: int):
        first = columns - len(nodes) - 1  # of the tests; the last column is the next token's
        return [*range(first), *(first + node for node in nodes), columns - 1]

    return order
