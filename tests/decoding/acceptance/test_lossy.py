"""Lossy rules: what each keeps, the law of what it commits and how far that is from the target's, and its limits."""

import functools
import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import (
    ChainDrafter,
    Fuzzy,
    Lenient,
    Proposal,
    Rollback,
    Sampling,
    Tolerance,
    TopBeta,
    TreeDrafter,
    Typical,
    rejection_sample,
)
from adaspec_jax.decoding.sampling import GREEDY
from tests.decoding.acceptance import lossy_readings as read
from tests.decoding.bag_model import BagModel, next_logits
from tests.decoding.enumeration import PROMPT, enumerated, plain_law
from tests.running import slow

TREES = {"chain": [-1, 0, 1, 2], "tree": [-1, -1, 0, 0, 1, 1, 2, 4]}
VOCAB, KEY = 6, jax.random.key(0)
RULES = {
    "js": (Fuzzy(0.05), read.fuzzy(0.05)),
    "js, 2 and the rest": (Fuzzy(0.03, top_k=2), read.fuzzy(0.03, top_k=2)),
    "fsd_js": (Fuzzy(0.05, "fsd_js"), read.fuzzy(0.05, "fsd_js")),
    "kl": (Fuzzy(0.2, "kl"), read.fuzzy(0.2, "kl")),
    "reversed_kl, 3 and the rest": (Fuzzy(0.18, "reversed_kl", 3), read.fuzzy(0.18, "reversed_kl", 3)),
    "tv": (Fuzzy(0.25, "tv"), read.fuzzy(0.25, "tv")),
    "top beta": (TopBeta(3, 1.5), read.top_beta(3, 1.5)),
    "rollback": (Rollback(1.6), read.rollback(1.6)),
    "rollback at 0": (Rollback(0.0), read.rollback(0.0)),
    "typical": (Typical(0.2, 0.9), read.typical(0.2, 0.9)),
    "typical, of nearly all": (Typical(0.05, 0.9), read.typical(0.05, 0.9)),
}


def random_rounds(seed, parents, batch=48):
    """Guesses anywhere, laws near one another, some guesses invalid."""
    rng = np.random.default_rng(seed)
    nodes = len(parents)
    logits_BMV = rng.normal(size=(batch, nodes + 1, VOCAB)) * 1.2
    opinions_BNV = logits_BMV[:, np.asarray(parents) + 1] + rng.normal(size=(batch, nodes, VOCAB)) * 0.8
    tokens_BN = rng.integers(0, VOCAB, (batch, nodes)).astype(np.int32)
    valid_BN = rng.random((batch, nodes)) < 0.9
    return tokens_BN, valid_BN, logits_BMV.astype(np.float32), opinions_BNV.astype(np.float32)


def verdicts_of(rules, parents, rounds, sampling, how="numpy"):
    """The verdicts of several rules on the same rounds, by one program."""
    known = {"none": None, "numpy": np.asarray(parents)}.get(how)

    def run(tokens_BN, valid_BN, logits_BMV, opinions_BNV):
        traced = jnp.tile(jnp.asarray(parents)[None], (len(tokens_BN), 1)) if how == "jax" else known
        proposal = Proposal(tokens_BN, traced, valid_BN, opinion_BNV=opinions_BNV)
        return [rule(KEY, proposal, logits_BMV, sampling) for rule in rules]

    return jax.device_get(jax.jit(run)(*rounds))


@functools.cache
def decided(shape, sampling, how):
    """Rounds of that shape, and what each of `RULES` made of them."""
    rounds = random_rounds(len(shape), TREES[shape])
    verdicts = verdicts_of([rule for rule, _ in RULES.values()], TREES[shape], rounds, sampling, how)
    return rounds, dict(zip(RULES, verdicts, strict=True))


