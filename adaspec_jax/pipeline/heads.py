"""Drafts that are heads on the target's features: what a run asks for, and how one begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from adaspec_jax import models
from adaspec_jax.config import MODEL, Draft, Fit, Reference
from adaspec_jax.config.architectures import Architecture
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.knobs import checked
from adaspec_jax.models import heads
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.text import Text


class HeadAsked(NamedTuple):
    """The kind of head that a run trains, and what is set of it."""

    kind: str
    knobs: Mapping[str, Any]

    def made_for(self, target: models.DecoderConfig) -> heads.Kind:
        return heads.made_for(self.kind, self.knobs, heads.Sizes.of(target))

    def layers_on(self, target: Architecture) -> tuple[int, ...]:
        """The target's layers that it reads."""
        return self.made_for(models.config_from_hf(target.hf_config())).layers

    def check_on(self, target: Architecture, num_tokens: int) -> None:
        """UserError where it cannot be on such a target of so many tokens."""
        self.made_for(replace(models.config_from_hf(target.hf_config()), num_tokens=num_tokens))


def asked_by(draft: Draft, target: Architecture, others: Mapping[str, Fit]) -> HeadAsked | None:
    """What the config asks for; None for a draft that is a model; UserError for what cannot be on such a target.

    `others`: the run's stages by name, which may set nothing that such a head does not read.
    """
    if draft.kind == MODEL:
        return None
    known, values = heads.find_kind(draft.kind).knobs(), {}
    for part in filter(None, draft.head.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f'config.draft.head is "{draft.head}"; give KNOB=VALUE,KNOB=VALUE, as in steps=3')
        if name in values:
            raise UserError(f'config.draft.head "{draft.head}" gives {name} twice')
        values[name] = value
    asked = HeadAsked(draft.kind, checked(f"config.draft.head: the kind {draft.kind}", known, values))
    kind = asked.made_for(models.config_from_hf(target.hf_config()))
    for name, fit in {"draft": draft, **others}.items():
        if isinstance(fit, Reference | Draft):
            _check_read(name, fit, kind)
    return asked


def _check_read(name: str, fit: Reference | Draft, kind: heads.Kind) -> None:
    """UserError for what is set of a stage and nothing to such a head."""
    if kind.hard and fit.divergence != type(fit)().divergence:
        raise UserError(
            f'{name}.divergence is "{fit.divergence}", and a head of the kind "{kind.name}" learns the text\'s own '
            "tokens: leave it out, or add hard=false to draft.head"
        )
    if isinstance(fit, Draft) and fit.masks != "all" and not kind.features:
        raise UserError(
            f'{name}.masks is "{fit.masks}", and the loss of a head of the kind "{kind.name}" has no part beside the '
            "divergence: leave it out"
        )


def untrained(asked: HeadAsked, target: models.CausalLM, text: Text, seed: int) -> heads.Head:
    """The head before any stage, in float32 on the host, as `target` there makes it begin."""
    with sharding.on_host():
        kind = asked.made_for(target.config)
        head = heads.new(kind, target, seeds.initial_weights(seed, "draft"), _label_counts(text, target))
    processes.say(f"draft: a head of the kind {asked.kind}, {head.num_params:,} parameters on the target's features")
    return head


def shapes(asked: HeadAsked, target: models.CausalLM) -> heads.Head:
    """The head on abstract values, float32."""
    kind, key = asked.made_for(target.config), jax.eval_shape(lambda: jax.random.key(0))
    counts_V = np.zeros((target.config.vocab_size,), np.int64)
    return jax.eval_shape(lambda target, key: heads.new(kind, target, key, counts_V), target, key)


def _label_counts(text: Text, target: models.CausalLM) -> np.ndarray:
    """How often each token is a label of the text that is trained on, [V]."""
    counts_V = np.zeros((target.config.vocab_size,), np.int64)
    for row in text.train:
        counts_V += np.bincount(row.tokens[row.labels_T], minlength=len(counts_V))
    return counts_V
