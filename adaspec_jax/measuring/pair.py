"""A target and drafts that may meet: same tokenizer, same vocabulary, and no padding row is guessed.

A draft with another tokenizer is loaded only where it is asked for, with the tables by which its tokens are translated.

A target's own law is left as it is: transformers rules out no row either. Rows that no token owns are ruled out where
a draft has another number of them, and where the target was trained here and says in its config.json which they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from adaspec_jax import data, models, reporting, retrieval
from adaspec_jax.decoding.drafters.models.foreign import Foreign, Spelling
from adaspec_jax.decoding.drafters.text.datastore import Datastore
from adaspec_jax.devices import processes
from adaspec_jax.errors import UserError
from adaspec_jax.files import weights_sha256
from adaspec_jax.measuring.costs import rounds_priced
from adaspec_jax.methods import Given
from adaspec_jax.methods.directories import PLAIN_MODEL, kind_of
from adaspec_jax.models.heads import Head
from adaspec_jax.models.stop_head import FOLDER

STAGE = "stage.json"  # lies in a run's finished stages


def has_another_tokenizer(model: str, tokenizer) -> bool:
    """Whether the directory or hub name `model` comes with a tokenizer, and not with this one."""
    try:
        own = data.load_tokenizer(model)
    except data.NoTokenizer:
        return False
    return data.first_difference(tokenizer, own, beyond=True) is not None


def check_own_tokenizer(tokenizer, model: str, names: tuple[str, str], *, otherwise: str = "") -> bool:
    """Whether the directory or hub name `model` comes with a tokenizer; `UserError` where it is not this one."""
    try:
        own = data.load_tokenizer(model)
    except data.NoTokenizer:
        return False  # weights alone: nothing to disagree with
    data.check_same_tokenizer(tokenizer, own, names, otherwise=otherwise)
    return True


def _said(load: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and while it lasts a terminal says of which model."""

    @functools.wraps(load)
    def loading(target_name: str, *args: Any, **knobs: Any) -> Any:
        with reporting.working(f"loading {target_name}", said_in_a_log=False):
            return load(target_name, *args, **knobs)

    return loading


@_said
def load_given(
    target_name: str,
    draft_names: Sequence[str],
    *,
    dtype="float32",
    draft_length: int = 5,
    datastore: str | None = None,
    other_tokenizer: bool = False,
    qualifier: str | None = None,
    takes_heads: bool = True,
):
    """(what methods are made of, where text ends); `UserError` where a draft and the target cannot work together.

    Drafts come the smallest first. One with the target's tokenizer and another number of padding rows is given the
    target's. `datastore`: a directory that `python -m adaspec_jax.datastore` made with the target's tokenizer.
    `other_tokenizer`: a draft may have another one, and is then among `Given.foreign`. `qualifier`: one more draft, or
    one of these, which stands between the smallest and the target. A draft that is a head on the target's features is
    among `Given.heads`, unless `takes_heads` says that models alone will do.
    """
    if qualifier is not None and qualifier not in draft_names:
        draft_names = [*draft_names, qualifier]
    directory = models.find_directory(target_name)  # a wrong path is said as such, not as a missing tokenizer
    on_target = [name for name in draft_names if kind_of(models.find_directory(name)) != PLAIN_MODEL]
    if on_target and not takes_heads:
        raise UserError(f"--draft {on_target[0]} is a head on the target's features, and a draft model is needed here")
    if qualifier in on_target:
        raise UserError(f"--qualifier {qualifier} is a head on the target's features; it must be a draft model")
    tokenizer = data.load_tokenizer(target_name)
    target = models.load(target_name, dtype=dtype)
    data.check_fits(tokenizer, target.config.vocab_size, target_name)
    store = _store(datastore, tokenizer) if datastore else None
    drafting = [name for name in draft_names if name not in on_target]
    foreign = [name for name in drafting if other_tokenizer and has_another_tokenizer(name, tokenizer)]
    same = [name for name in drafting if name not in foreign]
    if qualifier in foreign:
        raise UserError(f"--qualifier {qualifier} has another tokenizer than the target; it must have the same")
    loaded = {name: _draft_of(name, target, target_name, tokenizer, dtype) for name in same}
    asked = models.asked_of(target)
    ends = data.ends_of_text(tokenizer, asked.ends, otherwise=asked.closing)
    tokens = data.rows_needed(tokenizer)
    unequal = any(draft.config.vocab_size != target.config.vocab_size for draft in loaded.values())
    a_stage = (directory / STAGE).is_file()  # which before said nothing of it in config.json
    target = target.with_vocabulary(tokens if unequal or a_stage else target.config.owned())
    smallest_first = sorted(loaded.items(), key=lambda item: item[1].num_params)
    drafts = {name: _fitted(draft, target, tokens) for name, draft in smallest_first}
    if qualifier is not None and next(iter(drafts), qualifier) == qualifier:
        raise UserError(f"--qualifier {qualifier} stands above a smaller draft, and there is none: give it as --draft")
    others = {name: _foreign_of(name, target, target_name, tokenizer, dtype) for name in foreign}
    others = dict(sorted(others.items(), key=lambda item: item[1].model.num_params))
    parts = {
        "foreign": others,
        "stops": _stops_of(drafts),
        "heads": _heads_of(on_target, target, directory, dtype),
        "tokenizer": tokenizer,
        "datastore": store,
        "draft_length": draft_length,
    }
    parts |= {"costs": rounds_priced, "qualifier": qualifier}
    return Given(target=target, drafts=drafts, **parts), ends


