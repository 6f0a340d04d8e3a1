"""Whether the frozen models run anew at every step, or once, into a store on disk.

For fixed answers the target's last hidden state at a label and the reference's divergence there never change. Stored,
a step runs the draft and the target's output matrix alone; the losses are those of recomputing up to the rounding of
another batch shape.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from adaspec_jax import data, models, reporting, sharding
from adaspec_jax.config import Experiment, draft_schedule
from adaspec_jax.errors import UserError
from adaspec_jax.text import Text
from adaspec_jax.training import Batch, Chunking, objectives
from adaspec_jax.workdir import Workdir

HIDDEN, REFERENCE = "target_hidden_BTD", "reference_divergence_BT"  # the fields of `Batch` that take them
_WORTH = 0.9  # "auto" stores where that costs at most this share of recomputing
_SPARE = 2.0  # and where the disk has this many times the room


def open_store(
    config: Experiment, workdir: Workdir, text: Text, target: models.CausalLM, mesh
) -> data.TokenStore | None:
    """The store with the target's hidden states, written now as far as it is not there; None to recompute them.

    What `config.teacher` "auto" decides is recorded in the workdir, so that a resumed run does the same. UserError
    where `config.teacher` is "hidden" and the disk is too small, or the store there was made from something else.
    """
    if workdir.finished("draft"):
        return None
    store = data.TokenStore(workdir.path / "teacher", text.train)
    rows = _Rows(config, text, mesh)
    column = {"shape": (target.config.hidden_size,), "dtype": target.dtype}
    decision = workdir.decision("teacher")
    if decision is None or decision["asked"] != config.teacher:
        decision = _decide(config, workdir, store, rows, target, store.bytes_of(**column))
        workdir.decide("teacher", decision | {"asked": config.teacher})
    print(f"teacher: {decision['why']}", flush=True)
    if decision["choice"] == "recompute":
        return None
    origin = {
        "target weights": _weights_sha256(workdir.stage("target")),
        "tokenizer": text.record["tokenizer_sha256"],
        "training examples": text.train_sha256,
        "tokens": _tokens_sha256(text),
        "code": _code_sha256(),
    }
    blocks = store.begin(HIDDEN, **column, origin=origin)
    if blocks:
        store.check_room(store.bytes_of(**column) * len(blocks) // len(store.blocks), "the teacher store")
    _write(store, HIDDEN, blocks, rows, lambda batch: _features(target, batch.tokens_BT), "target's hidden states")
    return store


def add_reference(
    store: data.TokenStore,
    config: Experiment,
    workdir: Workdir,
    text: Text,
    mesh,
    *,
    target: models.CausalLM,
    reference: models.CausalLM,
    divergence,
    chunking: Chunking,
) -> None:
    """Stores the reference's divergence from the target at every label, for the draft stage."""
    rows = _Rows(config, text, mesh, store)
    origin = {
        "reference weights": _weights_sha256(workdir.stage("reference")),
        "target weights": _weights_sha256(workdir.stage("target")),
        "divergence": divergence.__name__,
        "training examples": text.train_sha256,
        "code": _code_sha256(),
    }
    blocks = store.begin(REFERENCE, shape=(), dtype=np.float32, origin=origin)
    values = partial(_reference_divergence, divergence, chunking, reference, target.unembedding())
    _write(store, REFERENCE, blocks, rows, values, "reference's divergence")