def differing(name, reading, shape, sampling, how):
    """Rows in which the rule keeps another path than the reading, or adds a token that it does not."""
    parents, (rounds, verdicts), wrong = TREES[shape], decided(shape, sampling, how), 0
    ours = verdicts[name]
    for row, (tokens, valid, logits, opinions) in enumerate(zip(*(a.tolist() for a in rounds), strict=True)):
        laws = [[float(i == np.argmax(row)) for i in range(VOCAB)] for row in logits]
        if not sampling.greedy:
            laws = [read.softmax([logit / sampling.temperature for logit in row]) for row in logits]
        found = reading(read.Round(tokens, parents, valid, logits, laws, opinions))
        path = tuple(np.flatnonzero(ours.accepted_BN[row]).tolist())
        wrong += (path, int(ours.next_token_B[row])) not in found
        ends = {n for n, parent in enumerate(parents) if valid[n] and parent == (path[-1] if path else -1)}
        assert set(np.flatnonzero(ours.judged_BN[row])) == {*path} | ends
    assert ours.accepted_BN.any() and (ours.judged_BN & ~ours.accepted_BN).any()
    return wrong


WARM = Sampling(0.7)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_keeps_what_its_reading_keeps(name):
    reading = RULES[name][1]
    for shape, sampling, how in (("chain", WARM, "none"), ("tree", WARM, "jax"), ("tree", GREEDY, "numpy")):
        if not (sampling.greedy and name.startswith("typical")):  # which follows the target's choices when greedy
            assert differing(name, reading, shape, sampling, how) == 0


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("js", read.fuzzy(0.05, "fsd_js")),
        ("kl", read.fuzzy(0.2, "reversed_kl")),
        ("js, 2 and the rest", read.fuzzy(0.03)),
        ("top beta", read.top_beta(2, 1.5)),
        ("top beta", read.top_beta(3, 2.0)),
        ("rollback", read.rollback(1.7)),
        ("typical", read.typical(0.9, 0.2)),
        ("typical, of nearly all", read.typical(0.05, 0.9, slip="first")),
    ],
    ids=["other js", "other kl", "all tokens", "beta", "tau", "limit", "swapped", "first path"],
)
def test_another_rule_is_found(name, reading):
    assert differing(name, reading, "tree", WARM, "jax") > 0


TARGET, DRAFT = BagModel.random(0, vocab=3), BagModel.random(1, vocab=3)
CHAIN, PAIR = ChainDrafter(DRAFT, 2), TreeDrafter(DRAFT, (2,))
LAWS = {
    "fuzzy": (Fuzzy(0.21), CHAIN, read.fuzzy(0.21)),
    "fuzzy, tree": (Fuzzy(0.6, "tv"), PAIR, read.fuzzy(0.6, "tv")),
    "top beta": (TopBeta(2, 1.0), CHAIN, read.top_beta(2, 1.0)),
    "rollback": (Rollback(1.2), CHAIN, read.rollback(1.2)),
    "typical": (Typical(0.3, 0.9), CHAIN, read.typical(0.3, 0.9)),
    "typical, tree": (Typical(0.3, 0.9), PAIR, read.typical(0.3, 0.9)),
    "lenient": (Lenient(0.5), CHAIN, read.lenient(lambda p: p / 0.5)),
    "lenient, exponential": (Lenient(0.5, "exponential"), CHAIN, read.lenient(lambda p: p**0.5)),
}
HORIZON = 3


def whole_texts(begun, horizon=HORIZON):
    """The law of texts of which a round commits the beginnings, and plain decoding the rest."""
    found = Counter()
    for text, mass in begun.items():
        for whole, share in plain_law(TARGET, text, Sampling(), horizon).items():
            found[whole] += mass * share
    return found


def after(model):
    return lambda text: next_logits(model, [*PROMPT, *text]).tolist()


def law_of(reading, parents):
    return whole_texts(read.committed(after(TARGET), after(DRAFT), parents, reading, HORIZON))


def parents_of(drafter):
    return [-1, 0][: drafter.num_nodes] if isinstance(drafter, ChainDrafter) else [-1, -1]


@pytest.mark.parametrize(
    "case",
    [slow(case) if case in ("top beta", "fuzzy, tree", "typical", "lenient, exponential") else case for case in LAWS],
)
def test_the_law_of_a_lossy_rule_is_its_readings_and_so_is_its_distance_from_the_targets(case):
    rule, drafter, reading = LAWS[case]
    assert not rule.lossless
    ours = enumerated(TARGET, drafter, rule, horizon=HORIZON).law
    expected, plain = law_of(reading, parents_of(drafter)), plain_law(TARGET, (), Sampling(), HORIZON)
    assert read.total_variation(ours, expected) < 1e-6
    lost = read.total_variation(expected, plain)
    assert lost > 1e-3 and abs(read.total_variation(ours, plain) - lost) < 1e-6


