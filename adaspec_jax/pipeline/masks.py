"""Drafts that guess at mask tokens (PARD, SpecDec): what a run asks for, and which token is the mask."""

from __future__ import annotations

from dataclasses import asdict, replace

from adaspec_jax import models
from adaspec_jax.config import MASKED, PARD, Draft
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.heads import knobs_of
from adaspec_jax.pipeline.mask_tokens import mask_token, named
from adaspec_jax.pipeline.text import Text
from adaspec_jax.training.objectives import MASKS, Masks

_TOKEN = "mask"  # the knob that names it; below 0: it is found
_OF_CHAINS, _OF_BLOCKS = {"least", "confident"}, {"reveal", "reveal_last"}  # knobs of one kind alone


def asked_by(draft: Draft) -> Masks | None:
    """What the config asks for; None for a draft of another kind. UserError for what cannot be."""
    if draft.kind not in MASKED:
        return None
    knobs = _knobs(draft)
    knobs.pop(_TOKEN)
    try:
        return replace(MASKS[draft.kind], **knobs)
    except ValueError as error:
        raise UserError(f"config.draft.head: {error}") from None


def _knobs(draft: Draft) -> dict:
    others = {"whole"} | (_OF_BLOCKS if draft.kind == PARD else _OF_CHAINS)
    known = {name: value for name, value in asdict(MASKS[draft.kind]).items() if name not in others} | {_TOKEN: -1}
    return known | knobs_of(draft, known)


def mask_for(draft: Draft, text: Text, *, vocab_size: int, owned: int) -> int:
    """The mask token; UserError where there is none, see `mask_token`."""
    return mask_token(_knobs(draft)[_TOKEN], text, draft.kind, vocab_size=vocab_size, owned=owned)


def with_mask(model: models.CausalLM, draft: Draft, text: Text) -> models.CausalLM:
    """The draft with its mask token."""
    found = mask_for(draft, text, vocab_size=model.config.vocab_size, owned=model.config.num_tokens)
    processes.say(f"draft: guesses at mask tokens, {found} ({named(found, text)})")
    asked = asked_by(draft)
    return models.with_mask_token(model, found, 0 if asked is None else asked.block)
