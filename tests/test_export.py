"""An exported draft serves: as many rows as the target's, none of which is guessed, and rounds of constant length."""

import json

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.decoding import ChainDrafter, Context, NoDraft, Sampling, generate
from adaspec_jax.errors import UserError
from adaspec_jax.measuring.pair import load_pair
from tests import tiny_pair
from tests.running import command_line

TARGET_ROWS, DRAFT_ROWS = 304, 288
TARGET = tiny_pair.GPT_NEOX | {"vocab_size": TARGET_ROWS}
DRAFT = tiny_pair.GPT_NEOX | {"vocab_size": DRAFT_ROWS}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "run"
    return tiny_pair.save_run(directory, target=TARGET, draft=DRAFT, settings={"evaluation.draft_length": 3})


@pytest.fixture
def export(run, capsys, monkeypatch, tmp_path):
    def write(stage, *arguments):
        arguments = ["--workdir", run, "--stage", stage, "--out", tmp_path / stage, *arguments]
        status, out, errors = command_line(capsys, monkeypatch, "export", *arguments)
        assert status == 0, errors
        return tmp_path / stage, out

    return write


def test_an_exported_draft_has_the_targets_rows_and_tokenizer_and_pinned_rounds(export, run):
    draft, out = export("draft")
    assert json.loads((draft / "config.json").read_text())["vocab_size"] == TARGET_ROWS
    generation = json.loads((draft / "generation_config.json").read_text())
    assert generation == {
        "eos_token_id": 0,
        "num_assistant_tokens": 3,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0,
    }
    target, _ = export("target")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (draft / file).read_bytes() == (target / file).read_bytes()
    lines = out.splitlines()
    assert lines[1:3] == ["transformers: can serve", "vLLM: can serve on a GPU, not on a CPU"]  # heads of 8
    assert lines[3].startswith("SGLang: cannot serve: gpt_neox (the target and draft): ")


def test_every_row_without_a_token_is_the_mean_of_the_tokens(export, run):
    before, after = models.load(run / "draft").params, models.load(export("draft")[0]).params
    for name, leaf, axis in (("embed", "embedding", 0), ("head", "kernel", 1)):
        old, new = (np.moveaxis(np.asarray(params[name][leaf]), axis, 0) for params in (before, after))
        assert new.shape == (TARGET_ROWS, 16)
        np.testing.assert_array_equal(new[: tiny_pair.TOKENS], old[: tiny_pair.TOKENS])
        mean = np.broadcast_to(old[: tiny_pair.TOKENS].mean(0), new[tiny_pair.TOKENS :].shape)
        np.testing.assert_allclose(new[tiny_pair.TOKENS :], mean, atol=1e-6)


def test_the_target_is_exported_as_it_is(export, run):
    target, out = export("target")
    assert (target / "model.safetensors").read_bytes() == (run / "target" / "model.safetensors").read_bytes()
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation == {"_from_model_config": True, "eos_token_id": 0}
    assert "serve" not in out


def test_the_draft_length_is_the_measured_one_then_the_written_one_then_five(run, export, monkeypatch):
    report, config = run / "report.json", run / "config.json"
    before = config.read_text()

    def exported(*options):
        draft, _ = export("draft", *options)
        length = json.loads((draft / "generation_config.json").read_text())["num_assistant_tokens"]
        for file in draft.iterdir():
            file.unlink()
        return length

    try:
        report.write_text(json.dumps({"speed": {"draft_length": 6}}))
        assert exported() == 6 and exported("--draft_length", "7") == 7
        report.unlink()
        assert exported() == 3
        config.write_text(json.dumps(json.loads(before) | {"evaluation.draft_length": 0}))
        assert exported() == 5
    finally:
        config.write_text(before)
        report.unlink(missing_ok=True)


def test_a_draft_length_that_cannot_be_is_one_line(run, capsys, monkeypatch, tmp_path):
    arguments = ["--workdir", run, "--stage", "draft", "--out", tmp_path / "x", "--draft_length", -1]
    status, _, errors = command_line(capsys, monkeypatch, "export", *arguments)
    assert status == 2 and errors.count("\n") == 1 and "--draft_length is -1" in errors


def decoded(target, drafter, tokens, eos_id):
    prompt = Context(tokens, np.asarray([tokens.shape[1]]))
    knobs = {"max_new_tokens": 24, "sampling": Sampling(temperature=0), "eos_id": eos_id}
    return jax.device_get(generate(target, drafter, prompt, jax.random.key(0), **knobs))


def test_a_pair_of_unequal_padding_decodes_as_the_target_alone(run):
    target, draft, tokenizer, eos_id = load_pair(str(run / "target"), str(run / "draft"))
    assert draft.config.vocab_size == target.config.vocab_size == TARGET_ROWS
    assert draft.config.num_tokens == target.config.num_tokens == tiny_pair.TOKENS
    tokens = np.asarray([tokenizer("Tom has 3 apples")["input_ids"]])
    plain = decoded(target, NoDraft(), tokens, eos_id)
    spoken = decoded(target, ChainDrafter(draft, length=3), tokens, eos_id)
    np.testing.assert_array_equal(spoken.tokens_BS, plain.tokens_BS)
    # The draft alone says what it said with its own number of rows.
    own = models.load(run / "draft").with_vocabulary(tiny_pair.TOKENS)
    padded, unpadded = (decoded(model, NoDraft(), tokens, eos_id) for model in (draft, own))
    np.testing.assert_array_equal(padded.tokens_BS, unpadded.tokens_BS)


def test_a_draft_with_more_padding_than_its_target_loses_it(run):
    target, draft, _, _ = load_pair(str(run / "draft"), str(run / "target"))
    assert draft.config.vocab_size == target.config.vocab_size == DRAFT_ROWS


def test_unequal_sizes_without_a_tokenizer_to_compare_are_refused(run, tmp_path):
    tiny_pair.save(tmp_path / "bare", DRAFT, with_tokenizer=False)
    with pytest.raises(UserError, match="304 and .*bare 288, and no tokenizer .* put its tokenizer.json"):
        load_pair(str(run / "target"), str(tmp_path / "bare"))


def test_transformers_assists_its_target_with_the_exported_draft(run, export):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, _ = export("draft")
    target, draft = (AutoModelForCausalLM.from_pretrained(directory).eval() for directory in (run / "target", path))
    assert target.config.vocab_size == draft.config.vocab_size == TARGET_ROWS
    generation = draft.generation_config
    assert generation.num_assistant_tokens == 3 and generation.num_assistant_tokens_schedule == "constant"
    assert generation.assistant_confidence_threshold == 0
    inputs = AutoTokenizer.from_pretrained(path)("Tom has 3 apples", return_tensors="pt", return_token_type_ids=False)
    knobs = {"max_new_tokens": 16, "do_sample": False}
    plain, assisted = target.generate(**inputs, **knobs), target.generate(**inputs, **knobs, assistant_model=draft)
    assert torch.equal(plain, assisted)
    with torch.no_grad():
        theirs = draft(**inputs).logits.numpy()
    ours, _ = models.load(path)(inputs["input_ids"].numpy())
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert (theirs.argmax(-1) < tiny_pair.TOKENS).all()
