"""Trees that grow, against readings in plain Python: a heap, a dictionary of paths, a list of levels."""

import dataclasses
import heapq
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.decoding import Context, Fallback, GrowthDrafter, Sampling, engine, rejection_sample
from adaspec_jax.decoding.drafters.models.growth import grow
from tests.decoding.bag_model import BagModel
from tests.decoding.recording import Asked, play, prompts, tiny_llama
from tests.decoding.test_programs import locked
from tests.running import slow

NEW = 20


TARGET = BagModel.random(0, vocab=11, scale=2.0)
DRAFT = BagModel(TARGET.table_VV + BagModel.random(1, vocab=11, scale=0.5).table_VV)


def logprobs(logits):
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())


def tree_of(after, *, budget, beams, branch, depth, decay, share=0.0, least=0.0, slip=None):
    """The best paths, best first, and the steps taken; `after(path)` are the log-probabilities there."""
    found, heap, steps = {}, [], 0  # found: {path: (-score, its number)}

    def open_below(path, score):
        said = after(path)
        for token in np.argsort(-said, kind="stable")[:branch].tolist():
            if share and slip != "second children" and said[token] < said.max() + math.log(share):
                break
            found[*path, token] = -(score + said[token] + (0 if slip == "decay" else math.log(decay))), len(found)
            heapq.heappush(heap, (*found[*path, token], (*path, token)))

    open_below((), 0.0)
    kept = sorted(found, key=found.get)[:budget]
    while steps < depth - 1:
        reading = []
        while heap and len(reading) < beams and heap[0][2] in kept and heap[0][0] <= -math.log(max(least, 1e-30)):
            reading.append(heapq.heappop(heap))
        if not reading:
            break
        steps += 1
        for minus, _, path in reading:
            open_below(path, -minus)
        before, kept = kept, sorted(found, key=found.get)[:budget]
        if kept == before:
            break
        if slip == "newest":
            heap = [entry for entry in heap if entry[2][:-1] in [path for *_, path in reading]]
    return kept, {path: -found[path][0] for path in kept}, steps


def saying(draft, text):
    return lambda path: logprobs(draft.logits([*text, *path]))


def read(say, draft, prompt, end, search, *, fallback=None, slip=None):
    """[(committed, paths)] of decoding greedily by such trees; `fallback`: (start, least, most)."""
    text, rounds, alpha, taught = list(prompt), [], fallback and fallback[0], None
    while len(text) < end:
        if taught is not None:
            depth, score, accepted = taught
            right = min(accepted, depth)
            alpha = alpha / 2 if right == depth else alpha / math.exp(score) ** ((depth - right) / depth)
            alpha = min(max(alpha, fallback[1]), fallback[2])
        least = {} if fallback is None or slip == "no fallback" else {"least": alpha}
        paths, scores, _ = tree_of(saying(draft, text), **search, **least, slip=slip)
        rounds.append((len(text), paths))
        agreed = ()
        while (*agreed, say.choice([*text, *agreed])) in paths:
            agreed += (say.choice([*text, *agreed]),)
        text += [*agreed, say.choice([*text, *agreed])]
        if fallback is not None:
            longest = max(map(len, paths))
            taught = longest, max(scores[path] for path in paths if len(path) == longest), len(agreed)
    return tuple(text[:end]), rounds


def compare(target, draft, search, *, fallback=None, widths=(), vocab=11, slips=()):
    prompt, say, asked = prompts(2, vocab=vocab), Asked(target), Asked(draft)
    drafter = GrowthDrafter(draft, **search, widths=widths, fallback=None if fallback is None else Fallback(*fallback))
    made = play(target, drafter, prompt, max_new_tokens=NEW)
    starts = [prompt.tokens_BS[row, :n].tolist() for row, n in enumerate(prompt.lengths_B)]

    def readings(**slip):
        return [read(say, asked, start, len(start) + NEW, search, fallback=fallback, **slip) for start in starts]

    assert [(played.text, played.rounds) for played in made] == readings()
    for slip in slips:
        assert [played.rounds for played in made] != [rounds for _, rounds in readings(slip=slip)], slip
    return made


def sizes(made):
    return [len(paths) for played in made for _, paths in played.rounds]


SPECEXEC = {"budget": 12, "beams": 3, "branch": 4, "depth": 6, "decay": 0.95}
EDGELLM = {"budget": 8, "beams": 1, "branch": 2, "depth": 7, "decay": 1.0, "share": 0.3}


