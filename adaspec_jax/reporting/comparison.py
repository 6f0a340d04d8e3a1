"""Finished runs beside the paper's rows: gains, whether the published one lies in the interval, other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaspec_jax.config import paper
from adaspec_jax.errors import UserError
from adaspec_jax.reporting.certificate import in_words
from adaspec_jax.reporting.tables import aligned, folded
from adaspec_jax.reporting.wording import EQUAL_DATA

COLUMNS = (
    "run",
    "task",
    "target / draft",
    "DistillSpec",
    "AdaSPEC",
    "gain",
    "KL, AdaSPEC's data",
    "gain over it",
    "paper: DistillSpec",
    "paper: AdaSPEC",
    "paper: gain",
)


_ABSENT = "-"


def compare(report: Mapping[str, Any]) -> dict[str, Any]:
    """A run's alphas and gains (shares), the published ones (percent), and what may be said of the two.

    `verdict`: the published gain lies "inside", "above" or "below" the 95 % interval of ours; None where there is no
    published gain or no interval.
    """
    settings, drafts, paired = report["settings"], report["drafts"], report["paired"]
    if "reference" not in drafts:
        raise UserError("this run trained no reference (reference.epochs=0), so there is no gain over DistillSpec")
    published = _published(settings)
    ours = {name: {key: drafts[name].get(key) for key in ("alpha", "ci95", "prompts")} for name in _drafts(report)}
    gains = {other: paired.get(f"draft-{other}") for other in ours if other != "draft"}
    gain = gains["reference"]
    verdict = _verdict(published, gain, ours["draft"]["prompts"])
    return {
        "task": report["task"],
        "models": {name: _model(name, report) for name in ("target", "draft")},
        "ours": ours,
        "gain_over": gains,
        "published": published,
        "verdict": verdict,
        "sentence": _sentence(published, gain, ours["draft"]["prompts"], verdict),
        "settings": _explaining(report),
        "departures": paper.departures(settings),
        "parity": report.get("parity"),
    }


def _drafts(report: Mapping[str, Any]) -> list[str]:
    return [name for name in ("reference", "draft", EQUAL_DATA) if name in report["drafts"]]


def _published(settings: Mapping[str, Any]) -> dict[str, float] | None:
    alphas = settings.get("published") or {}
    if alphas.get("distillspec") is None or alphas.get("adaspec") is None:
        return None
    gain = round(alphas["adaspec"] - alphas["distillspec"], 6)  # of two numbers with two decimals
    return {"distillspec": alphas["distillspec"], "adaspec": alphas["adaspec"], "gain": gain}


def _verdict(published: Mapping[str, float] | None, gain: Mapping[str, Any], prompts: int | None) -> str | None:
    if published is None or gain["difference"] is None or prompts == 1:
        return None
    low, high = (100 * bound for bound in gain["ci95"])
    return "below" if published["gain"] < low else "above" if published["gain"] > high else "inside"


def _sentence(
    published: Mapping[str, float] | None, gain: Mapping[str, Any], prompts: int | None, verdict: str | None
) -> str:
    if published is None:
        return "the paper has no such row"
    claim = f"the published gain of {published['gain']:+.2f} points"
    if verdict is None:
        why = "ours comes from one prompt" if prompts == 1 else "one of our two drafts was never judged"
        return f"{claim} can be set against nothing: {why}, which gives no interval"
    place = "in" if verdict == "inside" else verdict
    return f"{claim} lies {place} our interval {_interval(gain['ci95'], '+.1f')}"


def _model(name: str, report: Mapping[str, Any]) -> str:
    spec = report["settings"].get(name) or {}
    count = (report.get("models") or {}).get(name)
    size = "" if not count else f"{count / 1e6:.2f}M" if count < 1e7 else f"{count / 1e6:,.0f}M"
    init = str(spec.get("init") or name)
    return " ".join(filter(None, ["random" if init == "random" else init.rstrip("/").rpartition("/")[2], size]))


def _explaining(report: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without which two acceptances cannot be compared; None where a report does not say."""
    settings = report["settings"]
    evaluation, draft = settings["evaluation"], settings.get("draft") or {}
    stages = ("target", "reference", "draft")
    return {
        "draft_length": (report.get("speed") or {}).get("draft_length") or evaluation.get("draft_length"),
        "temperature": evaluation.get("temperature"),
        "max_new_tokens": evaluation.get("max_new_tokens"),
        "prompts": report["drafts"]["draft"].get("prompts"),
        **{key: draft.get(key) for key in ("budget", "fraction", "normalize")},
        "epochs": {stage: (settings.get(stage) or {}).get("epochs") for stage in stages},
        "seed": settings.get("seed"),
        "dtype": settings.get("dtype"),
        "init": {stage: (settings.get(stage) or {}).get("init") for stage in ("target", "draft")},
    }


