"""report.html: one self-contained page without scripts or external resources."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from adaspec_jax.files import write_text
from adaspec_jax.reporting import svg, token_view, wording
from adaspec_jax.reporting.page_style import STYLE

_CURVES = {  # metric -> name and colour
    "loss": ("loss", "s2"),
    "kl_kept": ("KL, selected tokens", "s3"),
    "kl_dropped": ("KL, tokens left out", "s0"),
}
_STAGES = {
    "target": "Target: fine-tuning",
    "reference": "Reference: distillation",
    "draft": "Draft: selective distillation",
    "qualifier": "Qualifier: distillation",
}


def write_html(
    path: str | os.PathLike,
    report: Mapping[str, Any],
    *,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    tokens_decoded: Sequence[Mapping[str, Any]] | None = None,
    tokens_selected: Sequence[Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Writes the page for a report.json value; whatever is None or empty is left out.

    `curves`: stage -> metric entries with "step" and "loss" (nats), maybe "kl_kept" and "kl_dropped".
    `tokens_decoded`: {"text", "kind": prompt | accepted | target | rejected} in order. `tokens_selected`: rows of
    {"text", "kind": prompt | selected | dropped, "gap": nats or None}. All text is escaped; ValueError for other kinds.
    """
    sections = [
        _results(report),
        _histogram(report),
        _curves(curves or {}),
        _decoded(tokens_decoded or []),
        _selected(tokens_selected or []),
        _definitions("Settings", report.get("settings")),
        _definitions("Environment", report.get("environment")),
    ]
    title = escape(wording.title(report))
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        # The page has no script; the policy makes sure that nothing in a token can add one or call home.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n",
    )


def _section(heading: str, *body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{''.join(body)}</section>"


def _results(report: Mapping[str, Any]) -> str:
    rows = wording.rows(report)
    if not rows:
        return ""
    columns = wording.shown_columns(rows)
    marks = _interval_marks(report)
    head = "".join(f'<th scope="col">{escape(wording.COLUMNS[i])}</th>' for i in columns)
    head += '<th scope="col" class="mark">alpha and interval</th>' if marks else ""
    body = []
    for row in rows:
        cells = f'<th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(row[i])}</td>" for i in columns[1:])
        mark = f'<td class="mark">{marks.get(row[0], "")}</td>' if marks else ""
        body.append(f"<tr>{cells}{mark}</tr>")
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in wording.sentences(report))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    return _section("Result", table, sentences)


def _interval_marks(report: Mapping[str, Any]) -> dict[str, str]:
    """Label -> the draft's alpha and interval drawn on one scale; empty when nothing has an interval."""
    drafts = report.get("drafts") or {}
    measured = {name: draft for name, draft in drafts.items() if draft.get("alpha") is not None and draft.get("ci95")}
    if not measured:
        return {}
    scale = (min(draft["ci95"][0] for draft in measured.values()), max(draft["ci95"][1] for draft in measured.values()))
    return {
        wording.label(name, drafts): svg.interval_mark(
            draft["alpha"], *draft["ci95"], scale=scale, css=_colour(drafts, name)
        )
        for name, draft in measured.items()
    }


def _colour(drafts: Mapping[str, Any], name: str) -> str:
    """A draft keeps its colour across the page."""
    return f"s{list(drafts).index(name) % 4}"


def _histogram(report: Mapping[str, Any]) -> str:
    drafts = report.get("drafts") or {}
    shares, colours = {}, {}
    for name, draft in drafts.items():
        counts = draft.get("accepted_histogram") or []
        if sum(counts) > 0:
            shares[wording.label(name, drafts)] = [count / sum(counts) for count in counts]
            colours[wording.label(name, drafts)] = _colour(drafts, name)
    chart = svg.bar_chart(shares, colours=colours, x_label="guesses accepted in a round", y_label="share of rounds")
    if not chart:
        return ""
    return _section("Accepted guesses per round", f"<figure>{_line_legend(colours)}{chart}</figure>")


def _line_legend(colours: Mapping[str, str]) -> str:
    keys = (f'<span><i class="key {colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<figcaption class="legend">{" ".join(keys)}</figcaption>'


def _curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    figures = []
    for stage, entries in curves.items():
        series = {words: _points(entries, key) for key, (words, _) in _CURVES.items()}
        series = {words: points for words, points in series.items() if points}
        if series.get("KL, selected tokens") == series.get("loss"):  # one line would hide the other
            series.pop("KL, selected tokens", None)
        colours = {words: colour for words, colour in _CURVES.values() if words in series}
        linear, log = (
            svg.line_chart(series, colours=colours, x_label="step", y_label="nats per token", log_y=log_y)
            for log_y in (False, True)
        )
        if not linear:
            continue
        log = log or "<p>No value above 0 for a logarithmic axis.</p>"
        figures.append(
            f"<figure><h3>{escape(_STAGES.get(stage, stage))}</h3>{_line_legend(colours)}"
            f'<div class="linear">{linear}</div><div class="log">{log}</div></figure>'
        )
    if not figures:
        return ""
    switch = '<label class="switch"><input type="checkbox" id="log"> logarithmic loss axis</label>'
    return _section("Loss", switch, f'<div class="figures">{"".join(figures)}</div>')


def _points(entries: Sequence[Mapping[str, Any]], key: str) -> svg.Points:
    """(step, value) of the entries that hold a finite `key`; a diverged loss is null in a metrics file."""
    found = [(float(entry["step"]), float(entry[key])) for entry in entries if entry.get(key) is not None]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _decoded(tokens: Sequence[Mapping[str, Any]]) -> str:
    if not tokens:
        return ""
    counts = {kind: sum(token["kind"] == kind for token in tokens) for kind in token_view.DECODED_KINDS}
    new = counts["accepted"] + counts["target"]
    caption = f"{counts['accepted']} of {new} new tokens were the draft's guesses, {counts['target']} the target's own."
    legend = token_view.legend(token_view.DECODED_KINDS, {kind for kind, count in counts.items() if count})
    return _section("A held-out answer", f"<p>{escape(caption)}</p>", legend, token_view.decoded(tokens))


def _selected(rows: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    tokens = [token for row in rows for token in row]
    if not tokens:
        return ""
    kinds = [token["kind"] for token in tokens]
    legend, rows = token_view.legend(token_view.SELECTED_KINDS, set(kinds)), token_view.selected(rows)
    if labels := kinds.count("supervised"):
        caption = f"{labels} of {len(kinds)} tokens are labels."
        return _section("Rows that were trained on", f"<p>{caption}</p>", legend, rows)
    chosen, left_out = kinds.count("selected"), kinds.count("dropped")
    share = f" ({100 * chosen / (chosen + left_out):.0f} %)" if chosen + left_out else ""
    caption = f"{chosen} of {chosen + left_out} answer tokens{share} were selected. Point at a token for its loss gap."
    return _section("Tokens selected in one training batch", f"<p>{caption}</p>", legend, rows)


def _definitions(heading: str, values: Mapping[str, Any] | None) -> str:
    if not values:
        return ""
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _flat(values))
    return _section(heading, f"<dl>{pairs}</dl>")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("draft.lr", "0.0003") pairs."""
    pairs = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", "-" if value is None else str(value)))
    return pairs
