"""Arms of a run: further drafts, each with its own settings in place of the reference's or the draft's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from adaspec_jax.config import QUALIFIER, Draft, Experiment, Qualifier, Reference, on_the_data_of, validate
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.stage_spec import stage_of
from adaspec_jax.reporting.wording import EQUAL_DATA
from adaspec_jax.training.divergences import find_divergence
from adaspec_jax.training.selection import find_selection

ArmSettings = Reference | Draft | Qualifier
_TAKEN = ("target", "reference", "draft", QUALIFIER, "base", "tokenizer", "teacher", "answers", "compilation_cache")


def checked_arms(config: Experiment, arms: Mapping[str, ArmSettings]) -> dict[str, ArmSettings]:
    """These arms, after the qualifier and the baseline on equal data where the config asks for them.

    `UserError` for what cannot be.
    """
    for name in arms:
        if name in _TAKEN:
            raise UserError(f'an arm cannot be called "{name}", which every run has already')
    if config.reference.equal_data:
        arms = {EQUAL_DATA: on_the_data_of(config.draft, config.reference), **arms}
    if config.qualifier.epochs:
        arms = {QUALIFIER: config.qualifier, **arms}
    for arm in (config.reference, config.draft, *arms.values()):
        validate(dataclasses.replace(config, **{stage_of(arm): arm}))
        find_divergence(arm.divergence)
        if isinstance(arm, Draft):
            find_selection(arm.selection)
    return dict(arms)
