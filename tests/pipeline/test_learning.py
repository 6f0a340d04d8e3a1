"""A draft that learns between requests: what it learns is the offline step's, what it writes is the target's text."""

import contextlib
import dataclasses
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, engine, generate
from adaspec_jax.decoding.types import TARGET
from adaspec_jax.errors import UserError
from adaspec_jax.methods.heads import chain_of
from adaspec_jax.models import heads
from adaspec_jax.pipeline import learned, learning
from adaspec_jax.pipeline.answered import batch_of
from adaspec_jax.pipeline.learning import Learning, Pace
from adaspec_jax.training import Batch, Frozen, adamw, init_state, make_step
from adaspec_jax.training.objectives import distill_head, selective_distill
from adaspec_jax.training.selection import rejected
from tests import tiny_pair
from tests.running import CHECKOUT

TOKENS, WIDTH, NEW, GUESSES = 40, 6, 20, 3
SIZES = {"vocab_size": TOKENS, "max_position_embeddings": 64}
FAST = Pace(every=4, rate=0.02)


def a_target():
    return models.build(tiny_pair.LLAMA | SIZES | {"num_hidden_layers": 2}, jax.random.key(0))


def a_draft():
    return models.build(tiny_pair.GPT_NEOX | SIZES, jax.random.key(1))


@pytest.fixture(scope="module")
def target():
    return a_target()


@pytest.fixture(scope="module")
def draft():
    return a_draft()


@pytest.fixture(scope="module")
def near(target):
    """A draft that often agrees with its target."""
    leaves, structure = jax.tree.flatten(target.params)
    noise = [0.1 * jax.random.normal(jax.random.key(n), leaf.shape) for n, leaf in enumerate(leaves)]
    moved = [leaf + by for leaf, by in zip(leaves, noise, strict=True)]
    return dataclasses.replace(target, params=jax.tree.unflatten(structure, moved))


@pytest.fixture(scope="module")
def head(target):
    kind = heads.made_for("eagle", {"noise": 0.0}, heads.Sizes.of(target.config))
    return heads.new(kind, target, jax.random.key(2), np.ones(TOKENS, int))


def prompt_of(number):
    lengths_B = np.array([3 + number % 4])
    return Context(np.random.default_rng(number).integers(1, TOKENS, (1, WIDTH)), lengths_B)


def answered(target, draft, number, temperature=0.0):
    """What decoding of the request of this number made, and where its answer begins."""
    prompt, drafter = prompt_of(number), NoDraft() if draft is None else chain_of(draft, target, GUESSES)
    knobs = {"max_new_tokens": NEW, "sampling": Sampling(temperature)}
    return generate(target, drafter, prompt, jax.random.key(number), **knobs), prompt.lengths_B


def learnt(directory, target, draft, numbers, pace=FAST, **how):
    """The draft after these requests, one session."""
    with Learning(directory, target, draft, pace=pace, say=lambda text: None, **how) as learns:
        for number in numbers:
            learns.add(*answered(target, learns.draft, number))
        return learns


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, target, draft):
    """(directory, the draft after 16 requests in one session, what was made, programs after the first step)."""
    directory, made, programs = tmp_path_factory.mktemp("whole") / "learned", [], []
    with Learning(directory, target, draft, pace=FAST) as learns:
        for number in range(16):
            made.append(answered(target, learns.draft, number))
            changed = learns.add(*made[-1])
            assert changed == (number % 4 == 3) and learns.version == (number + 1) // 4
            sizes = engine._decode, learns._programs.step, learns._programs.compare
            programs.append([each._cache_size() for each in sizes])
    return directory, learns, made, programs[3:]


