"""A benchmark of methods as a table, as a list and as a picture."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from adaspec_jax import files
from adaspec_jax.reporting.tables import aligned, folded

PLAIN = "plain"  # the label of plain decoding in a verdict
_COLUMNS = ("method", "tokens/call", "95 % interval", "accepted", "tokens/s", "speed-up", "95 % interval")
_COLUMNS += ("identical", "published")
_WIDTH, _ROW, _LEFT, _RIGHT = 640, 30, 170, 70


def methods_table(report: Mapping[str, Any], *, columns: int | None = None) -> str:
    """A row per method under plain decoding's, those skipped with the reason, and what was measured how.

    `columns`: of the terminal that shows it, if one does.
    """
    scored = report["plain"].get("score") is not None
    rows = [(*_COLUMNS, *(["score"] if scored else [])), ("plain decoding", *_cells(report["plain"], scored))]
    for name, m in report["methods"].items():
        rows += [] if "skipped" in m else [(name, *_cells(m, scored))]
        rows += [(f"{name}, warm", *_cells(m["warm"], scored))] if m.get("warm") else []
    skipped = [f"{name}: skipped, {m['skipped']}" for name, m in report["methods"].items() if "skipped" in m]
    settings = report["settings"]
    greedy = "" if settings["temperature"] else " (greedy)"
    batch = settings["batch_size"].split(",")[0]
    said = (
        f"Measured at temperature {settings['temperature']:g}{greedy}; batch size {batch}; "
        f"draft length {settings['draft_length']}; max_new_tokens {settings['max_new_tokens']}; "
        f"{report['plain']['prompts']} prompts; bonus token counted in tokens/call, prefill in neither."
    )
    lossy = [name for name, m in report["methods"].items() if m.get("lossless") is False]
    cut = f"{report['prompts_cut']} prompts lost their middle." if report.get("prompts_cut") else ""
    notes = [cut] if cut else []
    if any(m.get("published") for m in report["methods"].values()):
        notes += ["Published: of other models, texts and machines (--json names them); * by a third party."]
    if scored:
        notes.append("Score: of the answers, from 0 to 1, by what the task asks for (last number, ROUGE-L or tests).")
    if any(m.get("warm") for m in report["methods"].values()):
        notes.append("Warm: each batch with what those before it taught; all else begins anew with every request.")
    notes += [f"Lossy, answers do not follow the target's law: {', '.join(lossy)}."] if lossy else []
    return "\n".join([*aligned(rows, columns=columns), "", *folded([*skipped, *notes, said], columns)])


def verdict_in_words(report: Mapping[str, Any], command: str) -> str:
    """The fastest method, how sure that is, and the command that decodes with it; of a replay, what it can say.

    The fastest of the lossless; a line before it says which lossy one is faster, and at what score.
    """
    verdict = report["verdict"]
    if "ranked" in verdict:
        low, high = verdict["ci95"]
        calls = f"{verdict['tokens_per_target_call']:.2f} tokens per target call ({low:.2f} to {high:.2f})"
        sure = f"the most in {100 * verdict['first_in_resamples']:.0f} % of resamples"
        return f"Replayed: {verdict['best']}, {calls}, {sure}. No times were taken: --time N measures the best N."
    lossy, fastest = "", "the fastest"
    if verdict.get("lossy"):
        lossy, fastest = _lossy_in_words(verdict["lossy"], report), "the fastest of the lossless"
    if verdict["best"] == PLAIN:
        sure = f"{100 * verdict['first_in_resamples']:.0f} % of resamples" if verdict["batches"] > 1 else "one batch"
        so = "." if lossy else f": none of these is worth it here.{_nearest(report)}"
        return f"{lossy}Verdict: plain decoding is {fastest}, in {sure}{so}"
    low, high = verdict["speedup_ci95"]
    said = f"{lossy}Verdict: {verdict['best']}, {verdict['speedup']:.2f}x plain decoding"
    if verdict["batches"] > 1:
        sure = 100 * verdict["first_in_resamples"]
        said += f" ({low:.2f} to {high:.2f}), {fastest} in {sure:.0f} % of resamples"
    else:
        said += f", {fastest} in one batch, which does not say how sure that is (lower --batch_size)"
    again = verdict["held_back"]
    if again:
        low, high = again["speedup_ci95"]
        count = f"{again['prompts']} prompts held back"
        said += f"; on {count} {again['speedup']:.2f}x"
        said += f" ({low:.2f} to {high:.2f})" if again["batches"] > 1 else ", in one batch"
    else:
        said += "; not measured again, for there are no more prompts"
    return f"{said}. {command} --prompt TEXT"


def _nearest(report: Mapping[str, Any]) -> str:
    """Why the best of the methods is slower than plain decoding."""
    timed = {name: m for name, m in report["methods"].items() if m.get("speedup") and m.get("lossless")}
    if not timed:
        return ""
    best = max(timed, key=lambda name: timed[name]["speedup"])
    tokens, speedup = timed[best]["tokens_per_target_call"], timed[best]["speedup"]
    steps = tokens / speedup
    return f" {best} comes nearest: a round gives {tokens:.2f} tokens, and takes as long as {steps:.2f} plain steps."


def _lossy_in_words(lossy: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """A line on a lossy method that is faster than all that are lossless."""
    low, high = lossy["speedup_ci95"]
    said = f"Lossy and faster: {lossy['best']}, {lossy['speedup']:.2f}x plain decoding"
    said += f" ({low:.2f} to {high:.2f})" if lossy["batches"] > 1 else ""
    scores = [m.get("score") for m in (report["methods"][lossy["best"]], report["plain"])]
    if None in scores:
        return f"{said}; its answers do not follow the target's law, and no score says what that costs.\n"
    return f"{said}; score {scores[0]:.3f}, plain decoding's {scores[1]:.3f}.\n"


_LIST = 110  # columns of a list that no terminal shows


def methods_list(methods: Iterable[Any], said: Mapping[str, str], *, columns: int | None = None) -> str:
    """The methods by what they need: name, what it does (`said`), whether it is lossy, its knobs and its paper."""
    groups: dict[str, list[Any]] = {}
    for method in methods:
        groups.setdefault(" and ".join(need.words for need in method.needs) or "nothing but the target", []).append(
            method
        )
    width = max((len(method.name) for members in groups.values() for method in members), default=0)
    indent = " " * (width + 4)
    wrapped = partial(textwrap.wrap, width=max(columns or _LIST, width + 40), subsequent_indent=indent)
    lines = []
    for needs, members in groups.items():
        lines += ["", *textwrap.wrap(f"{needs}:", columns or _LIST)]
        for method in members:
            knobs = (name if value is None else f"{name}={value}" for name, value in method.knobs.items())
            what = f"{'' if method.lossless else 'lossy: '}{said.get(method.name, '')}"
            lines += wrapped(what or method.paper, initial_indent=f"  {method.name:<{width}}  ")
            aside = "; ".join(filter(None, [f"knobs {' '.join(knobs)}" if method.knobs else "", method.paper]))
            lines += wrapped(f"[{aside}]", initial_indent=indent) if aside and what else []
    return "\n".join(lines[1:])


def write_speedups(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """A self-contained SVG: each method's speed-up over plain decoding with its interval."""
    shown = {name: m for name, m in report["methods"].items() if m.get("speedup")}
    height = _ROW * (len(shown) + 2)
    top = 1.1 * max([1.0, *(m["speedup_ci95"][1] for m in shown.values())])

    def at(value: float) -> float:
        return _LEFT + value / top * (_WIDTH - _LEFT - _RIGHT)

    parts = [f'<line class="plain" x1="{at(1):.1f}" x2="{at(1):.1f}" y1="8" y2="{height - _ROW}"/>']
    for row, (name, m) in enumerate(shown.items()):
        y, (low, high) = _ROW * (row + 0.75), m["speedup_ci95"]
        shown_as = name if m["lossless"] else f"{name} (lossy)"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(shown_as)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y - 8:.1f}" width="{at(m["speedup"]) - _LEFT:.1f}" height="16"/>')
        parts.append(f'<line class="interval" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{at(max(high, m["speedup"])) + 6:.1f}" y="{y + 4:.1f}">{m["speedup"]:.2f}x</text>')
    parts.append(f'<text x="{at(1):.1f}" y="{height - _ROW / 2:.1f}" text-anchor="middle">plain decoding</text>')
    looks = (
        "text{font:13px sans-serif;fill:#444}rect{fill:#7aa6d8}.interval{stroke:#1d3f66;stroke-width:2}"
        ".plain{stroke:#888;stroke-dasharray:4 3}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
    head += 'aria-label="Speed-up over plain decoding">'
    files.write_text(path, f"{head}<style>{looks}</style>{''.join(parts)}</svg>\n")


def _cells(m: Mapping[str, Any], scored: bool) -> tuple[str, ...]:
    """One method under `_COLUMNS`, its name left out, and its score where there are any."""
    accepted = f"{100 * m['accepted'] / m['judged']:.1f} %" if m["judged"] else "-"
    identical = "-" if m["identical_to_plain"] is None else f"{m['identical_to_plain']}/{m['prompts']}"
    claim = next(map(_claim, m.get("published", ())), "-")
    score = ("-" if m.get("score") is None else f"{m['score']:.3f}",) if scored else ()
    counts = f"{m['tokens_per_target_call']:.2f}", _between(m["ci95"]), accepted
    if m["speedup"] is None:
        return *counts, "-", "-", "-", identical, claim, *score
    speed = f"{m['tokens_per_second']:.1f}", f"{m['speedup']:.2f}x", _between(m["speedup_ci95"])
    return *counts, *speed, identical, claim, *score


def _between(ends: Sequence[float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def _claim(published: Mapping[str, Any]) -> str:
    """A published speed-up in a few letters: "1.66x*"."""
    return f"{published['speedup']}x{'*' if published['third_party'] else ''}"
