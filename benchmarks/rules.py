"""What each acceptance rule keeps of one draft's guesses, sampling: on a trained pair and the same held-out prompts.

    bash launch/quickstart.sh
    python benchmarks/rules.py --workdir runs/quickstart --json benchmarks/results/rules.json

Tokens per target call of chains and of trees of one shape, with bootstrap intervals over prompts (paired, for what is
gained over rejection sampling); and what theory says of one guess on text that the target samples, summed over the laws
at every position. Counts only: nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import jax  # noqa: E402
import numpy as np  # noqa: E402
from interleave import machine  # noqa: E402

from adaspec_jax import data  # noqa: E402
from adaspec_jax.decoding import (  # noqa: E402
    ChainDrafter,
    Context,
    NoDraft,
    Sampling,
    TreeDrafter,
    block_verification,
    generate,
    k_sequential,
    match_sample,
    rejection_sample,
    request_keys,
)
from adaspec_jax.files import sha256  # noqa: E402
from adaspec_jax.measuring.pair import load_pair  # noqa: E402
from adaspec_jax.reporting.statistics import interval  # noqa: E402

BRANCHING = (3, 1, 1, 1, 1)
LENGTH = 5


def ways(draft) -> dict[str, tuple]:
    """{name: (drafter, rule, noise is shared)}; the first of each shape is what the others are compared with."""
    chain, tree = ChainDrafter(draft, LENGTH), TreeDrafter(draft, BRANCHING)
    distinct = TreeDrafter(draft, BRANCHING, replacement=False)
    return {
        "chain: rejection": (chain, rejection_sample, False),
        "chain: block": (chain, block_verification, False),
        "chain: match": (chain, match_sample, False),
        "chain: shared noise": (chain, rejection_sample, True),
        "tree: rejection": (tree, rejection_sample, False),
        "tree: K-SEQ": (tree, k_sequential, False),
        "tree: siblings that differ": (distinct, rejection_sample, False),
        "tree: match": (tree, match_sample, False),
        "tree: shared noise": (tree, rejection_sample, True),
        "plain: shared noise": (NoDraft(), rejection_sample, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished training run, with target and draft")
    parser.add_argument("--draft", default="draft", help="its folder in the workdir")
    parser.add_argument("--task", default="word_problems")
    parser.add_argument("--num_prompts", type=int, default=200)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    directories = {name: args.workdir / name for name in ("target", args.draft)}
    pair, ends, prompts = loaded(args, directories)
    results = {}
    for temperature in (0.7, 1.0):
        made = {name: decoded(pair, way, temperature, prompts, ends, args) for name, way in ways(pair[1]).items()}
        results[f"temperature {temperature:g}"] = of_temperature(pair, made, temperature, prompts)
        print(json.dumps(results[f"temperature {temperature:g}"], indent=2), flush=True)
    if args.json:
        weights = {name: sha256(directory / "model.safetensors") for name, directory in directories.items()}
        settings = {"task": args.task, "prompts": args.num_prompts, "max_new_tokens": args.max_new_tokens, "seed": 0}
        settings |= {"chain": LENGTH, "tree": BRANCHING, "sha256": weights, "jax": jax.__version__}
        args.json.write_text(json.dumps({"machine": machine() | settings, "results": results}, indent=2) + "\n")


def loaded(args, directories) -> tuple[tuple, list[int], Context]:
    """(the pair, the ends of text, all prompts in one width)."""
    target, draft, tokenizer, ends = load_pair(*map(str, directories.values()))
    examples = data.load_examples(args.task, "test", num=args.num_prompts)
    encoded, _ = data.encode(
        [data.Example(example.prompt, "") for example in examples],
        tokenizer,
        eos_id=ends.closing,
        ends=ends.ids,
        max_length=2**31 - 1,
    )
    lengths = np.asarray([len(row.tokens) for row in encoded])
    tokens = np.zeros((len(encoded), lengths.max()), np.int32)
    for row, one in zip(tokens, encoded, strict=True):
        row[: len(one.tokens)] = one.tokens
    return (target, draft), list(ends.ids), Context(tokens, lengths)


def decoded(pair, way, temperature, prompts, ends, args) -> dict[str, np.ndarray]:
    """Counts of every request, and its text."""
    drafter, accept, shared = way
    sampling, key, parts = Sampling(temperature, shared_noise=shared), jax.random.key(0), []
    for start in range(0, len(prompts.lengths_B), args.batch_size):
        rows = np.arange(start, min(start + args.batch_size, len(prompts.lengths_B)))
        noise_B = request_keys(key, rows) if shared else None
        batch = Context(prompts.tokens_BS[rows], prompts.lengths_B[rows], noise_B=noise_B)
        knobs = {"max_new_tokens": args.max_new_tokens, "sampling": sampling, "eos_id": ends, "accept": accept}
        made = jax.device_get(generate(pair[0], drafter, batch, jax.random.fold_in(key, start), **knobs))
        counts = {"new": made.lengths_B - batch.lengths_B, "rounds": made.rounds_B, "text": made.tokens_BS}
        parts.append(counts | {"accepted": made.accepted_BN.sum(1), "lengths": made.lengths_B})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def of_temperature(pair, made, temperature: float, prompts) -> dict:
    plain = made["plain: shared noise"]
    figures = {}
    for name, counts in made.items():
        shape = name.partition(":")[0]
        if shape != "plain":
            figures[name] = of_way(counts, made[f"{shape}: rejection"])
    for name in (name for name in figures if name.endswith("shared noise")):
        figures[name]["requests_with_plain_text"] = int((made[name]["text"] == plain["text"]).all(axis=1).sum())
    return {"one_guess": one_guess(pair, plain, temperature, prompts), "tokens_per_target_call": figures}


def of_way(counts, rejection) -> dict:
    def per_call(weights_RP, of):
        return weights_RP @ of["new"] / (weights_RP @ of["rounds"])

    def gain(weights_RP):
        return per_call(weights_RP, counts) / per_call(weights_RP, rejection)

    whole, number = np.ones((1, len(counts["new"]))), len(counts["new"])
    return {
        "value": round(float(per_call(whole, counts)[0]), 4),
        "ci95": [round(x, 4) for x in interval(number, lambda weights: per_call(weights, counts))],
        "over_rejection": round(float(gain(whole)[0]), 4),
        "over_rejection_ci95": [round(x, 4) for x in interval(number, gain)],
    }


def one_guess(pair, plain, temperature: float, prompts, rows: int = 50) -> dict:
    """How often one guess stays, by each rule's formula, meaned over the positions of the first rows' sampled texts."""
    laws = [np.asarray(jax.nn.softmax(model(plain["text"][:rows])[0] / temperature), np.float64) for model in pair]
    place = np.arange(laws[0].shape[1])[None] + 1  # position s is followed by token s + 1
    counted = (place >= prompts.lengths_B[:rows, None]) & (place < plain["lengths"][:rows, None])
    p, q = (law[counted] for law in laws)
    return {
        "positions": len(p),
        "rejection": round(float(np.minimum(p, q).sum(1).mean()), 4),
        "shared_noise": round(float(coupled(p, q).mean()), 4),
        "shared_noise_bound": round(float((lambda s: s / (2 - s))(np.minimum(p, q).sum(1)).mean()), 4),
        "match": round(float((p * q).sum(1).mean()), 4),
    }


def coupled(p, q) -> np.ndarray:
    """sum_x 1 / sum_y max(p_y / p_x, q_y / q_x) of every row, the tokens sorted by p / q."""
    order = np.argsort(p / q, axis=1)
    p, q = (np.take_along_axis(law, order, axis=1) for law in (p, q))
    below_q = np.cumsum(q, axis=1) - q  # where p_y / q_y is smaller, q_y / q_x is the greater
    from_p = np.cumsum(p[:, ::-1], axis=1)[:, ::-1]
    return (1 / (from_p / p + below_q / q)).sum(axis=1)


if __name__ == "__main__":
    main()
