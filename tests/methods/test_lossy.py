"""Lossy methods write what a plain reading of them writes, and their rules' knobs are the methods'."""

import dataclasses

import jax
import numpy as np
import pytest

from adaspec_jax.decoding import Confident, Fuzzy, Rollback, Sampling, engine, generate, generate_from_queue
from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, Given, Method
from adaspec_jax.methods.lossy import LOSSY
from tests.decoding.acceptance import lossy_readings as read
from tests.decoding.bag_model import BagModel, next_logits
from tests.decoding.test_engine import GREEDY, KEY, ragged_prompt
from tests.running import some

NAMES = [method.name for method in LOSSY]
OWN_TEXT = {"fsd", "top_beta", "bild"}  # which is not the target's, greedily
LENGTH = 3
# Method by method: what is set, and the reading of a greedy round.
SET = {
    "fsd": ({"threshold": 0.05}, read.fuzzy(0.05, "fsd_js")),
    "top_beta": ({"beta": 2, "tau": 1.0}, read.top_beta(2, 1.0)),
    "bild": ({"limit": 1.5, "fallback": 0.3, "draft_length": LENGTH}, read.rollback(1.5)),
}
FALLBACK = {"bild": 0.3}


@pytest.fixture
def given():
    """Two models that disagree now and then, and do not end in repeating one token."""
    target, noise = BagModel.random(10, vocab=11), BagModel.random(110, vocab=11, scale=0.7)
    return Given(target=target, drafts={"d": BagModel(target.table_VV + noise.table_VV)}, draft_length=LENGTH)


def method_of(name):
    return METHODS[name].set(**SET[name][0]) if name in SET else METHODS[name]


def decode(given, method, prompt, how=generate, **knobs):
    knobs = {"max_new_tokens": 17, "sampling": GREEDY, "eos_id": (-1, -1)} | knobs
    return jax.device_get(how(given.target, method.make(given), prompt, KEY, accept=method.accept, **knobs))


def one_hot(logits):
    return [float(token == np.argmax(logits)) for token in range(len(logits))]


def written(given, reading, prompt, budget, ends=(), fallback=0.0):
    """The greedy text after a prompt, its rounds, and how many guesses were made and kept, in plain Python."""
    after = [lambda text, model=model: next_logits(model, text).tolist() for model in (given.target, given.draft)]
    text, rounds, drafted, kept = list(prompt), 0, 0, 0
    while len(text) - len(prompt) < budget and not (len(text) > len(prompt) and text[-1] in ends):
        room, guesses, opinions = budget - (len(text) - len(prompt)), [], []
        while len(guesses) < min(LENGTH, room) and not (guesses and guesses[-1] in ends):
            opinions.append(after[1]([*text, *guesses]))
            if max(read.softmax(opinions[-1])) < fallback:
                break
            guesses.append(int(np.argmax(opinions[-1])))
        logits = [after[0]([*text, *guesses[:n]]) for n in range(len(guesses) + 1)]
        parents = [*range(-1, len(guesses) - 1)]
        laws = [one_hot(row) for row in logits]
        ((path, following),) = reading(read.Round(guesses, parents, [True] * len(guesses), logits, laws, opinions))
        new = guesses[: len(path)]
        if len(new) < room and not (new and new[-1] in ends):
            new.append(following)
        text, rounds, drafted, kept = text + new, rounds + 1, drafted + len(guesses), kept + len(path)
    return text, rounds, drafted, kept


def rows_that_differ(given, name, made, prompt, reading, budget, ends=()):
    wrong = 0
    for row, length in enumerate(prompt.lengths_B):
        begun = prompt.tokens_BS[row, :length].tolist()
        text, *counts = written(given, reading, begun, budget, ends, FALLBACK.get(name, 0.0))
        found = made.rounds_B[row], made.drafted_B[row], made.accepted_BN[row].sum()
        wrong += made.tokens_BS[row, : made.lengths_B[row]].tolist() != text or [*found] != counts
    return wrong


@pytest.mark.parametrize("name", SET)
def test_greedy_text_is_its_readings_and_not_the_targets(given, name):
    method, reading = method_of(name), SET[name][1]
    whole, alone = ragged_prompt(4), ragged_prompt(1)
    for prompt, budget, ends in (
        (whole, 17, (-1, -1)),
        (whole, 17, (7, 2)),
        (whole, 2, (-1, -1)),
        (alone, 17, (-1, -1)),
    ):
        made = decode(given, method, prompt, max_new_tokens=budget, eos_id=ends)
        assert rows_that_differ(given, name, made, prompt, reading, budget, ends) == 0
    made, plain = (decode(given, each, whole) for each in (method, METHODS["plain"]))
    assert (made.tokens_BS != plain.tokens_BS).any() and made.rounds_B.sum() < plain.rounds_B.sum()


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("fsd", read.fuzzy(0.05, "reversed_kl")),
        ("top_beta", read.top_beta(2, 1.3)),
        ("bild", read.rollback(1.25)),
        ("bild", read.longest(lambda round, node: True)),
    ],
    ids=["another divergence", "tau", "limit", "keeps all"],
)
def test_another_reading_writes_another_text(given, name, reading):
    prompt = ragged_prompt(4)
    assert rows_that_differ(given, name, decode(given, method_of(name), prompt), prompt, reading, 17) > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN_TEXT])
