"""A schedule of guesses by batch size, as a table and as a picture."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

from adaspec_jax import files
from adaspec_jax.reporting.tables import aligned, folded

_COLUMNS = ("batch size", "guesses", "tokens/round", "tokens/s", "speed-up")
_CHECKED = ("measured", "fastest", "measured", "behind")
_CELL, _ROW, _LEFT, _TOP = 72, 28, 90, 34


def schedule_table(report: Mapping[str, Any], *, columns: int | None = None) -> str:
    """A row per batch size, then what servers take, and how the choices measured where that was asked for.

    `columns`: of the terminal that shows it, if one does.
    """
    checked = all(each["check"] for each in report["batch_sizes"].values())
    rows = [(*_COLUMNS, *(_CHECKED if checked else ()))]
    for size, each in report["batch_sizes"].items():
        chosen = each["candidates"][str(each["guesses"])]
        rates = f"{chosen['tokens_per_second']:.1f}", f"{chosen['speedup']:.2f}x"
        rows.append((size, str(each["guesses"]), f"{chosen['tokens_per_round']:.2f}", *rates, *_checked(each)))
    reasons = [
        f"batch size {size}: {each['check']['reason']}"
        for size, each in report["batch_sizes"].items()
        if each["check"] and not each["check"]["enough"]
    ]
    settings = report["settings"]
    said = (
        f"Expected of {report['prompts']} prompts at temperature {settings['temperature']:g}, max_new_tokens "
        f"{settings['max_new_tokens']}, by the parts of a round measured apart; candidates: 0, "
        f"{settings['draft_lengths'].replace(',', ', ')}."
    )
    fitting = [*aligned(rows, columns=columns), "", *folded(reasons, columns)]
    return "\n".join([*fitting, *_for_servers(report), *folded([said], columns)])


def _checked(each: Mapping[str, Any]) -> tuple[str, ...]:
    check = each["check"]
    if not check:
        return ()
    rates = [each["candidates"][str(n)]["measured"]["tokens_per_second"] for n in (each["guesses"], check["best"])]
    return f"{rates[0]:.1f}", str(check["best"]), f"{rates[1]:.1f}", f"{100 * check['behind']:.1f} %"


def _for_servers(report: Mapping[str, Any]) -> list[str]:
    if report["vllm"] is None:
        return ["No batch size gains by guesses: serve the target alone."]
    lines = [f"vLLM: --speculative-config {shlex.quote(json.dumps(report['vllm']))}"]
    by_size = report["sglang"].items()
    return lines + [f"SGLang, mostly at batch size {size}: {options or 'no draft'}" for size, options in by_size]


def write_schedule(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """A self-contained SVG: the promised speed-up of every candidate at every batch size, those chosen in a frame."""
    sizes = report["batch_sizes"]
    candidates = list(next(iter(sizes.values()))["candidates"])
    width, height = _LEFT + _CELL * len(sizes) + 10, _TOP + _ROW * len(candidates) + 10
    parts = [f'<text x="{_LEFT - 8}" y="22" text-anchor="end">guesses</text>']
    for column, (size, each) in enumerate(sizes.items()):
        x = _LEFT + _CELL * column
        parts.append(f'<text x="{x + _CELL / 2}" y="22" text-anchor="middle">batch {size}</text>')
        for row, n in enumerate(candidates):
            y, speedup = _TOP + _ROW * row, each["candidates"][n]["speedup"]
            kind = ("gain" if speedup > 1 else "loss") + (" chosen" if n == str(each["guesses"]) else "")
            parts.append(f'<rect class="{kind}" x="{x + 2}" y="{y + 2}" width="{_CELL - 4}" height="{_ROW - 4}"/>')
            parts.append(f'<text x="{x + _CELL / 2}" y="{y + 19}" text-anchor="middle">{speedup:.2f}x</text>')
    for row, n in enumerate(candidates):
        parts.append(f'<text x="{_LEFT - 8}" y="{_TOP + _ROW * row + 19}" text-anchor="end">{n}</text>')
    looks = (
        "text{font:13px sans-serif;fill:#333}.gain{fill:#bcd6ef}.loss{fill:#eee}.chosen{stroke:#1d3f66;stroke-width:2}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
    head += 'aria-label="Promised speed-up by batch size and number of guesses">'
    files.write_text(path, f"{head}<style>{looks}</style>{''.join(parts)}</svg>\n")