def test_every_tree_is_specexecs_and_the_drafts_cache_is_the_texts():
    """Node for node, and key for key up to the text's end in the last round, wherever on a tree it was first read."""
    target = tiny_llama(num_hidden_layers=2)
    noise = tiny_llama(1, num_hidden_layers=2).params
    draft = dataclasses.replace(target, params=jax.tree.map(lambda a, b: a + 0.04 * b, target.params, noise))
    made = compare(target, draft, SPECEXEC, vocab=23, slips=("decay", "newest"))
    assert any(len(played.rounds) < NEW / 2 for played in made)
    assert max(len(path) for played in made for _, paths in played.rounds for path in paths) > 3
    for row, played in enumerate(made):
        last = played.rounds[-1][0]
        fresh = draft.features(np.array([played.text[:last]]), draft.init_cache(1, last))[1]
        ours = played.state.keys + played.state.values
        for here, there in zip(ours, fresh.keys + fresh.values, strict=True):
            np.testing.assert_allclose(here[row, :, :last], there[0], atol=1e-4)


@pytest.mark.parametrize(
    "search",
    [
        slow(SPECEXEC),
        slow({"budget": 40, "beams": 32, "branch": 16, "depth": 4, "decay": 0.95}),
        {"budget": 1, "beams": 4, "branch": 4, "depth": 4, "decay": 0.95},
        {"budget": 9, "beams": 4, "branch": 40, "depth": 1, "decay": 0.95},
    ],
    ids=["some", "more beams than nodes", "one node", "one level"],
)
def test_trees_of_any_numbers(search):
    compare(TARGET, DRAFT, search)


def test_a_vocabulary_that_fills_no_budget():
    search = {"budget": 60, "beams": 30, "branch": 8, "depth": 3, "decay": 0.9}
    target, draft = BagModel.random(0, vocab=3), BagModel.random(1, vocab=3)
    made = compare(target, draft, search, widths=(20, 40), vocab=3)
    assert set(sizes(made)) == {3 + 9 + 27}


def test_a_path_goes_on_until_it_is_less_likely_than_the_threshold():
    """EdgeLLM, as it is read here: where the text goes well the threshold falls, and trees become deeper."""
    slips = ("no fallback", "second children")
    made = compare(TARGET, DRAFT, EDGELLM, fallback=(0.3, 1e-4, 0.9), widths=(2, 4), slips=slips)
    assert min(sizes(made)) < 3 and max(sizes(made)) == 8


def test_a_threshold_follows_what_was_accepted():
    fallback, zeros_B = Fallback(0.2), jnp.zeros(4, jnp.int32)
    state = fallback.init(Context(None, zeros_B + 1))
    first_B = fallback.begin(state, Context(None, zeros_B, accepted_B=zeros_B, judged_B=zeros_B))
    np.testing.assert_allclose(first_B, 0.2)
    state = fallback.end(first_B, zeros_B + 4, jnp.log(jnp.full(4, 0.16)))
    after = Context(None, zeros_B, accepted_B=jnp.array([4, 2, 0, 5]), judged_B=jnp.array([4, 3, 1, 5]))
    # All four right; two of them; none, which would make it 1.25; more than the likeliest path has.
    np.testing.assert_allclose(fallback.begin(state, after), [0.1, 0.2 / 0.16**0.5, 0.9, 0.1], rtol=1e-6)
    state = fallback.end(jnp.full(4, 1.5e-4), zeros_B + 4, jnp.zeros(4))
    np.testing.assert_allclose(fallback.begin(state, after)[0], 1e-4)


