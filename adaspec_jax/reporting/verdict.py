"""What a report comes to in a few sentences: which draft, how much better, how sure, worth serving or not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaspec_jax.drafter_file import chain_method
from adaspec_jax.reporting import wording

_BASELINES = "reference", wording.EQUAL_DATA, "base"
_NO_METHOD = ("model", None)  # draft.kind of a draft that is a model of its own
_EVEN = 0.03  # a speed-up within so much of 1 is none
_SETTLE = "benchmark it, --until 0.1"


def verdict(report: Mapping[str, Any], evidence: Mapping[str, Any] | None = None) -> list[str]:
    """Sentences, the first of which names the draft; [] where nothing was judged."""
    drafts = {name: draft for name, draft in (report.get("drafts") or {}).items() if draft.get("alpha") is not None}
    if not drafts:
        return []
    name = best_draft(report)
    return [_acceptance(report, drafts, name), *_worth(report, name), *_why(report, name, evidence or {})]


def best_draft(report: Mapping[str, Any]) -> str:
    """The draft of a run that is served: that with the highest acceptance, a qualifier and untrained ones aside."""
    drafts = {name: each for name, each in report["drafts"].items() if each.get("alpha") is not None}
    trained = {name: each for name, each in drafts.items() if name not in ("base", "qualifier")} or drafts
    return max(trained, key=lambda name: (trained[name]["alpha"], name == "draft"))


def _acceptance(report: Mapping[str, Any], drafts: Mapping[str, Any], name: str) -> str:
    """Which draft is accepted most, and how sure it is that it is better than the baseline."""
    draft, label = drafts[name], wording.label(name, drafts)
    said = f"The target accepts {wording.percent(draft['alpha'])} of the guesses of the {label}"
    if draft.get("ci95") and draft.get("prompts") != 1:
        low, high = draft["ci95"]
        said += f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    other = next((each for each in _held_against(name) if each in drafts and each != name), None)
    if other is None:
        return f"{said}."
    theirs, their_label = wording.percent(drafts[other]["alpha"]), wording.label(other, drafts)
    test, sign = (report.get("paired") or {}).get(f"{name}-{other}"), 1
    if test is None:
        test, sign = (report.get("paired") or {}).get(f"{other}-{name}"), -1
    if not test or test.get("difference") is None:
        return f"{said}; of the {wording.label(other, drafts)} {theirs}."
    difference = 100 * sign * test["difference"]
    ends = sorted(100 * sign * end for end in test["ci95"])
    interval = f"interval {ends[0]:+.1f} to {ends[1]:+.1f}"
    if wording.distinguishable(test):
        side = "more" if difference > 0 else "fewer"
        sure = "p < 0.001" if test["p_value"] < 0.001 else f"p = {test['p_value']:.3f}"
        return f"{said}, {abs(difference):.1f} points {side} than of the {their_label} ({interval}, {sure})."
    return (
        f"{said}, against {theirs} of the {their_label}: {draft['prompts']} prompts do not tell the two apart "
        f"({difference:+.1f} points, {interval})."
    )


def _held_against(name: str) -> tuple[str, ...]:
    return ("draft", *_BASELINES) if name in _BASELINES else _BASELINES


def _worth(report: Mapping[str, Any], name: str) -> list[str]:
    """Whether to serve it here, and with how many guesses a round, by what was measured and by what that promises."""
    speed = report.get("speed") or {}
    costs, used = speed.get(name) or {}, speed.get("draft_length")
    measured = costs.get("speedup")
    if measured is None:
        return []
    settings = report.get("settings") or {}
    draft = settings.get("draft")  # of a measured pair, a list of directories
    kind = draft.get("kind") if isinstance(draft, Mapping) else settings.get("method")
    of_its_own = "method" in settings or kind in ("pard", "specdec_pp")
    kind, of_its_own = ("pard", True) if kind == "specdec" else (kind, of_its_own)  # a run keeps to the target's text
    method = kind if of_its_own else chain_method(str(kind))  # of a head: with which runs measure it
    how = f"the method {'vanilla' if kind in _NO_METHOD else method}"
    if used:
        how += f" with {used} {'guess' if used == 1 else 'guesses'} a round"
    best = costs.get("best_draft_length")
    promised = ""
    if best:
        at = "there" if best == used else f"with {best}"
        promised = f"; the costs of its parts promise {costs['promised_speedup_at_best']:.2f} times {at}"
    elif best == 0:
        promised = "; by the costs of its parts no draft length is faster than plain decoding"
    if measured > 1 + _EVEN and best == 0:
        unsure = f"one of the two is noise: {_SETTLE}"
        return [f"Not settled: {how} measured {measured:.2f} times plain decoding{promised}; {unsure}."]
    if measured > 1 + _EVEN:
        return [f"Worth serving on this device: {how} measured {measured:.2f} times plain decoding{promised}."]
    verdict = "no faster than plain decoding" if measured > 1 - _EVEN else "slower than plain decoding"
    return [f"Not worth serving as measured here: {how} is {verdict} ({measured:.2f} times){promised}."]


def _why(report: Mapping[str, Any], name: str, evidence: Mapping[str, Any]) -> list[str]:
    """Why speculation does not pay where it does not: what a round costs, and what the measured time holds besides."""
    costs = (report.get("speed") or {}).get(name) or {}
    if costs.get("speedup") is None or costs["speedup"] > 1 + _EVEN or costs.get("draft_step_cost") is None:
        return []
    used, draft = report["speed"]["draft_length"], report["drafts"][name]
    first = costs.get("first_draft_step_cost", costs["draft_step_cost"])
    drafting = first + (used - 1) * costs["draft_step_cost"]
    whole = drafting + costs["verification_cost"]
    gives = draft["block_efficiency"]  # of a call, of which there may be several in a round
    if histogram := draft.get("accepted_histogram"):
        gives *= draft["rounds"] / sum(histogram)
    explained = gives / whole <= 1 + _EVEN
    why = "Why" if explained else "The costs of its parts, each timed alone, do not say why"
    unsure = "" if explained else f" Where other work keeps the machine busy, either may be off: {_SETTLE}."
    said = [
        f"{why}: a round gives {gives:.2f} tokens and costs {whole:.2f} target steps "
        f"({drafting:.2f} for {used} draft {'step' if used == 1 else 'steps'}, {costs['verification_cost']:.2f} to "
        f"verify), which would be {gives / whole:.2f} times plain decoding.{unsure}"
    ]
    if waits := _waiting(evidence, name):
        said.append(waits)
    target, small = (report.get("models") or {}).get("target"), (report.get("models") or {}).get(name)
    if target and small and whole >= 1.5 and explained:
        said.append(
            f"With {target:,} parameters a target step is too cheap to save (the draft has {small:,}): speculation "
            "pays where a step waits for the weights of a large target, so that verifying costs about 1 and drafting "
            "little."
        )
    return said


def _waiting(evidence: Mapping[str, Any], name: str) -> str | None:
    """How much of the measured time the rows of a batch wait for its slowest row."""
    tally, plain = (evidence.get("drafts") or {}).get(name) or {}, evidence.get("plain") or {}
    if not tally.get("calls") or not plain.get("calls") or not plain.get("seconds"):
        return None
    step = plain["seconds"] / plain["calls"]
    return (
        f"While decoding, a round took as long as {tally['seconds'] / tally['calls'] / step:.2f} plain steps, and the "
        f"batches ended after {tally['calls']:,} rounds against {plain['calls']:,} plain steps: each waits for its "
        "slowest row."
    )
