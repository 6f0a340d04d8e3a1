"""The target's own answers in place of the data set's, sampled once before anything is distilled on them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from adaspec_jax import data, files, models, reporting
from adaspec_jax.config import Answers
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.text import Text
from adaspec_jax.pipeline.workdir import Workdir


def targets_own(
    knobs: Answers,
    text: Text,
    target: models.CausalLM,
    *,
    workdir: Workdir,
    mesh: sharding.Mesh,
    batch_size: int,
    max_length: int,
    buckets: Sequence[int],
    seed: int,
) -> Text:
    """The text with the target's sampled answers; what an interrupted run has sampled is kept in DIR/answers.

    Rows are cut to `max_length` tokens. UserError where what lies there was sampled from something else.
    """
    order = sorted(range(len(text.train)), key=lambda i: text.train[i].prompt_length)  # little padding
    blocks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    directory = workdir.path / "answers"
    origin = {
        "target": processes.once(lambda: workdir.weights_sha256("target")),
        "prompts": text.tokens_sha256,
        "temperature": knobs.temperature,
        "max_new_tokens": knobs.max_new_tokens,
        "seed": seed,
        "batch_size": batch_size,
    }
    if text.ends.ids != (text.eos_id,):
        origin["ends of text"] = list(text.ends.ids)
    processes.once(lambda: _claim(directory, origin))
    root = seeds.answers(seed)
    found: dict[int, data.Encoded] = {}
    target = target.unstacked()
    with reporting.track(len(order), description="target's own answers", unit="row") as progress:
        for number, block in enumerate(blocks):
            file = directory / f"{number:06d}.npz"
            if not processes.once(file.is_file):
                rows = [text.train[i] for i in block]
                [batch] = data.prompt_batches(rows, batch_size, buckets=buckets, pad_id=text.eos_id)
                key = jax.random.fold_in(root, number)
                tokens_BS, lengths_B = _sampled(knobs, target, batch, key, eos_id=text.ends, mesh=mesh)
                processes.once(lambda file=file, t=tokens_BS, n=lengths_B: _write(file, tokens=t, lengths=n))
            tokens_BS, lengths_B = processes.each(lambda file=file: _read(file))
            for i, tokens_S, end in zip(block, tokens_BS, lengths_B, strict=False):
                kept = tokens_S[: min(int(end), max_length)]
                found[i] = data.Encoded(np.asarray(kept, np.int32), text.train[i].prompt_length)
            progress.advance(len(block))
    rows = [found[i] for i in range(len(text.train))]
    supervised = sum(row.num_labels for row in rows)
    record = {"source": "target", "temperature": knobs.temperature, "supervised_tokens": supervised}
    return replace(text, train=rows, record=text.record | {"answers": record})


def _sampled(knobs: Answers, target, batch, key, *, eos_id: Sequence[int], mesh) -> tuple[np.ndarray, np.ndarray]:
    def place(rows):
        return sharding.shard_rows(sharding.my_rows(rows, mesh), mesh)

    generation = generate(
        target,
        NoDraft(),
        Context(place(batch["tokens_BT"]), place(batch["lengths_B"])),
        key,
        max_new_tokens=knobs.max_new_tokens,
        sampling=Sampling(knobs.temperature),
        eos_id=eos_id,
    )
    return processes.fetch((generation.tokens_BS, generation.lengths_B))


def _claim(directory: Path, origin: dict) -> None:
    """Makes the directory, or finds it to be of this origin; `UserError` where it holds what is not."""
    file = directory / "origin.json"
    if not file.is_file() and not any(directory.glob("*.npz")):  # a kill may have left the beginning of a file
        return reporting.write_json(file, origin)
    before = files.read_json(file, mend=f"delete {directory} to have them sampled again") if file.is_file() else {}
    if differing := [key for key in origin if before.get(key) != origin[key]]:
        raise UserError(
            f"the answers in {directory} were sampled with another {differing[0]}; delete that directory to have them "
            "sampled again, or use another --workdir"
        )


def _write(file: Path, **arrays: np.ndarray) -> None:
    with files.replacing(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **arrays)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["tokens"], arrays["lengths"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}); delete it, and it is sampled again") from None
