"""generate --learn: a draft that learns between prompts and turns, what is kept of it, and mistakes in a line."""

import io
import sys

import jax
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.measuring.pair import load_given
from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": 300, "max_position_embeddings": 512}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("learning")
    made = data.train_bpe(tiny_pair.TEXTS, vocab_size=300, chat_template=data.chat.CHATML)
    ends = {"eos_token_id": made.eos_token_id, "bos_token_id": None}
    for seed, (name, inside) in enumerate({"target": 64, "draft": 32, "other": 32}.items()):
        model = models.build(tiny_pair.GPT_NEOX | SIZES | ends | {"intermediate_size": inside}, jax.random.key(seed))
        models.save(model, root / name, tokenizer=made)
    return root


@pytest.fixture
def run(capsys, monkeypatch, root):
    def call(*arguments, lines=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        words = ["--target", root / "target", "--max_new_tokens", 8, *arguments]
        return command_line(capsys, monkeypatch, "generate", *words)

    return call


def texts(out):
    return [line for line in out.splitlines() if line and not line.startswith("[")]


def test_prompts_are_learnt_from_and_their_text_is_plain_decodings(run, root, tmp_path):
    place, prompts = tmp_path / "learned", [f"Tom has {n} apples" for n in range(5)]
    knobs = ["--learn", place, "--learn_every", 2, "--learn_rate", 0.01]
    asked = [word for prompt in prompts[:3] for word in ("--prompt", prompt)]
    status, out, err = run("--draft", root / "draft", *knobs, *asked)
    assert status == 0 and "[after 2 requests: a step on " in err and "version 1 of the draft]" in err
    plain = [texts(run("--prompt", prompt)[1]) for prompt in prompts]
    assert texts(out) == sum(plain[:3], [])
    status, out, err = run(*knobs, "--interactive", lines="\n".join(prompts[3:]))  # it goes on, with the third waiting
    assert status == 0 and "[after 4 requests: " in err and texts(out) == sum(plain[3:], [])
    given, _ = load_given(str(root / "target"), [str(place)])  # what every door does with --draft DIR
    before = models.load(root / "draft").params["embed"]["embedding"]
    assert np.abs(given.draft.params["embed"]["embedding"] - before).max() > 1e-3
    assert run("--draft", place, "--prompt", prompts[0])[0] == 0
    assert run("--learn", place, "--undo", "last")[1] == f"{place} is version 1 again\n"
    assert run("--learn", place, "--undo", "given")[1] == f"{place} is the draft as it was given again\n"
    np.testing.assert_array_equal(models.load(place).params["embed"]["embedding"], before)


def test_turns_are_learnt_from_and_their_text_is_plain_decodings(run, root, tmp_path):
    turns = "one apple\ntwo\n"
    knobs = ["--draft", root / "draft", "--learn", tmp_path / "learned", "--learn_every", 1, "--learn_rate", 0.01]
    status, out, err = run("--chat", *knobs, lines=turns)
    assert status == 0 and "[after 2 requests: " in err
    assert texts(out) == texts(run("--chat", lines=turns)[1])


MISTAKES = {
    ("--undo", "last"): "--undo goes with --learn DIR",
    ("--learn_every", "3"): "--learn_every goes with --learn DIR",
    ("--learn", "{new}"): "begins with a draft: give it as --draft",
    ("--learn", "{new}", "--undo", "last"): "no draft has learnt in ",
    ("--learn", "{root}", "--draft", "{root}/draft"): "is not what a draft has learnt: name a new directory",
    ("--learn", "{new}", "--draft", "{root}/draft", "--mesh", "data=1"): "leave --mesh out",
    ("--learn", "{new}", "--draft", "a", "--draft", "b"): "--learn teaches one draft; give one --draft",
    ("--learn", "{new}", "--draft", "{root}/draft", "--method", "plain"): "guesses without a draft",
    ("--learn", "{new}", "--draft", "{root}/draft", "--method", "typical"): "is lossy",
    ("--learn_rate", "2", "--learn", "{new}"): "it must be at most 1",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_mistakes_are_a_line(run, root, tmp_path, words):
    filled = [word.format(root=root, new=tmp_path / "new") for word in words]
    status, out, err = run(*filled, "--prompt", "x")
    assert status == 2 and not out
    assert err.splitlines()[-1].startswith("error: ") and MISTAKES[words] in err.splitlines()[-1]
    assert not (tmp_path / "new").exists()
