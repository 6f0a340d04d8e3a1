"""Measures a pair: the target writes answers to prompts, and both say what they find along them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaspec_jax import data, reporting
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.diagnosis.evidence import Along, Figure, Prompts, Served
from adaspec_jax.diagnosis.laws import law_sums
from adaspec_jax.diagnosis.texts import frame_of, framed, goes_round, has_frame, new_pairs, unigram_nats
from adaspec_jax.measuring.evaluation import prompt_batches
from adaspec_jax.reporting.statistics import interval

RESAMPLES = 1000
_ROWS = 8  # together
_WIDTHS = 64  # rows are padded to a multiple: few programs serve all


@dataclass(frozen=True)
class Pair:
    """What answers, what guesses, and how they are used."""

    target: Any
    draft: Any  # a model, or a head as `AlongText`
    ends: data.Ends
    served: Served
    seed: int = 0


@dataclass(frozen=True)
class Texts:
    """Rows of tokens, and how long their prompts are."""

    rows: tuple[np.ndarray, ...]
    prompts: tuple[int, ...]

    @property
    def answers(self) -> list[np.ndarray]:
        return [row[start:] for row, start in zip(self.rows, self.prompts, strict=True)]


def texts_of(encoded: Sequence[data.Encoded]) -> Texts | None:
    """Of rows with one answer each; None where there is none such."""
    rows = [row for row in encoded if row.segments is None and len(row.tokens) > row.prompt_length + 1]
    return Texts(tuple(row.tokens for row in rows), tuple(row.prompt_length for row in rows)) if rows else None


def measure_texts(
    pair: Pair,
    served: Sequence[data.Encoded],
    trained: Sequence[data.Encoded],
    *,
    other_dtypes: Mapping[str, Callable[[], tuple[Any, Any]]],
    of_the_targets: bool = False,
    advance: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """The fields of `Evidence` that texts give.

    `served`: prompts as they are served, and answers where the data have them. `trained`: rows that the draft was
    trained on, none where they are not known. `other_dtypes`: {name: how to get the pair in it}. `of_the_targets`: the
    draft was trained on the target's own answers, and not on those of `trained`.
    """
    advance("the target answers the served prompts")
    own = written(pair, [row.prompt for row in served], pair.served.temperature)
    along = partial(along_texts, pair)
    found: dict[str, Any] = {"own": along(own), "looping": float(np.mean([goes_round(a) for a in own.answers]))}
    advance("the same in other dtypes")
    found["other_dtype"] = {
        name: along_texts(_other(pair, models()), own).acceptance for name, models in other_dtypes.items()
    }
    held_out = texts_of(served)
    found["held_out"] = along(held_out) if held_out else None
    if not trained:
        return found
    prompts = [row.prompt for row in trained]
    advance("the target answers prompts that were trained on")
    found["own_to_trained"] = along(written(pair, prompts, pair.served.temperature))
    found["drawn"] = along(written(pair, prompts, 1.0))
    answers = None if of_the_targets else texts_of(trained)
    found["trained"] = along(answers) if answers else None
    return found


def compare_prompts(
    pair: Pair, served: Sequence[data.Encoded], trained: Sequence[data.Encoded], tokenizer, shared: int
) -> tuple[Prompts, Along | None]:
    """How served prompts differ from all of the training's, and what the latter's frame would give the former."""
    asked, known = [row.prompt for row in served], [row.prompt for row in trained]
    rest, others = known[: len(known) // 2], known[len(known) // 2 :]
    frames = {end: frame_of(known, end=end) for end in (False, True)}
    lacking = [not all(has_frame(prompt, frame, end=end) for end, frame in frames.items()) for prompt in asked]
    mended = asked
    for end, frame in frames.items():
        mended = [framed(prompt, frame, end=end) for prompt in mended]
    found = Prompts(
        served=len(asked),
        trained=len(known),
        shared=shared,
        new_pairs=new_pairs(asked, others),
        usual_new_pairs=new_pairs(rest, others),
        frame=" ... ".join(tokenizer.decode(frame.tolist()) for frame in frames.values() if len(frame)),
        without_frame=float(np.mean(lacking)),
    )
    if not any(lacking):
        return found, None
    return found, along_texts(pair, written(pair, mended, pair.served.temperature))


def written(pair: Pair, prompts: Sequence[np.ndarray], temperature: float) -> Texts:
    """The target's answers to prompts; one with no token is left out."""
    encoded = [data.Encoded(np.asarray(prompt, np.int32), len(prompt)) for prompt in prompts]
    longest, rows, starts = max(map(len, prompts)), [], []
    knobs = {"max_new_tokens": pair.served.max_new_tokens, "sampling": Sampling(temperature), "eos_id": pair.ends}
    key = jax.random.key(pair.seed)
    for number, batch in enumerate(prompt_batches(encoded, _ROWS, longest=longest, pad_id=pair.ends.closing)):
        prompt = Context(jnp.asarray(batch["tokens_BT"]), jnp.asarray(batch["lengths_B"]))
        made = jax.device_get(generate(pair.target, NoDraft(), prompt, jax.random.fold_in(key, number), **knobs))
        for row in range(batch["valid"]):
            start, end = int(batch["lengths_B"][row]), int(made.lengths_B[row])
            rows.append(np.asarray(made.tokens_BS[row, :end], np.int32))
            starts.append(start)
    return Texts(tuple(rows), tuple(starts))


