"""Whether the frozen models run anew at every step, or once, into a store on disk.

For fixed answers the target's last hidden state at a label and the reference's divergence there never change. Stored,
a step runs the draft and the target's output matrix alone; the losses are those of recomputing up to the rounding of
another batch shape. With the target's likeliest tokens stored instead, a step runs the draft alone, for a loss that
merges all other tokens into one; what that changes is measured and recorded.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from adaspec_jax import data, models, reporting
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.teacher_choice import Asked, decide
from adaspec_jax.pipeline.teacher_features import FEATURES, HIDDEN, LAST, ForHeads, column_of, feature_columns
from adaspec_jax.pipeline.teacher_rows import Rows
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import Workdir
from adaspec_jax.training import Batch, Chunking, objectives
from adaspec_jax.training.divergences import Divergence, forward_kl

# Columns of the store, named as the fields of `Batch` that take them.
IDS, LOG_PROBS = "target_ids_BTK", "target_log_probs_BTK"
REFERENCE = "reference_divergence_BT"
_COMPUTED_BY = (  # models, objectives and divergences, and how rows become batches and entries of the store
    *("models/*.py", "models/families/**/*.py", "models/files/**/*.py"),
    *("models/heads/parts/head.py", "models/heads/parts/texts.py", "training/**/*.py", "devices/sharding.py"),
    *("data/batches.py", "data/packing.py", "data/token_store.py", "pipeline/teacher*.py"),
)
_SAMPLED = 4  # blocks of rows on which the error of "top_k" is measured


def check(asked: Asked, text: Text) -> None:
    """UserError where what is asked for cannot be had with this vocabulary, or where it is to lie."""
    if asked.place:
        processes.once(lambda: _make(Path(asked.place)))
    if asked.choice == "top_k" and asked.top_k > len(text.tokenizer):
        raise UserError(f"config.teacher_top_k is {asked.top_k}, and the vocabulary has {len(text.tokenizer)} tokens")


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UserError(f"config.teacher_store {place} cannot be written to: {error.strerror}") from None


def open_store(
    asked: Asked, rows: Rows, target: models.CausalLM, *, workdir: Workdir, chunking: Chunking, passes: float
) -> data.TokenStore | ForHeads | None:
    """The store with what the target says of every label, written now as far as it is not there; None to recompute it.

    What "auto" comes to, for so many `passes` over the text, is recorded in the workdir, so that a resumed run does the
    same. UserError where a store is asked for and the disk is too small, or the store there was made from something
    else.
    """
    if asked.sampled_on_the_way or asked.runs_target:
        cause = "heads of this kind guess with the whole target"
        if asked.sampled_on_the_way:
            cause = "answers sampled on the way cannot be stored before"
        why = f"frozen models run at every step: {cause}"
        processes.say(f"teacher: {why}")
        _note(workdir, asked, {"choice": "recompute", "why": why})
        return None
    store = data.TokenStore(Path(asked.place).resolve() if asked.place else workdir.teacher, rows.text.rows)
    columns, values = _columns(asked, target, chunking, store)
    size = sum(store.bytes_of(**column) for column in columns.values())
    missing = processes.once(lambda: sum(store.bytes_missing(name, **column) for name, column in columns.items()))
    decision = processes.once(lambda: workdir.decision("teacher"))
    if decision is None or decision["asked"] != asked.choice:
        forward = partial(_seconds_of_a_pass, store, rows, target)
        decision = decide(asked, store, size, missing, passes=passes, seconds_of_a_pass=forward)
        _note(workdir, asked, decision)
    processes.say(f"teacher: {decision['why']}")
    if decision["choice"] == "recompute":
        return None
    origin = {
        "target weights": processes.once(lambda: workdir.weights_sha256("target")),
        "tokenizer": rows.text.record["tokenizer_sha256"],
        "training examples": rows.text.train_sha256,
        "tokens": rows.text.tokens_sha256,
        "code": processes.once(code_sha256),
    }
    blocks = {name: _begin(store, name, origin, **column) for name, column in columns.items()}
    processes.once(lambda: store.check_room(missing, "the teacher store"))
    _write(store, blocks, rows, values, "the target reads the text")
    return ForHeads(store, asked.layers) if asked.layers else store


def _columns(
    asked: Asked, target: models.CausalLM, chunking: Chunking, store: data.TokenStore
) -> tuple[dict[str, dict], Callable]:
    """({column: shape and type}, batch -> {column: [B, T, ...]}) of what is stored of the target."""
    dtype = asked.dtype or target.dtype
    if asked.layers:
        there = processes.once(lambda: store.holds(column_of(LAST)) and not store.holds(HIDDEN))
        return feature_columns(asked.layers, target, dtype, last_is_there=there)
    if asked.choice != "top_k":
        hidden = {"shape": (target.config.hidden_size,), "dtype": dtype}
        return {HIDDEN: hidden}, lambda batch: {HIDDEN: _features(target, batch)}
    k = asked.top_k
    columns = {IDS: {"shape": (k,), "dtype": np.int32}, LOG_PROBS: {"shape": (k,), "dtype": np.float32}}
    return columns, lambda batch: dict(zip(columns, _likeliest(chunking, k, target, batch), strict=True))


def _note(workdir: Workdir, asked: Asked, decision: dict[str, str]) -> None:
    processes.once(lambda: workdir.decide("teacher", decision | {"asked": asked.choice}))


def _begin(store: data.TokenStore, name: str, origin: dict[str, str], **column) -> list[int]:
    """The numbers of a column's blocks that are still to be written, as the first process finds them."""
    blocks = processes.once(lambda: store.begin(name, **column, origin=origin))
    if not processes.first():
        store.begun_elsewhere(name, blocks, **column)
    return blocks