def _decide(config: Experiment, workdir: Workdir, store, rows: _Rows, target, size: int) -> dict[str, str]:
    if config.teacher == "recompute":
        return {"choice": "recompute", "why": "frozen models run at every step (config.teacher)"}
    if jax.process_count() > 1:
        if config.teacher == "hidden":
            raise UserError('config.teacher "hidden" works in one process only as yet; set it to "recompute"')
        return {"choice": "recompute", "why": "frozen models run at every step (several processes)"}
    if config.teacher == "hidden":
        store.check_room(size, "the teacher store")
        why = f"the target's hidden states are stored in {store.path}, {data.size_in_words(size)} (config.teacher)"
        return {"choice": "hidden", "why": why}
    passes = sum(
        epochs
        for stage, epochs in (("reference", config.reference.epochs), ("draft", draft_schedule(config.draft)[0]))
        if not workdir.finished(stage)
    )
    free = data.free_bytes(store.path)
    if free < _SPARE * size:
        needed, left = data.size_in_words(size), data.size_in_words(free)
        why = f"frozen models run at every step: storing {needed} would fill the disk ({left} free)"
        return {"choice": "recompute", "why": why}
    forward = _seconds_of_a_pass(store, rows, target)
    write, read = (size * seconds for seconds in _seconds_per_byte(workdir.path))
    recomputed, stored = passes * forward, forward + write + passes * read
    sums = f"{passes:g} passes over the text, {recomputed:.0f} s of target forwards against {stored:.0f} s with"
    if stored < _WORTH * recomputed:
        why = f"the target's hidden states are stored in {store.path}: {sums} a store of {data.size_in_words(size)}"
        return {"choice": "hidden", "why": why}
    return {"choice": "recompute", "why": f"frozen models run at every step: {sums} a store"}


def _seconds_of_a_pass(store: data.TokenStore, rows: _Rows, target) -> float:
    """Of the target over all rows, from one batch of rows of middling length."""
    block = store.blocks[len(store.blocks) // 2]
    numbers, batch = next(rows.batches(block))
    jax.block_until_ready(_features(target, batch.tokens_BT))  # compiles
    began = time.perf_counter()
    jax.block_until_ready(_features(target, batch.tokens_BT))
    return (time.perf_counter() - began) / len(numbers) * sum(map(len, store.blocks))


def _seconds_per_byte(folder: Path, size: int = 2**24) -> tuple[float, float]:
    """(to write, to read back) in this folder; reading mostly finds the file in memory, as a stage's will."""
    probe, content = folder / ".probe.tmp", np.random.default_rng(0).bytes(size)
    try:
        began = time.perf_counter()
        probe.write_bytes(content)
        written = time.perf_counter()
        np.fromfile(probe, np.uint8).sum()
        return (written - began) / size, (time.perf_counter() - written) / size
    finally:
        probe.unlink(missing_ok=True)


def _write(store: data.TokenStore, column: str, blocks: list[int], rows: _Rows, values, what: str) -> None:
    """`values(batch)` [B, T, ...] of every row of these blocks."""
    if not blocks:
        return
    with reporting.track(sum(len(store.blocks[n]) for n in blocks), description=what, unit="row") as progress:
        for number in blocks:
            entries = []
            for numbers, batch in rows.batches(store.blocks[number]):
                dense = np.asarray(values(batch))
                entries += [dense[b][rows.predicting(i)] for b, i in enumerate(numbers)]
            store.write(column, number, entries)
            progress.advance(len(store.blocks[number]))


class _Rows:
    """The training rows as batches on the mesh, in the shapes of the reference stage."""

    def __init__(self, config: Experiment, text: Text, mesh, beside: data.TokenStore | None = None) -> None:
        self._config, self._text, self._mesh, self._beside = config, text, mesh, beside

    def batches(self, block):
        data_config, size = self._config.data, self._config.reference.batch_size
        shapes = {"buckets": data_config.buckets, "pad_id": self._text.eos_id}
        for numbers, batch in data.row_batches(self._text.train, block, size, beside=self._beside, **shapes):
            yield numbers, sharding.shard_rows(Batch(**batch), self._mesh)

    def predicting(self, row: int) -> slice:
        """The positions that predict a row's labels."""
        encoded = self._text.train[row]
        return slice(encoded.prompt_length - 1, len(encoded.tokens) - 1)


@jax.jit
def _features(model: models.CausalLM, tokens_BT):
    return model.features(tokens_BT)[0]


@partial(jax.jit, static_argnums=(0, 1))
def _reference_divergence(divergence, chunking: Chunking, reference, target, batch: Batch):
    return objectives.divergence_at_labels(divergence, reference, target, batch, chunking=chunking)


def _weights_sha256(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _tokens_sha256(text: Text) -> str:
    digest = hashlib.sha256()
    for row in text.train:
        digest.update(np.int64([row.prompt_length, len(row.tokens)]).tobytes() + row.tokens.tobytes())
    return digest.hexdigest()


def _code_sha256() -> str:
    """Of the model code, whose every change may change what is stored."""
    digest = hashlib.sha256()
    for file in sorted(Path(models.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