def test_greedy_text_is_plain_decodings_while_the_draft_changes_and_nothing_is_compiled_again(target, draft, whole):
    _, learns, made, programs = whole
    for number, (generation, _) in enumerate(made):
        plain, _ = answered(target, None, number)
        np.testing.assert_array_equal(generation.tokens_BS, plain.tokens_BS)
    assert len(set(map(tuple, programs))) == 1 and programs[0][1:] == [1, 1]
    calls = [int(generation.rounds_B[0]) for generation, _ in made]
    assert sum(calls[8:]) < sum(calls[:8])  # it does learn: these prompts have much in common
    assert not np.array_equal(learns.draft.params["embed"]["embedding"], draft.params["embed"]["embedding"])


@pytest.mark.slow  # of any draft the law is held in decoding/test_exactness.py
def test_sampled_text_has_the_targets_law_whatever_the_draft_has_learnt(target, near, tmp_path):
    prompt = Context(np.repeat(prompt_of(0).tokens_BS, 1500, 0), np.full(1500, WIDTH))
    counts, cut = np.zeros(TOKENS), Sampling(1.0, top_k=3)
    with Learning(tmp_path / "learned", target, near, pace=FAST, say=lambda text: None) as learns:
        for step in range(3):
            knobs = {"max_new_tokens": 2, "sampling": cut}
            made = generate(target, ChainDrafter(learns.draft, 2), prompt, jax.random.key(step), **knobs)
            counts += np.bincount(made.tokens_BS[:, WIDTH + 1], minlength=TOKENS)
            first = jax.tree.map(lambda array: array[:4], made)
            learns.add(first, np.full(4, WIDTH))
    assert learns.version == 3
    law = np.zeros(TOKENS)
    for token, p in enumerate(_law(target, prompt.tokens_BS[:1], cut)):
        if p:
            law += p * _law(target, np.append(prompt.tokens_BS[:1], [[token]], axis=1), cut)
    possible = law > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], law[possible] / law.sum() * counts.sum()).pvalue > 1e-3


@jax.jit
def _logits(target, tokens_BT):
    return target(tokens_BT)[0]


def _law(target, tokens_1T, sampling):
    logits_V = _logits(target, jnp.asarray(tokens_1T))[0, -1]
    return np.asarray(jax.nn.softmax(sampling.filtered(logits_V[None])[0]), float)


