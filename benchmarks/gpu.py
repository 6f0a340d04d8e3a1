"""One NVIDIA GPU in bfloat16: how much of the machine each part uses, and speculative decoding against transformers.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json

Parts found in the JSON already are skipped, so a run that was cut short goes on when started again. Rates come first:
a matrix product's FLOP/s and a copy's bytes/s, against which everything else is held. Training: the three stages at the
31M <- 1.4B shapes, frozen models recomputed and stored. Decoding: bytes of weights per second of plain decoding, and a
pair with equal logits but for noise (`pairs.py`). transformers is measured where torch sees the GPU; else its part says
why not. `--small` runs every part at toy sizes on any machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
import train_step  # noqa: E402
from interleave import machine  # noqa: E402
from pairs import SHAPES, config, matched_pair, parameters  # noqa: E402

ROWS, LENGTH, SUPERVISED, VOCAB = 16, 512, 0.6, 50304
NEW, PROMPT, GAMMA = 256, 64, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trace", type=Path, help="folder for a profile of one training step and one answer")
    args = parser.parse_args()
    import jax

    backend = jax.default_backend()
    if backend != "gpu" and not args.small:
        raise SystemExit(f"this needs a GPU and jax runs on {backend}; --small tries the script anywhere")
    sizes = {"draft": "14m", "target": "31m", "big": "70m"} if args.small else {"draft": "31m", "target": "1b4"}
    sizes = {"big": "2b8", "rows": 2, "length": 64, "new": 16} | sizes if args.small else {"big": "2b8"} | sizes
    sizes = {"rows": ROWS, "length": LENGTH, "new": NEW, **sizes}
    device = {"kind": jax.devices()[0].device_kind, "jax": jax.__version__, "backend": backend}
    report = {"machine": machine() | device, "sizes": sizes, "parts": {}}
    if args.json.is_file():
        report["parts"] = json.loads(args.json.read_text())["parts"]
    for name, part in PARTS.items():
        if name in report["parts"]:
            continue
        began = time.perf_counter()
        report["parts"][name] = part(argparse.Namespace(**sizes, trace=args.trace), report["parts"])
        report["parts"][name]["seconds_in_all"] = time.perf_counter() - began
        args.json.write_text(json.dumps(report, indent=2) + "\n")
        print(name, json.dumps(report["parts"][name]), flush=True)
        jax.clear_caches()


def seconds_of(call, repeats: int = 5, inner: int = 1) -> float:
    """The median of a call that returns arrays, compiled before."""
    import jax

    jax.block_until_ready(call())
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(inner):
            out = call()
        jax.block_until_ready(out)
        taken.append((time.perf_counter() - began) / inner)
    return statistics.median(taken)


def rates(sizes, known) -> dict:
    import jax
    import jax.numpy as jnp

    side = 512 if sizes.rows < ROWS else 8192
    x = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(lambda a, b: a @ b)
    whole = jnp.ones((side * side * 8,), jnp.bfloat16)
    copy = jax.jit(lambda a: a + 1)
    head = jax.random.normal(jax.random.key(0), (2048, VOCAB), jnp.bfloat16)
    skinny = {
        str(rows): seconds_of(lambda r=rows: product(jnp.ones((r, 2048), jnp.bfloat16), head), inner=20)
        for rows in (1, 2, 4, 6, 8, 16)
    }
    return {
        "matmul_tflops": 2 * side**3 / seconds_of(lambda: product(x, x), inner=10) / 1e12,
        "copy_gb_per_second": 2 * whole.nbytes / seconds_of(lambda: copy(whole), inner=10) / 1e9,
        "seconds_of_output_matrix_by_rows": skinny,
    }


def training(variant: str, kernel: str):
    """A step's seconds, model FLOP/s and share of the matmul rate: `variant` of train_step.py, or "fine_tune"."""

    def part(sizes, known) -> dict:
        import jax
        import jax.numpy as jnp

        from adaspec_jax import models
        from adaspec_jax.errors import UserError
        from adaspec_jax.training import Batch, Chunking, Frozen, adamw, init_state, make_step, objectives
        from adaspec_jax.training.divergences import forward_kl

        def build(shape, seed, dtype=jnp.bfloat16):
            model = models.build(config(shape, VOCAB), jax.random.key(seed), dtype=dtype)
            return model.with_attention(kernel, jnp.bfloat16)

        args = argparse.Namespace(
            batch=sizes.rows, length=sizes.length, supervised=SUPERVISED, vocab_size=VOCAB,
            draft=sizes.draft, target=sizes.target,
        )  # fmt: skip
        chunking = Chunking.for_backend(jax.default_backend())
        batch = jax.tree.map(jnp.asarray, Batch(*train_step.batch_of(args)))
        try:
            if variant == "fine_tune":
                objective, frozen = objectives.fine_tune(chunking=chunking), Frozen()
                model = build(sizes.target, 0, jnp.float32)
            else:
                objective = objectives.selective_distill(fraction=train_step.FRACTION, chunking=chunking)
                target, reference = build(sizes.target, 0), build(sizes.draft, 1)
                frozen, model = Frozen(target, reference), build(sizes.draft, 2, jnp.float32)
                if variant == "ours, stored":
                    hidden_BTD = jax.jit(lambda m: m.features(batch.tokens_BT)[0])(target)
                    batch = Batch(batch.tokens_BT, batch.loss_mask_BT, hidden_BTD)
                    apart = jax.jit(
                        lambda r, t: objectives.divergence_at_labels(forward_kl, r, t, batch, chunking=chunking)
                    )(reference, target)
                    batch = Batch(batch.tokens_BT, batch.loss_mask_BT, hidden_BTD, apart)
                    frozen = Frozen(target.unembedding())
                del target, reference
        except UserError as error:
            return {"not_measured": str(error)}
        optimizer = adamw(1e-4)
        step = make_step(objective, optimizer, compute_dtype=jnp.bfloat16)
        state = init_state(model, optimizer, jax.random.key(0))
        del model
        began = time.perf_counter()
        state, metrics = step(state, frozen, batch)
        first = float(metrics["loss"])
        compile_seconds = time.perf_counter() - began

        def call():
            nonlocal state
            state, metrics = step(state, frozen, batch)
            return metrics["loss"]

        seconds = seconds_of(call, inner=5)
        profile(sizes, call)
        if variant == "fine_tune":
            tokens, labels = sizes.rows * sizes.length, round(SUPERVISED * sizes.length) * sizes.rows
            width, layers, _, inner = SHAPES[sizes.target]
            body = layers * (8 * width * width + 4 * width * inner + 2 * sizes.length * width)
            flop = 3 * (tokens * body + labels * 2 * width * VOCAB)
        else:
            flop = train_step.gflop(args, variant) * 1e9
        return {
            "seconds": seconds,
            "tflops": flop / seconds / 1e12,
            "share_of_matmul_rate": flop / seconds / 1e12 / known["rates"]["matmul_tflops"],
            "first_step_seconds": compile_seconds,
            "first_loss": first,
            "peak_gb": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9,
        }

    return part


