"""A turn that goes on from the caches gives what reading the whole conversation gives, and reads only what is new."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import (
    ChainDrafter,
    Context,
    Dialogue,
    Fallback,
    GrowthDrafter,
    NoDraft,
    Sampling,
    TreeDrafter,
    dialogue,
    engine,
    generate,
    pytree,
    rejection_sample,
)
from adaspec_jax.decoding.prefill import Kept
from adaspec_jax.devices import sharding
from tests.decoding.test_engine import GREEDY, KEY, Head, pair  # noqa: F401
from tests.decoding.test_programs import count
from tests.running import slow, some

VOCAB, EOS = 61, (5, 17, 29, 41, 53)
LONGEST = 128  # tokens of a prompt here: read whole they share a program
HF = {"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3}
HF |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}


@pytest.fixture(scope="module")
def real():
    return tuple(models.build(HF, jax.random.key(seed)) for seed in (0, 1))


def padded(rows, width=None):
    """Rows of any lengths as a right-padded prompt."""
    tokens_BS = np.zeros((len(rows), width or max(map(len, rows))), np.int32)
    for tokens_S, row in zip(tokens_BS, rows, strict=True):
        tokens_S[: len(row)] = row
    return Context(tokens_BS, np.array([len(row) for row in rows], np.int32))


def texts(made):
    return [tokens[:length].tolist() for tokens, length in zip(made.tokens_BS, made.lengths_B, strict=True)]


def new_tokens(rows, held):
    """How many tokens of each row are to be read, after a turn that left `held`: the last of those was never read."""

    def new(row, old):
        most = min(len(row), len(old)) - 1
        return len(row) - next((i for i in range(most) if row[i] != old[i]), most)

    return [new(row, old) for row, old in zip(rows, held, strict=True)]


def assert_same(ours, whole):
    """Equal field by field; past the narrower one's columns the other's tokens are padding."""
    width = min(ours.tokens_BS.shape[1], whole.tokens_BS.shape[1])
    for field in dataclasses.fields(ours):
        both = [np.asarray(getattr(made, field.name)) for made in (ours, whole)]
        if field.name.endswith("_BS"):
            both = [array[:, :width] for array in both]
        np.testing.assert_array_equal(*both, err_msg=field.name)


def four_turns(rng, made):
    """The next turn's prompts, of (how many there were, what the last one made), or the first turn's.

    One goes on, one's middle a template rewrites, one begins anew in the third turn, one grows by more than a bucket.
    """
    tokens = lambda number: rng.integers(6, VOCAB, number).tolist()  # noqa: E731
    if made is None:
        return [tokens(number) for number in (5, 30, 12, 1)]
    turn, (plain, rewritten, anew, growing) = made[0], texts(made[1])
    return [
        plain + tokens(3),
        rewritten[:25] + rewritten[28:] + tokens(4),
        tokens(6) if turn == 2 else anew + tokens(1),
        growing + tokens(40 if turn == 1 else 2),
    ]


def talk_and_compare(target, drafter, sampling):
    """Four turns of a dialogue against `generate`; the dialogue, and whether rows ended by an end of text or not."""
    knobs = {"max_new_tokens": 13, "eos_id": EOS, "sampling": sampling}
    talk, rng, made, ended = Dialogue(target, drafter, **knobs), np.random.default_rng(0), None, set()
    for turn in range(4):
        rows, key = four_turns(rng, made), jax.random.fold_in(KEY, turn)
        ours = jax.device_get(talk.turn(padded(rows), key))
        assert ours.tokens_BS.shape == (4, max(map(len, rows)) + 13)
        assert_same(ours, generate(target, drafter, padded(rows, LONGEST), key, **knobs))
        read = [len(row) for row in rows] if made is None else new_tokens(rows, texts(made[1]))
        assert np.asarray(talk.read_B).tolist() == read
        ended |= {text[-1] in EOS for text in texts(ours)}
        made = turn + 1, ours
    return talk, ended


@pytree()
class Tiring:
    """One guess less in every round of a turn."""

    def init(self, prompt):
        return jnp.zeros_like(prompt.lengths_B)

    def begin(self, state, context):
        return jnp.maximum(4 - state, 1), state + 1

    def go_on(self, state, n, probs_BV, hidden_BD):
        return jnp.ones(probs_BV.shape[:1], bool), state


class Unextended:
    """A chain whose state cannot go on."""

    def __init__(self, model):
        self.chain = ChainDrafter(model, length=2)
        self.num_nodes, self.init, self.propose = 2, self.chain.init, self.chain.propose


DRAFTERS = {
    "plain": lambda draft: NoDraft(),
    "chain": lambda draft: ChainDrafter(draft, length=3),
    "stopped": lambda draft: ChainDrafter(draft, 4, Tiring(), (1,)),
    "tree": lambda draft: TreeDrafter(draft, (2, 1, 1)),
    "grown": lambda draft: GrowthDrafter(draft, budget=3, beams=1, branch=1, depth=3, fallback=Fallback()),
    "unextended": Unextended,
}


@pytest.mark.parametrize("kind", some(DRAFTERS, "plain", "chain", "stopped"))
def test_every_turn_equals_reading_the_whole_conversation(real, kind):
    target, draft = real
    talk, ended = talk_and_compare(target, DRAFTERS[kind](draft), GREEDY)
    assert ended == {True, False}  # rows end by an end of text, and where the budget cuts them
    assert talk._held.target_cache.slots > 96  # the first turn's 64 + 32 tokens were outgrown


@pytest.mark.parametrize("kind", [slow("plain"), "chain", slow("unextended"), slow("tree")])
def test_a_streamed_turn_is_the_same_and_one_that_was_broken_off_is_gone_on_from(real, kind):
    target, draft = real
    drafter, knobs = DRAFTERS[kind](draft), {"max_new_tokens": 13, "eos_id": -1, "sampling": GREEDY}
    talk, rng = Dialogue(target, drafter, **knobs), np.random.default_rng(0)
    rows = [rng.integers(6, VOCAB, 20).tolist()]
    for rounds in (None, 2, None):
        whole = generate(target, drafter, padded(rows, LONGEST), KEY, **knobs)
        made = list(itertools.islice(talk.stream(padded(rows), KEY), rounds))
        said = texts(made[-1])[0]
        if rounds is None:
            assert_same(made[-1], whole)
            assert len(made) == int(whole.rounds_B[0])
        else:
            assert len(rows[0]) < len(said) < len(texts(whole)[0]) and texts(whole)[0][: len(said)] == said
        assert [len(texts(each)[0]) for each in made] == sorted({len(texts(each)[0]) for each in made})
        rows = [said + rng.integers(6, VOCAB, 3).tolist()]
    list(talk.stream(padded(rows), KEY))
    assert np.asarray(talk.read_B).tolist() == [4]


@pytest.mark.parametrize("kind", [slow("plain"), "chain"])
def test_a_sampled_turn_draws_the_tokens_of_reading_the_whole(real, kind):
    target, draft = real
    talk_and_compare(target, DRAFTERS[kind](draft), Sampling(temperature=1.0))


@pytest.mark.parametrize("kind", [slow("chain"), "tree", slow("grown")])
def test_a_good_draft_goes_on_from_its_own_cache(real, kind):
    """Where all is accepted to a turn's end, what the drafter never read or has elsewhere would show in the counts."""
    target, _ = real
    talk = Dialogue(target, DRAFTERS[kind](target), max_new_tokens=12, sampling=GREEDY)
    made, rng = None, np.random.default_rng(1)
    for turn in range(3):
        made = jax.device_get(talk.turn(padded(four_turns(rng, made and (turn, made))), KEY))
        assert made.accepted_BN.sum() == made.judged_BN.sum() == 4 * 9  # three rounds, each of them three and a bonus


