"""What tuning a target to exit early gives its first layers as a draft, and what it costs the model (LayerSkip).

    python -m adaspec_jax.train --config configs/stories_layerskip.py --workdir runs/stories_layerskip
    python benchmarks/early_exit.py --before stories260K-hf --workdir runs/stories_layerskip \\
        --json benchmarks/results/early_exit.json

On held-out stories, for the model before and the tuned one: tokens per target call, greedily, of four guesses by its
own first layers, for every exit, judged by the whole of the same model; and the model's own loss in nats a token.
Intervals by bootstrap over stories, paired for the loss. Counts: nothing is timed.
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
from rules import decoded  # noqa: E402
from signals import cost  # noqa: E402

from adaspec_jax import data  # noqa: E402
from adaspec_jax.decoding import Context, rejection_sample  # noqa: E402
from adaspec_jax.decoding.drafters.target.early_exit import EarlyExitDrafter  # noqa: E402
from adaspec_jax.errors import exit_with_one_line  # noqa: E402
from adaspec_jax.measuring.pair import load_given  # noqa: E402
from adaspec_jax.reporting.statistics import interval  # noqa: E402

LENGTH, FIRST = 4, 900  # guesses; stories from the config's held-out rows on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the target that the run began with")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--num_prompts", type=int, default=100)
    parser.add_argument("--max_new_tokens", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=25)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    there = {"before": args.before, "tuned": str(args.workdir / "target")}
    models = {name: load_given(place, []) for name, place in there.items()}
    stories = data.load_examples("tinystories", "train", num=FIRST + args.num_prompts)
    results, losses = {}, {}
    for name, (given, ends) in models.items():
        rows, _ = data.encode(
            list(stories)[FIRST:], given.tokenizer, max_length=512, eos_id=ends.closing, ends=ends.ids
        )
        text, starts, lengths = padded(rows)
        losses[name], counted = cost(given.target, text, starts, lengths)
        prompts = Context(text[:, : starts.max()], starts)
        layers = given.target.config.num_layers
        results[name] = {f"exit {n}": by_exit(given.target, n, prompts, list(ends.ids), args) for n in range(1, layers)}
        results[name]["nats"] = float(losses[name].sum() / counted.sum())
    change = losses["tuned"] - losses["before"]
    ci95 = interval(len(change), lambda weights: weights @ change / (weights @ counted))
    results["nats over before"] = {"value": float(change.sum() / counted.sum()), "ci95": list(ci95)}
    print(json.dumps(results, indent=1))
    if args.json:
        settings = {"prompts": args.num_prompts, "max_new_tokens": args.max_new_tokens, "length": LENGTH}
        document = {"machine": machine() | settings | {"jax": jax.__version__}, "results": results}
        args.json.write_text(json.dumps(document, indent=1) + "\n")


def padded(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [B, T], where the answer begins [B], where the row ends [B])."""
    lengths = np.asarray([len(row.tokens) for row in rows])
    starts = np.asarray([row.prompt_length for row in rows])
    text = np.zeros((len(rows), lengths.max()), np.int32)
    for row, one in zip(text, rows, strict=True):
        row[: len(one.tokens)] = one.tokens
    return text, starts, lengths


def by_exit(target, layers: int, prompts: Context, ends, args) -> dict:
    """Of drafting by so many first layers."""
    way = (EarlyExitDrafter(target, layers, LENGTH), rejection_sample, False)
    made = decoded((target,), way, 0.0, prompts, ends, args)
    accepted, rounds, new = (made[name].astype(float) for name in ("accepted", "rounds", "new"))

    def per_call(weights_RP):
        return weights_RP @ new / (weights_RP @ rounds)

    whole = np.ones((1, len(new)))
    return {
        "accepted_per_round": float(accepted.sum() / rounds.sum()),
        "tokens_per_target_call": float(per_call(whole)[0]),
        "ci95": list(interval(len(new), per_call)),
    }


if __name__ == "__main__":
    exit_with_one_line(main)
