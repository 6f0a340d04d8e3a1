"""Speculative RAG: prompts, the reading of drafts, and every number of a row against rows that are read one by one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import data, models
from adaspec_jax.data.chat import CHATML, template_of
from adaspec_jax.data.questions import Question
from adaspec_jax.decoding import Context, NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.methods import Given
from adaspec_jax.pipeline import whole_answers
from adaspec_jax.pipeline.rag_prompts import AsChat, AsText, Prompts
from adaspec_jax.pipeline.whole_answers import Found, SpeculativeRAG, find, likelihood, summary
from tests import tiny_pair

SHORT = Prompts(
    draft="{passages} {question}", plain="All: {passages} {question}", judged="{question}", reflection="Ok?"
)
PASSAGES = ("Tom has 3 apples.", "He eats 2 of them.", "Tom has 9 apples and eats 4.")
SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 512}
NEW = 8


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_pair.tokenizer()


@pytest.fixture(scope="module")
def given(tokenizer):
    target, draft = (models.build(tiny_pair.LLAMA | SIZES, jax.random.key(seed)) for seed in range(2))
    return Given(target=target, drafts={"draft": draft}, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def ends(tokenizer):
    return data.ends_of_text(tokenizer)


@jax.jit
def logits_of(model, tokens_BS):
    return model(tokens_BS)[0]


def probabilities(model, tokens, start, end):
    """Logarithms of those of tokens[start:end], each after those before it, in a batch of its own."""
    tokens_1S = jnp.asarray([[*tokens, *[0] * (128 - len(tokens))]])
    logits_SV = np.asarray(logits_of(model, tokens_1S)[0], np.float64)
    law_SV = np.exp(logits_SV) / np.exp(logits_SV).sum(1, keepdims=True)
    return [np.log(law_SV[at - 1, tokens[at]]) for at in range(start, end)]


def test_every_number_of_a_row_is_that_of_texts_read_one_by_one(given, ends, tokenizer):
    wording = AsText(SHORT, tokenizer)
    found = Found(Question("q", "How many?", answers=("zebra",)), PASSAGES, ((0, 1), (1, 2), (0, 2)))
    rag = SpeculativeRAG(given, ends, wording, drafts=5, max_new_tokens=NEW, factors=("consistency", "reflection"))
    rag.check(found)
    row = rag.answered(found)
    assert len(row["drafts"]) == 3 and row["id"] == "q" and row["score"] == 0.0 == row["plain"]["score"]
    asked = tokenizer("\n\nOk?\nAnswer:", add_special_tokens=False)["input_ids"]
    yes = tokenizer(" Yes", add_special_tokens=False)["input_ids"]
    alone = tokenizer("How many?\nAnswer:", add_special_tokens=False)["input_ids"]
    for draft, numbers in zip(row["drafts"], found.subsets, strict=True):
        assert draft["passages"] == list(numbers)
        told = "\n\n".join(f"[{n}] {PASSAGES[number]}" for n, number in enumerate(numbers, 1))
        prompt = tokenizer(f"{told} How many?\nAnswer:", add_special_tokens=False)["input_ids"]
        wrote = written(given.draft, prompt, ends)
        assert draft["tokens"] == len(wrote) > 0
        assert (draft["answer"], draft["rationale"]) == SHORT.parts(tokenizer.decode(wrote, skip_special_tokens=True))
        by_drafter = probabilities(given.draft, [*prompt, *wrote], len(prompt), len(prompt) + len(wrote))
        read, end = [*alone, *wrote, *asked, *yes], len(alone) + len(wrote)
        consistent = probabilities(given.target, read, len(alone), end)
        reflected = probabilities(given.target, read, len(read) - len(yes), len(read))
        slipped = probabilities(given.target, read, len(alone) + 1, end + 1)
        expected = {
            name: math.exp(np.mean(of))
            for name, of in (("draft", by_drafter), ("consistency", consistent), ("reflection", reflected))
        }
        assert draft["factors"] == pytest.approx(expected, rel=1e-4)
        assert draft["factors"]["consistency"] != pytest.approx(math.exp(np.mean(slipped)), rel=1e-4)
        assert draft["score"] == pytest.approx(expected["consistency"] * expected["reflection"], rel=1e-4)
    assert row["chosen"] == int(np.argmax([each["score"] for each in row["drafts"]]))
    assert row["answer"] == row["drafts"][row["chosen"]]["answer"]
    whole = "All: " + "\n\n".join(f"[{n}] {text}" for n, text in enumerate(PASSAGES, 1)) + " How many?\nAnswer:"
    wrote = written(given.target, tokenizer(whole, add_special_tokens=False)["input_ids"], ends)
    assert row["plain"]["tokens"] == len(wrote) and all(seconds > 0 for seconds in row["seconds"].values())
    assert row["plain"]["answer"] == SHORT.parts(tokenizer.decode(wrote, skip_special_tokens=True))[0]


def written(model, prompt, ends):
    made = generate(
        model, NoDraft(), Context(np.asarray([prompt]), np.asarray([len(prompt)])), jax.random.key(0),
        max_new_tokens=NEW, sampling=Sampling(0.0), eos_id=ends,
    )  # fmt: skip
    tokens = made.tokens_BS[0, len(prompt) : made.lengths_B[0]].tolist()
    return tokens[:-1] if tokens[-1] in ends.ids else tokens


def test_what_does_not_fit_and_what_is_no_factor_is_refused(given, ends, tokenizer):
    wording = AsText(SHORT, tokenizer)
    found = Found(Question("q", "How many?", where="f line 1"), ("word " * 300, "b"), ((0, 1),))
    with pytest.raises(UserError, match=r"f line 1: the draft has a context of 512 tokens, and \d+ are needed; lower"):
        SpeculativeRAG(given, ends, wording).check(found)
    with pytest.raises(UserError, match="f line 1: the target has a context"):
        SpeculativeRAG(given, ends, wording).check(found._replace(subsets=((1,),)))
    with pytest.raises(ValueError, match="factors must be some of draft, consistency, reflection, not beauty"):
        SpeculativeRAG(given, ends, wording, factors=("beauty",))


def test_a_text_without_tokens_has_no_likelihood():
    assert likelihood(np.array([])) == 0.0
    assert likelihood(np.log([0.5, 0.125])) == pytest.approx(0.25)


def test_passages_come_from_any_function_and_become_subsets(monkeypatch):
    monkeypatch.setattr(whole_answers.retrieval, "clusters", lambda passages, count, seed: [[0, 2], [1]])
    asked = []

    def retriever(question, most):
        asked.append((question, most))
        return ["a", "b", "a", "c"]

    sizes = {"most": 10, "drafts": 5, "per_draft": 2}
    found = find(Question(1, "Who?"), retriever, **sizes)
    assert asked == [("Who?", 10)] and found.passages == ("a", "b", "c")
    assert sorted(found.subsets) == [(0, 1), (1, 2)]
    own = find(Question(1, "Who?", passages=("x", "y", "z")), None, **sizes | {"most": 2})
    assert own.passages == ("x", "y")
    for question, retriever, says in (
        (Question("q", "Who?", where="f line 2"), lambda *_: [], r'f line 2: 0 passages for "Who\?", .* ask for what'),
        (Question("q", "Who?", passages=("x",)), None, r'q: 1 passage for "Who\?", .* 2 clusters; give a corpus, or'),
    ):
        with pytest.raises(UserError, match=says):
            find(question, retriever, **sizes)


@pytest.mark.parametrize(
    ("said", "answer", "rationale"),
    [
        (" Ada\nRationale: it says so", "Ada", "it says so"),
        ("Answer: Ada\nRationale: so\n\nQuestion: x\nAnswer: Bo", "Ada", "so\n\nQuestion: x"),
        ("Rationale: so. Answer: Ada", "Ada", "so."),
        ("Sure!\nAnswer: Ada", "Ada", ""),
        ("only words", "only words", ""),
        ("", "", ""),
    ],
)
def test_a_draft_is_read_by_its_marks(said, answer, rationale):
    assert Prompts().parts(said) == (answer, rationale)


def test_a_rationale_may_come_first():
    assert Prompts(cue="Rationale:").parts(" it says so.\nAnswer: Ada") == ("Ada", "it says so.")


def test_a_text_ends_before_its_stop(tokenizer):
    wording = AsText(SHORT, tokenizer)
    for said, kept in ((" Tom has\n\n3", " Tom has"), ("\n\nTom\n\n3", "\n\nTom"), ("Tom\n3", "Tom\n3"), ("", "")):
        tokens = tokenizer(said, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(wording.cut(tokens)).strip() == kept.strip()


def test_a_conversation_is_judged_as_its_template_says(tokenizer):
    spoken = data.train_bpe(tiny_pair.TEXTS, vocab_size=tiny_pair.TOKENS, chat_template=CHATML)
    wording = AsChat(SHORT, template_of(spoken))
    before, after, yes = wording.judging("How many?")
    said = spoken.decode([*before, *spoken("three", add_special_tokens=False)["input_ids"], *after, *yes])
    user, assistant = "<|im_start|>user\n", "<|im_start|>assistant\n"
    closed = "<|im_end|>\n"
    assert said == f"{user}How many?{closed}{assistant}three{closed}{user}Ok?{closed}{assistant}Yes"
    assert spoken.decode(wording.draft("How many?", ["a"])) == f"{user}[1] a How many?{closed}{assistant}"
    forgetful = template_of(spoken, None)
    forgetful = type(forgetful)(spoken, "{{ messages[-1].content }}")
    with pytest.raises(UserError, match="leaves out what the assistant said before; leave --chat out"):
        AsChat(SHORT, forgetful).judging("How many?")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"daft": "x"}, 'f: there is no template "daft"; did you mean "draft"'),
        ({"draft": "{question}"}, 'f: the template "draft" has no place for {passages}'),
        ({"judged": "{question} {why}"}, "f: 'why'; other braces are written twice"),
        ({"judged": "{question} {question.x}"}, "f: 'str' object has no attribute 'x'; other braces"),
        ({"judged": "{question} {question[a]}"}, "f: string indices must be integers.*; other braces"),
        ({"yes": 1}, 'f: the template "yes" must be text'),
        ({"yes": " "}, "must be words"),
        ({"cue": "So:"}, "\"cue\" is 'So:', and must be the mark"),
    ],
)
def test_templates_that_cannot_be_filled_are_refused(values, says):
    with pytest.raises(UserError, match=says):
        Prompts.of(values, "f")


def test_a_summary_weighs_questions_alike():
    rows = [
        {"score": 1.0, "seconds": {"drafting": 1.0, "scoring": 1.0}, "plain": {"score": 0.0, "seconds": 5.0}},
        {"score": 1.0, "seconds": {"drafting": 2.0, "scoring": 1.0}, "plain": {"score": 1.0, "seconds": 5.0}},
        {"score": None, "seconds": {"drafting": 3.0, "scoring": 2.0}, "plain": {"score": None, "seconds": 10.0}},
    ]
    said = summary(rows, resamples=200)
    assert said["speculative_rag"] == pytest.approx(
        {"score": 1.0, "seconds": 10 / 3, "drafting": 2.0, "scoring": 4 / 3}
    )
    assert said["plain_rag"] == pytest.approx({"score": 0.5, "seconds": 20 / 3}) and said["speedup"] == 2.0
    assert (said["questions"], said["scored"], said["gain"]) == (3, 2, 0.5)
    assert said["gain_ci95"] == [0.0, 1.0] and 5 / 3 <= said["speedup_ci95"][0] < 2 < said["speedup_ci95"][1] <= 2.5
    assert summary(rows[2:], resamples=9)["gain"] is None
