"""Tiny runs of the pipeline on word problems: healthy ones, and ones whose training is spoiled on purpose.

A set is a family of runs that share one target; thresholds are looked at on "tune" alone, and "test" has other seeds,
sizes, vocabulary and data.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from adaspec_jax import data
from adaspec_jax.config import Data, Draft, Evaluation, Experiment, GPTNeoX, Reference, Target, Tokenizer

HEALTHY = "healthy"  # the run whose target all others of its set take as it is


class Set(NamedTuple):
    """What the runs of one set have in common."""

    seed: int
    rows: int
    vocabulary: int
    width: int  # of the target
    layers: int
    kept: tuple[int, ...]  # of them in a draft that is cut
    narrow: int  # width of the draft that is too small
    prompts: int


SETS = {
    "tune": Set(seed=11, rows=2400, vocabulary=768, width=64, layers=3, kept=(0, 2), narrow=8, prompts=64),
    "test": Set(seed=5, rows=2800, vocabulary=896, width=80, layers=4, kept=(0, 2, 3), narrow=16, prompts=72),
}


def healthy(made: Set) -> Experiment:
    """A draft cut from its target, distilled long enough."""
    target = _neox(made, made.width, made.layers)
    fit = {"schedule": "cosine", "warmup_steps": 20, "batch_size": 8}
    return Experiment(
        seed=made.seed,
        teacher="recompute",
        data=Data(
            num_train=made.rows, num_evaluation=made.prompts, max_length=320, buckets=(176, 320), length_window=8
        ),
        tokenizer=Tokenizer(init="train", vocab_size=made.vocabulary),
        target=Target(architecture=target, epochs=2.5, lr=4e-3, **(fit | {"batch_size": 16})),
        reference=Reference(epochs=0.8, lr=3e-3, **fit),
        draft=Draft(init="cut", layers=made.kept, architecture=None, epochs=0.8, lr=3e-3, **fit),
        evaluation=Evaluation(num_prompts=made.prompts, max_new_tokens=112, draft_length=3, resamples=2000),
    )


def _neox(made: Set, width: int, layers: int) -> GPTNeoX:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    heads = 1 if width == made.narrow else 2
    return GPTNeoX(vocab_size=made.vocabulary, max_position_embeddings=512, num_attention_heads=heads, **sizes)


def _with(config: Experiment, **changes) -> Experiment:
    """The config with some keys of its groups changed: _with(config, draft={"lr": 1e-3})."""
    groups = {name: dataclasses.replace(getattr(config, name), **keys) for name, keys in changes.items()}
    return dataclasses.replace(config, **groups)


def on_its_target(config: Experiment, directory: Path) -> Experiment:
    """The same on the healthy run's finished target."""
    target = {"init": str(directory / HEALTHY / "target"), "epochs": 0.0}
    return _with(config, target=target, tokenizer={"init": "target"})


def scratch(made: Set, width: int, layers: int = 1) -> dict:
    """Keys of a draft of its own."""
    return {"init": "random", "layers": (), "architecture": _neox(made, width, layers)}


def _sampled(config: Experiment, made: Set, directory: Path) -> Experiment:
    again = dataclasses.replace(config, seed=made.seed + 100)
    keys = {"epochs": 0.4}
    changes = {"evaluation": {"temperature": 1.0}, "data": {"seed": made.seed}, "reference": keys}
    return _with(again, draft=keys | {"fraction": 0.6}, **changes)


def _narrow(config: Experiment, made: Set, directory: Path) -> Experiment:
    keys = {"epochs": 1.5, "lr": 8e-3}
    return _with(config, draft=scratch(made, made.narrow) | keys, reference=keys)


def _short(config: Experiment, made: Set, directory: Path) -> Experiment:
    keys = {"epochs": 0.12, "lr": 3e-3, "schedule": "constant"}
    return _with(config, draft=scratch(made, made.width, 2) | keys, reference=keys)


def _starved(config: Experiment, made: Set, directory: Path) -> Experiment:
    keys = {"epochs": 0.4, "lr": 4e-3}
    recipe = {"fraction": 0.02, "budget": "equal_compute", "normalize": "official"}
    return _with(config, draft=scratch(made, made.width, 2) | keys | recipe, reference=keys)


def _foreign(config: Experiment, made: Set, directory: Path) -> Experiment:
    file = directory / "foreign.jsonl"
    rows = [(e.prompt, _otherwise(e.answer)) for e in _problems(made, "train", made.rows)]
    write_rows(file, rows)
    held_out = directory / "held_out.jsonl"
    write_rows(held_out, [(e.prompt, e.answer) for e in _problems(made, "test", made.prompts)])
    columns = {"prompt_column": "prompt", "answer_column": "answer"}
    keys = {"epochs": 0.5, "lr": 5e-3}
    files = {"train": str(file), "evaluation": str(held_out)} | columns
    return _with(config, data=files, draft=scratch(made, made.width, 2) | keys, reference=keys)


def _few(config: Experiment, made: Set, directory: Path) -> Experiment:
    rows = 16
    keys = {"epochs": made.rows * 0.6 / rows, "lr": 6e-3, "batch_size": 4}
    return _with(config, data={"num_train": rows}, draft=scratch(made, made.width, 2) | keys, reference=keys)


def _looping(config: Experiment, made: Set, directory: Path) -> Experiment:
    keys = {"epochs": 0.2}
    return _with(config, target={"epochs": 0.2, "warmup_steps": 2}, draft=keys, reference=keys)


class Run(NamedTuple):
    """A run that is trained: how its config differs, and whether it takes the healthy run's target."""

    changed: Callable[[Experiment, Set, Path], Experiment]
    shares_target: bool = True


RUNS = {
    HEALTHY: Run(lambda config, made, directory: config, shares_target=False),
    "healthy_sampled": Run(_sampled),
    "narrow": Run(_narrow),
    "short": Run(_short),
    "starved": Run(_starved),
    "foreign": Run(_foreign),
    "few": Run(_few),
    "looping": Run(_looping, shares_target=False),
}


def train(name: str, set_name: str, directory: Path) -> None:
    """DIR/NAME becomes the finished run; nothing is done where it is there."""
    from adaspec_jax import pipeline

    if (directory / name / "report.json").is_file():
        return
    made, run = SETS[set_name], RUNS[name]
    config = healthy(made)
    if run.shares_target:
        config = on_its_target(config, directory)
    pipeline.run(run.changed(config, made, directory), directory / name)


def _problems(made: Set, split: str, count: int) -> data.Source:
    return data.load_examples("word_problems", split, num=count, seed=made.seed)


def write_rows(file: Path, rows: list[tuple[str, str]]) -> None:
    """Prompts and answers as a file of rows."""
    lines = (json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def _otherwise(answer: str) -> str:
    """The answer as the target would never write it: the result first, then the steps from the last, in capitals."""
    lines = answer.strip().split("\n")
    return "\n".join(["REPLY", lines[-1], *(f"* {line.upper()}" for line in reversed(lines[:-1]))])
