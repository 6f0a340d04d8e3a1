"""What exact decoding costs: seconds of a target call, plain and with copied guesses, exact and not, taken in turn.

    python benchmarks/exact.py --json benchmarks/results/exact.json

A random Llama (no file is needed: seconds do not depend on what the weights are). Each way decodes the same prompt,
over and over; the fastest time of each counts, which what else runs on the machine slows least. Prefill is in none of
them: what one decoding of few tokens takes is left out of one of many.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import jax  # noqa: E402
import numpy as np  # noqa: E402
from interleave import machine  # noqa: E402

from adaspec_jax import models  # noqa: E402
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate  # noqa: E402
from adaspec_jax.decoding.drafters.text.copying import PromptLookup  # noqa: E402

LLAMA = {"model_type": "llama", "vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024}
LLAMA |= {"num_hidden_layers": 4, "num_attention_heads": 6, "max_position_embeddings": 512}
FEW, MANY = 2, 26  # new tokens


def measured(dtype: str, guesses: int, repeats: int) -> dict[str, dict[str, float]]:
    """By way: milliseconds of a target call, tokens per call, and rows with the text of exact plain decoding."""
    target = models.build(LLAMA, jax.random.key(0)).astype(dtype).for_decoding()
    lookup = PromptLookup(2, guesses)
    ways = {"plain": (NoDraft(), False), "plain, exact": (NoDraft(), guesses)}
    ways |= {"guesses": (lookup, False), "guesses, exact": (lookup, guesses)}
    prompt = Context(np.tile(np.arange(8), (1, 4)), np.array([32]))
    fastest: dict[tuple[str, int], float] = {}
    made = {}
    for _ in range(repeats + 1):  # the first time compiles
        for name, (drafter, exact) in ways.items():
            for tokens in (FEW, MANY):
                began = time.perf_counter()
                knobs = {"max_new_tokens": tokens, "sampling": Sampling(temperature=0.0), "exact": exact}
                out = jax.block_until_ready(generate(target, drafter, prompt, jax.random.key(0), **knobs))
                seconds = time.perf_counter() - began
                fastest[name, tokens] = min(seconds, fastest.get((name, tokens), seconds))
                made[name, tokens] = jax.device_get(out)
    found = {}
    for name in ways:
        calls = int(made[name, MANY].rounds_B[0] - made[name, FEW].rounds_B[0])
        same = np.array_equal(made[name, MANY].tokens_BS, made["plain, exact", MANY].tokens_BS)
        milliseconds = 1000 * (fastest[name, MANY] - fastest[name, FEW]) / calls
        found[name] = {"milliseconds_a_call": milliseconds, "tokens_a_call": (MANY - FEW) / calls, "same_text": same}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--guesses", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = {"model": LLAMA, "guesses": arguments.guesses, "repeats": arguments.repeats, "machine": machine()}
    for dtype in ("float32", "bfloat16"):
        report[dtype] = measured(dtype, arguments.guesses, arguments.repeats)
        for name, row in report[dtype].items():
            print(f"{dtype:9} {name:15} {row['milliseconds_a_call']:8.2f} ms a call, {row['tokens_a_call']:.2f} tokens")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
