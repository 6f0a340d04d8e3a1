"""A target and a draft that may meet: same tokenizer, same vocabulary, padding rows ruled out in both."""

from __future__ import annotations

from adaspec_jax import data, models
from adaspec_jax.errors import UserError


def check_own_tokenizer(tokenizer, model: str, names: tuple[str, str]) -> bool:
    """Whether the directory or hub name `model` comes with a tokenizer; `UserError` where it is not this one."""
    try:
        own = data.load_tokenizer(model)
    except UserError:
        return False  # weights alone: nothing to disagree with
    data.check_same_tokenizer(tokenizer, own, names)
    return True


def load_pair(target_name: str, draft_name: str, *, dtype="float32"):
    """(target, draft, tokenizer, end-of-text id); `UserError` where the two cannot work together.

    A draft with the target's tokenizer and another number of padding rows is given the target's.
    """
    models.find_directory(target_name)  # a wrong path is said as such, not as a missing tokenizer
    tokenizer = data.load_tokenizer(target_name)
    target = models.load(target_name, dtype=dtype)
    draft, same_tokenizer = target, True
    if draft_name != target_name:
        draft = models.load(draft_name, dtype=dtype)
        names = f"the target {target_name}", f"the draft {draft_name}"
        same_tokenizer = check_own_tokenizer(tokenizer, draft_name, names)
    for model, name in ((target, target_name), (draft, draft_name)):
        data.check_fits(tokenizer, model.config.vocab_size, name)
    rows = target.config.vocab_size
    if rows != draft.config.vocab_size and not same_tokenizer:
        raise UserError(
            f"{target_name} has vocab_size {rows} and {draft_name} {draft.config.vocab_size}, and no tokenizer that "
            f"shows whether its tokens are the target's; put its tokenizer.json into {draft_name}"
        )
    eos = target.config.eos_token_id
    eos_id = data.end_of_text_id(tokenizer, None if eos < 0 else eos)
    target, draft = (model.with_vocabulary(data.rows_needed(tokenizer)) for model in (target, draft))
    if rows != draft.config.vocab_size:
        draft = draft.with_vocabulary_size(rows)
    return target, draft, tokenizer, eos_id