def along_texts(pair: Pair, texts: Texts) -> Along:
    """What both say along the texts."""
    sums = _sums(pair, texts)
    tokens, accepted = sums["tokens"], sums["accepted"]

    def mean(name: str) -> float:
        return float(sums[name].sum() / tokens.sum())

    def share(part: str, whole: str) -> float | None:
        return float(sums[part].sum() / sums[whole].sum()) if sums[whole].sum() else None

    return Along(
        texts=len(texts.rows),
        tokens=int(tokens.sum()),
        acceptance=_figure(accepted, tokens),
        drawn=mean("drawn"),
        agreement=mean("agreed"),
        kl=mean("kl"),
        nats_target=_figure(sums["nats_target"], tokens),
        nats_draft=mean("nats_draft"),
        nats_unigram=unigram_nats(texts.answers),
        entropy=mean("entropy"),
        likeliest=mean("likeliest"),
        sure=mean("sure"),
        sure_acceptance=share("sure_accepted", "sure"),
        ended=float(np.mean(sums["ended"] > 0)),
        end_acceptance=share("end_accepted", "ended"),
        end_target=share("end_target", "ended"),
        end_draft=share("end_draft", "ended"),
        tempered={name.split()[1]: mean(name) for name in sums if name.startswith("tempered")},
    )


def _sums(pair: Pair, texts: Texts) -> dict[str, np.ndarray]:
    """Per text, of `law_sums`, in batches of one width for each."""
    ends_E = jnp.asarray(pair.ends.ids or (-1,), jnp.int32)
    parts: list[dict[str, np.ndarray]] = []
    width = -(-max(map(len, texts.rows)) // _WIDTHS) * _WIDTHS
    for first in range(0, len(texts.rows), _ROWS):
        rows, starts = texts.rows[first : first + _ROWS], texts.prompts[first : first + _ROWS]
        tokens_BS = np.full((_ROWS, width), pair.ends.closing, np.int32)
        lengths_B, starts_B = np.zeros(_ROWS, np.int32), np.zeros(_ROWS, np.int32)
        for number, row in enumerate(rows):
            tokens_BS[number, : len(row)] = row
            starts_B[number], lengths_B[number] = starts[number], len(row)
        how = {"temperature": pair.served.temperature, "guesses": pair.served.guesses}
        found = law_sums(pair.target, pair.draft, tokens_BS, starts_B, lengths_B, ends_E, **how)
        parts.append({name: np.asarray(sums_B, np.float64)[: len(rows)] for name, sums_B in found.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = joined["tokens"] > 0
    return {name: sums[kept] for name, sums in joined.items()}


def _figure(part: np.ndarray, whole: np.ndarray) -> Figure:
    low, high = interval(
        len(part), lambda weights_RP: (weights_RP @ part) / np.maximum(weights_RP @ whole, 1e-9), resamples=RESAMPLES
    )
    return Figure(float(part.sum() / whole.sum()), low, high)


def _other(pair: Pair, models: tuple[Any, Any]) -> Pair:
    return Pair(*models, pair.ends, pair.served, pair.seed)


def tracked(total: int):
    """A progress line for so many parts."""
    return reporting.track(total, description="diagnosis", unit="part")
