"""The draft stage of `configs/gsm8k_small.py`, ten epochs, ours against the same steps in PyTorch on the same batches.

    python benchmarks/pipeline.py --json benchmarks/results/pipeline_gsm8k_small.json

Ours is measured whole: writing the teacher store, compiling, and every step of ten epochs (batch 16 / k). PyTorch
(heap kept, the better of its settings in `train_step.py`) takes the same first steps in turn with ours, and its whole
stage is extrapolated from them. Weights are random, which changes no cost. Needs the data of that config and the
`parity` extra; `--task word_problems` needs no data.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
from interleave import KEEP_HEAP, Worker, interleave, machine, serve, table  # noqa: E402
from train_step import TorchStep  # noqa: E402

PEER, OURS = "torch, heap kept", "ours, stored"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="gsm8k")
    parser.add_argument("--epochs", type=float, default=10.0, help="of the draft stage's data")
    parser.add_argument("--steps", type=int, default=25, help="per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=(PEER, OURS), help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return serve(*(torch_worker if args.worker == PEER else our_worker)(args))
    with tempfile.TemporaryDirectory() as folder:
        write_weights(args, Path(folder))
        given = [f"--{key}={getattr(args, key)}" for key in ("task", "epochs", "steps")] + [f"--weights={folder}"]
        workers = [
            Worker(name, [__file__, f"--worker={name}", *given], env) for name, env in ((PEER, KEEP_HEAP), (OURS, {}))
        ]
        ours = workers[1]
        results = interleave(workers, args.turns)
        workers[0].stop()  # the rest of ours has the machine for itself
        ours.unit("rest")
        ours.stop()
    print(table(results))
    taken = args.steps * args.turns
    in_turn = {worker.name: sum(row["seconds"] for row in worker.rows) for worker in workers}
    ready, rest = ours.ready, ours.others["rest"][0]["seconds"]
    total = ready["steps"]
    whole = {
        "steps": total,
        "labels": ready["labels"],
        "store_bytes": ready["store_bytes"],
        "store_seconds": ready["store_seconds"],
        "compile_seconds": ready["compile_seconds"],
        "our_seconds_of_steps": in_turn[OURS] + rest,
        "our_seconds": ready["store_seconds"] + ready["compile_seconds"] + in_turn[OURS] + rest,
        "their_seconds_of_interleaved_steps": in_turn[PEER],
        "their_seconds_extrapolated": in_turn[PEER] / taken * total,
    }
    whole["times_faster"] = whole["their_seconds_extrapolated"] / whole["our_seconds"]
    whole["times_faster_per_step"] = in_turn[PEER] / in_turn[OURS]
    print(json.dumps(whole, indent=2))
    if args.json:
        settings = {key: getattr(args, key) for key in ("task", "epochs", "steps", "turns")}
        report = {"settings": settings, "machine": machine(), "whole": whole, "results": results}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def experiment(args):
    """The config with ten epochs at batch 16 / k, which is what its draft stage's official budget multiplies out to."""
    from adaspec_jax.command_line import load_config

    config = load_config(str(getattr(args, "config", None) or ROOT / "configs" / "gsm8k_small.py"))
    config.data.task = args.task or config.data.task
    config.draft.epochs = args.epochs * config.draft.fraction
    config.teacher = "hidden"
    return config


def text_of(args, config):
    from adaspec_jax.pipeline.text import read_text
    from adaspec_jax.pipeline.workdir import Workdir

    workdir = Workdir(args.weights / "run")
    origins = {"target": config.target, "draft": config.draft}
    return workdir, read_text(config.data, config.tokenizer, origins, workdir=workdir, seed=config.seed)


def batches_of(config, text, store=None):
    from adaspec_jax import data
    from adaspec_jax.config import draft_schedule

    epochs, batch_size = draft_schedule(config.draft)
    shapes = {"buckets": config.data.buckets, "length_window": config.data.length_window, "pad_id": text.eos_id}
    steps = data.num_steps(len(text.train), batch_size, epochs)
    given = {"batch_size": batch_size, "epochs": epochs, "seed": 0, **shapes}
    return steps, data.train_batches(text.train, **given, beside=store)


