"""One AdaSPEC training step, ours against PyTorch, interleaved on this machine.

    python benchmarks/train_step.py --json benchmarks/results/train_step_160m.json
    python benchmarks/train_step.py --target 410m --repeats 3 --json benchmarks/results/train_step_410m.json

Draft and reference have the 31M Pythia shape and all weights are random; the batch is the same for all. Peers: PyTorch
with the released code's mathematics (full logits of three models, `masked_select`), as shipped; the same with glibc
keeping its heap, which doubles its speed; and that under torch.compile. Ours: frozen models run at every step
("recompute"); the target's hidden states and the reference's divergence given, as from the teacher store ("stored");
and the target's 64 likeliest tokens instead of its hidden states ("top 64", another loss: see `training/top_k.py`).
The bound is the counted matrix FLOPs at the matmul rate measured here. Needs the `parity` extra.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from interleave import KEEP_HEAP, Worker, interleave, machine, serve, stop, table  # noqa: E402
from pairs import SHAPES, config  # noqa: E402

FRACTION, LR, DECAY, CLIP, TOP = 0.4, 3e-4, 0.1, 1.0, 64
SETTINGS = {  # a variant's environment
    "torch": {},
    "torch, heap kept": KEEP_HEAP,
    "torch.compile, heap kept": KEEP_HEAP,
    "ours, recompute": {},
    "ours, stored": {},
    "ours, top 64": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", default="31m", choices=SHAPES)
    parser.add_argument("--target", default="160m", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--supervised", type=float, default=0.6, help="share of each row that is labels")
    parser.add_argument("--vocab_size", type=int, default=50304)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work = torch_worker if args.worker.startswith("torch") else our_worker
        return serve(*work(args))
    with tempfile.TemporaryDirectory() as folder:
        write_weights(args, Path(folder))
        given = [f"--{key}={getattr(args, key)}" for key in ("draft", "target", "batch", "length", "supervised")]
        given += [f"--vocab_size={args.vocab_size}", f"--weights={folder}"]
        workers = [
            Worker(name, [__file__, f"--worker={name}", *given], SETTINGS[name])
            for name in SETTINGS
            if name in args.only
        ]
        results = interleave(workers, args.repeats)
        stop(workers)
    rate = matmul_rate()
    for name, row in results.items():
        row["gflop"] = gflop(args, name)
        row["share_of_bound"] = row["gflop"] / rate / row["seconds"]
    losses = [row["ready"]["first_loss"] for name, row in results.items() if name != "ours, top 64"]
    spread = (max(losses) - min(losses)) / max(losses)
    print(table(results))
    print(f"matmul {rate:.0f} GFLOP/s; first losses agree to {spread:.1e} (relative)")
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "worker", "weights", "only")}
        report = {"settings": settings, "machine": machine(), "matmul_gflops": rate, "first_loss_spread": spread}
        args.json.write_text(json.dumps(report | {"results": results}, indent=2) + "\n")


def batch_of(args) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and label mask [B, T]; the last `supervised` share of each row is labels."""
    tokens_BT = np.random.default_rng(0).integers(0, args.vocab_size, (args.batch, args.length)).astype(np.int32)
    mask_BT = np.zeros(tokens_BT.shape, bool)
    mask_BT[:, args.length - round(args.supervised * args.length) :] = True
    return tokens_BT, mask_BT


def write_weights(args, folder: Path) -> None:
    import jax

    from adaspec_jax import models

    for seed, (name, shape) in enumerate({"target": args.target, "reference": args.draft, "draft": args.draft}.items()):
        models.save(models.build(config(shape, args.vocab_size), jax.random.key(seed)), folder / name)


def our_worker(args):
    import time

    import jax

    from adaspec_jax import models
    from adaspec_jax.training import Batch, Chunking, Frozen, adamw, init_state, make_step, objectives
    from adaspec_jax.training.divergences import forward_kl

    target, reference, draft = (models.load(args.weights / name) for name in ("target", "reference", "draft"))
    batch, frozen, chunking = Batch(*batch_of(args)), Frozen(target, reference), Chunking.for_backend("cpu")
    if args.worker != "ours, recompute":
        if args.worker == "ours, stored":
            hidden_BTD = jax.jit(lambda m: m.features(batch.tokens_BT)[0])(target)
            batch = replace(batch, target_hidden_BTD=np.asarray(hidden_BTD))
            frozen = Frozen(target.unembedding())
        else:
            ids, log_probs = jax.jit(lambda m: objectives.top_k_at_labels(m, batch, TOP, chunking=chunking))(target)
            batch = replace(batch, target_ids_BTK=np.asarray(ids), target_log_probs_BTK=np.asarray(log_probs))
            frozen = Frozen()
        apart = jax.jit(lambda r, t: objectives.divergence_at_labels(forward_kl, r, t, batch, chunking=chunking))
        batch = replace(batch, reference_divergence_BT=np.asarray(apart(reference, frozen.target)))
    del target, reference
    optimizer = adamw(LR, weight_decay=DECAY, clip_norm=CLIP)
    step = make_step(objectives.selective_distill(fraction=FRACTION, chunking=chunking), optimizer)
    state = init_state(draft, optimizer, jax.random.key(0))
    began = time.perf_counter()
    state, metrics = step(state, frozen, batch)
    ready = {"first_loss": float(metrics["loss"]), "first_step_seconds": time.perf_counter() - began}

    def unit():
        nonlocal state
        state, metrics = step(state, frozen, batch)
        return {"loss": float(metrics["loss"])}

    return unit, ready