def taught_by(target: models.CausalLM, store: data.TokenStore | None) -> models.CausalLM | None:
    """What an objective still needs of the target beside what the store brings."""
    if store is None:
        return target
    if FEATURES in store.columns:
        return target.ends()
    return target.unembedding() if HIDDEN in store.columns else None


def add_reference(
    asked: Asked,
    store: data.TokenStore,
    rows: Rows,
    *,
    target: models.CausalLM,
    reference: models.CausalLM,
    base: models.CausalLM,
    divergence: Divergence,
    fraction: float,
    workdir: Workdir,
    chunking: Chunking,
) -> None:
    """Stores the reference's divergence from the target at every label, for the draft stage.

    Where the store knows the target's likeliest tokens alone, what that changes is measured and recorded: on the
    reference's divergence, and on the `fraction` of tokens that `base`, the draft before its stage, would be trained
    on.
    """
    rows = rows.beside(store)
    weights = processes.once(lambda: {name: workdir.weights_sha256(name) for name in ("reference", "target")})
    k = None if HIDDEN in store.columns else asked.top_k
    origin = {
        "reference weights": weights["reference"],
        "target weights": weights["target"],
        "divergence": divergence.__name__,
        "target's law": "whole" if k is None else f"{k} likeliest tokens",
        "training examples": rows.text.train_sha256,
        "code": processes.once(code_sha256),
    }
    column = {"shape": (), "dtype": np.float32, "directory": workdir.teacher}  # other runs share the target's words
    blocks = _begin(store, REFERENCE, origin, **column)
    compute = partial(_divergence, divergence, chunking, reference, taught_by(target, store))
    _write(store, {REFERENCE: blocks}, rows, lambda batch: {REFERENCE: compute(batch)}, "the reference reads the text")
    if k is not None and (blocks or processes.once(lambda: workdir.decision("teacher_error")) is None):
        error = _error(store, rows, chunking, fraction, target, reference, base)
        processes.once(lambda: workdir.decide("teacher_error", error))
        processes.say(
            f"teacher: the {k} likeliest tokens hold {100 * (1 - error['tail_mass']):.2f} % of the target's mass; the "
            f"reference's KL is {error['kl_top_k']:.4f} nats for {error['kl_exact']:.4f}, and "
            f"{100 * error['selected_alike']:.1f} % of the tokens selected at first are those of the whole law"
        )


