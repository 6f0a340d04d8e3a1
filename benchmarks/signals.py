"""What tolerance keeps of Medusa's guesses on synthetic sounds, and what it costs the law: after VADUSA (2410.21951).

    python -m adaspec_jax.train --config configs/signals.py --workdir runs/signals
    python benchmarks/signals.py --workdir runs/signals --json benchmarks/results/signals.json

Tokens per target call at temperature 1 by the head's tree under each rule; and of the text, the target's own mean
negative log-likelihood in nats a token, beside that of text it samples plainly and of held-out sounds: a rule that
keeps the law keeps it too. Intervals by bootstrap over prompts, paired where a difference is meant. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from interleave import machine  # noqa: E402
from rules import decoded  # noqa: E402

from adaspec_jax import data, methods  # noqa: E402
from adaspec_jax.decoding import Context, Tolerance, Typical, rejection_sample  # noqa: E402
from adaspec_jax.errors import exit_with_one_line  # noqa: E402
from adaspec_jax.files import sha256  # noqa: E402
from adaspec_jax.measuring.pair import load_given  # noqa: E402
from adaspec_jax.reporting.statistics import interval  # noqa: E402

RULES = {"plain": None, "rejection": rejection_sample} | {f"tolerance {n}": Tolerance(n) for n in (1, 2, 3, 4)}
RULES |= {"typical": Typical()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run of configs/signals.py")
    parser.add_argument("--num_prompts", type=int, default=200)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    given, ends = load_given(str(args.workdir / "target"), [str(args.workdir / "draft")])
    prompts, real = sounds(given.tokenizer, args)
    made = {name: by_rule(given, rule, prompts, list(ends.ids), args) for name, rule in RULES.items()}
    for each in made.values():
        each["nats"], each["counted"] = cost(given.target, each["text"], prompts.lengths_B, each["lengths"])
    results = {name: figures(each, made["plain"]) for name, each in made.items()}
    nats, counted = cost(given.target, real, prompts.lengths_B, np.full(len(real), real.shape[1]))
    results["held-out sounds"] = {"nats": float(nats.sum() / counted.sum())}
    print(json.dumps(results, indent=1))
    if args.json:
        weights = {name: sha256(args.workdir / name / "model.safetensors") for name in ("target", "draft")}
        settings = {"prompts": args.num_prompts, "max_new_tokens": args.max_new_tokens, "temperature": 1, "seed": 0}
        settings |= {"sha256": weights, "jax": jax.__version__}
        args.json.write_text(json.dumps({"machine": machine() | settings, "results": results}, indent=1) + "\n")


def sounds(tokenizer, args) -> tuple[Context, np.ndarray]:
    """(openings, [B, T] whole sounds cut to as many tokens as are decoded)."""
    rows = [
        tokenizer(example.prompt + example.answer, add_special_tokens=False)["input_ids"]
        for example in data.load_examples("signals", "test", num=args.num_prompts)
    ]
    length = data.signals.PROMPT
    real = np.asarray([row[: length + args.max_new_tokens] for row in rows], np.int32)
    return Context(real[:, :length], np.full(len(real), length)), real


def by_rule(given, rule, prompts, ends, args) -> dict[str, np.ndarray]:
    method = methods.find("plain" if rule is None else "medusa")
    return decoded((given.target,), (method.make(given), rule or rejection_sample, False), 1.0, prompts, ends, args)


def cost(target, text, starts_B, lengths_B) -> tuple[np.ndarray, np.ndarray]:
    """(sum of the target's negative log-likelihoods of each row's new tokens, how many those are)."""
    place = np.arange(1, text.shape[1])[None]
    counted = (place >= starts_B[:, None]) & (place < lengths_B[:, None])

    @jax.jit
    def nats(target, tokens_BT):
        laws_BTV = jax.nn.log_softmax(target(tokens_BT)[0])
        return -jnp.take_along_axis(laws_BTV[:, :-1], tokens_BT[:, 1:, None], axis=-1)[..., 0]

    parts = [np.asarray(nats(target, text[at : at + 20])) for at in range(0, len(text), 20)]
    return (np.concatenate(parts) * counted).sum(1), counted.sum(1)


def figures(made, plain) -> dict:
    def per_call(weights_RP):
        return weights_RP @ made["new"] / (weights_RP @ made["rounds"])

    def nats(of, weights_RP):
        return weights_RP @ of["nats"] / (weights_RP @ of["counted"])

    whole, number = np.ones((1, len(made["new"]))), len(made["new"])
    return {
        "tokens_per_target_call": float(per_call(whole)[0]),
        "tokens_per_target_call_ci95": list(interval(number, per_call)),
        "nats": float(nats(made, whole)[0]),
        "nats_over_plain": float((nats(made, whole) - nats(plain, whole))[0]),
        "nats_over_plain_ci95": list(interval(number, lambda weights: nats(made, weights) - nats(plain, weights))),
    }


if __name__ == "__main__":
    exit_with_one_line(main)
