"""A target and drafts that may meet: same tokenizer, same vocabulary, padding rows ruled out in all."""

from __future__ import annotations

from collections.abc import Sequence

from adaspec_jax import data, models
from adaspec_jax.errors import UserError
from adaspec_jax.methods import Given
from adaspec_jax.methods.directories import kind_of


def check_own_tokenizer(tokenizer, model: str, names: tuple[str, str]) -> bool:
    """Whether the directory or hub name `model` comes with a tokenizer; `UserError` where it is not this one."""
    try:
        own = data.load_tokenizer(model)
    except UserError:
        return False  # weights alone: nothing to disagree with
    data.check_same_tokenizer(tokenizer, own, names)
    return True


def load_given(target_name: str, draft_names: Sequence[str], *, dtype="float32", draft_length: int = 5):
    """(what methods are made of, end-of-text id); `UserError` where a draft and the target cannot work together.

    Drafts come the smallest first. One with the target's tokenizer and another number of padding rows is given the
    target's.
    """
    models.find_directory(target_name)  # a wrong path is said as such, not as a missing tokenizer
    tokenizer = data.load_tokenizer(target_name)
    target = models.load(target_name, dtype=dtype)
    data.check_fits(tokenizer, target.config.vocab_size, target_name)
    loaded = {name: _draft_of(name, target, target_name, tokenizer, dtype) for name in draft_names}
    eos = target.config.eos_token_id
    eos_id = data.end_of_text_id(tokenizer, None if eos < 0 else eos)
    target = target.with_vocabulary(data.rows_needed(tokenizer))
    drafts = {
        name: _fitted(draft, target) for name, draft in sorted(loaded.items(), key=lambda item: item[1].num_params)
    }
    return Given(target=target, drafts=drafts, tokenizer=tokenizer, draft_length=draft_length), eos_id


def _draft_of(name: str, target: models.CausalLM, target_name: str, tokenizer, dtype) -> models.CausalLM:
    """The draft as it lies there, checked against the target."""
    if name == target_name:
        return target
    kind_of(models.find_directory(name))
    draft = models.load(name, dtype=dtype)
    same_tokenizer = check_own_tokenizer(tokenizer, name, (f"the target {target_name}", f"the draft {name}"))
    data.check_fits(tokenizer, draft.config.vocab_size, name)
    ours, theirs = target.config.vocab_size, draft.config.vocab_size
    if ours != theirs and not same_tokenizer:
        raise UserError(
            f"{target_name} has vocab_size {ours} and {name} {theirs}, and no tokenizer that "
            f"shows whether its tokens are the target's; put its tokenizer.json into {name}"
        )
    return draft


def _fitted(draft: models.CausalLM, target: models.CausalLM) -> models.CausalLM:
    """The draft with the target's tokens and rows."""
    draft = draft.with_vocabulary(target.config.num_tokens)
    rows = target.config.vocab_size
    return draft if draft.config.vocab_size == rows else draft.with_vocabulary_size(rows)


def load_pair(target_name: str, draft_name: str, *, dtype="float32"):
    """(target, draft, tokenizer, end-of-text id); `UserError` where the two cannot work together."""
    given, eos_id = load_given(target_name, [draft_name], dtype=dtype)
    return given.target, given.draft, given.tokenizer, eos_id
