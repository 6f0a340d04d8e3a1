"""Labels trained on per second: examples that share rows (data.packing) against rows of their own, interleaved.

    python benchmarks/packing.py --json benchmarks/results/packing.json

Generated conversations of one to three turns (no files are read), the buckets of configs/chat_small.py, models of
Pythia shapes with random weights: the target's own step, and the selective draft's with all models run. In turn, in
one process, every way does as many batches as take about the same examples:

    apart                   a row for each example, batches as they are shuffled
    apart, by length        the same with data.length_window 16
    packed                  the same number of rows a batch, so more examples an update
    packed, fewer rows      about as many examples a batch, and so as many updates, as apart

Useful tokens are labels; those that are no padding stand in the same proportion, as all see the same examples. Every
shape of a batch is compiled before. Ratios are of whole sums, with the middle 95 % over resampled rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from interleave import machine  # noqa: E402
from pairs import SHAPES, config  # noqa: E402

BUCKETS, LENGTH, WINDOW, VOCABULARY = (176, 320, 448), 448, 16, 1024
PAD = VOCABULARY  # a token that no text has, so that padding can be counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="14m", choices=SHAPES)
    parser.add_argument("--draft", default="14m", choices=SHAPES)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", nargs="*", choices=("target", "draft"), default=["target", "draft"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import jax

    texts, lengths = ways(args)
    results = {name: measured(args, name, texts) for name in args.steps}
    said = f"{lengths['examples']} examples of {lengths['tokens_per_example']:.0f} tokens"
    print(f"{said}, {lengths['packed_rows']} packs of {lengths['tokens_per_packed_row']:.0f}")
    for name, found in results.items():
        print(f"{name}'s step")
        for way, row in found.items():
            print(
                f"  {way:20}{row['labels_per_second']:9.0f} labels/s{100 * row['padding']:6.1f} % padding"
                f"{row['labels_per_step']:8.0f} labels/step"
            )
            for other, times in row["times"].items():
                low, high = times["ci95"]
                print(f"{'':22}{times['ratio']:.2f} times {other} ({low:.2f} to {high:.2f})")
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        report = {"settings": settings, "machine": machine() | {"jax": jax.__version__}, "text": lengths}
        args.json.write_text(json.dumps(report | {"results": results}, indent=1) + "\n")


def ways(args) -> tuple[dict[str, dict], dict]:
    """{way: rows, batch size and length window}, and what the text is."""
    from adaspec_jax import data

    source = data.load_examples("word_problem_chats", num=args.examples)
    words = (text for example in source for text in example.texts)
    tokenizer = data.train_bpe(words, vocab_size=VOCABULARY, chat_template=data.chat.CHATML)
    end = tokenizer.eos_token_id
    rows, counts = data.encode(source, tokenizer, max_length=LENGTH, eos_id=end, ends=(end,))
    packs = data.packed(rows, LENGTH, seed=0)
    fewer = max(round(args.batch * len(packs) / len(rows)), 1)
    found = {
        "apart": {"rows": rows, "batch": args.batch, "window": 1},
        "apart, by length": {"rows": rows, "batch": args.batch, "window": WINDOW},
        "packed": {"rows": packs, "batch": args.batch, "window": 1},
        "packed, fewer rows": {"rows": packs, "batch": fewer, "window": 1},
    }
    said = {
        "examples": len(rows),
        "tokens_per_example": counts["tokens"] / len(rows),
        "share_of_labels": counts["supervised_tokens"] / counts["tokens"],
        "cut": counts["truncated"],
        "packed_rows": len(packs),
        "tokens_per_packed_row": counts["tokens"] / len(packs),
    }
    return found, said


def measured(args, name: str, texts: dict[str, dict]) -> dict[str, dict]:
    """{way: what it reached, and how many times what "apart" did}, of one kind of step."""
    trainings = {way: Training(args, name, **text) for way, text in texts.items()}
    for number in range(args.rounds):
        # The other way round every second time: whoever comes later in a round has no lasting advantage.
        for way in list(trainings)[:: 1 if number % 2 else -1]:
            trainings[way].round()
        print(f"{name}: round {number + 1}/{args.rounds}", file=sys.stderr, flush=True)
    found = {}
    for way, training in trainings.items():
        found[way] = {
            "labels_per_second": sum(training.labels) / sum(training.seconds),
            "rows_per_batch": training.batch,
            "steps": training.steps,
            "labels_per_step": sum(training.labels) / training.steps,
            "padding": 1 - training.tokens / training.places,
            "seconds": training.seconds,
            "labels": training.labels,
        }
    return compared(found)


def compared(found: dict[str, dict]) -> dict[str, dict]:
    """The same with "times", how many times another way's labels per second each reaches, and its interval."""
    from adaspec_jax.reporting.statistics import interval

    def rate(way, weights_RN):
        return (weights_RN @ np.array(found[way]["labels"])) / (weights_RN @ np.array(found[way]["seconds"]))

    for way, row in found.items():
        row["times"] = {}
        for other in ("apart", "apart, by length"):
            if way == other or other not in found:
                continue
            rounds, ratio = len(row["seconds"]), lambda weights, a=way, b=other: rate(a, weights) / rate(b, weights)
            row["times"][other] = {"ratio": float(ratio(np.ones((1, rounds)))[0]), "ci95": interval(rounds, ratio)}
    return found