def plain_decoding(which: str):
    """Tokens/s at batch 1, and the weights it reads per second as a share of the copy rate."""

    def part(sizes, known) -> dict:
        import jax
        import jax.numpy as jnp

        from adaspec_jax import models
        from adaspec_jax.decoding import Context, NoDraft, Sampling, generate

        shape = getattr(sizes, which)
        model = models.build(config(shape, VOCAB), jax.random.key(0), dtype=jnp.bfloat16)
        prompt = Context(prompt_BS(), np.full(1, PROMPT))
        knobs = {"sampling": Sampling(temperature=0.0)}

        def answer(new):
            return generate(model, NoDraft(), prompt, jax.random.key(0), max_new_tokens=new, **knobs)

        later = seconds_of(lambda: answer(sizes.new)) - seconds_of(lambda: answer(sizes.new // 4))
        per_token = later / (sizes.new - sizes.new // 4)
        read = 2 * (parameters(shape) - SHAPES[shape][0] * VOCAB)  # all but the embedding, of which one row is read
        rate = read / per_token / 1e9
        return {
            "shape": shape,
            "tokens_per_second": 1 / per_token,
            "gb_per_second": rate,
            "share_of_copy_rate": rate / known["rates"]["copy_gb_per_second"],
        }

    return part


def speculative(sizes, known) -> dict:
    import jax
    import jax.numpy as jnp

    from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate
    from adaspec_jax.measuring.costs import seconds_per_call

    target, draft = (jax.device_put(m.astype(jnp.bfloat16)) for m in matched_pair(sizes.target, sizes.draft, noise=0.1))
    prompt, knobs = Context(prompt_BS(), np.full(1, PROMPT)), {"sampling": Sampling(temperature=0.0)}

    def answer(drafter, new):
        return generate(target, drafter, prompt, jax.random.key(0), max_new_tokens=new, **knobs)

    found = {}
    for name, drafter in (("plain", NoDraft()), ("speculative", ChainDrafter(draft, length=GAMMA))):
        long, short = (jax.device_get(answer(drafter, new)) for new in (sizes.new, sizes.new // 4))
        seconds = [seconds_of(lambda n=new, d=drafter: answer(d, n)) for new in (sizes.new, sizes.new // 4)]
        rounds = int(long.rounds_B.sum() - short.rounds_B.sum())
        found[name] = {
            "tokens_per_second": sizes.new / seconds[0],
            "seconds_per_round": (seconds[0] - seconds[1]) / rounds,
            "rounds": int(long.rounds_B.sum()),
            "alpha": float(long.accepted_BN.sum() / max(long.judged_BN.sum(), 1)),
            "tokens": long.tokens_BS[0, PROMPT:].tolist(),
        }
        profile(sizes, lambda d=drafter: answer(d, sizes.new // 4))
    same = found["plain"].pop("tokens"), found["speculative"].pop("tokens")
    shape = {"batch": 1, "slots": PROMPT + sizes.new}
    parts = {
        "target_step": seconds_per_call(target, width=1, **shape),
        "draft_step": seconds_per_call(draft, width=1, **shape),
        "verification": seconds_per_call(target, width=GAMMA + 1, **shape),
    }
    beyond = found["speculative"]["seconds_per_round"] - GAMMA * parts["draft_step"] - parts["verification"]
    return {
        **found,
        "costs": parts,
        # bfloat16 rounds one row and six rows apart, so late tokens may differ where two logits tie.
        "same_tokens_until": int(np.argmin([a == b for a, b in zip(*same, strict=True)] + [False])),
        "share_of_round_beyond_its_parts": beyond / found["speculative"]["seconds_per_round"],
        "times_plain": found["speculative"]["tokens_per_second"] / found["plain"]["tokens_per_second"],
    }


def transformers_decoding(sizes, known) -> dict:
    """Plain and assisted generation of the same pair: dynamic cache, and static cache with torch.compile."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        return {"not_measured": str(error)}
    if not torch.cuda.is_available() and sizes.rows == ROWS:
        return {"not_measured": "torch sees no GPU"}
    import tempfile

    from adaspec_jax import models

    place = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        pair = matched_pair(sizes.target, sizes.draft, noise=0.1)
        for name, model in zip(("target", "draft"), pair, strict=True):
            models.save(model, Path(folder) / name)
        del pair, model
        target, draft = (
            AutoModelForCausalLM.from_pretrained(Path(folder) / name, dtype=torch.bfloat16).to(place).eval()
            for name in ("target", "draft")
        )
    for model in (target, draft):
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    draft.generation_config.num_assistant_tokens = GAMMA
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    tokens_BS = torch.tensor(prompt_BS()).long().to(place)
    found = {}
    for name, extra in (
        ("plain", {}),
        ("plain, static cache and compile", {"cache_implementation": "static"}),
        ("assisted", {"assistant_model": draft}),
        ("assisted, static cache and compile", {"assistant_model": draft, "cache_implementation": "static"}),
    ):

        def answer(extra=extra):
            with torch.no_grad():
                out = target.generate(
                    tokens_BS,
                    attention_mask=torch.ones_like(tokens_BS),
                    max_new_tokens=sizes.new,
                    do_sample=False,
                    **extra,
                )
            if place == "cuda":
                torch.cuda.synchronize()
            return out.numel()

        try:
            for _ in range(2):
                answer()
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                answer()
                taken.append(time.perf_counter() - began)
            found[name] = {"tokens_per_second": sizes.new / statistics.median(taken)}
        except Exception as error:
            found[name] = {"not_measured": f"{type(error).__name__}: {str(error)[:200]}"}
    ours = known["speculative decoding"]["speculative"]["tokens_per_second"]
    best = max((row.get("tokens_per_second", 0) for name, row in found.items() if "assisted" in name), default=0)
    return found | ({"ours_times_their_best_assisted": ours / best} if best else {})


def prompt_BS() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 50000, (1, PROMPT)).astype(np.int32)


def profile(sizes, call) -> None:
    import jax

    if sizes.trace:
        with jax.profiler.trace(str(sizes.trace)):
            jax.block_until_ready(call())


PARTS = {
    "rates": rates,
    "fine-tuning the target": training("fine_tune", "xla"),
    "fine-tuning the target, cudnn": training("fine_tune", "cudnn"),
    "draft stage, recomputing": training("ours, recompute", "xla"),
    "draft stage, recomputing, cudnn": training("ours, recompute", "cudnn"),
    "draft stage, stored": training("ours, stored", "xla"),
    "draft stage, stored, cudnn": training("ours, stored", "cudnn"),
    "plain decoding": plain_decoding("target"),
    "plain decoding, bigger": plain_decoding("big"),
    "speculative decoding": speculative,
    "transformers": transformers_decoding,
}


if __name__ == "__main__":
    main()