def write_weights(args, folder: Path) -> None:
    """Models of the config's shapes as Hugging Face folders, and the run's tokenizer, for both workers."""
    import jax

    from adaspec_jax import models

    args.weights = folder
    config = experiment(args)
    workdir, _ = text_of(args, config)
    for seed, (name, spec) in enumerate({"target": config.target, "reference": config.draft}.items()):
        model = models.build(spec.architecture.hf_config(), jax.random.key(seed))
        for directory in (workdir.stage(name), folder / name):
            models.save(model, directory)
    models.save(models.build(config.draft.architecture.hf_config(), jax.random.key(2)), folder / "draft")


def our_stage(args, config):
    """Our draft stage on the models of `--weights`: (text, store or None, seconds to write it, step, state, frozen)."""
    import jax

    from adaspec_jax import models
    from adaspec_jax.config import draft_schedule
    from adaspec_jax.devices import sharding
    from adaspec_jax.pipeline.teacher import Rows, add_reference, open_store, taught_by
    from adaspec_jax.pipeline.teacher_choice import Asked
    from adaspec_jax.training import Chunking, Frozen, adamw, init_state, make_step, objectives
    from adaspec_jax.training.divergences import forward_kl

    workdir, text = text_of(args, config)
    mesh, chunking = sharding.make_mesh(1, 1, 1), Chunking.for_backend(jax.default_backend())
    target, reference, draft = (models.load(args.weights / name) for name in ("target", "reference", "draft"))
    began = time.perf_counter()
    asked = Asked(config.teacher, config.teacher_top_k, sampled_on_the_way=False)
    rows = Rows(text, mesh, config.reference.batch_size, config.data.buckets)
    where = {"workdir": workdir, "chunking": chunking}
    store = open_store(asked, rows, target, **where, passes=draft_schedule(config.draft)[0])
    if store:
        shared = {"target": target, "reference": reference, "base": draft, "fraction": config.draft.fraction}
        add_reference(asked, store, rows, **shared, **where, divergence=forward_kl)
    seconds = time.perf_counter() - began
    spec = config.draft
    optimizer = adamw(spec.lr, weight_decay=spec.weight_decay, clip_norm=spec.clip_norm)
    step = make_step(objectives.selective_distill(fraction=spec.fraction, chunking=chunking), optimizer)
    frozen = Frozen(taught_by(target, store), None if store else reference)
    return text, store, seconds, step, init_state(draft, optimizer, jax.random.key(0)), frozen


def our_worker(args):
    import jax

    from adaspec_jax.training import Batch

    config = experiment(args)
    text, store, store_seconds, step, state, frozen = our_stage(args, config)
    steps, batches = batches_of(config, text, store)
    compile_seconds, seen, done = 0.0, set(), 0
    for batch in itertools.islice(batches_of(config, text, store)[1], 200):  # every bucket once, on a state of its own
        if batch["tokens_BT"].shape not in seen:
            seen.add(batch["tokens_BT"].shape)
            spare = jax.tree.map(jax.numpy.copy, state)
            began = time.perf_counter()
            jax.block_until_ready(step(spare, frozen, Batch(**batch)))
            compile_seconds += time.perf_counter() - began
    started = False

    def turn(command="go"):
        nonlocal state, done, started
        if not started:  # the warm-up: what it would do has been done above
            started = True
            return {}
        count = steps - done if command == "rest" else args.steps
        for _ in range(count):
            state, metrics = step(state, frozen, Batch(**next(batches)))
        done += count
        return {"loss": float(metrics["loss"])}

    sizes = {"steps": steps, "labels": text.record["train"]["supervised_tokens"]}
    stored = sum(file.stat().st_size for file in store.path.glob("*.npy"))
    return turn, sizes | {
        "store_seconds": store_seconds,
        "store_bytes": stored,
        "compile_seconds": compile_seconds,
        "data": dataclasses.asdict(config.data),
    }


def torch_worker(args):
    config = experiment(args)
    _, text = text_of(args, config)
    step, (_, batches) = TorchStep(args.weights), batches_of(config, text)
    started = False

    def turn(command="go"):
        nonlocal started
        if not started:  # one step to warm up, on a batch that is not among those measured
            started = True
            batch = next(batches_of(config, text)[1])
            return {"loss": step(batch["tokens_BT"], batch["loss_mask_BT"])}
        losses = []
        for _ in range(args.steps):
            batch = next(batches)
            losses.append(step(np.asarray(batch["tokens_BT"]), np.asarray(batch["loss_mask_BT"])))
        return {"loss": losses[-1]}

    return turn, {}


if __name__ == "__main__":
    main()