class Training:
    """One way to train, a round at a time; its programs are compiled when it begins."""

    def __init__(self, args, name: str, *, rows: list, batch: int, window: int) -> None:
        import jax

        from adaspec_jax import data, models
        from adaspec_jax.training import Chunking, Frozen, adamw, init_state, make_step, objectives

        shapes = (args.target, args.draft)
        target, draft = (models.build(config(shape, PAD + 8), jax.random.key(n)) for n, shape in enumerate(shapes))
        model, self._frozen = (target, Frozen()) if name == "target" else (draft, Frozen(target, draft))
        chunking, optimizer = Chunking.for_backend(jax.default_backend()), adamw(3e-4, clip_norm=1.0)
        kind = objectives.fine_tune if name == "target" else objectives.selective_distill
        self._step = make_step(kind(chunking=chunking), optimizer)
        self._state = init_state(model, optimizer, jax.random.key(0))
        self.batch, self._rows = batch, rows
        # Of rows: as many as hold about the examples of a window of batches, for every way the same.
        self._share = WINDOW * args.batch * len(rows) / args.examples
        knobs = {"buckets": BUCKETS, "pad_id": PAD, "length_window": window}
        self._batches = data.train_batches(rows, batch_size=batch, epochs=10_000, seed=0, **knobs)
        self.seconds, self.labels, self.steps, self.tokens, self.places = [], [], 0, 0, 0
        for length in BUCKETS:
            whole = data.batches.pad(rows[:batch], BUCKETS[-1], PAD)
            self._trained({name: rows_BT[:, :length] for name, rows_BT in whole.items()})

    def round(self) -> None:
        """Does the batches of its share, and counts."""
        batches = [next(self._batches) for _ in range(round(self._share / self.batch))]
        began = time.perf_counter()
        metrics = [self._trained(batch) for batch in batches]
        labels = sum(int(values["tokens"]) for values in metrics)  # waits for all
        self.seconds.append(time.perf_counter() - began)
        self.labels.append(labels)
        self.steps += len(batches)
        self.tokens += sum(int((batch["tokens_BT"] != PAD).sum()) for batch in batches)
        self.places += sum(batch["tokens_BT"].size for batch in batches)

    def _trained(self, arrays: dict) -> dict:
        from adaspec_jax.training import Batch

        self._state, metrics = self._step(self._state, self._frozen, Batch(**arrays))
        return metrics


if __name__ == "__main__":
    main()
