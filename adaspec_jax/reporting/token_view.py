"""Tokens as coloured, escaped HTML spans: which guesses were accepted, which labels were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

DECODED_KINDS = {
    "prompt": "prompt",
    "accepted": "accepted guess",
    "target": "from the target (correction or bonus)",
    "rejected": "rejected guess",
}
SELECTED_KINDS = {"prompt": "prompt", "supervised": "label", "selected": "selected for the loss", "dropped": "left out"}


def decoded(tokens: Sequence[Mapping[str, Any]]) -> str:
    """One answer, in order; rejected guesses are small and struck through where they would have stood."""
    return _block(tokens, DECODED_KINDS)


def selected(rows: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """One block per row of a training batch; a token's gap (nats, larger = more to learn) is its tooltip."""
    return "".join(_block(row, SELECTED_KINDS) for row in rows)


def legend(kinds: Mapping[str, str], used: set[str]) -> str:
    """The kinds that occur, each shown as it looks in the text."""
    entries = (f'<span class="t {kind}">{escape(words)}</span>' for kind, words in kinds.items() if kind in used)
    return f'<p class="legend">{" ".join(entries)}</p>'


def visible(text: str) -> str:
    """Escaped text with control characters as pictures, and newlines as a sign followed by a line break."""
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character == "\n":
        return '<i class="ws">↵</i><br>'
    if character == "\t":
        return '<i class="ws">→</i>\t'
    if ord(character) < 32:
        return f'<i class="ws">{chr(0x2400 + ord(character))}</i>'
    if 0xD800 <= ord(character) <= 0xDFFF or character == "\x7f":
        return "\ufffd"
    return escape(character)


def _block(tokens: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> str:
    """The tokens in order; where they are of a conversation, each "role" stands before its words."""
    spans, speaker = [], None
    for token in tokens:
        if (role := token.get("role")) and role != speaker:
            spans.append(f'<b class="role">{escape(role)}</b>')
            speaker = role
        spans.append(_span(token, kinds))
    return f'<div class="tokens">{"".join(spans)}</div>'


def _span(token: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    kind = token["kind"]
    if kind not in kinds:
        raise ValueError(f'unknown token kind "{kind}"; known: {", ".join(kinds)}')
    text = visible(str(token["text"])) or '<i class="ws">∅</i>'  # an empty piece: part of a multi-token character
    if kind == "rejected":  # a line break inside a struck-out guess would tear the answer apart
        text = text.replace("<br>", "")
    gap = token.get("gap")
    tooltip = "" if gap is None else f' title="gap {float(gap):+.3f} nats"'
    return f'<span class="t {kind}"{tooltip}>{text}</span>'
