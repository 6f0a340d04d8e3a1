"""Which sublayers a target skips while it drafts, searched for by how fast it then decodes."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import files
from adaspec_jax.decoding import Context, Generation, Sampling, generate
from adaspec_jax.decoding.drafters.target.skipping import SkippingDrafter
from adaspec_jax.errors import UserError

Set = tuple[int, ...]  # numbers of sublayers that are left out
_MEND = "delete it, or choose another --out"


class Journal:
    """Every set that was tried and its rate, kept in a file a line each, so that a search goes on where it stopped."""

    def __init__(self, path: str | os.PathLike, about: Mapping[str, Any]) -> None:
        """Reads what is there; UserError where that is another search's, or no journal."""
        self._journal = files.Journal(path, about, what="search", mend=_MEND)
        try:
            self.tried = [(tuple(row["skipped"]), float(row["rate"])) for row in self._journal.rows]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is no journal of a search; {_MEND}") from None

    def add(self, skipped: Set, rate: float) -> None:
        """The line is written before the next set is tried."""
        self._journal.add({"skipped": list(skipped), "rate": rate})
        self.tried.append((skipped, rate))


def search(
    rate: Callable[[Set], float],
    num_layers: int,
    journal: Journal,
    *,
    trials: int,
    first: Set,
    seed: int = 0,
    advance: Callable[[int], None] = lambda trials: None,
) -> list[Set]:
    """The sets of `trials`, those in the journal among them, the fastest first; the first one tried is `first`.

    Zhang et al. 2024 (arXiv 2309.08168): Bayesian optimisation over whether each sublayer is left out, by the measured
    speed. Theirs fits a Gaussian process and rounds what it proposes; here optuna's tree-structured Parzen estimator,
    which is made for choices. Its draws depend on the seed and on how many trials there were, so that a search that was
    stopped need not end as one that was not. A set without any sublayer left counts as 0, and is not measured.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    switches = {f"{n:03d}": optuna.distributions.CategoricalDistribution((False, True)) for n in range(2 * num_layers)}
    sampler = optuna.samplers.TPESampler(seed=seed + len(journal.tried))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for skipped, value in journal.tried:
        params = {name: int(name) in skipped for name in switches}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=switches, value=value))
    known = dict(journal.tried)
    for number in range(len(journal.tried), trials):
        if not number:
            study.enqueue_trial({name: int(name) in first for name in switches})
        trial = study.ask(switches)
        skipped = tuple(n for n in range(2 * num_layers) if trial.params[f"{n:03d}"])
        if skipped not in known:
            known[skipped] = rate(skipped) if len(skipped) < 2 * num_layers else 0.0
        journal.add(skipped, known[skipped])
        study.tell(trial, known[skipped])
        advance(1)
    return sorted(known, key=known.__getitem__, reverse=True)


class Speed:
    """Tokens per second of a target that drafts without a set, greedily, over the same batches each time.

    Layers are gated as the program runs: all sets share one program, and a set's own (which `draft_and_verify` has)
    may be somewhat faster.
    """

    def __init__(self, drafter: SkippingDrafter, batches: Sequence[Mapping[str, Any]], **decoding: Any) -> None:
        self._drafter, self._batches, self._decoding = drafter, batches, decoding | {"sampling": Sampling(0.0)}
        self.made = self._decode(self._kept(drafter.skipped))  # to compile, and to warm up; of any set, greedily

    def __call__(self, skipped: Set) -> float:
        kept = self._kept(skipped)
        began = time.perf_counter()
        made = self._decode(kept)
        seconds = time.perf_counter() - began
        return self._new_tokens(made) / seconds

    def _kept(self, skipped: Set) -> SkippingDrafter:
        runs_Y = ~np.isin(np.arange(2 * self._drafter.model.config.num_layers), skipped)
        return dataclasses.replace(self._drafter, skipped=(), keep=jnp.asarray(runs_Y))

    def _decode(self, drafter) -> list[Generation]:
        prompts = [Context(rows["tokens_BT"], rows["lengths_B"]) for rows in self._batches]
        key = jax.random.key(0)
        return jax.block_until_ready(
            [generate(drafter.model, drafter, prompt, key, **self._decoding) for prompt in prompts]
        )

    def median(self, *sets: Set, times: int) -> list[float]:
        """Each set's rate, of so many measurements taken in turn."""
        return np.median([[self(skipped) for skipped in sets] for _ in range(times)], axis=0).tolist()

    def _new_tokens(self, made: Sequence[Generation]) -> int:
        pairs = zip(made, self._batches, strict=True)
        return sum(int(np.sum((out.lengths_B - rows["lengths_B"])[: rows["valid"]])) for out, rows in pairs)
