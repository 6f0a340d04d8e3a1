"""Drafts that are heads on the target's features: what a run asks for, and how one begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from adaspec_jax import models
from adaspec_jax.config import MODELS, Draft, Fit, Reference
from adaspec_jax.config.architectures import Architecture
from adaspec_jax.devices import processes, sharding
from adaspec_jax.errors import UserError
from adaspec_jax.knobs import checked
from adaspec_jax.models import heads
from adaspec_jax.pipeline import seeds
from adaspec_jax.pipeline.mask_tokens import mask_token, named
from adaspec_jax.pipeline.text import Text

_MASK = "mask"  # the knob of kinds that guess at mask tokens; below 0: it is found


class HeadAsked(NamedTuple):
    """The kind of head that a run trains, and what is set of it."""

    kind: str
    knobs: Mapping[str, Any]

    def made_for(self, target: models.DecoderConfig) -> heads.Kind:
        return heads.made_for(self.kind, self.knobs, heads.Sizes.of(target))

    def layers_on(self, target: Architecture) -> tuple[int, ...]:
        """The target's layers that it reads."""
        return self.made_for(models.config_from_hf(target.hf_config())).layers

    @property
    def runs_target(self) -> bool:
        return heads.find_kind(self.kind).runs_target

    def check_on(self, target: Architecture, num_tokens: int, text: Text) -> None:
        """UserError where it cannot be on such a target of so many tokens, or is not for this text."""
        config = replace(models.config_from_hf(target.hf_config()), num_tokens=num_tokens)
        _with_mask(self.made_for(config), config, text)


def asked_by(draft: Draft, target: Architecture, others: Mapping[str, Fit]) -> HeadAsked | None:
    """What the config asks for; None for a draft that is a model; UserError for what cannot be on such a target.

    `others`: the run's stages by name, which may set nothing that such a head does not read.
    """
    if draft.kind in MODELS:
        return None
    asked = HeadAsked(draft.kind, knobs_of(draft, heads.find_kind(draft.kind).knobs()))
    kind = asked.made_for(models.config_from_hf(target.hf_config()))
    for name, fit in {"draft": draft, **others}.items():
        if isinstance(fit, Reference | Draft):
            _check_read(name, fit, kind)
    return asked


def knobs_of(draft: Draft, known: Mapping[str, Any]) -> dict[str, Any]:
    """What `draft.head` sets of the knobs that the kind has, {name: default}; UserError for others."""
    values: dict[str, str] = {}
    for part in filter(None, draft.head.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f'config.draft.head is "{draft.head}"; give KNOB=VALUE,KNOB=VALUE, as in steps=3')
        if name in values:
            raise UserError(f'config.draft.head "{draft.head}" gives {name} twice')
        values[name] = value
    return checked(f"config.draft.head: the kind {draft.kind}", known, values)


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
        kind: Any = _with_mask(asked.made_for(target.config), target.config, text)
        head = heads.new(kind, target, seeds.initial_weights(seed, "draft"), _label_counts(text, target))
    if _MASK in kind.knobs():
        processes.say(f"draft: guesses at mask tokens, {kind.mask} ({named(kind.mask, text)})")
    processes.say(f"draft: a head of the kind {asked.kind}, {head.num_params:,} parameters on the target's features")
    return head


def _with_mask(kind: Any, target: models.DecoderConfig, text: Text) -> heads.Kind:
    """The kind with a mask token, where it guesses at such and none is named."""
    if _MASK not in kind.knobs():
        return kind
    rows = {"vocab_size": target.vocab_size, "owned": target.num_tokens}
    return replace(kind, **{_MASK: mask_token(kind.mask, text, kind.name, **rows, specials_first=True)})


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