class Hidden:
    """What follows a node, by a hidden state made of the parent's and of the token: no model of tokens alone."""

    def __init__(self, vocab=7, width=5, seed=0):
        rng = np.random.default_rng(seed)
        self.into_VD, self.out_DV = rng.normal(size=(vocab, width)), rng.normal(size=(width, vocab)) * 2
        self.root_BD = rng.normal(size=(3, width))

    def expand(self, state, beams):
        hidden_BRD, calls_B = state
        above_BWD = jnp.take_along_axis(hidden_BRD, jnp.maximum(beams.parents_BW, 0)[..., None], axis=1)
        above_BWD = jnp.where(beams.parents_BW[..., None] < 0, jnp.asarray(self.root_BD)[:, None], above_BWD)
        hidden_BWD = jnp.tanh(above_BWD + jnp.asarray(self.into_VD)[beams.tokens_BW])
        hidden_BRD = jax.lax.dynamic_update_slice_in_dim(hidden_BRD, hidden_BWD, beams.first, axis=1)
        return jax.nn.log_softmax(hidden_BWD @ jnp.asarray(self.out_DV)), (hidden_BRD, calls_B + 1)

    def after(self, row):
        def said(path):
            hidden = self.root_BD[row]
            for token in path:
                hidden = np.tanh(hidden + self.into_VD[token])
            return logprobs(hidden @ self.out_DV)

        return said

    def grown(self, **search):
        """(paths in order, row by row; the steps)."""
        places = (search["depth"] - 1) * min(search["beams"], search["budget"])
        state = jnp.zeros((3, places, self.root_BD.shape[1])), jnp.zeros(3, jnp.int32)
        first_BV = jax.nn.log_softmax(jnp.asarray(self.root_BD @ self.out_DV, jnp.float32))
        grown, (_, calls_B) = jax.device_get(jax.jit(lambda: grow(self.expand, state, first_BV, **search))())
        rows = []
        for tokens, parents, valid, depths in zip(*grown[:4], strict=True):
            paths = []
            for token, parent in zip(tokens[valid].tolist(), parents[valid].tolist(), strict=True):
                paths.append((*(paths[parent] if parent >= 0 else ()), token))
            assert list(map(len, paths)) == depths[valid].tolist()
            assert valid[: len(paths)].all()
            rows.append(paths)
        return rows, int(calls_B[0])


def levels_of(after, *, budget, k, depth):
    """EAGLE-2's tree: the k best of a level's k * k go on, and the best of all stay."""
    found, frontier = {}, {(): 0.0}
    for _ in range(depth):
        level = {}
        for path, score in frontier.items():
            said = after(path)
            level |= {(*path, token): score + said[token] for token in np.argsort(-said)[:k].tolist()}
        found |= level
        frontier = dict(sorted(level.items(), key=lambda entry: -entry[1])[:k])
    return sorted(found, key=lambda path: -found[path])[:budget]


def test_any_expansion_grows_and_the_loop_ends_where_nothing_comes_in():
    hidden = Hidden()
    search = {"budget": 10, "beams": 3, "branch": 4, "depth": 40, "decay": 0.8}
    rows, steps = hidden.grown(**search)
    expected = [tree_of(hidden.after(row), **search) for row in range(3)]
    assert rows == [paths for paths, _, _ in expected]
    assert steps == max(taken for *_, taken in expected) < 12


@pytest.mark.parametrize("budget", [slow(6), 14, slow(40)])
def test_by_level_the_tree_is_eagle_2s(budget):
    hidden, search = Hidden(seed=1), {"budget": budget, "beams": 3, "branch": 3, "depth": 5}
    rows, _ = hidden.grown(**search, by_level=True)
    assert rows == [levels_of(hidden.after(row), budget=budget, k=3, depth=5) for row in range(3)]
    assert rows != hidden.grown(**search)[0] or budget < 14


@pytest.mark.skipif(not (locked("jax") and locked("flax")), reason="programs are looked at with the lock's versions")
def test_a_round_copies_no_cache():
    """The draft's goes through a loop in a loop."""
    target, draft = (tiny_llama(seed, num_hidden_layers=1) for seed in (0, 1))
    drafter, prompt = GrowthDrafter(draft, budget=4, beams=2, branch=2, depth=3), prompts(1)
    arguments, slots = engine.program_arguments(target, drafter, prompt, jax.random.key(0), 900, -1)
    static = {"slots": slots, "sampling": Sampling(0.0), "accept": rejection_sample}
    text = engine._decode.lower(*arguments, **static).compile().as_text()
    rounds = text[: text.index("\nENTRY")]  # beside the entry, where the prompt is read: bodies of loops
    assert f"f32[1,2,{slots + 4},16]" in rounds
    moved = re.findall(r"f32\[([\d,]+)\]\S* (?:copy|transpose)\(", rounds)
    assert max(math.prod(map(int, shape.split(","))) for shape in moved) < 2 * slots * 16


def test_impossible_numbers_are_refused():
    for knobs, says in (
        ({"budget": 0}, "budget is 0; it must be at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"decay": 0.0}, "decay is above 0"),
        ({"share": 1.5}, "share at least 0"),
    ):
        with pytest.raises(ValueError, match=says):
            GrowthDrafter(DRAFT, **knobs)
