"""What copying drafters guess is what a second, plain reading of their papers guesses, after every token of a text."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate, with_memory
from adaspec_jax.decoding.drafters.text.copying import LongestMatch, PromptLookup, ReferenceCopy
from adaspec_jax.decoding.drafters.text.datastore import Datastore, DatastoreTree
from adaspec_jax.decoding.drafters.text.ngrams import CountedNgrams, NGrammys, likeliest_followers
from adaspec_jax.decoding.drafters.text.suffixes import SuffixPath
from adaspec_jax.retrieval import suffix_array
from tests.decoding.drafters import readings
from tests.running import slow, some

VOCAB, NEW = 61, 40
HF = {"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3}
HF |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}


@functools.cache
def small_target():
    return models.build(HF, jax.random.key(3))


def reading(name, **knobs):
    return functools.partial(getattr(readings, name), **knobs)


CORPUS = [np.random.default_rng(n).integers(0, 2 + n % 4, 5 + 3 * n).tolist() for n in range(14)]
CORPUS += [np.random.default_rng(n).integers(0, VOCAB, 40).tolist() for n in range(30)]


def store(corpus):
    tokens_T = np.array([token for text in corpus for token in (*text, -1)], np.int32)
    return Datastore(jnp.asarray(tokens_T), jnp.asarray(suffix_array(tokens_T, depth=64)))


def rest(**knobs):
    return DatastoreTree(store(CORPUS), **knobs), reading("rest", corpus=CORPUS, **knobs)


def suffix(corpus, answers=(), **knobs):
    drafter = SuffixPath(store(corpus) if corpus else None, **{"places": 96, "corpus_longest": 16, **knobs})
    for answer in answers:
        drafter = taught(drafter, answer)
    defaults = {"length": 32, "depth": 64, "factor": 1.0, "threshold": 0.1, "corpus_longest": 16}
    return drafter, reading("suffix", corpus=corpus, answers=answers, **{**defaults, **knobs})


def taught(drafter, answer):
    """What the drafter is after a request whose prompt was one token."""
    drafter = with_memory(drafter) if drafter.memory is None else drafter
    context = Context(jnp.asarray([[0, *answer, 5]], jnp.int32), jnp.asarray([len(answer) + 1]))
    return dataclasses.replace(drafter, memory=drafter.remember((), context, jnp.asarray([1])))


def n_grammys(target=None, opening=(1,), **knobs):
    followers_VK = likeliest_followers(target or small_target(), knobs["rows"], opening=opening)
    return NGrammys(followers_VK, **knobs), reading("n_grammys", followers=followers_VK.tolist(), **knobs)


# name: the drafter, its reading, and the slips of one token that must not pass.
SYSTEMS = {
    "prompt_lookup": lambda: (PromptLookup(), reading("prompt_lookup", ngram=3, length=10), ("latest", "late")),
    "prompt_lookup, short": lambda: (
        PromptLookup(2, 4),
        reading("prompt_lookup", ngram=2, length=4),
        ("latest", "late"),
    ),
    "llma": lambda: (ReferenceCopy(), reading("llma", longest=5, shortest=1, length=19), ("latest", "short")),
    "llma, 2": lambda: (ReferenceCopy(3, 2, 6), reading("llma", longest=3, shortest=2, length=6), ("latest", "short")),
    "anpd": lambda: (CountedNgrams(), reading("anpd", levels=3, length=8), ("first", "lowest", "short")),
    "anpd, 5": lambda: (CountedNgrams(5, 3), reading("anpd", levels=5, length=3), ("first", "lowest", "short")),
    "n_grammys": lambda: (*n_grammys(rows=5, length=4, ngram=1), ("more", "earliest")),
    "n_grammys, 2": lambda: (*n_grammys(rows=4, length=3, ngram=2), ("more", "earliest")),
    "rest": lambda: (*rest(longest=16, shortest=2, matches=400, length=10, choices=64), ("late",)),
    "rest, few": lambda: (*rest(longest=4, shortest=1, matches=6, length=3, choices=5), ("late", "fewer")),
    "suffix": lambda: (*suffix([]), ("short", "shorter")),
    "suffix, short": lambda: (*suffix([], length=5, depth=7, factor=2.0, threshold=0.3, corpus_longest=3), ("short",)),
    "suffix, answers": lambda: (
        *suffix([], CORPUS[4:10] + CORPUS[-3:], length=8, depth=17),
        ("short", "answers", "own"),
    ),
    "suffix, both": lambda: (*suffix(CORPUS[4:7], CORPUS[7:10], length=8, corpus_longest=4), ("corpus", "answers")),
    "suffix, corpus": lambda: (*suffix(CORPUS[4:10] + CORPUS[-10:], length=8, corpus_longest=4), ("short", "corpus")),
    "sam": lambda: (LongestMatch(), reading("sam", length=39, per_match=4), ("latest", "short")),
    "sam, short": lambda: (LongestMatch(5, 1), reading("sam", length=5, per_match=1), ("latest", "short")),
}


@pytest.fixture(scope="module")
def texts():
    """(prompts, the target's own greedy texts): prompts that repeat themselves, of 1 to 40 tokens."""
    rng = np.random.default_rng(0)
    phrase = rng.integers(0, VOCAB, 7).tolist()
    prompts = [[4], phrase * 3, rng.integers(0, VOCAB, 40).tolist(), phrase + [9] + phrase[2:] + [11] + phrase[1:5]]
    prompts += [rng.integers(0, 4, 38).tolist(), rng.integers(0, 2, 30).tolist()]
    prompt = padded(prompts)
    return prompt, rows_of(decode(small_target(), NoDraft(), prompt))


def padded(rows):
    tokens_BS = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row_S, row in zip(tokens_BS, rows, strict=True):
        row_S[: len(row)] = row
    return Context(tokens_BS, np.array([len(row) for row in rows], np.int32))


def rows_of(made):
    return [row[:length].tolist() for row, length in zip(made.tokens_BS, made.lengths_B, strict=True)]


def scribbles():
    """Texts of few tokens, in which most n-grams stand several times, and the lengths of their prompts."""
    rng = np.random.default_rng(1)
    return [(rng.integers(0, 2 + n % 4, 6 + n).tolist(), 1 + n // 2) for n in range(60)]


def decode(target, drafter, prompt):
    knobs = {"max_new_tokens": NEW, "sampling": Sampling(0.0), "eos_id": -1}
    return jax.device_get(generate(target, drafter, prompt, jax.random.key(0), **knobs))


def guessed(drafter, rows, prompt_lengths, *, batch=32):
    """The set of guessed paths after each of the rows, of which every batch is filled up with the last."""
    if len(rows) > batch:
        first = guessed(drafter, rows[:batch], prompt_lengths[:batch])
        return first + guessed(drafter, rows[batch:], prompt_lengths[batch:])
    missing = batch - len(rows)
    return _guessed(drafter, [*rows, *rows[-1:] * missing], [*prompt_lengths, *prompt_lengths[-1:] * missing])[
        : len(rows)
    ]


@jax.jit
def propose(drafter, prompt, context):
    return drafter.propose(jax.random.key(0), drafter.init(prompt, prompt.tokens_BS.shape[1]), context)[0]


def _guessed(drafter, rows, prompt_lengths):
    tokens_BS = np.zeros((len(rows), 40 + NEW + drafter.num_nodes + 1), np.int32)
    for row_S, row in zip(tokens_BS, rows, strict=True):
        row_S[: len(row)] = row
    prompt = Context(jnp.asarray(tokens_BS), jnp.asarray(prompt_lengths, jnp.int32), sampling=Sampling(0.0))
    context = Context(prompt.tokens_BS, jnp.asarray([len(row) for row in rows], jnp.int32), sampling=Sampling(0.0))
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


# Of each system one setting; of `suffix` the one with everything.
SLOW = {name for name in SYSTEMS if ", " in name or name == "suffix"} - {"suffix, both"}


@pytest.mark.parametrize("name", [slow(name) if name in SLOW else name for name in SYSTEMS])
def test_guesses_and_rounds_are_those_of_a_plain_reading(texts, name):
    drafter, read, slips = SYSTEMS[name]()
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
    check_rounds(small_target(), drafter, read, prompt, plain)


def check_rounds(target, drafter, read, prompt, plain):
    """The drafter's decoding gives the plain texts, in the rounds and with the guesses of the reading; how many."""
    made = decode(target, drafter, prompt)
    assert rows_of(made) == plain
    for row, length in enumerate(prompt.lengths_B.tolist()):
        walked = readings.walk(lambda text, length=length: read(text, length), plain[row], length)
        assert walked == (made.rounds_B[row], made.accepted_BN[row].sum())
    return made.accepted_BN.sum()


STORIES = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside. One day, Lily",
    'Tom had a red ball. Tom and Sue played with the red ball. Sue said, "I like the red',
    "The dog ran. The cat ran. The dog and the cat ran to the big tree. The",
)


COPYING = ("prompt_lookup", "llma", "anpd", "n_grammys", "rest", "suffix", "sam")


@pytest.mark.parametrize("name", some(COPYING, "anpd", "suffix"))
def test_rounds_with_a_trained_model_are_those_of_a_plain_reading(shared_weights, name):
    directory = shared_weights("stories260K-hf")
    target, tokenizer = models.load(directory), data.load_tokenizer(directory)
    prompt = padded([data.prompt_ids(text, tokenizer) for text in STORIES])
    plain = rows_of(decode(target, NoDraft(), prompt))
    if name == "n_grammys":
        drafter, read = n_grammys(target, (1,), rows=10, length=10, ngram=1)
    elif name == "rest":
        corpus = [row[:30] + plain[0][-12:] + row[20:] for row in plain]
        knobs = {"longest": 16, "shortest": 2, "matches": 100, "length": 10, "choices": 64}
        drafter, read = DatastoreTree(store(corpus), **knobs), reading("rest", corpus=corpus, **knobs)
    else:
        drafter, read, _ = SYSTEMS[name]()
    assert check_rounds(target, drafter, read, prompt, plain) > 0
