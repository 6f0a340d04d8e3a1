"""Greedy decoding, ours against transformers, interleaved on this machine; tokens must be identical.

    python benchmarks/decode.py --json benchmarks/results/decode_160m.json
    python benchmarks/decode.py --target 410m --new 48 --json benchmarks/results/decode_410m.json
    python benchmarks/decode.py --batch 8 --new 48 --json benchmarks/results/decode_160m_batch8.json

Target and draft compute the same function (`pairs.py`); `--noise` lowers the acceptance. Peers: transformers' plain and
assisted generation (constant schedule, threshold 0; it refuses batches). Ours: plain and speculative decoding, and what
the formula tau / (c gamma + v) promises from the costs of a draft step (c) and a verification (v) measured apart.
Needs the `parity` extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from interleave import Worker, interleave, machine, serve, table  # noqa: E402
from pairs import SHAPES, matched_pair  # noqa: E402

VARIANTS = ("transformers plain", "transformers assisted", "ours plain", "ours speculative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="160m", choices=SHAPES)
    parser.add_argument("--draft", default="31m", choices=SHAPES)
    parser.add_argument("--noise", type=float, default=0.1, help="0 accepts everything; 0.1 about 0.8")
    parser.add_argument("--gamma", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work = their_worker if args.worker.startswith("transformers") else our_worker
        return serve(*work(args))
    with tempfile.TemporaryDirectory() as folder:
        from adaspec_jax import models

        for name, model in zip(
            ("target", "draft"), matched_pair(args.target, args.draft, noise=args.noise), strict=True
        ):
            models.save(model, Path(folder) / name)
        del model
        numbers = [f"--{key}={getattr(args, key)}" for key in ("gamma", "batch", "prompt", "new")]
        names = [name for name in VARIANTS if args.batch == 1 or name != "transformers assisted"]
        workers = [Worker(name, [__file__, f"--worker={name}", f"--weights={folder}", *numbers]) for name in names]
        results = interleave(workers, args.repeats)
    tokens = {name: row["last"].pop("tokens") for name, row in results.items()}
    different = [name for name in tokens if tokens[name] != tokens["ours plain"]]
    for row in results.values():
        row["tokens_per_second"] = args.batch * args.new / row["seconds"]
    formula = promised(args, results)
    print(table(results))
    print(f"tokens {'identical' if not different else 'DIFFER: ' + ', '.join(different)}")
    print(", ".join(f"{name} {value:.3g}" for name, value in formula.items()))
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "worker", "weights")}
        report = {"settings": settings, "machine": machine(), "tokens_differ": different, "formula": formula}
        args.json.write_text(json.dumps(report | {"results": results}, indent=2) + "\n")
    if different:
        raise SystemExit(1)


def promised(args, results: dict) -> dict[str, float]:
    """What measured costs and acceptance promise, and what was realised."""
    spec, plain = results["ours speculative"], results["ours plain"]
    costs, last = spec["ready"], spec["last"]
    c, v = costs["draft_step"] / costs["target_step"], costs["verification"] / costs["target_step"]
    tau = last["committed"] / last["rounds"]
    realised = plain["seconds"] / spec["seconds"]
    formula = {
        "alpha": last["alpha"],
        "tokens_per_round": tau,
        "c": c,
        "v": v,
        "promised_speedup": tau / (c * args.gamma + v),
        "realised_speedup": realised,
    }
    if args.batch == 1:  # in a batch, finished rows wait for the others; prefill is in the difference too
        parts = last["rounds"] * (args.gamma * costs["draft_step"] + costs["verification"])
        formula["milliseconds_per_round_beyond_its_parts"] = (spec["seconds"] - parts) / last["rounds"] * 1e3
    return formula


def prompt_of(args) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 50000, (args.batch, args.prompt)).astype(np.int32)


def our_worker(args):
    import jax

    from adaspec_jax import models
    from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate

    target, draft = (jax.device_put(models.load(args.weights / name)) for name in ("target", "draft"))
    drafter = NoDraft() if args.worker == "ours plain" else ChainDrafter(draft, length=args.gamma)
    tokens_BS = prompt_of(args)
    prompt = Context(tokens_BS, np.full(args.batch, args.prompt))

    def unit():
        knobs = {"max_new_tokens": args.new, "sampling": Sampling(temperature=0.0)}
        out = jax.device_get(generate(target, drafter, prompt, jax.random.key(0), **knobs))
        judged = int(out.judged_BN.sum())
        return {
            "tokens": out.tokens_BS[:, args.prompt :].tolist(),
            "rounds": int(out.rounds_B.sum()),
            "committed": int((out.lengths_B - args.prompt).sum()),
            "alpha": int(out.accepted_BN.sum()) / judged if judged else 0.0,
        }

    began = time.perf_counter()
    unit()
    ready = {"first_seconds": time.perf_counter() - began}
    if args.worker == "ours speculative":
        slots = args.prompt + args.new
        step = lambda model, width: seconds_of_a_call(model, args.batch, width, slots)  # noqa: E731
        ready |= {"target_step": step(target, 1), "draft_step": step(draft, 1)}
        ready |= {"verification": step(target, args.gamma + 1)}
    return unit, ready


def seconds_of_a_call(model, batch: int, width: int, slots: int, calls: int = 16) -> float:
    """A cached call of `width` tokens in a compiled loop: the median of five loops."""
    import jax
    import jax.numpy as jnp

    from adaspec_jax.decoding.sampling import most_likely

    @jax.jit
    def loop(model, tokens_BT, cache):
        def body(_, carry):
            tokens_BT, cache = carry
            logits_BTV, after = model(tokens_BT, cache)
            return most_likely(logits_BTV), after.roll_back(cache.lengths_B)

        return jax.lax.fori_loop(0, calls, body, (tokens_BT, cache))

    cache = model.init_cache(batch, slots).roll_back(jnp.full((batch,), slots // 2))
    tokens_BT = jnp.ones((batch, width), jnp.int32)
    jax.block_until_ready(loop(model, tokens_BT, cache))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(loop(model, tokens_BT, cache))
        seconds.append((time.perf_counter() - began) / calls)
    return statistics.median(seconds)


def their_worker(args):
    import torch
    from transformers import AutoModelForCausalLM

    target, draft = (
        AutoModelForCausalLM.from_pretrained(args.weights / name, dtype=torch.float32).eval()
        for name in ("target", "draft")
    )
    for model in (target, draft):
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    knobs = {"max_new_tokens": args.new, "do_sample": False}
    if args.worker.endswith("assisted"):
        draft.generation_config.num_assistant_tokens = args.gamma
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        knobs["assistant_model"] = draft
    tokens_BS = torch.tensor(prompt_of(args)).long()

    def unit():
        with torch.no_grad():
            out = target.generate(tokens_BS, attention_mask=torch.ones_like(tokens_BS), **knobs)
        return {"tokens": out[:, args.prompt :].tolist()}

    return unit, {}


if __name__ == "__main__":
    main()