def test_a_step_is_the_offline_step_on_what_greedy_decoding_would_refuse(target, near, tmp_path):
    """Of tokens that were guessed: after a full acceptance the target's own token was not."""
    made, tokens, labels = [answered(target, near, number) for number in range(4)], [], []
    for generation, start in made:
        place = np.arange(generation.tokens_BS.shape[1])
        inside = (place >= start) & (place < int(generation.lengths_B[0]))
        unguessed = (generation.origin_BS[0] == TARGET) & (generation.rejected_BS[0] < 0)
        tokens.append(np.pad(generation.tokens_BS[0], (0, 64 - len(place))))
        labels.append(np.pad(inside & ~unguessed, (0, 64 - len(place))))
    batch = Batch(np.stack(tokens), np.stack(labels))
    state = init_state(near, optimizer := adamw(FAST.rate, weight_decay=0.0), jax.random.key(0))
    offline, metrics = make_step(selective_distill(rule=rejected), optimizer)(state, Frozen(target, near), batch)
    assert 0.1 < float(metrics["share_kept"]) < 0.9
    online = learnt(tmp_path / "learned", target, near, range(4))
    for one, other in zip(jax.tree.leaves(online.draft.params), jax.tree.leaves(offline.model.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    moved = np.abs(online.draft.params["embed"]["embedding"] - near.params["embed"]["embedding"])
    assert moved.max() > 0.01


def test_a_head_learns_by_its_own_objective_and_is_a_head_on_disk(target, head, tmp_path):
    directory = tmp_path / "learned"
    online = learnt(directory, target, head, range(4), fingerprint="ab" * 32)
    requests = [learning.Request.of(1, *_host(answered(target, head, number)), 64) for number in range(4)]
    batch, _ = batch_of(requests, "refused")
    state = init_state(head, optimizer := adamw(FAST.rate, weight_decay=0.0), jax.random.key(0))
    offline, _ = make_step(distill_head(), optimizer)(state, Frozen(target), batch)
    for one, other in zip(jax.tree.leaves(online.draft.params), jax.tree.leaves(offline.model.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert_equal(models.load_head(directory, target).params, online.draft.params)
    assert models.trained_on(directory) == "ab" * 32
    text, plain = (answered(target, guesses, 9)[0].tokens_BS for guesses in (online.draft, None))
    np.testing.assert_array_equal(text, plain)
    assert_equal(learnt(directory, target, head, []).draft.params, online.draft.params)


def _host(made):
    generation, start = jax.device_get(made)
    return generation, 0, int(start[0])


KILLS = {
    None: None,
    "while a version is written": (learned, "_write_version"),
    "before it is the draft": (learned.Learned, "_settle"),
    "before requests are forgotten": (learned.Learned, "forget_requests"),
    "before an old one goes": (learned.Learned, "_take_away"),
}


@pytest.mark.parametrize("kill", KILLS)
def test_sessions_and_kills_leave_the_bits_of_one_session(whole, target, draft, tmp_path, monkeypatch, kill):
    directory, uninterrupted, *_ = whole
    place = tmp_path / "learned"
    for until in (3, 8, 15, 16):
        with Learning(place, target, draft, pace=FAST, say=lambda text: None) as learns:
            assert models.load(place).num_params == draft.num_params
            for number in range(learns.requests, until):
                with monkeypatch.context() as patched:
                    if KILLS[kill] and number in (7, 15):  # with which a version is full
                        patched.setattr(*KILLS[kill], kills)
                    with contextlib.suppress(Killed):
                        learns.add(*answered(target, learns.draft, number))
    with Learning(place, target, draft, pace=FAST, say=lambda text: None) as learns:
        assert_equal(learns.draft.params, uninterrupted.draft.params)
    for name in ("model.safetensors", "versions/000004/optimizer.safetensors", "versions/000004/state.json"):
        assert (place / name).read_bytes() == (directory / name).read_bytes()
    assert_equal(models.load(place).params, uninterrupted.draft.params)


class Killed(BaseException):
    pass


def kills(*_, **__):
    raise Killed


def test_versions_that_are_seldom_written_lose_nothing(whole, target, draft, tmp_path):
    place, seldom = tmp_path / "learned", dataclasses.replace(FAST, save=3)
    for until in (9, 15, 16):  # steps are made again in the second session and in the third
        with Learning(place, target, draft, pace=seldom, say=lambda text: None) as learns:
            for number in range(learns.requests, until):
                learns.add(*answered(target, learns.draft, number))
    assert learns.version == 4 and learned.Learned(place).versions == [0, 3]
    assert_equal(learns.draft.params, whole[1].draft.params)
    again = learnt(place, target, draft, [], seldom)
    assert again.version == 4 and again.requests == 16
    assert_equal(again.draft.params, whole[1].draft.params)
    assert learned.Learned(place).undo("last") == 0
    assert_equal(models.load(place).params, draft.params)


def test_a_draft_that_has_not_learnt_yet_is_the_given_one_to_the_bit(target, draft, tmp_path):
    learns = learnt(tmp_path / "learned", target, draft, range(6), dataclasses.replace(FAST, every=7))
    assert learns.version == 0 and learns.requests == 6
    assert_equal(learns.draft.params, draft.params)


def test_what_is_not_this_pairs_or_damaged_is_said_in_a_line(whole, target, draft, tmp_path):
    place = shutil.copytree(whole[0], tmp_path / "learned")
    with pytest.raises(UserError, match="from another target: weights [0-9a-f]{12} there"):
        learnt(place, draft, draft, [])
    with pytest.raises(UserError, match="that was begun with another: .* leave --draft out"):
        learnt(place, target, models.build(tiny_pair.GPT_NEOX | SIZES, jax.random.key(5)), [])
    newest = models.load(place)
    assert_equal(learnt(place, target, newest, [], own=True).draft.params, newest.params)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not what a draft has learnt: name a new directory"):
        learnt(tmp_path / "other", target, draft, [])
    with Learning(place, target, draft, pace=FAST, say=lambda text: None):
        with pytest.raises(UserError, match="is in use by process .* use another --learn"):
            learnt(place, target, draft, [])
    (place / "versions/000005").mkdir()  # a kill came while it was taken away
    begun = place / f"versions/.000005.{'0' * 32}.tmp"
    begun.mkdir()
    said, weights = [], place / "versions/000004/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with Learning(place, target, draft, pace=FAST, say=said.append) as learns:
        assert learns.version == 3 and "model.safetensors is damaged; the version before it is taken" in said[0]
    assert_equal(models.load(place).params, learns.draft.params)
    assert not begun.exists()


def test_what_was_learnt_is_taken_back(whole, target, draft, tmp_path):
    place = shutil.copytree(whole[0], tmp_path / "learned")
    versions = {
        number: models.load(place / f"versions/{number:06d}").params for number in learned.Learned(place).versions
    }
    assert list(versions) == [0, 2, 3, 4]
    assert learned.Learned(place).undo("last") == 3
    assert_equal(models.load(place).params, versions[3])
    assert learned.Learned(place).undo("last") == 2
    with pytest.raises(UserError, match="the version before 2 is kept no more; --undo given"):
        learned.Learned(place).undo("last")
    assert learned.Learned(place).undo("given") == 0
    assert_equal(models.load(place).params, draft.params)
    with pytest.raises(UserError, match="nothing to undo"):
        learned.Learned(place).undo("given")
    assert learnt(place, target, draft, range(4)).version == 1  # and it learns again


def test_a_draft_that_learning_has_made_worse_is_the_given_one_again(target, tmp_path):
    good, said = dataclasses.replace(target), []  # it agrees with its target everywhere, as long as nothing is learnt
    pace = dataclasses.replace(FAST, every=1, rate=1.0, compared=3, at="answers", weight_decay=0.5)
    with Learning(tmp_path / "learned", target, good, pace=pace, say=said.append) as learns:
        for number in range(4):
            learns.add(*answered(target, learns.draft, number))
            if learns.version == 2:
                assert not np.array_equal(learns.draft.params["embed"]["embedding"], good.params["embed"]["embedding"])
    assert ["taken again" in line for line in said] == [False, False, True, False]
    assert_equal(models.load(tmp_path / "learned" / "versions/000003").params, good.params)


def test_rows_that_a_draft_does_not_guess_among_are_no_lesson(target, draft, tmp_path):
    """A target's rows that no token owns may have mass, which no draft could learn."""
    said, narrow = [], draft.with_vocabulary(TOKENS - 8)
    with Learning(tmp_path / "learned", target, narrow, pace=FAST, say=said.append) as learns:
        for number in range(4):
            learns.add(*answered(target, learns.draft, number))
    assert float(said[0].partition("loss ")[2].split(":")[0]) < 20


SESSION = """
import sys
from adaspec_jax import models
from tests.pipeline import test_learning as these
pair = these.a_target(), these.a_draft()
with these.Learning(sys.argv[1], *pair, pace=these.Pace(every=2, rate=0.003), say=lambda text: None) as learns:
    models.load(sys.argv[1])
    print("begun", flush=True)
    for number in range(learns.requests, 300):
        learns.add(*these.answered(pair[0], learns.draft, number % 50))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_leaves_what_the_next_one_goes_on_from(tmp_path):
    def session(name, seconds=None):
        words = [sys.executable, "-c", SESSION, str(tmp_path / name)]
        with subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begun\n"
            if seconds is not None:
                time.sleep(seconds)
                process.kill()
        return process.returncode

    for seconds in (1.1, 1.4, 1.7):
        assert session("killed", seconds) in (0, -signal.SIGKILL)
    assert session("killed") == session("whole") == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == other and not list((tmp_path / "killed").rglob("*.tmp"))
