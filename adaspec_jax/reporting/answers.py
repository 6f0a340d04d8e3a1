"""Answers token by token, as a page shows them: looks, columns of figures, and a table for readers without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from adaspec_jax.reporting import wording
from adaspec_jax.reporting.runs import Run

_COLUMNS = "accepted", "refused", "class", "p", "q", "kl", "gap", "target", "target_law", "draft", "draft_law"
_HEAD = ("token", "", "p", "q", "KL, nats", "gap, nats", "the target's choice", "the draft's choice")
_GAPS = 0.0, 0.1, 0.5  # nats; as the page's legend has them
_KINDS = {"prompt": "prompt", "supervised": "label", "selected": "selected for the loss", "dropped": "left out"}
_ROW_SHOWN = 400  # tokens of a row that was trained on


class Answer(NamedTuple):
    """A text of the page."""

    title: str
    says: str
    prompt: str
    tokens: list[tuple[str, str]]  # CSS classes and text
    columns: dict[str, Any]  # what the script reads
    numbers: list[list[str]]  # for readers without it
    head: Sequence[str] = _HEAD


def answers_of(runs: Sequence[Run], most: int) -> list[Answer]:
    """Of all runs in turn, as many as have no more than `most` tokens together."""
    found, left = [], most
    waiting = [_of_run(run, run.name if len(runs) > 1 else "") for run in runs]
    while waiting:
        for texts in list(waiting):
            answer = next(texts, None)
            if answer is None or len(answer.tokens) > left:
                waiting.remove(texts)
            else:
                left -= len(answer.tokens)
                found.append(answer)
    return found


def visible(text: str) -> str:
    """With line breaks, tabs and other control characters as signs; nothing is shown as ∅."""
    return "".join(map(_visible, text)) or "∅"


def alone(text: str) -> str:
    """`visible` where no text stands around it: its outer spaces are signs too."""
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    return "␣" * before + visible(inner) + "␣" * (len(text) - before - len(inner)) if inner else "␣" * before or "∅"


def _visible(character: str) -> str:
    if character == "\n":
        return "↵\n"
    if character == "\t":
        return "→\t"
    if ord(character) < 32:
        return chr(0x2400 + ord(character))
    return "\ufffd" if 0xD800 <= ord(character) <= 0xDFFF or character == "\x7f" else character


def _of_run(run: Run, prefix: str) -> Iterator[Answer]:
    """The first answer of every draft, then the second of each; then rows that were trained on."""
    evidence = run.evidence or {}
    drafts, before = evidence.get("drafts") or {}, f"{prefix}: " if prefix else ""
    longest = max((len(each["answers"]) for each in drafts.values()), default=0)
    for number in range(longest):
        for name, each in drafts.items():
            if number < len(each["answers"]):
                title = f"{before}answer {number + 1}, {wording.label(name, run.report.get('drafts') or {})}"
                yield _answer(title, each["answers"][number], evidence, each.get("selected_from_gap"))
    for number, row in enumerate(evidence.get("rows") or [], 1):
        yield _row(f"{before}row {number} that was trained on", row[:_ROW_SHOWN])


def _answer(title: str, kept: Mapping[str, Any], evidence: Mapping[str, Any], threshold: float | None) -> Answer:
    named, places = [evidence["pieces"][piece] for piece in kept["text"]], {}

    def place(piece: int) -> int:
        return -1 if piece < 0 else places.setdefault(evidence["pieces"][piece], len(places))

    columns = {name: kept[name] for name in _COLUMNS if name in kept}
    columns |= {"text": [place(piece) for piece in kept["text"]], "refused": [place(p) for p in kept["refused"]]}
    columns |= {name: [[place(piece) for piece in row] for row in kept[name]] for name in ("target", "draft")}
    columns |= {"pieces": list(places), "classes": evidence["classes"]}
    gaps, tokens, numbers = kept.get("gap") or [None] * len(named), [], []
    for i, text in enumerate(named):
        role = "a" if kept["accepted"][i] else "r" if kept["refused"][i] >= 0 else "b"
        tokens.append((" ".join([role, *_gap_looks(gaps[i], threshold)]), visible(text)))
        choices = (evidence["pieces"][kept[name][i][0]] for name in ("target", "draft"))
        figures = (f"{kept['p'][i]:.3f}", f"{kept['q'][i]:.3f}", f"{kept['kl'][i]:.3f}")
        gap = "-" if gaps[i] is None else f"{gaps[i]:+.3f}"
        said = {"a": "accepted", "r": "refused", "b": "not guessed"}[role]
        numbers.append([alone(text), said, *figures, gap, *map(alone, choices)])
    count, judged = sum(kept["accepted"]), sum(kept["accepted"]) + sum(piece >= 0 for piece in kept["refused"])
    cut = f", of {kept['tokens']:,} in all" if kept["tokens"] > len(named) else ""
    says = f"{count} of {judged} judged guesses accepted; {len(named)} tokens{cut}."
    return Answer(title, says, evidence["prompts"][kept["prompt"]], tokens, columns, numbers)


def _row(title: str, row: Sequence[Mapping[str, Any]]) -> Answer:
    kinds = [token["kind"] for token in row]
    tokens, speaker = [], None
    for token in row:
        looks = [{"selected": "s", "dropped": "l", "supervised": "b"}.get(token["kind"], "p")]
        looks += _gap_looks(token.get("gap"), None)
        role, text = token.get("role"), visible(str(token["text"]))
        tokens.append((" ".join(looks), f"⟨{role}⟩ {text}" if role and role != speaker else text))
        speaker = role or speaker
    columns = {"text": list(range(len(row))), "pieces": [str(token["text"]) for token in row]}
    columns |= {"kind": [_KINDS[kind] for kind in kinds], "gap": [token.get("gap") for token in row]}
    chosen, left_out = kinds.count("selected"), kinds.count("dropped")
    says = f"{kinds.count('supervised')} of {len(kinds)} tokens are labels."
    if chosen + left_out:
        says = f"{chosen} of {chosen + left_out} labels ({100 * chosen / (chosen + left_out):.0f} %) were selected."
    return Answer(title, says, "", tokens, columns, [])


def _gap_looks(gap: float | None, threshold: float | None) -> list[str]:
    if gap is None:
        return []
    looks = [f"g{sum(gap > edge for edge in _GAPS)}"]
    return looks if threshold is None else [*looks, "s" if gap >= threshold else "l"]
