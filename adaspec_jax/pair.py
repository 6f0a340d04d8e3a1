"""A target and a draft that may meet: same tokenizer, same vocabulary, padding rows ruled out in both."""

from __future__ import annotations

from adaspec_jax import data, models
from adaspec_jax.errors import UserError


def check_own_tokenizer(tokenizer, model: str, names: tuple[str, str]) -> None:
    """`UserError` where the directory or hub name `model` comes with a tokenizer that is not this one."""
    try:
        own = data.load_tokenizer(model)
    except UserError:
        return  # weights alone: nothing to disagree with
    data.check_same_tokenizer(tokenizer, own, names)


def load_pair(target_name: str, draft_name: str, *, dtype="float32"):
    """(target, draft, tokenizer, end-of-text id); `UserError` where the two cannot work together."""
    models.find_directory(target_name)  # a wrong path is said as such, not as a missing tokenizer
    tokenizer = data.load_tokenizer(target_name)
    target = models.load(target_name, dtype=dtype)
    draft = target if draft_name == target_name else models.load(draft_name, dtype=dtype)
    if draft_name != target_name:
        check_own_tokenizer(tokenizer, draft_name, (f"the target {target_name}", f"the draft {draft_name}"))
    for model, name in ((target, target_name), (draft, draft_name)):
        data.check_fits(tokenizer, model.config.vocab_size, name)
    if target.config.vocab_size != draft.config.vocab_size:
        raise UserError(
            f"{target_name} has vocab_size {target.config.vocab_size} and {draft_name} {draft.config.vocab_size}; "
            "a draft must have its target's"
        )
    eos = target.config.eos_token_id
    eos_id = data.end_of_text_id(tokenizer, None if eos < 0 else eos)
    return target.with_vocabulary(len(tokenizer)), draft.with_vocabulary(len(tokenizer)), tokenizer, eos_id