def edited(rng, row, vocab, longest):
    """A row as a server might send it next: longer, cut, changed anywhere, the same, or another one."""
    tokens = lambda number: rng.integers(0, vocab, number).tolist()  # noqa: E731
    at = int(rng.integers(0, len(row)))
    edits = [row + tokens(4), row[: at + 1], row[:at] + tokens(1) + row[at:], row, tokens(5), row[:at] + row[at + 2 :]]
    return (edits[rng.integers(len(edits))] or tokens(1))[:longest]


@pytest.mark.parametrize("seed", range(3))
def test_any_edits_give_what_reading_the_whole_gives(pair, seed):  # noqa: F811
    target, draft = pair
    rng, drafter = np.random.default_rng(seed), [NoDraft(), ChainDrafter(draft, 3), TreeDrafter(draft, (2, 2))][seed]
    knobs = {"max_new_tokens": 9, "sampling": GREEDY, "eos_id": 7}
    talk, rows, held = Dialogue(target, drafter, **knobs), [rng.integers(0, 11, n).tolist() for n in range(1, 9)], None
    for turn in range(15):
        prompt = padded(rows, 32)
        ours = jax.device_get(talk.turn(prompt, KEY))
        assert_same(ours, jax.device_get(generate(target, drafter, prompt, KEY, **knobs)))
        if turn:
            assert np.asarray(talk.read_B).tolist() == new_tokens(rows, held)
        held = texts(ours)
        rows = [edited(rng, row, 11, 32) for row in held]


