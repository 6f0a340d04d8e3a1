"""What is left of a tree of frames, read path by path."""


def collapse(path, blank):
    """CTC's: one of each run of equal tokens, then no blanks."""
    runs = [token for place, token in enumerate(path) if place == 0 or token != path[place - 1]]
    return tuple(token for token in runs if token != blank)


def raw_paths(counts, token_of):
    """The paths of a tree of this shape, level by level; `token_of(path above, rank)`."""
    found, level = [], [()]
    for row in counts:
        level = [(*path, token_of(path, rank)) for path, count in zip(level, row, strict=True) for rank in range(count)]
        found += level
    return found


def spelt(counts, token_of, blank):
    """The texts that its paths spell, each once, in the order in which a node first spells it."""
    texts = [collapse(path, blank) for path in raw_paths(counts, token_of)]
    return [text for text in dict.fromkeys(texts) if text]