@pytest.mark.parametrize(
    ("right", "wrong", "parents"),
    [
        (read.fuzzy(0.21), read.fuzzy(0.21, slip="residual"), [-1, 0]),
        (read.typical(0.3, 0.9), read.typical(0.3, 0.9, slip="first"), [-1, -1]),
        (read.tolerance(2), read.tolerance(2, slip="greatest"), [-1]),
        (read.tolerance(2), read.tolerance(3), [-1]),
        (read.lenient(lambda p: p / 0.5), read.lenient(lambda p: p / 0.49), [-1, 0]),
    ],
    ids=["residual", "first path", "greatest", "a sample more", "more lenient"],
)
def test_the_law_tells_a_rule_from_a_slip(right, wrong, parents):
    assert read.total_variation(law_of(right, parents), law_of(wrong, parents)) > 1e-4


class Told:
    """Draws what it is told, a column of `drawn_BKM` after the other."""

    greedy = False
    probs = staticmethod(Sampling().probs)

    def __init__(self, drawn_BKM):
        self.columns = iter(np.swapaxes(drawn_BKM, 0, 1))

    def draw(self, key, probs_BMV):
        return next(self.columns)


def law_of_samples(samples, parents):
    """`Tolerance` on every guess with every outcome of every draw: for `enumerated` they hide one another."""
    rows, places, vocab = [], len(parents) + 1, range(3)
    for tokens in itertools.product(vocab, repeat=len(parents)):
        texts = [()]
        for node, parent in enumerate(parents):
            texts.append((*texts[parent + 1], tokens[node]))
        laws = [read.softmax(after(TARGET)(text)) for text in texts]
        guessed = math.prod(read.softmax(after(DRAFT)(text[:-1]))[text[-1]] for text in texts[1:])
        for drawn in itertools.product(vocab, repeat=samples * places):
            weight = math.prod(laws[place % places][token] for place, token in enumerate(drawn))
            rows.append((tokens, drawn, texts, guessed * weight))
    tokens_BN, drawn_BX = (np.array([row[part] for row in rows], np.int32) for part in (0, 1))
    told = Told(drawn_BX.reshape(len(rows), samples, places))
    proposal = Proposal(jnp.asarray(tokens_BN), np.asarray(parents))
    verdict = jax.device_get(Tolerance(samples)(KEY, proposal, jnp.zeros((len(rows), places, 3)), told))
    begun = Counter()
    for row, accepted, following in zip(rows, verdict.accepted_BN, verdict.next_token_B.tolist(), strict=True):
        end = max(np.flatnonzero(accepted), default=-1)
        begun[(*row[2][end + 1], following)] += row[3]
    return whole_texts(begun)


@pytest.mark.parametrize(
    ("samples", "parents"), [(1, [-1, 0]), (1, [-1, -1]), (2, [-1]), (2, [-1, -1]), slow(2, [-1, 0])]
)
def test_the_law_of_tolerance_is_its_readings_and_of_one_sample_the_targets(samples, parents):
    ours, expected = law_of_samples(samples, parents), law_of(read.tolerance(samples), parents)
    assert read.total_variation(ours, expected) < 1e-9
    lost = read.total_variation(expected, plain_law(TARGET, (), Sampling(), HORIZON))
    assert lost < 1e-9 if samples == 1 else lost > 1e-2


def test_the_distance_of_the_first_token_by_formula():
    """One guess x: kept surely, the law is q; kept where one of two samples equals it, as the sum over x says."""
    p, q = (np.array(read.softmax(after(model)(()))) for model in (TARGET, DRAFT))
    for rule in (Fuzzy(math.inf), Rollback(math.inf)):
        ours = enumerated(TARGET, ChainDrafter(DRAFT, 1), rule, horizon=1).law
        assert max(abs(ours[x,] - q[x]) for x in range(3)) < 1e-6
    stays = 1 - (1 - p) ** 2
    refused = q * (1 - stays) / (1 - p)
    law, ours = q * stays + p * (np.sum(refused) - refused), Counter()
    for text, mass in law_of_samples(2, [-1]).items():
        ours[text[0]] += mass
    assert max(abs(ours[x] - law[x]) for x in range(3)) < 1e-9