def torch_worker(args):
    step = TorchStep(args.weights, compiled="compile" in args.worker)
    tokens_BT, mask_BT = batch_of(args)

    def unit():
        return {"loss": step(tokens_BT, mask_BT)}

    return unit, {"first_loss": unit()["loss"]}


class TorchStep:
    """The released code's step in PyTorch, on the models in a folder: one call, one update, the loss as a float."""

    def __init__(self, weights: Path, *, compiled: bool = False) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._target, self._reference, self._draft = (
            AutoModelForCausalLM.from_pretrained(weights / name, dtype=torch.float32)
            for name in ("target", "reference", "draft")
        )
        for model in (self._target, self._reference):
            model.eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(self._draft.parameters(), lr=LR, weight_decay=DECAY, fused=True)
        if compiled:
            self._logits, self._loss = torch.compile(self._logits), torch.compile(self._loss)

    def __call__(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> float:
        import torch

        tokens_BT = torch.tensor(tokens_BT).long()
        labels_BT = torch.where(torch.tensor(mask_BT), tokens_BT, -100)
        loss = self._loss(labels_BT, *self._logits(tokens_BT))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._draft.parameters(), CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _logits(self, tokens_BT):
        import torch

        logits = self._draft(input_ids=tokens_BT, use_cache=False).logits
        with torch.no_grad():
            frozen = [m(input_ids=tokens_BT, use_cache=False).logits for m in (self._target, self._reference)]
        return logits, *frozen

    @staticmethod
    def _loss(labels_BT, *logits):
        import torch
        from torch.nn import functional

        kept_N1 = labels_BT[:, 1:].ne(-100).flatten().unsqueeze(-1)
        width = logits[0].shape[-1]
        q, p, r = (torch.masked_select(x[:, :-1].contiguous().view(-1, width), kept_N1).view(-1, width) for x in logits)
        divergence, p = torch.nn.KLDivLoss(reduction="none"), functional.softmax(p, dim=-1)
        ours_N = divergence(functional.log_softmax(q, dim=-1), p).sum(-1)
        gap_N = ours_N - divergence(functional.log_softmax(r, dim=-1), p).sum(-1)
        keep_N = gap_N >= torch.quantile(gap_N, 1 - FRACTION)
        return torch.masked_select(ours_N, keep_N).mean()


def gflop(args, variant: str) -> float:
    """Matrix FLOPs one step needs, in 10^9: what each variant computes, not what is the least possible."""
    tokens, labels = args.batch * args.length, args.batch * round(args.supervised * args.length)

    def body(shape):  # a token's forward; attention over half the row on average
        width, layers, _, inner = SHAPES[shape]
        return layers * (8 * width * width + 4 * width * inner + 2 * args.length * width)

    def head(shape):
        return 2 * SHAPES[shape][0] * args.vocab_size

    draft_body = 3 * tokens * body(args.draft)
    if variant.startswith("torch"):
        heads = tokens * (4 * head(args.draft) + head(args.target))
        return (draft_body + tokens * (body(args.draft) + body(args.target)) + heads) / 1e9
    kept = FRACTION * labels
    if variant == "ours, top 64":
        return (draft_body + (labels + 3 * kept) * head(args.draft)) / 1e9
    heads = (labels + kept) * (head(args.draft) + head(args.target)) + 2 * kept * head(args.draft)
    if variant == "ours, stored":
        return (draft_body + heads) / 1e9
    return (draft_body + tokens * (body(args.draft) + body(args.target)) + heads + labels * head(args.draft)) / 1e9


def matmul_rate(size: int = 2048) -> float:
    """GFLOP/s of a float32 matrix product: the better of PyTorch's and XLA's."""
    import time

    import jax
    import torch

    x = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    a, b, product = torch.tensor(x), jax.numpy.asarray(x), jax.jit(lambda m: m @ m)
    best = float("inf")
    for _ in range(5):
        for run in (lambda: a @ a, lambda: jax.block_until_ready(product(b))):
            began = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


if __name__ == "__main__":
    main()
