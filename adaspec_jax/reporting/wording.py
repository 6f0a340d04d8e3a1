"""A report in words and rounded cells: what the printed table and report.html both say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EQUAL_DATA = "reference_equal_data"  # plain distillation on as many batches of the same size as the selective draft's

LABELS = {
    "base": "untrained draft",
    "reference": "reference (DistillSpec)",
    EQUAL_DATA: "AdaSPEC's data, no selection",
    "draft": "AdaSPEC draft",
    "qualifier": "qualifier, between draft and target",
}
COLUMNS = (
    "draft",
    "acceptance (alpha)",
    "95 % interval",
    "block efficiency",
    "expected alpha",
    "agreement",
    "tokens/s",
    "speed-up",
)
_ABSENT = "-"


def label(name: str, drafts: Mapping[str, Any]) -> str:
    """What a draft of report["drafts"] is called in front of a reader; one measured alone is just "draft"."""
    return LABELS.get(name, name) if "reference" in drafts else name


def title(report: Mapping[str, Any]) -> str:
    task = report.get("task")
    return f"Acceptance on {task}" if task else "Acceptance"


def percent(share: float | None) -> str:
    return _ABSENT if share is None else f"{100 * share:.1f} %"


def rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of cells under `COLUMNS` per draft, after a row for plain decoding when its speed was measured."""
    speed = report.get("speed") or {}
    found = []
    if (plain_speed := speed.get("plain_tokens_per_second")) is not None:
        found.append(("plain decoding", *[_ABSENT] * 2, "1.00", *[_ABSENT] * 2, f"{plain_speed:.1f}", "1.00x"))
    for name, draft in (report.get("drafts") or {}).items():
        timed = speed.get(name) or {}
        found.append(
            (
                label(name, report["drafts"]),
                percent(draft.get("alpha")),
                _interval(draft),
                _number(draft.get("block_efficiency"), "{:.2f}"),
                percent(draft.get("expected_alpha")),
                percent(draft.get("teacher_forced_agreement")),
                _number(timed.get("tokens_per_second"), "{:.1f}"),
                _number(timed.get("speedup"), "{:.2f}x"),
            )
        )
    return found


def shown_columns(cells: list[tuple[str, ...]]) -> list[int]:
    """Indices of the columns in which at least one row has something to say."""
    return [i for i in range(len(COLUMNS)) if i == 0 or any(row[i] != _ABSENT for row in cells)]


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The paired tests, then the settings without which the numbers cannot be compared with anyone else's."""
    tests = [paired_sentence(name, test, report) for name, test in (report.get("paired") or {}).items()]
    return [*tests, *_length_sentence(report), settings_line(report)]


def _length_sentence(report: Mapping[str, Any]) -> list[str]:
    """What the last draft's measured acceptance and costs say about the number of guesses per round."""
    drafts, speed = report.get("drafts") or {}, report.get("speed") or {}
    name = list(drafts)[-1] if drafts else None
    costs = speed.get(name) or {}
    if costs.get("best_draft_length") is None:
        return []
    used = speed.get("draft_length")
    step, first = costs["draft_step_cost"], costs.get("first_draft_step_cost")
    drafting, further = f"the first draft step of a round costs {first or 0:.2f}", f", each further one {step:.2f}"
    if first is None:  # a report of before the first step was measured apart
        drafting, further = f"a draft step costs {step:.2f}", ""
    measured = (
        f"{label(name, drafts)}: {drafting} of a target step{further} and verifying "
        f"{used} {'guess' if used == 1 else 'guesses'} {costs['verification_cost']:.2f}, measured here"
    )
    best = costs["best_draft_length"]
    if not best:
        return [f"{measured}; at this acceptance no draft length is faster than plain decoding."]
    return [
        f"{measured}; at this acceptance the best draft length is {best} ({costs['promised_speedup_at_best']:.2f}x "
        f"promised; {used}: {costs['promised_speedup']:.2f}x)."
    ]


def distinguishable(test: Mapping[str, Any]) -> bool:
    """Whether a paired difference is told from zero: p < 0.05, and an interval without it."""
    low, high = test["ci95"]
    return test["p_value"] < 0.05 and not low <= 0.0 <= high


def paired_sentence(name: str, test: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """`A minus B: +1.2 points, ...: the difference is (not) distinguishable from zero`, for report["paired"][name].

    Distinguishable means both: p < 0.05 and an interval without zero.
    """
    drafts = report.get("drafts") or {}
    first, _, second = name.partition("-")
    subject = f"{label(first, drafts)} minus {label(second, drafts)}" if second else name
    if test.get("difference") is None:
        return f"{subject}: not tested, since one of the two was never judged."
    low, high = test["ci95"]
    p_value = test["p_value"]
    p_words = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    clear = distinguishable(test)
    prompts = (drafts.get(first) or {}).get("prompts")
    sample = "this number of prompts" + (f" ({prompts})" if prompts else "")
    return (
        f"{subject}: {100 * test['difference']:+.1f} points, 95 % interval [{100 * low:+.1f}, {100 * high:+.1f}], "
        f"{p_words}: the difference is {'' if clear else 'not '}distinguishable from zero at {sample}."
    )


def settings_line(report: Mapping[str, Any]) -> str:
    """Temperature, draft length, new tokens, prompts, bonus and EOS convention, lenience; says what went unrecorded."""
    settings = report.get("settings") or {}
    nested = settings.get("evaluation")
    settings = {
        **settings,
        **(nested if isinstance(nested, Mapping) else {}),
    }  # a training run's settings are a nested config
    drafts = (report.get("drafts") or {}).values()
    prompts = next((draft["prompts"] for draft in drafts if draft.get("prompts")), settings.get("num_prompts"))
    temperature = settings.get("temperature")
    greedy = " (greedy)" if temperature is not None and not temperature else ""
    parts = [
        f"temperature {_recorded(temperature)}{greedy}",
        f"draft length {_recorded((report.get('speed') or {}).get('draft_length') or settings.get('draft_length'))}",
        f"max_new_tokens {_recorded(settings.get('max_new_tokens'))}",
        f"{_recorded(prompts)} prompts",
        str(settings.get("bonus") or "bonus token counted in block efficiency, never in alpha"),
        str(settings.get("eos") or _eos_words(settings.get("eos_id"))),
    ]
    if settings.get("lenience", 1) != 1:
        parts.append(
            f"lossy: guesses are accepted with lenience {settings['lenience']:g} ({settings.get('lenience_form')}), so "
            "that answers no longer follow the target's law"
        )
    return "Measured at " + "; ".join(parts) + "."


def _eos_words(eos_id: Any) -> str:
    if eos_id == -1:
        return "end-of-sequence ignored, every answer runs to max_new_tokens"
    return "answers stop at end-of-sequence, and guesses past it are neither judged nor accepted"


def _recorded(value: Any) -> str:
    return "(not recorded)" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return _ABSENT if value is None else form.format(value)


def _interval(draft: Mapping[str, Any]) -> str:
    if draft.get("ci95") is None:
        return _ABSENT
    if draft.get("prompts") == 1:
        return "one prompt"  # a bootstrap over one prompt has no width, which would read as certainty
    low, high = draft["ci95"]
    return f"{100 * low:.1f} to {100 * high:.1f}"
