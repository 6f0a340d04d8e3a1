"""The lossy rules read once more in plain Python: lists, dictionaries and loops, in float64.

A reading takes one round of one row, a `Round`, and gives {(accepted nodes, next token): probability}. `slip` is how a
wrong reading is planted.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import NamedTuple


class Round(NamedTuple):
    tokens: list[int]
    parents: list[int]  # -1: the root
    valid: list[bool]
    logits: list[list[float]]  # [N + 1][V], the target's after the root and after each guess
    laws: list[list[float]]  # [N + 1][V], what tokens are drawn from there
    opinions: list[list[float]]  # [N][V], the drafter's logits in place of each guess


def softmax(logits):
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def kl(a, b):
    if any(x > 0 and y == 0 for x, y in zip(a, b, strict=True)):
        return math.inf
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def divergence(form, p, q):
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return {
        "js": lambda: (kl(p, m) + kl(q, m)) / 2,
        "fsd_js": lambda: (kl(m, p) + kl(m, q)) / 2,
        "kl": lambda: kl(q, p),
        "reversed_kl": lambda: kl(p, q),
        "tv": lambda: sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2,
    }[form]()


def bucketed(p, q, top_k):
    kept = sorted(range(len(p)), key=lambda token: -p[token])[:top_k]
    return ([*(law[token] for token in kept), 1 - sum(law[token] for token in kept)] for law in (p, q))


def fuzzy(threshold, form="js", top_k=0, slip=None):
    def passes(round, node):
        p, q = softmax(round.logits[round.parents[node] + 1]), softmax(round.opinions[node])
        return divergence(form, *(bucketed(p, q, top_k) if top_k else (p, q))) <= threshold

    return longest(passes, slip=slip)


def top_beta(beta, tau):
    def passes(round, node):
        logits = round.logits[round.parents[node] + 1]
        best, own = sorted(logits, reverse=True), logits[round.tokens[node]]
        return own >= best[min(beta, len(best)) - 1] and best[0] - own <= tau

    return longest(passes)


def rollback(limit):
    def passes(round, node):
        law = softmax(round.logits[round.parents[node] + 1])
        own = law[round.tokens[node]]
        return -math.log(own) <= limit or own == max(law)

    return longest(passes)


def typical(epsilon, delta, slip=None):
    def passes(round, node):
        law = round.laws[round.parents[node] + 1]
        entropy = -sum(x * math.log(x) for x in law if x > 0)
        return law[round.tokens[node]] > min(epsilon, delta * math.exp(-entropy))

    return longest(passes, warped=True, slip=slip)


def longest(passes, *, warped=False, slip=None):
    """The longest path on which all pass, the likeliest of several; then a draw from the target's law."""

    def reading(round):
        weights = round.laws if warped else [softmax(logits) for logits in round.logits]
        paths = [()]
        for node, parent in enumerate(round.parents):
            above = [path for path in paths if (path[-1] if path else -1) == parent]
            if above and round.valid[node] and passes(round, node):
                paths.append((*above[0], node))

        def worth(path):
            places = [(round.parents[node] + 1, round.tokens[node]) for node in path]
            return len(path), 0.0 if slip == "first" else sum(math.log(weights[at][token]) for at, token in places)

        path = max(paths, key=worth)
        end = path[-1] if path else -1
        law = round.laws[end + 1]
        if slip == "residual" and (refused := [n for n, parent in enumerate(round.parents) if parent == end]):
            left = [max(p - q, 0.0) for p, q in zip(law, softmax(round.opinions[refused[0]]), strict=True)]
            law = [part / sum(left) for part in left]
        return {(path, token): mass for token, mass in enumerate(law) if mass}

    return reading


def tolerance(samples, slip=None):
    def reading(round):
        found, standing = Counter(), {(): 1.0}
        while standing:
            path, mass = standing.popitem()
            stand = path[-1] if path else -1
            law = round.laws[stand + 1]
            for drawn in itertools.product(range(len(law)), repeat=samples):
                weight = mass * math.prod(law[token] for token in drawn)
                below = [n for n, p in enumerate(round.parents) if p == stand and round.valid[n]]
                below = [n for n in below if round.tokens[n] in drawn]
                if below:
                    standing[(*path, below[0])] = standing.get((*path, below[0]), 0.0) + weight
                else:
                    found[path, max(drawn) if slip == "greatest" else drawn[0]] += weight
        return found

    return reading


def lenient(raised):
    """For a chain whose guesses were drawn at temperature 1."""

    def reading(round):
        found, mass = Counter(), 1.0
        for node, token in enumerate(round.tokens):
            if not round.valid[node]:
                break
            p, q = round.laws[node], softmax(round.opinions[node])
            stays = min(1.0, raised(p[token]) / q[token])
            left = [max(x - y, 0.0) for x, y in zip(p, q, strict=True)]
            for other, share in enumerate(left):
                found[tuple(range(node)), other] += mass * (1 - stays) * share / sum(left)
            mass *= stays
        else:
            node = len(round.tokens)
        for other, share in enumerate(round.laws[node]):
            found[tuple(range(node)), other] += mass * share
        return found

    return reading


def committed(target, draft, parents, reading, room):
    """What a round commits, {text: probability}, when guesses are drawn from the draft, at temperature 1.

    `target` and `draft` give the logits after a text; at most `room` tokens are committed.
    """
    found, vocab = Counter(), range(len(target(())))
    for tokens in itertools.product(vocab, repeat=len(parents)):
        texts = [()]
        for node, parent in enumerate(parents):
            texts.append((*texts[parent + 1], tokens[node]))
        logits, opinions = [target(text) for text in texts], [draft(text[:-1]) for text in texts[1:]]
        drawn = math.prod(softmax(opinion)[token] for opinion, token in zip(opinions, tokens, strict=True))
        valid = [len(text) <= room for text in texts[1:]]
        round = Round([*tokens], [*parents], valid, logits, [softmax(row) for row in logits], opinions)
        for (path, following), mass in reading(round).items():
            found[(*texts[path[-1] + 1 if path else 0], following)[:room]] += drawn * mass
    return found


def total_variation(a, b):
    return sum(abs(a.get(text, 0.0) - b.get(text, 0.0)) for text in a.keys() | b.keys()) / 2
