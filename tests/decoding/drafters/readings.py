"""The algorithms of copying drafters read once more in plain Python: lists, dictionaries and loops.

Each reading gives, for the committed tokens of one row and the length of its prompt, the set of guessed paths, every
prefix of a path included. `slip` is how a wrong reading is planted.
"""

from __future__ import annotations

import numpy as np


def prefixes(path):
    return {tuple(path[:depth]) for depth in range(1, len(path) + 1)}


def prompt_lookup(tokens, prompt_length, *, ngram, length, slip=None):
    for size in range(ngram, 0, -1):
        last = tokens[-size:]
        starts = range(len(tokens) - size + 1)
        for start in reversed(starts) if slip == "latest" else starts:
            after = start + size + (slip == "late")
            if tokens[start : start + size] == last and after + length <= len(tokens) and after < len(tokens) - size:
                return prefixes(tokens[after : after + length])
    return set()


def llma(tokens, prompt_length, *, longest, shortest, length, slip=None):
    document, answer = tokens[:prompt_length], tokens[prompt_length:]
    for size in range(longest, shortest - 1, -1):
        if len(answer) < size:
            continue
        first = {}
        for start in range(len(document) - size + 1):
            ngram = tuple(document[start : start + size])
            if slip == "latest" or ngram not in first:
                first[ngram] = start
        if tuple(answer[-size:]) in first:
            after = first[tuple(answer[-size:])] + size
            return prefixes(document[after : after + length - (slip == "short")])
    return set()


def anpd(tokens, prompt_length, *, levels, length, slip=None):
    tables = {}
    for level in range(2, levels + 1):
        for end in range(level - 1, len(tokens)):
            followers = tables.setdefault(tuple(tokens[end - level + 1 : end]), {})
            followers[tokens[end]] = followers.get(tokens[end], 0) + 1
    guesses = []
    while len(guesses) < length - (slip == "short"):
        text = tokens + guesses
        keys = [tuple(text[-size:]) for size in range(levels - 1, 0, -1) if size <= len(text)]
        found = next((tables[key] for key in (keys[::-1] if slip == "lowest" else keys) if key in tables), None)
        if found is None:
            break
        pick = list(found) if slip == "first" else list(found)[::-1]
        guesses.append(max(pick, key=found.get))
    return prefixes(guesses)


def n_grammys(tokens, prompt_length, *, followers, rows, length, ngram, slip=None):
    last, made = tokens[-ngram:], []
    for start in range(len(tokens) - ngram - 1, -1, -1):
        if len(made) < rows // 2 + (slip == "more") and tokens[start : start + ngram] == last:
            made.append(tokens[start + ngram : start + ngram + length])
    if slip == "earliest":
        made = [
            tokens[s + ngram : s + ngram + length] for s in range(len(tokens) - ngram) if tokens[s : s + ngram] == last
        ]
        made = made[: rows // 2]
    for token in followers[tokens[-1]][: rows - len(made)]:
        row = [token]
        while len(row) < length:
            row.append(followers[row[-1]][0])
        made.append(row)
    return set().union(*map(prefixes, made))


def rest(tokens, prompt_length, *, corpus, longest, shortest, matches, length, choices, slip=None):
    """`corpus`: texts. Places come in the order of the texts' suffixes, compared to the corpus's end."""
    whole = [token for text in corpus for token in (*text, -1)]
    for size in range(longest, shortest - 1, -1):
        if size > len(tokens):
            continue
        places = [at for at in range(len(whole)) if whole[at : at + size] == tokens[-size:]]
        if not places:
            continue
        places = sorted(places, key=lambda at: whole[at:])[: matches - (slip == "fewer")]
        counts = {}
        for at in places:
            after = at + size + (slip == "late")
            follows = whole[after : after + length]
            follows = follows[: follows.index(-1)] if -1 in follows else follows
            for path in sorted(prefixes(follows), key=len):
                counts[path] = counts.get(path, 0) + 1
        ranked = sorted(counts, key=lambda path: (-counts[path], len(path), path))
        return set(ranked[:choices])
    return set()


def _most_frequent_path(node, limit, threshold):
    """(path, the sum of products in float32) from a node of the suffix tree: the (text, place) that it stands for."""
    path, product, promise = [], np.float32(1), np.float32(0)
    while len(path) < limit:
        followers = {}
        for text, at in node:
            if at < len(text) and text[at] >= 0:
                followers.setdefault(text[at], []).append((text, at + 1))
        if not followers:
            break
        token = max(followers, key=lambda token: len(followers[token]))
        product *= np.float32(len(followers[token])) / np.float32(len(node))
        if product < np.float32(threshold):
            break
        promise += product
        path, node = [*path, token], followers[token]
    return path, promise


def suffix(tokens, prompt_length, *, corpus, length, depth, factor, threshold, corpus_longest, answers=(), slip=None):
    """With no more stands than the drafter counts; in the corpus the lowest continuation comes first among equals."""
    whole, best = [token for text in corpus for token in (*text, -1)], {}
    said = [token for text in answers for token in (*text, -1)]
    for name, text in (("own", tokens), ("answers", said), ("corpus", whole)):
        best[name] = [], np.float32(0)
        for size in range(1, min(len(tokens), depth, *([corpus_longest + 1] if name == "corpus" else []))):
            stands = [at + size for at in range(len(text) - size + 1) if text[at : at + size] == tokens[-size:]]
            if name == "corpus":
                stands.sort(key=lambda at: whole[at:])
            limit = min(length, int(size * factor + 1e-6), depth - size) - (slip == "short")
            path, promise = _most_frequent_path([(text, at) for at in stands], limit, threshold)
            if promise > best[name][1] or (promise == best[name][1] and slip != "shorter"):
                best[name] = path, promise
    if slip in best and best[slip][1] > 0:
        return prefixes(best[slip][0])
    return prefixes(best[max(best, key=lambda name: best[name][1])][0])


def sam(tokens, prompt_length, *, length, per_match, slip=None):
    before = tokens[:-1]
    for size in range(len(tokens) - 1, 0, -1):
        ends = [at + size for at in range(len(before) - size + 1) if before[at : at + size] == tokens[-size:]]
        if ends:
            end = ends[-1] if slip == "latest" else ends[0]
            return prefixes(before[end : end + min(length, per_match * size) - (slip == "short")])
    return set()


def walk(readings_guesses, plain, prompt_length):
    """(rounds, guesses accepted) of decoding greedily to the text `plain`: the target agrees with its own text."""
    at, rounds, accepted = prompt_length, 0, 0
    while at < len(plain):
        guesses, depth = readings_guesses(plain[:at]), 0
        while at + depth < len(plain) and tuple(plain[at : at + depth + 1]) in guesses:
            depth += 1
        rounds, accepted, at = rounds + 1, accepted + depth, at + depth + 1
    return rounds, accepted