def in_one_place(real, mesh):
    """Four turns of eight rows on a mesh, and how many programs the last two needed."""
    rng, rows, made = np.random.default_rng(0), [np.arange(6, 7 + n).tolist() for n in range(8)], []
    target, draft = (sharding.shard(model, mesh) for model in real)
    with sharding.over(mesh):
        talk = Dialogue(target, ChainDrafter(draft, length=2), max_new_tokens=3, sampling=GREEDY)
        for turn in range(4):
            if turn == 2:
                before = dialogue._decode_turn._cache_size()
            prompt = padded(rows)
            place = sharding.shard_rows((prompt.tokens_BS, prompt.lengths_B), mesh)
            made.append(jax.device_get((talk.turn(Context(*place), KEY), talk.read_B)))
            rows = [text + rng.integers(6, VOCAB, 1 + turn).tolist() for text in texts(made[-1][0])]
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(talk._held)} == {mesh.size}
    return made, dialogue._decode_turn._cache_size() - before


def test_eight_devices_make_what_one_makes_and_keep_their_rows(real):
    one, _ = in_one_place(real, sharding.make_mesh(1))
    many, compiled = in_one_place(real, sharding.make_mesh(4, 1, 2))
    assert compiled == 0
    for (ours, ours_read), (theirs, their_read) in zip(one, many, strict=True):
        assert_same(ours, theirs)
        np.testing.assert_array_equal(ours_read, their_read)


def test_nothing_is_compiled_again_after_warm_up(pair):  # noqa: F811
    target, draft = pair
    rng = np.random.default_rng(0)

    def conversation():
        talk, rows = Dialogue(target, ChainDrafter(draft, 3), max_new_tokens=5, sampling=GREEDY), [[1, 2], [3]]
        for turn in range(6):
            made = jax.device_get(talk.turn(padded(rows), KEY))
            rows = [text + rng.integers(0, 11, 1 + 3 * turn % 7).tolist() for text in texts(made)]
        return dialogue._decode_turn._cache_size()

    before, after = dialogue._decode_turn._cache_size(), conversation()
    assert after - before <= 3  # the first turn's, and one for each number of slots, 96 and 128
    assert conversation() == after


def test_a_turn_takes_over_the_cache_of_the_turn_before(real):
    target, draft = real
    talk = Dialogue(target, ChainDrafter(draft, 3), max_new_tokens=4, sampling=GREEDY)
    talk.turn(padded([[7, 8, 9], [10]]), KEY)
    given = talk._held.target_cache, talk._held.draft_state
    talk.turn(padded([[7, 8, 9, 3], [10, 11]]), KEY)
    buffers = [leaf for leaf in jax.tree.leaves(given) if leaf.ndim > 1]
    assert len(buffers) == 8 and all(leaf.is_deleted() for leaf in buffers)


