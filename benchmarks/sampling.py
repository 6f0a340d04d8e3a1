"""Drawing tokens and judging guesses at temperature > 0, each beside the plain way, timed in turn.

    python benchmarks/sampling.py --json benchmarks/results/sampling.json

Drawing: two levels of inversion against Gumbel noise on every token. Judging: `rejection_sample` against the same rule
with the whole residual of every row at every node. Ratios are medians of the plain way's seconds over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from interleave import machine  # noqa: E402

from adaspec_jax.decoding import Proposal, Sampling, Verdict, rejection_sample  # noqa: E402

SAMPLING, VOCAB = Sampling(temperature=0.8), 50_304


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for vocab in (1000, VOCAB, 151_936):
        for batch in (1, 8):
            probs_BV = SAMPLING.probs(3 * jax.random.normal(jax.random.key(0), (batch, vocab)))
            name = f"draw, batch {batch}, V {vocab}"
            results[name] = compare(draw_by_noise, SAMPLING.draw, (probs_BV,), args.repeats)
            print_row(name, results[name])
    for name, batch, parents, has_laws in rounds():
        arrays = random_round(batch, parents, has_laws)
        given = None if np.array_equal(parents, np.arange(-1, len(parents) - 1)) else parents
        rules = (judge_by(rule, given) for rule in (judge_every_node, rejection_sample))
        results[name] = compare(*rules, arrays, args.repeats)
        print_row(name, results[name])
    if args.json:
        settings = {"jax": jax.__version__, "repeats": args.repeats}
        args.json.write_text(json.dumps({"machine": machine() | settings, "results": results}, indent=2) + "\n")


def draw_by_noise(key, probs_BV):
    return jax.random.categorical(key, jnp.log(probs_BV), axis=-1).astype(jnp.int32)


def judge_every_node(key, proposal, logits_BMV, sampling) -> Verdict:
    """The rule with [B, V] work at every node."""
    batch, nodes = proposal.tokens_BN.shape
    parents = np.arange(-1, nodes - 1) if proposal.parents_BN is None else proposal.parents_BN
    accept_key, next_key = jax.random.split(key)
    target_BMV = sampling.probs(logits_BMV)
    uniform_BN, row_B = jax.random.uniform(accept_key, (batch, nodes)), jnp.arange(batch)

    def judge(carry, node):
        stand_B, residual_BV = carry
        index, parent, token_B, uniform_B, after_BV, probs_BV = node
        guess_BV = jax.nn.one_hot(token_B, VOCAB) if probs_BV is None else probs_BV
        judged_B = parent == stand_B
        accepted_B = judged_B & (uniform_B * guess_BV[row_B, token_B] < residual_BV[row_B, token_B])
        left_BV = jnp.maximum(residual_BV - guess_BV, 0.0)
        mass_B1 = jnp.sum(left_BV, axis=1, keepdims=True)
        left_BV = jnp.where(mass_B1 > 0, left_BV / jnp.where(mass_B1 > 0, mass_B1, 1.0), residual_BV)
        residual_BV = jnp.where((judged_B & ~accepted_B)[:, None], left_BV, residual_BV)
        residual_BV = jnp.where(accepted_B[:, None], after_BV, residual_BV)
        return (jnp.where(accepted_B, index, stand_B), residual_BV), (accepted_B, judged_B)

    by_batch = (proposal.tokens_BN, uniform_BN, target_BMV[:, 1:], proposal.probs_BNV)
    nodes_first = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), by_batch)
    start = (jnp.full((batch,), -1, jnp.int32), target_BMV[:, 0])
    (_, residual_BV), (accepted_NB, judged_NB) = jax.lax.scan(
        judge, start, (jnp.arange(nodes, dtype=jnp.int32), jnp.asarray(parents, jnp.int32), *(nodes_first))
    )
    return Verdict(accepted_NB.T, judged_NB.T, sampling.draw(next_key, residual_BV))


def rounds():
    tree, sixty = tree_of((4, 2, 2)), tree_of((4, 2, 2, 2))
    for batch in (1, 8):
        yield f"judge, batch {batch}, chain of 5 with laws", batch, np.arange(-1, 4), True
        yield f"judge, batch {batch}, chain of 5 points", batch, np.arange(-1, 4), False
    yield "judge, batch 1, tree of 60 points", 1, sixty, False
    yield "judge, batch 1, tree (4, 2, 2) with laws", 1, tree, True


def tree_of(branching: tuple[int, ...]) -> np.ndarray:
    parents, level = [], [-1]
    for width in branching:
        first = len(parents)
        parents += [parent for parent in level for _ in range(width)]
        level = list(range(first, len(parents)))
    return np.asarray(parents, np.int32)


def random_round(batch: int, parents: np.ndarray, has_laws: bool):
    """Logits, and guesses from laws near theirs, about half of which are accepted."""
    rng = np.random.default_rng(0)
    logits_BMV = jnp.asarray(3 * rng.normal(size=(batch, len(parents) + 1, VOCAB)), jnp.float32)
    probs_BNV = SAMPLING.probs(logits_BMV[:, parents + 1] + 0.8 * jax.random.normal(jax.random.key(1), (1, 1, VOCAB)))
    tokens_BN = SAMPLING.draw(jax.random.key(2), probs_BNV)
    return tokens_BN, probs_BNV if has_laws else None, logits_BMV


def judge_by(rule, parents):
    def judge(key, tokens_BN, probs_BNV, logits_BMV):
        return rule(key, Proposal(tokens_BN, parents, probs_BNV=probs_BNV), logits_BMV, SAMPLING)

    return judge


def compare(plain, ours, arrays, repeats: int) -> dict[str, float]:
    """Median seconds of both, taken in turn, and the median of their ratios."""
    programs = [jax.jit(function).lower(jax.random.key(0), *arrays).compile() for function in (plain, ours)]
    taken = []
    for repeat in range(repeats + 2):
        pair = []
        for program in programs:
            key = jax.block_until_ready(jax.random.key(repeat))
            began = time.perf_counter()
            jax.block_until_ready(program(key, *arrays))
            pair.append(time.perf_counter() - began)
        taken.append(pair)
    plain_seconds, seconds = (statistics.median(column) for column in zip(*taken[2:], strict=True))
    ratio = statistics.median(before / after for before, after in taken[2:])
    return {"plain_seconds": plain_seconds, "seconds": seconds, "times_faster": ratio}


def print_row(name: str, row: dict[str, float]) -> None:
    print(
        f"{name:44}{1e3 * row['plain_seconds']:9.2f}{1e3 * row['seconds']:9.2f} ms{row['times_faster']:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
