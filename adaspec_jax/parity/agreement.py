"""Whether a finished run's pair does in PyTorch what it does here, and how that is stored and said."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaspec_jax import data, reporting
from adaspec_jax.errors import UserError
from adaspec_jax.parity.answers import Answer, Logits, compare_logits, decode, decode_in_torch, load_in_torch
from adaspec_jax.pipeline.examples import held_out_of
from adaspec_jax.pipeline.text import chat_of
from adaspec_jax.pipeline.workdir import Workdir

LOGITS_AGREE = 1e-4  # the difference allowed, as a share of the largest logit, or of 1
NEAR_TIE = 4  # times the measured difference: it moves both logits, and cached steps round otherwise than whole texts


def certificate(
    workdir: str | Path, *, num_prompts: int = 20, max_new_tokens: int | None = None, draft_stage: str = "draft"
) -> dict[str, Any]:
    """What both sides make of the run's first `num_prompts` held-out prompts, and whether that agrees (`passed`).

    The draft length is the run's, and `max_new_tokens` too unless it is given; decoding is greedy and in float32,
    whatever the run's was. The fields are those of `compare_pairs`. UserError without PyTorch, a finished run, or the
    prompts it was measured on.
    """
    _check_installed()
    run = Workdir(workdir)
    report = reporting.read_report(run.path)
    evaluation = report["settings"]["evaluation"]
    tokenizer = data.load_tokenizer(run.tokenizer)
    rows = held_out(report, tokenizer)[:num_prompts]
    stages = {"target": "target", "draft": draft_stage}
    ours = {name: run.load(stage).with_vocabulary(data.rows_needed(tokenizer)) for name, stage in stages.items()}
    with _quiet():
        with reporting.working("loading the pair in transformers"):
            theirs = {name: load_in_torch(run.stage(stage)) for name, stage in stages.items()}
        found = compare_pairs(
            ours,
            theirs,
            rows,
            draft_length=(report.get("speed") or {}).get("draft_length") or evaluation["draft_length"],
            max_new_tokens=max_new_tokens or evaluation["max_new_tokens"],
            eos_id=report["settings"]["eos_id"],
            batch_size=evaluation["batch_size"],
        )
    return {"draft_stage": draft_stage, **found}


def held_out(report: Mapping[str, Any], tokenizer: Any) -> list[data.Encoded]:
    """The prompts a report's acceptance was measured on; UserError where their text has changed since."""
    try:
        settings, expected = report["settings"], report["data"]["evaluation"]["examples_sha256"]
        spec, source = held_out_of(settings)
        day = report["data"].get("chat_date")
    except (KeyError, TypeError) as error:
        raise UserError(
            f"report.json does not say what the run was measured on ({error}); measure anew by the run's own command"
        ) from None
    if source.description["examples_sha256"] != expected:
        raise UserError(
            f"the held-out examples of {source.description['name']} are not those the report was made with; "
            "restore the data, or measure anew by the run's own command"
        )
    ends = data.Ends.of_record(settings["eos_id"])
    how = {"max_length": spec.max_length, "max_prompt_length": spec.max_prompt_length}
    how |= {"eos_id": ends.closing, "ends": ends.ids, "chat": chat_of(spec, tokenizer, source, day)}
    rows, _ = data.encode_for_prompts(source, tokenizer, **how)
    return rows[: settings["evaluation"]["num_prompts"]]


def compare_pairs(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    rows: Sequence[data.Encoded],
    *,
    draft_length: int,
    max_new_tokens: int,
    eos_id: int | Sequence[int],
    batch_size: int = 8,
) -> dict[str, Any]:
    """A certificate for two pairs {"target", "draft"}, models of this project and of transformers.

    `judged` counts as everywhere here, on both sides. `token_agreement` is the share of tokens before a row's first
    difference. `differences` are the rows whose tokens or counts differ, with the margin between the two likeliest
    tokens where that began: the target's at the first other token, or the draft's smallest where counts alone differ.
    `passed`: logits agree within `LOGITS_AGREE`, and every such row is a near tie, a margin of at most `NEAR_TIE` times
    the largest difference of logits, as far as that is allowed.
    """
    knobs = {"draft_length": draft_length, "max_new_tokens": max_new_tokens, "eos_id": eos_id}
    here = decode(**ours, rows=rows, batch_size=batch_size, **knobs)
    there = decode_in_torch(**theirs, rows=rows, num_tokens=ours["target"].config.num_tokens, **knobs)
    both = list(zip(here, there, strict=True))
    longest = sum(max(len(a.tokens), len(b.tokens)) for a, b in both)
    texts = [np.append(row.prompt, answer.tokens).astype(np.int32) for row, answer in zip(rows, here, strict=True)]
    logits = {name: compare_logits(ours[name], theirs[name], texts) for name in ours}
    worst = {name: max(text.difference for text in logits[name]) for name in logits}
    allowed = {name: LOGITS_AGREE * max(1.0, *(text.largest for text in logits[name])) for name in logits}
    ties = {name: NEAR_TIE * min(worst[name], allowed[name]) for name in logits}
    differences = []
    for i, (a, b) in enumerate(both):
        if a != b:
            of_row = {name: logits[name][i] for name in logits}
            differences.append({"prompt": i, **_difference(a, b, of_row, rows[i].prompt_length, ties)})
    totals = {}
    for side, answers in (("ours", here), ("transformers", there)):
        accepted, judged = sum(a.accepted for a in answers), sum(a.judged for a in answers)
        totals |= {f"alpha_{side}": accepted / judged, f"accepted_{side}": accepted, f"judged_{side}": judged}
    return {
        "prompts": len(rows),
        "tokens": sum(len(a.tokens) for a in here),
        "identical_rows": sum(a.tokens == b.tokens for a, b in both),
        "token_agreement": sum(_common(a, b) for a, b in both) / longest,
        **totals,
        "max_logit_difference": worst,
        "allowed_logit_difference": allowed,
        "differences": differences,
        **knobs,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "jax")},
        "passed": all(worst[name] <= allowed[name] for name in worst) and all(d["near_tie"] for d in differences),
    }


def _difference(
    a: Answer, b: Answer, logits: Mapping[str, Logits], prompt_length: int, ties: Mapping[str, float]
) -> dict[str, Any]:
    """Where two answers part: whose logits decided it, at which new token, by what margin."""
    if a.tokens != b.tokens:
        model, new_token = "target", _common(a, b)
    else:  # a judged guess is the draft's likeliest token after the answer so far, so only a tie there can differ
        model = "draft"
        new_token = int(np.argmin(logits[model].margin_T[prompt_length - 1 :][: len(a.tokens)]))
    margin = float(logits[model].margin_T[prompt_length - 1 + new_token])
    return {"model": model, "new_token": new_token, "margin": margin, "near_tie": margin <= ties[model]}


def _common(a: Answer, b: Answer) -> int:
    """How many tokens two answers share before they part."""
    parted = (i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y)
    return next(parted, min(len(a.tokens), len(b.tokens)))


def store(workdir: str | Path, found: Mapping[str, Any]) -> None:
    """Puts a certificate into the run's report.json; its other keys stay as they are."""
    key = "parity" if found["draft_stage"] == "draft" else f"parity_{found['draft_stage']}"
    reporting.write_json(Path(workdir) / "report.json", reporting.read_report(workdir) | {key: found})
    Workdir(workdir).seal_report()


def _check_installed() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        needed = error.name
        raise UserError(f"parity needs {needed}, which is not installed: pip install {needed}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers' progress bars and advice stay off the screen."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