def _seconds_of_a_pass(store: data.TokenStore, rows: Rows, target) -> float:
    """Of the target over all rows, from one batch of rows of middling length."""
    block = store.blocks[len(store.blocks) // 2]
    numbers, batch = next(rows.batches(block))
    jax.block_until_ready(_features(target, batch))  # compiles
    began = time.perf_counter()
    jax.block_until_ready(_features(target, batch))
    return (time.perf_counter() - began) / len(numbers) * sum(map(len, store.blocks))


def _write(store: data.TokenStore, missing: dict[str, list[int]], rows: Rows, values, what: str) -> None:
    """`values(batch)`, {column: [B, T, ...]}, of every row of the blocks that each column misses.

    All processes compute, each its rows of every batch; the first one writes, to a directory that all can read.
    """
    processes.together("what is to be stored is known")
    blocks = sorted(set().union(*missing.values()), reverse=True)
    if not blocks:
        return
    with reporting.track(sum(len(store.blocks[n]) for n in blocks), description=what, unit="row") as progress:
        for number in blocks:
            columns = [column for column, its in missing.items() if number in its]
            wanted = partial(_of_columns, values, columns)
            found = rows.entries(store.blocks[number], wanted, every_token=store.of_every_token)
            for column in columns:
                if processes.first():
                    store.write(column, number, found[column])
                else:
                    store.written_elsewhere(column, number)
            progress.advance(len(store.blocks[number]))
    processes.together("stored")


def _of_columns(values: Callable, columns: list[str], batch: Batch) -> dict:
    made = values(batch)
    return {column: made[column] for column in columns}


def _error(store, rows: Rows, chunking: Chunking, fraction: float, target, reference, base) -> dict[str, float]:
    """What knowing the likeliest tokens alone changes, on a sample of the rows."""

    def values(batch: Batch) -> dict:
        whole = Batch(batch.tokens_BT, batch.loss_mask_BT, segments_BT=batch.segments_BT)
        return {
            "tail": _tail_mass(batch),
            **{
                f"{name} {how}": _divergence(forward_kl, chunking, model, target, given)
                for name, model in (("reference", reference), ("base", base))
                for how, given in (("whole", whole), ("top_k", batch))
            },
        }

    step = max(len(store.blocks) // _SAMPLED, 1)
    sampled = [row for block in store.blocks[step // 2 :: step] for row in block]
    found = {name: np.concatenate(parts) for name, parts in rows.entries(sampled, values).items()}
    selected = []
    for how in ("whole", "top_k"):
        gap = found[f"base {how}"] - found[f"reference {how}"]
        selected.append(gap >= np.quantile(gap, 1 - fraction))
    return {
        "rows": len(sampled),
        "tail_mass": float(found["tail"].mean()),
        "kl_exact": float(found["reference whole"].mean()),
        "kl_top_k": float(found["reference top_k"].mean()),
        "selected_alike": float((selected[0] & selected[1]).sum() / selected[0].sum()),
    }


@jax.jit
def _features(model: models.CausalLM, batch: Batch):
    return model.features(batch.tokens_BT, segments_BT=batch.segments_BT)[0]


@partial(jax.jit, static_argnums=(0, 1))
def _divergence(divergence, chunking: Chunking, model, target, batch: Batch):
    return objectives.divergence_at_labels(divergence, model, target, batch, chunking=chunking)


@partial(jax.jit, static_argnums=(0, 1))
def _likeliest(chunking: Chunking, k: int, target, batch: Batch):
    return objectives.top_k_at_labels(target, batch, k, chunking=chunking)


@jax.jit
def _tail_mass(batch: Batch):
    return 1 - jax.numpy.sum(jax.numpy.exp(batch.target_log_probs_BTK), axis=-1)


def code_sha256(package: Path = Path(__file__).parent.parent) -> str:
    """Of all code that what is stored is computed by: each of its changes may change an entry."""
    digest = hashlib.sha256()
    for place in _COMPUTED_BY:
        for file in sorted(package.glob(place)):
            digest.update(file.relative_to(package).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