def test_where_rules_become_one_another():
    rounds = random_rounds(0, TREES["tree"])
    ours, strict = verdicts_of([Lenient(1.0), rejection_sample], TREES["tree"], rounds, Sampling())
    jax.tree.map(np.testing.assert_array_equal, ours, strict)
    rules = [TopBeta(1), TopBeta(VOCAB, 0.0), Rollback(0.0), Typical(), Tolerance(3), Lenient(0.1)]
    greedy, *verdicts = verdicts_of([rejection_sample, *rules], TREES["tree"], rounds, GREEDY)
    for verdict in verdicts:
        np.testing.assert_array_equal(verdict.accepted_BN, greedy.accepted_BN)
        np.testing.assert_array_equal(verdict.next_token_B, greedy.next_token_B)


def test_at_a_threshold_of_nothing_equal_laws_pass_and_others_do_not():
    forms = ["js", "fsd_js", "kl", "reversed_kl", "tv"]
    tokens_BN, _, logits_BMV, opinions_BNV = random_rounds(5, TREES["chain"])
    everything = np.ones(tokens_BN.shape, bool)
    nothing = [*(Fuzzy(0.0, form) for form in forms), Fuzzy(0.0, top_k=2)]
    same = (tokens_BN, everything, logits_BMV, logits_BMV[:, :-1])
    assert all(verdict.accepted_BN.all() for verdict in verdicts_of(nothing, TREES["chain"], same, GREEDY))
    other = (tokens_BN, everything, logits_BMV, opinions_BNV)
    *refusing, keeping = verdicts_of([*nothing, Fuzzy(math.inf)], TREES["chain"], other, Sampling())
    assert not any(verdict.accepted_BN.any() for verdict in refusing) and keeping.accepted_BN.all()


def test_what_processors_and_filters_rule_out_never_stays():
    parents = TREES["tree"]
    tokens_BN, valid_BN, logits_BMV, _ = random_rounds(5, parents)
    logits_BMV = np.where(np.arange(VOCAB) == 2, -np.inf, logits_BMV)
    rounds = (tokens_BN, valid_BN, logits_BMV, logits_BMV[:, np.asarray(parents) + 1])
    rules = [Fuzzy(math.inf), Fuzzy(math.inf, "kl", 3), TopBeta(VOCAB, math.inf), Rollback(math.inf), Typical(0.0)]
    for verdict in verdicts_of(rules, parents, rounds, Sampling()):
        assert verdict.accepted_BN.any() and not (verdict.accepted_BN & (tokens_BN == 2)).any()
    (kept,) = verdicts_of([Typical(0.0)], parents, rounds, Sampling(top_k=1))
    choice_BN = np.argmax(logits_BMV, axis=2)[:, np.asarray(parents) + 1]
    assert kept.accepted_BN.any() and (choice_BN == tokens_BN)[kept.accepted_BN].all()


def test_rules_refuse_what_they_cannot_work_with():
    for wrong, says in (
        (lambda: Fuzzy(-0.1), "threshold of a divergence must be at least 0, not -0.1"),
        (lambda: Fuzzy(math.nan), "at least 0, not nan"),
        (lambda: Fuzzy(0.4, "jsd"), 'must be one of js, fsd_js, kl, reversed_kl, tv, not "jsd"'),
        (lambda: Fuzzy(top_k=-1), "top_k must be 0"),
        (lambda: TopBeta(0), "beta of at least 1"),
        (lambda: TopBeta(5, -1.0), "tau of at least 0"),
        (lambda: Rollback(-1.0), "at least 0, not -1.0"),
        (lambda: Typical(1.5), r"epsilon in \[0, 1\]"),
        (lambda: Typical(delta=-1.0), "delta of at least 0"),
        (lambda: Tolerance(0), "at least one sample, not 0"),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()
    silent = Proposal(jnp.zeros((2, 3), jnp.int32))
    with pytest.raises(ValueError, match="this drafter does not say its own"):
        Fuzzy()(KEY, silent, jnp.zeros((2, 4, 3)), Sampling())
