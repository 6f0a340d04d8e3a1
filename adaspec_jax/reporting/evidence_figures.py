"""The figures of a page: of one run every draft, of several runs the best draft of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adaspec_jax.reporting import figures, wording
from adaspec_jax.reporting.figures import Figure
from adaspec_jax.reporting.runs import Run
from adaspec_jax.reporting.verdict import best_draft

_FEWEST = 10  # tokens behind a point that is drawn
_PARTS = 24  # stretches of the training that a share is taken over
_MOST_STAGES = 12
_STAGES = {
    "target": "Target: fine-tuning",
    "reference": "Reference: distillation",
    "draft": "Draft: selective distillation",
    "qualifier": "Qualifier: distillation",
}


class Shown(NamedTuple):
    """A draft under the name that it has on the page."""

    label: str
    run: Run
    draft: str

    @property
    def summary(self) -> Mapping[str, Any]:
        return self.run.report["drafts"][self.draft]

    @property
    def speed(self) -> Mapping[str, Any]:
        return (self.run.report.get("speed") or {}).get(self.draft) or {}

    @property
    def evidence(self) -> Mapping[str, Any]:
        return ((self.run.evidence or {}).get("drafts") or {}).get(self.draft) or {}


def shown_drafts(runs: Sequence[Run]) -> list[Shown]:
    """Those whose figures are drawn; of a run in which nothing was judged there is none."""
    if len(runs) == 1:
        drafts = runs[0].report.get("drafts") or {}
        names = [name for name in drafts if name != "base"] + [name for name in drafts if name == "base"]
        return [Shown(wording.label(name, drafts), runs[0], name) for name in names[: figures.SERIES]]
    judged = [run for run in runs if any(d.get("alpha") is not None for d in (run.report.get("drafts") or {}).values())]
    return [Shown(run.name, run, best_draft(run.report)) for run in judged]


def measured(runs: Sequence[Run]) -> list[Figure]:
    """Of acceptance and speed, those that there is something for."""
    drafts = shown_drafts(runs)
    drawn = (_speed(drafts), _by_position(drafts), _by_depth(drafts), _by_class(drafts), _calibration(drafts))
    return [figure for figure in (*drawn, _rounds(drafts)) if figure is not None]


def trained(runs: Sequence[Run]) -> list[Figure]:
    """Of training: the loss of every stage, what was selected of each class, the divergence of what was and was not."""
    stages = list(dict.fromkeys(stage for run in runs for stage in run.curves))[:_MOST_STAGES]
    found = [_loss(runs, stage) for stage in stages]
    for run in runs:
        words = "" if len(runs) == 1 else f", {run.name}"
        found += [_divergences(run, words), _selected(run, words)]
    return [figure for figure in found if figure is not None]


def _speed(drafts: Sequence[Shown]) -> Figure | None:
    curves, points = {}, {}
    for each in drafts:
        curves[each.label] = list(enumerate(each.speed.get("promised_by_length") or [], 1))
        used = (each.run.report.get("speed") or {}).get("draft_length")
        if used and each.speed.get("speedup") is not None:
            points[each.label] = [(used, each.speed["speedup"])]
    said = (
        "Lines are what acceptance and the measured costs of a round's parts promise; a large mark is what decoding "
        "measured, waiting of a batch for its slowest row included. 1 is plain decoding."
    )
    words = {"x": "guesses a round", "y": "times plain decoding", "says": said, "marked": points, "level": 1.0}
    return figures.lines("Speed-up by draft length", curves, **words)


def _by_position(drafts: Sequence[Shown]) -> Figure | None:
    curves = {}
    for each in drafts:
        width = (each.run.evidence or {}).get("positions_in_a_bin", 1)
        shares = _shares(each.evidence.get("by_position"))
        curves[each.label] = [((place + 0.5) * width, share) for place, share, _ in shares]
    said = "Share of judged guesses that were accepted, by where in the answer they stood."
    return figures.lines(
        "Acceptance by place in the answer", curves, x="token of the answer", y="accepted", says=said, percent=True
    )


def _by_depth(drafts: Sequence[Shown]) -> Figure | None:
    curves = {each.label: [(n + 1, s) for n, s, _ in _shares(each.evidence.get("by_depth"))] for each in drafts}
    said = "Share accepted of the first, second, ... guess of a round, where it was judged."
    return figures.lines(
        "Acceptance by depth in the round", curves, x="guess of the round", y="accepted", says=said, percent=True
    )


def _by_class(drafts: Sequence[Shown]) -> Figure | None:
    groups = next((each.run.evidence["classes"] for each in drafts if each.evidence), [])
    shares, counts = {}, {}
    for each in drafts:
        by_place = {place: (share, count) for place, share, count in _shares(each.evidence.get("by_class"))}
        shares[each.label] = [by_place.get(place, (None, 0))[0] for place in range(len(groups))]
        counts[each.label] = [by_place.get(place, (None, 0))[1] for place in range(len(groups))]
    there = [place for place in range(len(groups)) if any(each[place] is not None for each in shares.values())]
    kept = {name: [each[place] for place in there] for name, each in shares.items()}
    said = "Share of judged guesses that were accepted, by the class of the token that was written."
    return figures.bars(
        "Acceptance by class of token",
        [groups[place] for place in there],
        kept,
        x="class",
        y="accepted",
        says=said,
        counts={name: [each[place] for place in there] for name, each in counts.items()},
    )


def _calibration(drafts: Sequence[Shown]) -> Figure | None:
    curves, errors = {}, []
    for each in drafts:
        bins = each.evidence.get("calibration") or {"count": [], "confidence": [], "hits": []}
        rows = zip(bins["count"], bins["confidence"], bins["hits"], strict=True)
        curves[each.label] = [(sure / count, hits / count) for count, sure, hits in rows if count >= _FEWEST]
        if bins.get("ece") is not None:
            errors.append(f"{each.label} {100 * bins['ece']:.1f} points of {sum(bins['count']):,.0f} tokens")
    said = (
        "How often the draft's likeliest token was the one written, by the probability it gave to it; on the thin "
        f"line it is right as often as it says. Expected calibration error: {'; '.join(errors)}."
    )
    words = {"x": "the draft's confidence", "y": "right", "says": said, "percent": True, "diagonal": True}
    return figures.lines("Calibration of the draft's confidence", curves, **words)


def _rounds(drafts: Sequence[Shown]) -> Figure | None:
    histograms = {each.label: each.summary.get("accepted_histogram") or [] for each in drafts}
    histograms = {name: counts for name, counts in histograms.items() if sum(counts)}
    longest = max(map(len, histograms.values()), default=0)
    shares = {
        name: [n / sum(counts) for n in counts] + [None] * (longest - len(counts))
        for name, counts in histograms.items()
    }
    groups = [str(n) for n in range(longest)]
    return figures.bars("Accepted guesses per round", groups, shares, x="guesses accepted", y="share of rounds")


def _shares(sums: Mapping[str, Any] | None) -> list[tuple[int, float, int]]:
    """(place, accepted / judged, judged) of the places with enough judged guesses."""
    pairs = zip((sums or {}).get("accepted") or [], (sums or {}).get("judged") or [], strict=True)
    return [(place, hits / count, count) for place, (hits, count) in enumerate(pairs) if count >= _FEWEST]


def _loss(runs: Sequence[Run], stage: str) -> Figure | None:
    curves = {}
    for run in runs:
        label = "loss" if len(runs) == 1 else run.name
        curves[label] = smooth(_points(run.curves.get(stage, ()), lambda entry: entry.get("loss")))
    title = _STAGES.get(stage, str(stage))
    log = any(value > 0 for points in curves.values() for _, value in points)
    said = "Loss of the stage, a moving mean where there are many steps."
    return figures.lines(title, curves, x="step", y="nats per token", says=said, log=log)


def _divergences(run: Run, words: str) -> Figure | None:
    entries = run.curves.get("draft", ())
    curves = {
        "selected tokens": smooth(_points(entries, lambda entry: entry.get("kl_kept"))),
        "tokens left out": smooth(_points(entries, lambda entry: entry.get("kl_dropped"))),
    }
    said = "KL from target to draft, of the tokens that were selected at each step and of those that were not."
    if not any(curves.values()):
        return None
    return figures.lines(f"KL of selected tokens{words}", curves, x="step", y="nats per token", says=said, log=True)


def _selected(run: Run, words: str) -> Figure | None:
    """The share of each class's labels that were selected, by stretches of the training."""
    entries = [entry for entry in run.curves.get("draft", ()) if entry.get("kept_by_class")]
    if not entries or not run.evidence:
        return None
    classes, size = run.evidence["classes"], max(1, math.ceil(len(entries) / _PARTS))
    parts = [entries[at : at + size] for at in range(0, len(entries), size)]
    kept, labels = ([[sum(e[key][c] for e in part) for part in parts] for c in range(len(classes))] for key in _KEYS)
    most = sorted(range(len(classes)), key=lambda c: -sum(labels[c]))[: figures.SERIES]
    curves = {
        f"{classes[c]} ({sum(labels[c]):,.0f} labels)": [
            (part[-1]["step"], k / n) for part, k, n in zip(parts, kept[c], labels[c], strict=True) if n >= _FEWEST
        ]
        for c in most
    }
    said = "Share of a class's labels that the draft was trained on, as training went on; the thin line is that of all."
    share = sum(map(sum, kept)) / max(sum(map(sum, labels)), 1)
    told = {"x": "step", "y": "selected", "says": said, "percent": True}
    return figures.lines(f"What was selected{words}", curves, level=share, **told)


_KEYS = "kept_by_class", "labels_by_class"


def _points(entries: Sequence[Mapping[str, Any]], value: Callable[[Mapping], Any]) -> list[tuple[float, float]]:
    """(step, value) of the entries that hold a finite one; a diverged loss is null in a metrics file."""
    found = [(float(entry["step"]), float(value(entry))) for entry in entries if value(entry) is not None]
    return [(step, figure) for step, figure in found if math.isfinite(figure)]


def smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value averaged with those around it, over a thirtieth of all; few points stay as they are."""
    if len(points) <= 60:
        return points
    half, sums = max(2, len(points) // 60), [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    means = []
    for place, (step, _) in enumerate(points):
        start, stop = max(0, place - half), min(len(points), place + half + 1)
        means.append((step, (sums[stop] - sums[start]) / (stop - start)))
    return means
