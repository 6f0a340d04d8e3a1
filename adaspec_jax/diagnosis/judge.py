"""Walks the checklist and says the likeliest cause first."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaspec_jax.diagnosis.checks import pairing, serving, texts, training
from adaspec_jax.diagnosis.evidence import Evidence
from adaspec_jax.diagnosis.finding import CAUSE, UNKNOWN, Finding, percent, points

CHECKS = (
    pairing.tokenizer,
    pairing.template,
    pairing.ends,
    training.steps,
    serving.entropy,
    serving.temperature,
    texts.contamination,
    texts.repetition,
    serving.precision,
    training.recipe,
    texts.foreign,
    training.overfit,
    texts.shift,
    serving.enough,
)
# What explains too little of a low acceptance to leave the draft's size unasked.
_BESIDE = ("contamination", "prompts measured")


def judge(evidence: Evidence) -> dict[str, Any]:
    """{"verdict" in words, "causes" by name, the likeliest first, "findings", "evidence"}, as JSON has them."""
    findings = list(findings_of(evidence))
    causes = sorted((f for f in findings if f.verdict == CAUSE), key=_weight, reverse=True)
    return {
        "verdict": in_a_sentence(evidence, causes),
        "causes": [finding.check for finding in causes],
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "evidence": evidence.as_json(),
    }


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """A finding for each line of the checklist, in its order."""
    found = tuple(check(evidence) for check in CHECKS)
    fatal = next((finding for finding in found if finding.fatal), None)
    if fatal is not None:
        before = f"not before the {fatal.check} is mended"
        rest = (Finding(name, UNKNOWN, before) for name in ("capacity", "draft length"))
        return (*(f if f is fatal else Finding(f.check, UNKNOWN, before) for f in found), *rest)
    others = tuple(finding for finding in found if finding.verdict == CAUSE and finding.check not in _BESIDE)
    return (*found, training.capacity(evidence, others), serving.draft_length(evidence, others))


def _weight(finding: Finding) -> tuple[bool, float]:
    """What stops everything first, then by the acceptance that it may cost; causes without an estimate come last."""
    return finding.fatal, finding.costs or 0.0


def in_a_sentence(evidence: Evidence, causes: list[Finding]) -> str:
    """The likeliest cause in plain words."""
    reached = ""
    if evidence.own is not None:
        figure = evidence.own.acceptance
        reached = f"Acceptance is {percent(figure.value)} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
    if not causes:
        return f"{reached}, and nothing on the checklist lowers it." if reached else "Nothing was found."
    first = causes[0]
    cost = f" (it may cost {points(first.costs)})" if first.costs else ""
    named = f"The likeliest cause is {_named(first)}{cost}"
    rest = [_named(finding) for finding in causes[1:]]
    also = f"; beside it, {', '.join(rest)}" if rest else ""
    return f"{reached}. {named}{also}." if reached else f"{named}{also}."


_WORDS = {
    "tokenizer": "that the draft does not read the target's tokens",
    "template": "that served prompts lack the template of those that were trained on",
    "ends of text": "the ends of text",
    "training steps": "that the draft was trained too briefly",
    "capacity": "that the draft is too small for more",
    "the target's entropy": "the target's own entropy at this temperature",
    "temperature": "that the draft is not made for the temperature that is served",
    "contamination": "that served prompts were trained on, so that the number is too high",
    "repetition": "that the target repeats itself",
    "precision": "the dtype in which the pair runs",
    "recipe": "the recipe by which the draft was distilled",
    "draft length": "the draft length",
    "whose answers": "training on answers that the target would not write",
    "training data": "too little training data",
    "prompts' kind": "that other prompts are served than were trained on",
}


def _named(finding: Finding) -> str:
    return _WORDS.get(finding.check, finding.check)