def test_a_first_turn_is_the_program_of_generate(real):
    """So a prompt attends to itself alone where the cache is known to be empty; a later turn is another program."""
    target, draft = real
    arguments, slots = engine.program_arguments(target, ChainDrafter(draft, 3), padded([[7] * 20]), KEY, 8, EOS)
    static = {"slots": slots, "sampling": GREEDY, "accept": rejection_sample}
    first = dialogue._decode_turn.lower(*arguments, None, **static)
    assert count(first) == count(engine._decode.lower(*arguments, **static))
    state = dialogue._start(*arguments, **static)
    later = dialogue._decode_turn.lower(*arguments, Kept(jnp.array([3]), *state, width=32), **static).compile()
    cache = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.ndim > 1)
    assert later.memory_analysis().alias_size_in_bytes >= cache


@jax.tree_util.register_static
class GoingOn(Head):
    """The head, which has nothing to go on from but the target's hidden states."""

    def extend(self, state, prompt, kept_B, width):
        assert prompt.hidden[0].shape[1] == width < prompt.tokens_BS.shape[1]
        return ()


@pytest.mark.parametrize("kind", [Head, GoingOn])
def test_hidden_states_come_of_what_is_read(pair, kind):  # noqa: F811
    """The head guesses right every time, if it is given the hidden state before the last token."""
    target, _ = pair
    talk = Dialogue(target, kind(target.table_VV), max_new_tokens=9, sampling=GREEDY)
    rows = [[1, 2, 3], [4, 5, 6, 7]]
    for turn in range(3):
        made = jax.device_get(talk.turn(padded(rows), KEY))
        whole = generate(target, NoDraft(), padded(rows), KEY, max_new_tokens=9, sampling=GREEDY)
        np.testing.assert_array_equal(made.tokens_BS, whole.tokens_BS)
        assert made.accepted_BN.sum() == made.judged_BN.sum() > 0
        anew = turn == 0 or kind is Head  # without `extend` everything is read again
        assert np.asarray(talk.read_B).tolist() == ([len(row) for row in rows] if anew else [2, 2])
        rows = [text + [8] * b for b, text in enumerate(texts(made))]  # the first row is sent as it is


def test_what_cannot_go_on_is_refused_and_changes_nothing(pair):  # noqa: F811
    target, _ = pair
    talk = Dialogue(target, NoDraft(), max_new_tokens=4, sampling=GREEDY)
    assert talk.read_B is None
    made = jax.device_get(talk.turn(padded([[1, 2, 3], [4]]), KEY))
    with pytest.raises(ValueError, match="a dialogue of 2 rows cannot go on with 3"):
        talk.turn(padded([[1], [2], [3]]), KEY)
    with pytest.raises(ValueError, match="between 1 and 3"):
        talk.turn(padded([[1, 2, 3], []]), KEY)
    talk.turn(padded([text + [9] for text in texts(made)]), KEY)
    assert np.asarray(talk.read_B).tolist() == [2, 2]
    with pytest.raises(ValueError, match="max_new_tokens"):
        Dialogue(target, NoDraft(), max_new_tokens=0, sampling=GREEDY).turn(padded([[1]]), KEY)


def test_a_turn_that_fails_leaves_a_dialogue_that_reads_anew(pair, monkeypatch):  # noqa: F811
    target, knobs = pair[0], {"max_new_tokens": 4, "sampling": GREEDY}
    talk = Dialogue(target, NoDraft(), **knobs)
    rows = [texts(jax.device_get(talk.turn(padded([[1, 2, 3]]), KEY)))[0] + [9]]
    with monkeypatch.context() as broken:
        broken.setattr(dialogue, "_decode_turn", None)
        with pytest.raises(TypeError):
            talk.turn(padded(rows), KEY)
    assert_same(talk.turn(padded(rows), KEY), generate(target, NoDraft(), padded(rows), KEY, **knobs))
    assert np.asarray(talk.read_B).tolist() == [len(rows[0])]
