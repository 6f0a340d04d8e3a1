"""Greedy decoding, ours against transformers, interleaved on this machine; tokens must be identical.

    python benchmarks/decode.py --json benchmarks/results/decode_160m.json
    python benchmarks/decode.py --target 410m --new 48 --json benchmarks/results/decode_410m.json
    python benchmarks/decode.py --batch 8 --prompts 24 --new 48 --json benchmarks/results/decode_160m_batch8.json

Target and draft compute the same function (`pairs.py`); `--noise` lowers the acceptance. Peers: transformers' plain and
assisted generation (constant schedule, threshold 0; it refuses batches). Ours: plain and speculative decoding, in a
batch also with ended rows given to waiting prompts ("queue"), and what the formula tau / (c gamma + v) promises from
the costs of a draft step (c) and a verification (v) measured apart. Needs the `parity` extra.

`--peers` measures other engines instead (OpenVINO GenAI, CTranslate2, vLLM): see `--peers --help` (`peers.py`).
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
from interleave import Worker, interleave, machine, serve, stop, table  # noqa: E402
from pairs import SHAPES, matched_pair  # noqa: E402

from adaspec_jax.errors import exit_with_one_line  # noqa: E402

PARTS = ("target_step", "draft_step", "first_draft_step", "verification")
VARIANTS = ("transformers plain", "transformers assisted", "ours plain", "ours speculative", "ours, queue")


def main() -> None:
    if "--peers" in sys.argv:
        import peers

        return peers.main([argument for argument in sys.argv[1:] if argument != "--peers"])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="160m", choices=SHAPES)
    parser.add_argument("--draft", default="31m", choices=SHAPES)
    parser.add_argument("--noise", type=float, default=0.1, help="0 accepts everything; 0.1 about 0.8")
    parser.add_argument("--gamma", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompts", type=int, help="in all, a multiple of the batch (default: one batch)")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.prompts = args.prompts or args.batch
    if args.prompts % args.batch:
        raise SystemExit(f"--prompts {args.prompts} is not a multiple of --batch {args.batch}")
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
        numbers = [f"--{key}={getattr(args, key)}" for key in ("gamma", "batch", "prompts", "prompt", "new")]
        left_out = {"ours, queue"} if args.prompts == args.batch else set()
        left_out |= {"transformers assisted"} if args.batch > 1 else set()
        names = [name for name in VARIANTS if name not in left_out]
        # A cache of compiled programs of this run's own: what a second process then takes to start is measured too.
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

        def worker(name):
            return Worker(name, [__file__, f"--worker={name}", f"--weights={folder}", *numbers], cache)

        workers = [worker(name) for name in names]
        ours = {w.name: w for w in workers if w.name.startswith("ours ")}
        also = {"ours plain": ["short"], "ours speculative": ["short", "costs"]}
        results = interleave(workers, args.repeats, also=also)
        stop(workers)
        for name, first in ours.items():
            again = worker(name)
            again.stop()
            results[name]["start_of_a_second_process"] = again.ready["start"]
            shorter = first.others["short"]
            results[name]["short"] = {
                "seconds": statistics.median(row["seconds"] for row in shorter),
                **{key: shorter[-1][key] for key in ("rounds", "committed")},
            }
        costs = ours["ours speculative"].others["costs"]
        results["ours speculative"]["costs"] = {key: statistics.median(row[key] for row in costs) for key in PARTS}
    tokens = {name: row["last"].pop("tokens") for name, row in results.items()}
    different = [name for name in tokens if tokens[name] != tokens["ours plain"]]
    for row in results.values():
        row["tokens_per_second"] = args.prompts * args.new / row["seconds"]
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
    """What measured costs and acceptance promise, and what was realised.

    Over whole answers, and between a short and a whole one: without prefill and dispatch, which each answer pays once.
    """
    spec, plain = results["ours speculative"], results["ours plain"]
    costs, last = spec["costs"], spec["last"]
    c, v = costs["draft_step"] / costs["target_step"], costs["verification"] / costs["target_step"]
    round_cost = c * args.gamma + v
    rounds = last["rounds"] - spec["short"]["rounds"]
    tau = last["committed"] / last["rounds"]
    later_tau = (last["committed"] - spec["short"]["committed"]) / rounds
    later = {name: row["seconds"] - row["short"]["seconds"] for name, row in (("spec", spec), ("plain", plain))}
    formula = {
        "alpha": last["alpha"],
        "c": c,
        "v": v,
        "tokens_per_round": tau,
        "promised_speedup": tau / round_cost,
        "realised_speedup": plain["seconds"] / spec["seconds"],
        "later_tokens_per_round": later_tau,
        "later_promised_speedup": later_tau / round_cost,
        "later_realised_speedup": later["plain"] / later["spec"],
    }
    if args.batch == 1:  # in a batch, finished rows wait for the others
        drafting = costs["first_draft_step"] + (args.gamma - 1) * costs["draft_step"]
        beyond = later["spec"] / rounds - drafting - costs["verification"]
        formula["milliseconds_per_round_beyond_its_parts"] = beyond * 1e3
        beyond = later["plain"] / (last["committed"] - spec["short"]["committed"]) - costs["target_step"]
        formula["milliseconds_per_plain_round_beyond_its_step"] = beyond * 1e3
    return formula


def short(args) -> int:
    return max(args.new // 4, 1)


def prompt_of(args) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 50000, (args.prompts, args.prompt)).astype(np.int32)


def batches(tokens_PS: np.ndarray, args) -> list[np.ndarray]:
    return np.split(tokens_PS, args.prompts // args.batch)


def our_worker(args):
    import jax

    from adaspec_jax import models
    from adaspec_jax.decoding import (
        ChainDrafter,
        Context,
        NoDraft,
        Sampling,
        generate,
        generate_from_queue,
    )
    from adaspec_jax.measuring.costs import seconds_per_call

    target, draft = (models.load(args.weights / name).for_decoding() for name in ("target", "draft"))
    drafter = NoDraft() if args.worker == "ours plain" else ChainDrafter(draft, length=args.gamma)
    tokens_PS = prompt_of(args)

    def decode(new):
        knobs = {"max_new_tokens": new, "sampling": Sampling(temperature=0.0)}
        if args.worker == "ours, queue":
            prompts = Context(tokens_PS, np.full(args.prompts, args.prompt))
            made = [generate_from_queue(target, drafter, prompts, jax.random.key(0), rows=args.batch, **knobs)]
        else:
            lengths_B = np.full(args.batch, args.prompt)
            made = [
                generate(target, drafter, Context(tokens_BS, lengths_B), jax.random.key(0), **knobs)
                for tokens_BS in batches(tokens_PS, args)
            ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(made))

    def costs():
        sizes = {"batch": args.batch, "slots": args.prompt + args.new}
        return {
            "target_step": seconds_per_call(target, width=1, **sizes),
            "draft_step": seconds_per_call(draft, width=1, **sizes),
            "first_draft_step": seconds_per_call(draft, width=2, **sizes),  # with the token a full acceptance leaves
            "verification": seconds_per_call(target, width=args.gamma + 1, **sizes),
        }

    def unit(command="go"):
        if command == "costs":
            return costs()
        out = decode(args.new if command == "go" else short(args))
        judged = int(out.judged_BN.sum())
        return {
            "tokens": out.tokens_BS[:, args.prompt :].tolist(),
            "rounds": int(out.rounds_B.sum()),
            "committed": int((out.lengths_B - args.prompt).sum()),
            "alpha": int(out.accepted_BN.sum()) / judged if judged else 0.0,
        }

    ready = {"start": {}}
    if args.worker != "ours, queue":
        ready["start"] = start(target, drafter, batches(tokens_PS, args)[0], args)
    decode(args.new)
    decode(short(args))  # may be a program of its own
    return unit, ready


def start(target, drafter, tokens_BS, args) -> dict[str, float]:
    """Seconds to trace and lower the program, and to compile it or find it in the cache of compiled programs."""
    import jax

    from adaspec_jax.decoding import Context, Sampling, engine, rejection_sample

    prompt = Context(tokens_BS, np.full(args.batch, args.prompt))
    arguments, slots = engine.program_arguments(target, drafter, prompt, jax.random.key(0), args.new, -1)
    static = {"slots": slots, "sampling": Sampling(temperature=0.0), "accept": rejection_sample}
    began = time.perf_counter()
    lowered = engine._decode.lower(*arguments, **static)
    lowered_at = time.perf_counter()
    lowered.compile()
    return {"lower": lowered_at - began, "compile": time.perf_counter() - lowered_at}


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
    parts = [torch.tensor(tokens_BS).long() for tokens_BS in batches(prompt_of(args), args)]

    def unit():
        with torch.no_grad():
            made = [target.generate(tokens, attention_mask=torch.ones_like(tokens), **knobs) for tokens in parts]
        return {"tokens": torch.cat(made)[:, args.prompt :].tolist()}

    return unit, {}


if __name__ == "__main__":
    exit_with_one_line(main)