def table(compared: Mapping[str, Mapping[str, Any]], *, columns: int | None = None) -> str:
    """Runs (by name) as plain text: a row each, then for each what may be said, and its settings.

    `columns`: of the terminal that shows it, if one does.
    """
    rows = [COLUMNS, *(_cells(name, found) for name, found in compared.items())]
    shown = [i for i in range(len(COLUMNS)) if any(row[i] != _ABSENT for row in rows[1:])]
    lines = aligned([[row[i] for i in shown] for row in rows], right=False, columns=columns)
    for name, found in compared.items():
        said = ["", f"{name}: {found['sentence']}.", f"  settings: {_settings_words(found['settings'])}"]
        apart = "; ".join(found["departures"]) or "nothing that the paper states"
        said.append(f"  other than the paper's: {apart}")
        if found["parity"]:
            said += [f"  {line}" for line in in_words(found["parity"]).splitlines()]
        lines += folded(said, columns)
    if any(found["published"] for found in compared.values()):
        lines += ["", *folded([paper.SILENT_ON], columns)]
    return "\n".join(lines)


def _cells(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    ours, gains, published = found["ours"], found["gain_over"], found["published"]
    papers = [_ABSENT] * 3
    if published:
        papers = [f"{published['distillspec']:.2f} %", f"{published['adaspec']:.2f} %", f"{published['gain']:+.2f}"]
    return (
        name,
        str(found["task"]),
        f"{found['models']['target']} / {found['models']['draft']}",
        _alpha(ours["reference"]),
        _alpha(ours["draft"]),
        _gain(gains["reference"]),
        _alpha(ours.get(EQUAL_DATA)),
        _gain(gains.get(EQUAL_DATA)),
        *papers,
    )


def _alpha(draft: Mapping[str, Any] | None) -> str:
    if draft is None or draft["alpha"] is None:
        return _ABSENT
    interval = "" if draft["ci95"] is None or draft["prompts"] == 1 else f" {_interval(draft['ci95'], '.1f')}"
    return f"{100 * draft['alpha']:.1f} %{interval}"


def _gain(test: Mapping[str, Any] | None) -> str:
    if test is None or test["difference"] is None:
        return _ABSENT
    p_words = "p < 0.001" if test["p_value"] < 0.001 else f"p = {test['p_value']:.3f}"
    return f"{100 * test['difference']:+.1f} {_interval(test['ci95'], '+.1f')}, {p_words}"


def _interval(shares: Sequence[float], form: str) -> str:
    low, high = shares
    return f"[{100 * low:{form}}, {100 * high:{form}}]"


def _settings_words(settings: Mapping[str, Any]) -> str:
    def words(value: Any) -> str:
        if isinstance(value, Mapping):
            return " / ".join(map(words, value.values()))
        return "(not recorded)" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    greedy = " (greedy)" if settings["temperature"] == 0 else ""
    names = {"fraction": "fraction k", "epochs": "epochs (target / reference / draft)", "init": "init (target / draft)"}
    parts = [f"{names.get(key, key.replace('_', ' '))} {words(value)}" for key, value in settings.items()]
    return ", ".join(part + (greedy if part.startswith("temperature") else "") for part in parts)
