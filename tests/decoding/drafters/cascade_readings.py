"""CS Drafting and PyramidSD read once more in plain Python: lists, dictionaries and loops, greedily, in float64.

A model is a function from a list of tokens to the list of logits after it. A reading of a round gives the tokens that
it commits, of which the last is the target's own. `slip` is how a wrong reading is planted.
"""

from __future__ import annotations

from tests.decoding.acceptance.lossy_readings import divergence, softmax


def likeliest(logits):
    return max(range(len(logits)), key=lambda token: (logits[token], -token))


def copied(text, length, table, slip=None):
    """Of the suffixes that stood before, the longest where it first stood, and then by the table."""
    made, before = [], text[:-1]
    for size in range(len(text) - 1, 0, -1):
        ends = [at + size for at in range(len(before) - size + 1) if before[at : at + size] == text[-size:]]
        if ends:
            end = ends[-1] if slip == "latest" else ends[0]
            made = before[end : end + length]
            break
    while len(made) < length and [*text, *made][-1] in table:
        made.append(table[[*text, *made][-1]])
    return made


def drafted(models, rows, table, text, lenience, slip=None):
    """[(guess, its maker's probability of it)]: of each model as many as the first row says, and then copies."""
    guesses = []
    for n, (model, count) in enumerate(zip(models, rows[0][:-1], strict=True)):
        made = []
        while len(made) < count:
            begun = [*text, *(token for token, _ in [*guesses, *made])]
            inner = drafted(models[n + 1 :], rows[n + 1 :], table, begun, lenience, slip)
            for token, q in inner:
                law = softmax(model(begun))
                if token != likeliest(model(begun)) and law[token] <= (1 if slip == "certain" else q) / lenience:
                    break
                made.append((token, law[token]))
                begun.append(token)
            own = likeliest(model(begun))
            made.append((own, softmax(model(begun))[own]))
        guesses += made[:count]
    begun = [*text, *(token for token, _ in guesses)]
    if slip != "no copies":
        guesses += [(token, 1.0) for token in copied(begun, rows[0][-1], table, slip)]
    return guesses


def cs_drafting(target, models, rows, table, text, lenience=1.0, slip=None):
    new = []
    for token, _ in drafted(models, rows, table, text, lenience, slip):
        if token != likeliest(target([*text, *new])):
            break
        new.append(token)
    return [*new, likeliest(target([*text, *new]))]


def pyramid(target, middle, small, text, *, draft_length, length, threshold_t, threshold_q=None, slip=None):
    """PSD-F; without `threshold_q` PSD-A."""

    def near(p, q, threshold):
        return divergence("fsd_js", softmax(p), softmax(q)) <= threshold

    buffered = []
    while len(buffered) < length:
        begun = [*text, *buffered]
        for _ in range(draft_length):
            token = likeliest(small(begun))
            if threshold_q is None:
                passes = token == likeliest(middle(begun))
            else:
                passes = near(middle(begun), small(begun), threshold_q)
            if not passes:
                break
            begun.append(token)
        begun.append(likeliest((small if slip == "small" else middle)(begun)))
        buffered = begun[len(text) :]
    new = []
    for token in buffered[: length - (slip == "short")]:
        begun = [*text, *new]
        if not near(target(begun), (small if slip == "compares with the small" else middle)(begun), threshold_t):
            break
        new.append(token)
    return [*new, likeliest(target([*text, *new]))]


def written(a_round, prompt, budget, ends=()):
    """(the text after a prompt, how many guesses stayed in each round)."""
    text, kept = list(prompt), []
    while len(text) - len(prompt) < budget and not (len(text) > len(prompt) and text[-1] in ends):
        new, room = a_round(text), budget - (len(text) - len(prompt))
        stop = next((n + 1 for n, token in enumerate(new) if token in ends), len(new))
        kept.append(min(len(new) - 1, stop, room))
        text += new[: min(stop, room)]
    return text, kept