def test_those_that_only_sample_otherwise_write_the_targets_text_greedily(given, name):
    ours, plain = (decode(given, METHODS[each], ragged_prompt(4)) for each in (name, "plain"))
    np.testing.assert_array_equal(ours.tokens_BS, plain.tokens_BS)
    assert ours.accepted_BN.sum() > 0


@pytest.mark.parametrize("name", some(NAMES, "bild"))
def test_a_queue_writes_what_a_batch_writes(given, name):
    knobs = {"eos_id": (7, 2)}
    batched = decode(given, method_of(name), ragged_prompt(8), **knobs)
    queued = decode(given, method_of(name), ragged_prompt(8), how=generate_from_queue, rows=3, **knobs)
    for field in ("tokens_BS", "rounds_B", "accepted_BN", "judged_BN", "drafted_B"):
        np.testing.assert_array_equal(getattr(queued, field), getattr(batched, field), err_msg=field)


@pytest.mark.parametrize("name", some(NAMES, "fsd", "bild"))
def test_sampling_compiles_once_and_a_value_that_is_set_again_is_the_same(given, name):
    before = None
    for seed in (0, 1, 2):
        method = METHODS[name].set(**SET[name][0]) if name in SET else METHODS[name]
        prompt, knobs = ragged_prompt(4), {"max_new_tokens": 9 + seed, "sampling": Sampling(0.7), "eos_id": seed}
        made = decode(given, method, prompt, **knobs)
        assert (made.lengths_B > prompt.lengths_B).all() and made.accepted_BN.sum() > 0
        assert before in (None, engine._decode._cache_size())
        before = engine._decode._cache_size()


def test_a_knob_of_the_rule_is_set_in_the_rule_and_not_handed_to_the_drafter(given):
    fsd = METHODS["fsd"]
    assert dict(fsd.knobs) == {"threshold": 0.4, "divergence": "fsd_js", "top_k": 0, "draft_length": None}
    turned = fsd.set(threshold="0.3", draft_length="2").set(divergence="js").set(top_k=50)
    assert turned.accept == Fuzzy(0.3, "js", 50) and fsd.accept == Fuzzy(0.4, "fsd_js")
    assert turned.label == "fsd[threshold=0.3,draft_length=2,divergence=js,top_k=50]"
    assert turned.knobs == fsd.knobs and turned.make(given).length == 2
    bild = METHODS["bild"].set(limit="2", fallback="0.25")
    drafter = bild.make(given)
    assert bild.accept == Rollback(2.0) and drafter.stop == Confident(0.25) and drafter.length == 10
    assert drafter.widths == (2, 5)
    for name, knobs, says in (
        (
            "fsd",
            {"threshold": "-1"},
            r"the method fsd\[threshold=-1.0\]: the threshold of a divergence must be at least 0",
        ),
        ("fsd", {"divergence": "jsd"}, r"the method fsd\[divergence=jsd\]: .* not \"jsd\""),
        ("fsd", {"treshold": "1"}, 'has no knob "treshold"; did you mean "threshold"'),
        ("fsd", {"threshold": "x"}, 'fsd.threshold is "x"; give such as 0.4'),
        ("fsd", {"threshold": "inf"}, 'fsd.threshold is "inf"; give such as 0.4'),
        ("tolerance", {"samples": "0"}, r"tolerance\[samples=0\]: tolerance needs at least one sample"),
        ("lenient", {"epsilon": 2.0}, "lenience needs epsilon"),
    ):
        with pytest.raises(UserError, match=says):
            METHODS[name].set(**knobs)
    with pytest.raises(UserError, match=r"bild\[fallback=1.5\]: fallback is 1.5; it must be a probability"):
        METHODS["bild"].set(fallback=1.5).make(given)


def test_a_methods_rule_knobs_are_fields_of_its_rule_and_not_its_drafters():
    shared = {"name": "mine", "drafter": lambda given: None, "accept": Fuzzy(), "lossless": False}
    with pytest.raises(ValueError, match="a knob that is its drafter's and its rule's"):
        Method(**shared, knobs={"threshold": 3}, rule_knobs=("threshold",))
    with pytest.raises(ValueError, match='no field "treshold"'):
        Method(**shared, rule_knobs=("treshold",))
    with pytest.raises(ValueError, match='no field "lossless"'):
        Method(**shared, rule_knobs=("lossless",))
    renamed = Method(**shared, rule_knobs={"outer": "threshold"})
    assert renamed.knobs["outer"] == shared["accept"].threshold and renamed.set(outer="0.2").accept.threshold == 0.2
    for method in LOSSY:
        assert set(method.rule_knobs) == {field.name for field in dataclasses.fields(method.accept)}


@pytest.mark.parametrize("name", NAMES)
def test_text_that_shared_noise_settles_is_refused(name):
    METHODS["vanilla"].check_sampling(Sampling(shared_noise=True))
    METHODS[name].check_sampling(Sampling())
    with pytest.raises(UserError, match=f"the method {name} is lossy, and shared noise settles"):
        METHODS[name].check_sampling(Sampling(shared_noise=True))
