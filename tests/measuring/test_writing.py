"""Pieces of text are together what `generate` decodes, cut before the first stop string wherever rounds end."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from adaspec_jax import data, methods
from adaspec_jax.decoding import Context, Sampling, generate
from adaspec_jax.decoding.types import GUESS
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.logprobs import of_row
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.measuring.writing import Writing
from tests import tiny_pair
from tests.data import forms
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 256}
NEW = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    for seed, (name, inside) in enumerate({"target": 64, "draft": 32}.items()):
        tiny_pair.save(root / name, tiny_pair.GPT_NEOX | SIZES | {"intermediate_size": inside}, seed=seed)
    return root


@pytest.fixture(scope="module")
def pair(root):
    return load_given(str(root / "target"), [str(root / "draft")], draft_length=3)


def text_of_generate(given, ends, tokens, sampling):
    prompt = Context(np.asarray([tokens]), np.asarray([len(tokens)]))
    knobs = {"max_new_tokens": NEW, "sampling": sampling, "eos_id": ends}
    made = generate(given.target, methods.find("vanilla").make(given), prompt, jax.random.key(0), **knobs)
    new = made.tokens_BS[0, len(tokens) : int(made.lengths_B[0])].tolist()
    return data.continuation(tokens, new, given.tokenizer, special=False)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", ["plain", "vanilla"])
def test_pieces_are_together_the_text_cut_before_the_first_stop_string(pair, method, temperature):
    given, ends = pair
    tokens = data.prompt_ids(tiny_pair.TEXTS[0], given.tokenizer)
    how = {"max_new_tokens": NEW, "sampling": Sampling(temperature)}

    def written(**more):
        writing = Writing(given, methods.find(method), tokens, ends, **how, **more)
        return "".join(writing), writing

    whole, writing = written()
    if method == "vanilla" or not temperature:  # sampled text belongs to its drafter
        assert whole == text_of_generate(given, ends, tokens, Sampling(temperature))
    stops = [whole[at : at + length] for length in (1, 2, 3) for at in range(len(whole) - length)]
    stops = [stop for stop in stops if "\ufffd" not in stop][::3]  # bytes of no character are nobody's stop string
    assert writing.stopped_by is None and len(stops) >= 3
    for stop in stops:
        cut, writing = written(stop=["never\0", stop])
        assert cut == whole[: whole.index(stop)] and writing.stopped_by == stop
        assert writing.new_tokens <= NEW
    early = written(stop=[min(stops, key=whole.index)])[1]
    assert int(early.made.rounds_B[0]) < int(written()[1].made.rounds_B[0])  # nothing was decoded for nobody


def test_a_piece_that_may_become_a_stop_string_waits(pair):
    given, ends = pair
    tokens = data.prompt_ids(tiny_pair.TEXTS[0], given.tokenizer)
    how = {"max_new_tokens": NEW, "sampling": Sampling(0.0)}
    whole = "".join(Writing(given, methods.find("plain"), tokens, ends, **how))
    begins = (whole[at : at + 3] for at in range(5, 50))
    near = next(part for part in begins if "\ufffd" not in part) + "\0"  # begins as the text does, and never ends so
    pieces = list(Writing(given, methods.find("plain"), tokens, ends, stop=[near], **how))
    assert "".join(pieces) == whole
    for count in range(len(pieces) - 1):
        said = "".join(pieces[: count + 1])
        assert not any(said.endswith(near[:n]) for n in range(1, len(near)))
    with pytest.raises(ValueError, match="an empty stop string"):
        Writing(given, methods.find("plain"), tokens, ends, stop=[""])


def test_a_round_fetches_its_new_tokens_alone(pair, monkeypatch):
    given, ends = pair
    tokens, fetched, get = data.prompt_ids(tiny_pair.TEXTS[0], given.tokenizer), [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(sum(map(np.size, jax.tree.leaves(x)))) or get(x))
    writing = Writing(given, methods.find("vanilla"), tokens, ends, max_new_tokens=NEW)
    whole = "".join(writing)
    assert len(fetched) == int(writing.made.rounds_B[0]) + 1 and set(fetched[:-1]) == {6}  # of 3 guesses
    assert len(writing.made.tokens_BS[0]) == len(tokens) + NEW < fetched[-1] and whole


def test_pieces_say_what_was_guessed_and_what_is_the_targets_own(root):
    given, ends = load_given(str(root / "target"), [str(root / "target")], draft_length=3)  # all guesses are right
    tokens = data.prompt_ids(tiny_pair.TEXTS[0], given.tokenizer)
    for method in ("plain", "vanilla"):
        writing = Writing(given, methods.find(method), tokens, ends, max_new_tokens=NEW)
        pieces = list(writing.pieces())
        whole = "".join(Writing(given, methods.find(method), tokens, ends, max_new_tokens=NEW))
        assert "".join(piece.text for piece in pieces) == whole
        made, new = writing.made, slice(len(tokens), int(writing.made.lengths_B[0]))
        growing, expected = data.Growing(tokens, given.tokenizer, special=False), {True: "", False: ""}
        for token, origin in zip(made.tokens_BS[0, new].tolist(), made.origin_BS[0, new].tolist(), strict=True):
            expected[origin == GUESS] += growing.add([token])
        expected[False] += growing.rest()
        said = {kind: "".join(piece.text for piece in pieces if piece.guessed is kind) for kind in expected}
        assert said == expected and bool(said[True]) == (method == "vanilla")


def test_generate_stops_where_it_is_told(root, pair, capsys, monkeypatch):
    arguments = ["--target", root / "target", "--prompt", "Tom has", "--max_new_tokens", 24]
    status, out, errors = command_line(capsys, monkeypatch, "generate", *arguments)
    assert status == 0, errors
    whole = out.rpartition("\n[")[0].removeprefix("Tom has")
    status, out, _ = command_line(capsys, monkeypatch, "generate", *arguments, "--stop", whole[4:7], "--stop", "\0")
    assert status == 0 and out.rpartition("\n[")[0] == "Tom has" + whole[: whole.index(whole[4:7])]
    for wrong, says in ((["--stop", ""], "--stop is empty"), (["--chat", "--stop", "x"], "--stop is for texts")):
        status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, *wrong)
        assert (status, errors.count("\n")) == (2, 1) and says in errors


def test_log_probabilities_come_a_line_a_token(root, pair, capsys, monkeypatch):
    given, _ = pair
    arguments = ["--target", root / "target", "--draft", root / "draft", "--prompt", "Tom has", "--max_new_tokens", 12]
    status, out, errors = command_line(capsys, monkeypatch, "generate", *arguments, "--logprobs", 2)
    assert status == 0, errors
    text, _, rest = out.partition("\n{")
    rows = [json.loads(line) for line in ("{" + rest).splitlines()[:-1]]
    ids = data.prompt_ids("Tom has", given.tokenizer)
    assert len(rows) == 12 and text == "Tom has" + data.continuation(ids, [row["id"] for row in rows], given.tokenizer)
    whole = [*ids, *(row["id"] for row in rows)]
    logits_TV = np.asarray(given.target(np.asarray([whole]))[0][0], np.float64)
    for row, logits_V in zip(rows, logits_TV[len(ids) - 1 :], strict=False):
        law_V = logits_V - np.log(np.exp(logits_V).sum())
        assert row["id"] == row["top"][0]["id"] and abs(row["logprob"] - law_V[row["id"]]) < 1e-4
        np.testing.assert_allclose([each["logprob"] for each in row["top"]], np.sort(law_V)[:-3:-1], atol=1e-4)
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments, "--logprobs", -1)
    assert (status, errors.count("\n")) == (2, 1) and "--logprobs is -1" in errors
    status, out, _ = command_line(capsys, monkeypatch, "generate", *arguments)
    assert out.startswith(text + "\n[")


def test_a_token_is_shown_as_it_stands_in_the_text(tmp_path):
    """With the space before it, which a SentencePiece decoder takes away at the beginning of a text."""
    tokenizer = data.load_tokenizer(forms.write("Llama 2", tmp_path))
    ids = tokenizer("Once upon a time, there was a caf\u00e9")["input_ids"]
    likely_BSK, minus_BSK = np.asarray(ids)[None, :, None], np.full((1, len(ids), 1), -np.inf)
    kept = SimpleNamespace(chosen_BS=np.zeros((1, len(ids))), top_BSK=likely_BSK, of_top_BSK=minus_BSK)
    made = SimpleNamespace(tokens_BS=np.asarray([ids]), lengths_B=np.asarray([len(ids)]), logprobs=kept)
    rows = list(of_row(made, 0, 1, tokenizer))
    assert "".join(row["token"] for row in rows) == " Once upon a time, there was a caf\u00e9"
    assert [row["top"] for row in rows] == [[{"id": r["id"], "token": r["token"], "logprob": None}] for r in rows]


def test_a_method_without_what_it_needs_says_so(pair):
    given, ends = pair
    with pytest.raises(UserError, match="needs a draft"):
        Writing(methods.Given(target=given.target), methods.find("vanilla"), [1], ends)


def test_rows_that_no_token_owns_are_no_tokens(tmp_path, capsys, monkeypatch):
    """A vocabulary is often padded: what lies past the tokenizer's is never written, and cannot be named."""
    tiny_pair.save(tmp_path / "padded", tiny_pair.GPT_NEOX | {"vocab_size": tiny_pair.TOKENS + 18})
    (tmp_path / "padded" / "stage.json").write_text('{"steps": 1}')  # of a target from elsewhere every row may be meant
    shared = ["--target", tmp_path / "padded", "--prompt", "Tom", "--max_new_tokens", 2]
    for option, value in (("suppress_tokens", tiny_pair.TOKENS), ("logprobs", tiny_pair.TOKENS + 1)):
        status, _, errors = command_line(capsys, monkeypatch, "generate", *shared, f"--{option}", value)
        assert status == 2 and errors.count("\n") == 1 and option in errors and str(tiny_pair.TOKENS) in errors, errors


def test_prompts_of_any_length_in_a_bucket_take_no_further_program(pair):
    """A process that answers prompts as they come would hold a few more for each, for ever."""
    given, ends = pair
    client = jax.local_devices()[0].client

    def programs_after(length):
        for _ in Writing(given, methods.find("vanilla"), [1 + n % 9 for n in range(length)], ends, max_new_tokens=8):
            pass
        return len(client.live_executables())

    first = programs_after(3)
    assert [programs_after(length) for length in (4, 9, 17, 31)] == [first] * 4
    assert programs_after(33) > first  # of the next bucket
