"""The algorithms of copying drafters read once more in plain Python: lists, dictionaries and loops.

Each reading gives, for the committed tokens of one row and the length of its prompt, the set of guessed paths, every
prefix of a path included. `slip` is how a wrong reading is planted.
"""

from __future__ import annotations


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


def walk(readings_guesses, plain, prompt_length):
    """(rounds, guesses accepted) of decoding greedily to the text `plain`: the target agrees with its own text."""
    at, rounds, accepted = prompt_length, 0, 0
    while at < len(plain):
        guesses, depth = readings_guesses(plain[:at]), 0
        while at + depth < len(plain) and tuple(plain[at : at + depth + 1]) in guesses:
            depth += 1
        rounds, accepted, at = rounds + 1, accepted + depth, at + depth + 1
    return rounds, accepted
