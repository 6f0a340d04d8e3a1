"""Short rows become the examples of fewer and longer ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaspec_jax.data.encoded import Encoded


def packed(rows: Sequence[Encoded], length: int, *, seed: int | Sequence[int]) -> list[Encoded]:
    """Rows of up to `length` tokens that hold all of these whole, each once; the same for the same rows and seed.

    Best fit by decreasing length: every row goes to the fullest pack that still has room for it, else begins one. The
    seed decides which of equally long rows come together, and the order of the packs. What was its row's first token is
    no label of the pack. Roles are left out. ValueError where a row is longer than `length`.
    """
    draw = np.random.default_rng(seed)
    lengths = np.array([len(row.tokens) for row in rows], np.int64)
    if len(rows) and lengths.max() > length:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit a pack of {length}")
    order = draw.permutation(len(rows))
    packs: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]  # numbers of packs, by the tokens they still take
    rooms = 0  # bit r: there is a pack with room for r tokens
    for i in order[np.argsort(-lengths[order], kind="stable")].tolist():
        needed = int(lengths[i])
        enough = rooms >> needed
        if enough:
            room = needed + (enough & -enough).bit_length() - 1
            number = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, number = length, len(packs)
            packs.append([])
        packs[number].append(i)
        with_room[room - needed].append(number)
        rooms |= 1 << (room - needed)
    return [_joined([rows[i] for i in packs[number]]) for number in draw.permutation(len(packs))]


def _joined(parts: Sequence[Encoded]) -> Encoded:
    labels = np.concatenate([part.labels_T for part in parts])
    segments = np.repeat(np.arange(1, len(parts) + 1, dtype=np.int32), [len(part.tokens) for part in parts])
    tokens = np.concatenate([part.tokens for part in parts])
    return Encoded(tokens, parts[0].prompt_length, labels, segments=segments)
