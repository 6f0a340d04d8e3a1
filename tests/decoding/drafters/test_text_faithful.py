"""What copying drafters guess is what a second, plain reading of their papers guesses, after every token of a text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.decoding.drafters.text.copying import PromptLookup, ReferenceCopy
from adaspec_jax.decoding.drafters.text.datastore import Datastore, DatastoreTree
from adaspec_jax.decoding.drafters.text.ngrams import CountedNgrams, NGrammys, likeliest_followers
from adaspec_jax.retrieval import suffix_array
from tests.decoding.drafters import readings

VOCAB, NEW = 61, 40
HF = {"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3}
HF |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}


TARGET = models.build(HF, jax.random.key(3))
FOLLOWERS = likeliest_followers(TARGET, 4, opening=(1,))


def reading(name, **knobs):
    return functools.partial(getattr(readings, name), **knobs)


CORPUS = [np.random.default_rng(n).integers(0, 2 + n % 4, 5 + 3 * n).tolist() for n in range(14)]
CORPUS += [np.random.default_rng(n).integers(0, VOCAB, 40).tolist() for n in range(30)]


def store():
    tokens_T = np.array([token for text in CORPUS for token in (*text, -1)], np.int32)
    return Datastore(jnp.asarray(tokens_T), jnp.asarray(suffix_array(tokens_T, depth=64)))


def rest(**knobs):
    return DatastoreTree(store(), **knobs), reading("rest", corpus=CORPUS, **knobs)


def n_grammys(**knobs):
    return NGrammys(FOLLOWERS, **knobs), reading("n_grammys", followers=FOLLOWERS.tolist(), **knobs)


# name: the drafter, its reading, and the slips of one token that must not pass.
SYSTEMS = {
    "prompt_lookup": (PromptLookup(), reading("prompt_lookup", ngram=3, length=10), ("latest", "late")),
    "prompt_lookup, short": (PromptLookup(2, 4), reading("prompt_lookup", ngram=2, length=4), ("latest", "late")),
    "llma": (ReferenceCopy(), reading("llma", longest=5, shortest=1, length=19), ("latest", "short")),
    "llma, 2": (ReferenceCopy(3, 2, 6), reading("llma", longest=3, shortest=2, length=6), ("latest", "short")),
    "anpd": (CountedNgrams(), reading("anpd", levels=3, length=8), ("first", "lowest", "short")),
    "anpd, 5": (CountedNgrams(5, 3), reading("anpd", levels=5, length=3), ("first", "lowest", "short")),
    "n_grammys": (*n_grammys(rows=5, length=4, ngram=1), ("more", "earliest")),
    "n_grammys, 2": (*n_grammys(rows=4, length=3, ngram=2), ("more", "earliest")),
    "rest": (*rest(longest=16, shortest=2, matches=400, length=10, choices=64), ("late",)),
    "rest, few": (*rest(longest=4, shortest=1, matches=6, length=3, choices=5), ("late", "fewer")),
}


@pytest.fixture(scope="module")
def texts():
    """(prompts, the target's own greedy texts): prompts that repeat themselves, of 1 to 40 tokens."""
    rng = np.random.default_rng(0)
    phrase = rng.integers(0, VOCAB, 7).tolist()
    prompts = [[4], phrase * 3, rng.integers(0, VOCAB, 40).tolist(), phrase + [9] + phrase[2:] + [11] + phrase[1:5]]
    prompts += [rng.integers(0, 4, 38).tolist(), rng.integers(0, 2, 30).tolist()]
    tokens_BS = np.zeros((len(prompts), 40), np.int32)
    for row_S, prompt in zip(tokens_BS, prompts, strict=True):
        row_S[: len(prompt)] = prompt
    lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
    prompt = Context(tokens_BS, lengths_B)
    plain = decode(TARGET, NoDraft(), prompt)
    return prompt, [row[:length].tolist() for row, length in zip(plain.tokens_BS, plain.lengths_B, strict=True)]


def scribbles():
    """Texts of few tokens, in which most n-grams stand several times, and the lengths of their prompts."""
    rng = np.random.default_rng(1)
    return [(rng.integers(0, 2 + n % 4, 6 + n).tolist(), 1 + n // 2) for n in range(60)]


def decode(target, drafter, prompt):
    knobs = {"max_new_tokens": NEW, "sampling": Sampling(0.0), "eos_id": -1}
    return jax.device_get(generate(target, drafter, prompt, jax.random.key(0), **knobs))


def guessed(drafter, rows, prompt_lengths):
    """The set of guessed paths after each of the rows, in one batch."""
    tokens_BS = np.zeros((len(rows), 40 + NEW + drafter.num_nodes + 1), np.int32)
    for row_S, row in zip(tokens_BS, rows, strict=True):
        row_S[: len(row)] = row
    prompt = Context(jnp.asarray(tokens_BS), jnp.asarray(prompt_lengths, jnp.int32), sampling=Sampling(0.0))
    context = Context(prompt.tokens_BS, jnp.asarray([len(row) for row in rows], jnp.int32), sampling=Sampling(0.0))

    @jax.jit
    def propose(drafter, prompt, context):
        return drafter.propose(jax.random.key(0), drafter.init(prompt, tokens_BS.shape[1]), context)[0]

    made = jax.device_get(propose(drafter, prompt, context))
    parents = np.arange(-1, drafter.num_nodes - 1) if made.parents_BN is None else made.parents_BN
    parents_BN = np.broadcast_to(parents, made.tokens_BN.shape)
    return [paths(*row) for row in zip(made.tokens_BN, parents_BN, made.valid_BN, strict=True)]


def paths(tokens_N, parents_N, valid_N):
    found = {-1: ()}
    for node, parent in enumerate(parents_N.tolist()):
        if valid_N[node] and parent in found:
            path = (*found[parent], int(tokens_N[node]))
            assert path not in found.values(), "two nodes for one path: the second is never reached"
            found[node] = path
    return set(found.values()) - {()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_guesses_and_rounds_are_those_of_a_plain_reading(texts, name):
    drafter, read, slips = SYSTEMS[name]
    prompt, plain = texts
    cases = [
        (row[:at], int(length))
        for row, length in zip(plain, prompt.lengths_B, strict=True)
        for at in range(length, len(row))
    ]
    cases += scribbles()
    ours = guessed(drafter, *zip(*cases, strict=True))
    assert ours == [read(*case) for case in cases]
    assert sum(map(bool, ours)) > 20
    for slip in slips:
        assert ours != [read(*case, slip=slip) for case in cases], slip
    made = decode(TARGET, drafter, prompt)
    for row, length in enumerate(prompt.lengths_B):
        assert made.tokens_BS[row, : made.lengths_B[row]].tolist() == plain[row]
        walked = readings.walk(lambda text, length=length: read(text, int(length)), plain[row], int(length))
        assert walked == (made.rounds_B[row], made.accepted_BN[row].sum())
