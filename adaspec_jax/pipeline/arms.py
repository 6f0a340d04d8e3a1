"""Arms of a run: further drafts, each with its own settings in place of the reference's or the draft's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from adaspec_jax.config import Draft, Experiment, Reference, draft_schedule, validate
from adaspec_jax.errors import UserError
from adaspec_jax.reporting.wording import EQUAL_DATA
from adaspec_jax.training.divergences import find_divergence
from adaspec_jax.training.selection import find_selection

Arm = Reference | Draft
_TAKEN = ("target", "reference", "draft", "base", "tokenizer", "teacher", "answers", "compilation_cache")


def checked_arms(config: Experiment, arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """These arms, after the baseline on equal data where the config asks for it; `UserError` for what cannot be."""
    for name in arms:
        if name in _TAKEN:
            raise UserError(f'an arm cannot be called "{name}", which every run has already')
    if config.reference.equal_data:
        epochs, batch_size = draft_schedule(config.draft)
        same_data = dataclasses.replace(config.reference, epochs=epochs, batch_size=batch_size, equal_data=False)
        arms = {EQUAL_DATA: same_data, **arms}
    for arm in (config.reference, config.draft, *arms.values()):
        validate(as_stage(config, arm)[0])
        find_divergence(arm.divergence)
        if isinstance(arm, Draft):
            find_selection(arm.selection)
    return dict(arms)


def as_stage(config: Experiment, arm: Arm) -> tuple[Experiment, str]:
    """The config in which this arm is what it is an alternative to, and that stage's name."""
    stage = "draft" if isinstance(arm, Draft) else "reference"
    return dataclasses.replace(config, **{stage: arm}), stage