def _heads_of(names: Sequence[str], target: models.CausalLM, directory: Path, dtype) -> dict[str, Head]:
    """The heads of these names, for the target from a directory.

    Another target than theirs, by its weights' sum, is a UserError where it is a run's own, and said of any other: one
    that was exported in another dtype has another sum.
    """
    wanted = {name: models.trained_on(name) for name in names}
    sha256 = weights_sha256(directory) if any(wanted.values()) else None
    a_stage = (directory / STAGE).is_file()
    known = {"dtype": dtype, "fingerprint": sha256 if a_stage else None}
    there = {name: models.load_head(models.find_directory(name), target, **known) for name in names}
    for name in names:
        if not a_stage and wanted[name] not in (None, sha256):
            processes.note(
                f"{name} was trained on a target with the weights {wanted[name][:12]}, and {directory} has "
                f"{sha256[:12]}: the same in another form, or another, whose text it does not guess"
            )
    return there


def _stops_of(drafts: Mapping[str, models.CausalLM]) -> dict[str, models.StopHead]:
    """The stop heads beside drafts, by the drafts' names."""
    there = {
        name: models.load_stop_head(models.find_directory(name) / FOLDER, draft.config.hidden_size)
        for name, draft in drafts.items()
    }
    return {name: head for name, head in there.items() if head is not None}


def _store(directory: str, tokenizer) -> Datastore:
    store = retrieval.read_store(directory, tokenizer=data.fingerprint(tokenizer))
    return Datastore(jnp.asarray(store.tokens_T), jnp.asarray(store.order_T), store.depth)


def _foreign_of(name: str, target: models.CausalLM, target_name: str, tokenizer, dtype) -> Foreign:
    """The draft with its own vocabulary, and what that and the target's have in common."""
    kind_of(models.find_directory(name))
    draft, own = models.load(name, dtype=dtype), data.load_tokenizer(name)
    rows = draft.config.vocab_size
    data.check_fits(own, rows, name)
    both = data.side_by_side(
        tokenizer, own, target_rows=target.config.vocab_size, draft_rows=rows, names=(target_name, name)
    )
    spelling, meaning = (Spelling(*map(jnp.asarray, table)) for table in (both.spelling, both.meaning))
    return Foreign(
        draft.with_vocabulary(data.rows_needed(own)),
        jnp.asarray(both.draft_of_V),
        spelling,
        meaning,
        room=max(1, math.ceil(both.ratio)),
        context=draft.config.max_positions,
    )


def _draft_of(name: str, target: models.CausalLM, target_name: str, tokenizer, dtype) -> models.CausalLM:
    """The draft as it lies there, checked against the target."""
    if name == target_name:
        return target
    kind_of(models.find_directory(name))
    draft = models.load(name, dtype=dtype)
    names = f"the target {target_name}", f"the draft {name}"
    otherwise = ", or decode with the method tli or slem"
    same_tokenizer = check_own_tokenizer(tokenizer, name, names, otherwise=otherwise)
    data.check_fits(tokenizer, draft.config.vocab_size, name)
    ours, theirs = target.config.vocab_size, draft.config.vocab_size
    if ours != theirs and not same_tokenizer:
        raise UserError(
            f"{target_name} has vocab_size {ours} and {name} {theirs}, and no tokenizer that "
            f"shows whether its tokens are the target's; put its tokenizer.json into {name}"
        )
    return draft


def _fitted(draft: models.CausalLM, target: models.CausalLM, tokens: int) -> models.CausalLM:
    """The draft with the target's rows, guessing none of those that no token owns."""
    draft = draft.with_vocabulary(tokens)
    rows = target.config.vocab_size
    return draft if draft.config.vocab_size == rows else draft.with_vocabulary_size(rows)


def load_pair(target_name: str, draft_name: str, *, dtype="float32"):
    """(target, draft, tokenizer, end-of-text ids); `UserError` where the two cannot work together."""
    given, ends = load_given(target_name, [draft_name], dtype=dtype, takes_heads=False)
    return given.target, given.draft, given.tokenizer, ends


def notes_on(given: Given) -> list[str]:
    """What the files of the target ask of decoding that its user should know, a line each."""
    translated = [
        f"{name}: {each.shared:,} of {data.rows_needed(given.tokenizer):,} tokens are the draft's too"
        for name, each in given.foreign.items()
    ]
    return [*data.notes_on(given.tokenizer), *models.asked_of(given.target).notes, *translated]
