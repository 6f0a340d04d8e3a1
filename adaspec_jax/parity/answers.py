"""Greedy answers and logits on both sides, counted by one convention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from adaspec_jax import data, models, reporting
from adaspec_jax.decoding import ChainDrafter, Context, Sampling, generate

_T = TypeVar("_T")


class Answer(NamedTuple):
    """A greedy continuation, its end of text included, and what its guesses came to."""

    tokens: list[int]
    accepted: int
    judged: int


class Logits(NamedTuple):
    """One text's logits here and in PyTorch, compared."""

    difference: float  # the largest, over positions and tokens
    largest: float
    margin_T: np.ndarray  # PyTorch's most likely token over the next, at every position


def decode(
    target: models.CausalLM,
    draft: models.CausalLM,
    rows: Sequence[data.Encoded],
    *,
    draft_length: int,
    max_new_tokens: int,
    eos_id: int | Sequence[int],
    batch_size: int = 8,
) -> list[Answer]:
    """What this project's loop makes of every row's prompt, at full matmul precision."""
    answers, ends = [], data.Ends.of_record(eos_id)
    knobs = {"max_new_tokens": max_new_tokens, "sampling": Sampling(temperature=0.0), "eos_id": ends}
    width = max(row.prompt_length for row in rows)
    with reporting.track(len(rows), description="decoding here", unit="prompt") as progress:
        for batch in data.prompt_batches(rows, batch_size, buckets=[width], pad_id=ends.closing):
            prompt = Context(batch["tokens_BT"], batch["lengths_B"])
            with jax.default_matmul_precision("highest"):
                made = generate(target, ChainDrafter(draft, length=draft_length), prompt, jax.random.key(0), **knobs)
            made = jax.device_get(made)
            for b in range(batch["valid"]):
                tokens = made.tokens_BS[b, batch["lengths_B"][b] : made.lengths_B[b]].tolist()
                answers.append(Answer(tokens, int(made.accepted_BN[b].sum()), int(made.judged_BN[b].sum())))
            progress.advance(batch["valid"])
    return answers


def load_in_torch(directory: Path) -> Any:
    """The model that transformers makes of a directory, in float32 on the CPU."""
    import torch
    import transformers

    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(directory, dtype=torch.float32, local_files_only=True).eval()


def decode_in_torch(
    target: Any,
    draft: Any,
    rows: Sequence[data.Encoded],
    *,
    draft_length: int,
    max_new_tokens: int,
    eos_id: int | Sequence[int],
    num_tokens: int,
) -> list[Answer]:
    """What transformers' assisted generation makes of every row's prompt, counted as `recount` does.

    `num_tokens` is the tokenizer's; vocabulary rows from there on are ruled out. transformers guesses what is left of
    max_new_tokens minus one at most, since a token of the target's own follows; the loop here guesses all that is left.
    Asked for one token more, which is cut off, transformers makes the very same guesses.
    """
    import torch

    ends = data.Ends.of_record(eos_id)
    draft.generation_config.num_assistant_tokens = draft_length
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    knobs = {"max_new_tokens": max_new_tokens + 1, "do_sample": False, "pad_token_id": ends.closing}
    knobs["eos_token_id"] = [*ends.ids] or None
    if padding := list(range(num_tokens, target.config.vocab_size)):
        knobs["suppress_tokens"] = padding
    generate_guesses, rounds, answers = draft.generate, [], []

    def recorded(*args, **kwargs):
        made = generate_guesses(*args, **kwargs)
        start = kwargs["input_ids"].shape[1]
        rounds.append((start, made.sequences[0, start:].tolist()))
        return made

    draft.generate = recorded  # a round's guesses are asked of the assistant by its own public method
    try:
        for row in _counted(rows, "decoding in transformers"):
            rounds.clear()
            tokens_1T = torch.tensor(row.prompt[None].astype(np.int64))
            seen_1T = torch.ones_like(tokens_1T)
            with torch.no_grad():
                made_1T = target.generate(tokens_1T, attention_mask=seen_1T, assistant_model=draft, **knobs)
            if not rounds:
                raise RuntimeError("this version of transformers does not ask the assistant's generate for guesses")
            answer = made_1T[0, row.prompt_length :][:max_new_tokens].tolist()
            guessed = [(start - row.prompt_length, guesses) for start, guesses in rounds]
            answers.append(Answer(answer, *recount(guessed, answer)))
    finally:
        del draft.generate
    return answers


def recount(rounds: Sequence[tuple[int, Sequence[int]]], answer: Sequence[int]) -> tuple[int, int]:
    """(accepted, judged) guesses; `rounds` are (new tokens that stood when the round began, its guesses).

    `answer` ends with the end of text or at max_new_tokens: guesses past its end are neither judged nor accepted, and
    neither are those after a round's first mismatch.
    """
    accepted = judged = 0
    for start, guesses in rounds:
        for guess, token in zip(guesses, answer[start:], strict=False):
            judged += 1
            if guess != token:
                break
            accepted += 1
    return accepted, judged


def compare_logits(ours: models.CausalLM, theirs: Any, texts: Sequence[np.ndarray]) -> list[Logits]:
    """Each text's `Logits`, over the tokenizer's tokens and at full matmul precision."""
    import torch

    num_tokens, width = ours.config.num_tokens, max(map(len, texts))
    found = []
    for tokens_T in _counted(texts, "comparing logits"):
        padded_1T = np.pad(tokens_T, (0, width - len(tokens_T)))[None]
        with jax.default_matmul_precision("highest"):
            ours_TV = np.asarray(_logits(ours, padded_1T))[0, : len(tokens_T), :num_tokens]
        with torch.no_grad():
            theirs_TV = theirs(torch.tensor(tokens_T[None].astype(np.int64))).logits[0, :, :num_tokens].numpy()
        second_T, first_T = np.partition(theirs_TV, -2, axis=-1)[:, -2:].T
        difference, largest = np.abs(ours_TV - theirs_TV).max(), np.abs(theirs_TV).max()
        found.append(Logits(float(difference), float(largest), first_T - second_T))
    return found


def _counted(rows: Sequence[_T], description: str) -> Iterator[_T]:
    """The rows, with progress as they are done."""
    with reporting.track(len(rows), description=description, unit="prompt") as progress:
        for row in rows:
            yield row
            progress.advance()


@jax.jit
def _logits(model, tokens_BT):
    return model(tokens_BT)[0]
