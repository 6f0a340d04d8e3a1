"""Values, JSON and bytes made wrong at random; all chance comes from one `random.Random`."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NAUGHTY = (
    "", " ", "\x00", "\ufeff", "\ud800", "\u202e", "a" * 5000, "../../etc/passwd", "/etc/passwd", "~", "-1", "0",
    "nan", "NaN", "inf", "-Infinity", "1e999", "9" * 400, "0x10", "None", "null", "true", "[]", "{}", "()", "{{7*7}}",
    "{% x %}", "<script>alert(1)</script>", "<|im_end|>", "<|endoftext|>", "$(touch owned)", "`touch owned`", "%s%n",
    "__import__('os').system('touch owned')", "\n", "\r\n", "\t", "é", "漢字", "🙂", "hf:a/b:train", "a" * 300 + "/b",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, 10**18, 10**400, 0.5, -0.0, 1e-320, 1e308)
NUMBERS += (float("nan"), float("inf"))


def value(chance: Random, depth: int = 3) -> Any:
    """Anything that JSON holds, and some that it should not."""
    kind = chance.randrange(9 if depth else 7)
    if kind < 2:
        return chance.choice(NAUGHTY)
    if kind < 4:
        return chance.choice(NUMBERS)
    if kind < 7:
        return chance.choice((None, True, False))
    count = chance.choice((0, 1, 2, 3))
    if kind == 7:
        return [value(chance, depth - 1) for _ in range(count)]
    return {chance.choice(NAUGHTY[:40]): value(chance, depth - 1) for _ in range(count)}


def changed(original: Any, chance: Random) -> Any:
    """A copy of a JSON value in which a few places, anywhere, hold something else, or are gone."""
    whole = copy.deepcopy(original)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        inside = whole
        while isinstance(inside, dict | list) and inside:
            key = chance.choice(sorted(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
            if not isinstance(inside[key], dict | list) or not inside[key] or chance.random() < 0.3:
                act = chance.randrange(6)
                if act == 0:
                    del inside[key]
                elif act == 1 and isinstance(inside, dict):
                    inside[chance.choice(NAUGHTY)] = value(chance)
                elif act == 2 and isinstance(inside[key], int | float) and not isinstance(inside[key], bool):
                    number = inside[key]
                    half = number + 0.5 if abs(number) < 2**60 else 0.5
                    inside[key] = chance.choice((-number, number + 1, number * 2, half))
                else:
                    inside[key] = value(chance)
                break
            inside = inside[key]
        else:
            return value(chance)
    return whole


def written(value: Any, chance: Random) -> bytes:
    """JSON of it, sometimes damaged."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged(text, chance) if chance.random() < 0.3 else text


def damaged(content: bytes, chance: Random) -> bytes:
    """The same with some bytes changed, gone, doubled or put in."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not content:
            return bytes([chance.randrange(256)])
        at, length = chance.randrange(len(content)), chance.choice((1, 1, 2, 8, 64))
        act = chance.randrange(6)
        if act == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif act == 1:
            del content[at : at + length]
        elif act == 2:
            content[at:at] = content[at : at + length]
        elif act == 3:
            del content[at:]
        elif act == 4:
            content[at:at] = chance.choice((b"[" * 3000, b"\x00" * 8, b"\xff\xfe", b'"', b"}", b"9" * 5000))
        else:
            content[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
    return bytes(content)
