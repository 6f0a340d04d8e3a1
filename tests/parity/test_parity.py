"""A run's pair decodes alike here and in transformers, and the check that says so can fail."""

import builtins
import json

import jax
import numpy as np
import pytest

from adaspec_jax import data, models, parity, pipeline, reporting
from adaspec_jax.decoding import GUESS, ChainDrafter, Context, Sampling, generate
from adaspec_jax.errors import UserError
from tests.pipeline.test_pipeline import experiment
from tests.running import command_line

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
LENGTH, NEW = 3, 24


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small lose more by PyTorch's threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = experiment()
    config.target.epochs, config.reference.epochs, config.teacher = 4, 3, "recompute"
    config.evaluation.resamples, config.evaluation.max_new_tokens, config.evaluation.num_prompts = 50, NEW, 4
    directory = tmp_path_factory.mktemp("parity") / "run"
    return directory, pipeline.run(config, directory)


@pytest.fixture(scope="module")
def setting(finished):
    """Both pairs, and the run's prompts."""
    directory, report = finished
    tokenizer = data.load_tokenizer(directory / "tokenizer")
    ours = {name: models.load(directory / name).with_vocabulary(len(tokenizer)) for name in ("target", "draft")}
    theirs = {name: parity.load_in_torch(directory / name) for name in ours}
    return ours, theirs, parity.held_out(report, tokenizer)[:2]


def knobs(**changed):
    return {"draft_length": LENGTH, "max_new_tokens": NEW, "eos_id": 0} | changed


def test_a_run_gets_a_certificate_in_its_report(finished, capsys, monkeypatch, tmp_path):
    directory, report = finished
    out = tmp_path / "certificate.json"
    status, said, errors = command_line(
        capsys, monkeypatch, "parity.__main__", "--workdir", directory, "--num_prompts", 3, "--json", out
    )
    assert status == 0 and "holds: 3 of 3 greedy answers identical" in said, said + errors
    stored = json.loads((directory / "report.json").read_text())
    found = stored.pop("parity")
    assert found == json.loads(out.read_text()) and stored == json.loads(json.dumps(report))
    assert found["passed"] and found["differences"] == [] and found["token_agreement"] == 1
    assert found["accepted_ours"] == found["accepted_transformers"] > 0
    assert found["judged_ours"] == found["judged_transformers"] > found["accepted_ours"]
    assert found["alpha_ours"] == found["alpha_transformers"] == found["accepted_ours"] / found["judged_ours"]
    assert all(0 < value < 1e-4 for value in found["max_logit_difference"].values())
    assert (found["prompts"], found["draft_length"], found["max_new_tokens"]) == (3, LENGTH, NEW)
    assert set(found["versions"]) == {"torch", "transformers", "jax"}


def test_its_counts_are_those_of_the_report(finished):
    directory, report = finished
    for stage in ("draft", "reference"):
        found = parity.certificate(directory, num_prompts=100, draft_stage=stage)
        measured = report["drafts"][stage]
        assert found["passed"] and found["prompts"] == measured["prompts"]
        assert (found["accepted_transformers"], found["judged_transformers"]) == (
            measured["accepted"],
            measured["judged"],
        )


def test_compare_certifies_what_has_no_certificate(finished, capsys, monkeypatch):
    arguments = ("compare", "--workdir", finished[0], "--parity", "--num_prompts", 1)
    status, said, errors = command_line(capsys, monkeypatch, *arguments)
    assert status == 0 and "greedy answers identical" in said and "the paper has no such row" in said, errors
    monkeypatch.setattr(parity, "certificate", None)  # the second call finds it
    assert command_line(capsys, monkeypatch, *arguments)[:2] == (0, said)


@pytest.mark.parametrize("name", ["target", "draft"])
def test_other_weights_on_one_side_do_not_pass(setting, finished, name):
    ours, theirs, rows = setting
    other = parity.load_in_torch(finished[0] / name)
    with torch.no_grad():
        other.get_output_embeddings().weight[:] += 0.3 * torch.randn(
            other.get_output_embeddings().weight.shape, generator=torch.Generator().manual_seed(0)
        )
    found = parity.compare_pairs(ours, theirs | {name: other}, rows, **knobs())
    assert not found["passed"] and found["differences"] and "DOES NOT HOLD" in parity.in_words(found)
    assert found["max_logit_difference"][name] > found["allowed_logit_difference"][name]
    assert {row["model"] for row in found["differences"]} == {name}
    assert (found["identical_rows"] == len(rows)) == (name == "draft")  # a draft decides speed, never tokens


def test_a_failed_certificate_is_stored_and_ends_with_status_1(finished, capsys, monkeypatch):
    directory, _ = finished
    whole = (directory / "report.json").read_text()
    load = parity.load_in_torch  # finds the draft where the target is wanted
    monkeypatch.setattr("adaspec_jax.parity.agreement.load_in_torch", lambda path: load(directory / "draft"))
    status, said, _ = command_line(capsys, monkeypatch, "parity.__main__", "--workdir", directory, "--num_prompts", 1)
    assert status == 1 and "DOES NOT HOLD" in said and "not a tie" in said
    assert not reporting.read_report(directory)["parity"]["passed"]
    (directory / "report.json").write_text(whole)


@pytest.mark.parametrize("max_new_tokens", range(1, LENGTH + 4))
def test_what_is_left_clamps_the_last_round_alike(setting, max_new_tokens):
    ours, theirs, rows = setting
    some = knobs(max_new_tokens=max_new_tokens)
    here = parity.decode(**ours, rows=rows, **some)
    there = parity.decode_in_torch(**theirs, rows=rows, num_tokens=ours["target"].config.num_tokens, **some)
    assert here == there
    assert all(len(answer.tokens) <= max_new_tokens for answer in there)


def test_the_end_of_text_inside_an_accepted_prefix_counts_alike(setting):
    ours, theirs, rows = setting
    row = rows[0]
    prompt = Context(row.prompt[None], np.array([row.prompt_length]))
    drafter, greedy = ChainDrafter(ours["draft"], length=LENGTH), Sampling(temperature=0.0)
    made = generate(ours["target"], drafter, prompt, jax.random.key(0), max_new_tokens=NEW, sampling=greedy)
    tokens, origin = (np.asarray(x)[0, row.prompt_length :] for x in (made.tokens_BS, made.origin_BS))
    # A guess that was accepted, was not the round's last, and is a token's first appearance ends the answer.
    first = [
        n for n in range(len(tokens) - 1) if tokens[n] not in tokens[:n] and list(origin[n : n + 2]) == [GUESS] * 2
    ]
    assert first
    for n in first[:2]:
        some = knobs(eos_id=int(tokens[n]))
        here = parity.decode(**ours, rows=rows, **some)
        there = parity.decode_in_torch(**theirs, rows=rows, num_tokens=ours["target"].config.num_tokens, **some)
        assert here == there and here[0].tokens == tokens[: n + 1].tolist()


@pytest.mark.parametrize(
    ("rounds", "answer", "counts"),
    [
        ([(0, [5, 6, 7]), (4, [1, 2, 3])], [5, 6, 7, 8, 1, 9], (4, 5)),  # all, and a bonus; then one and a mismatch
        ([(0, [5, 0, 7, 7])], [5, 0], (2, 2)),  # the end of text, 0, is accepted; nothing past it is judged
        ([(0, [5, 0, 7])], [5, 4], (1, 2)),  # a guessed end of text is a guess like any other
        ([(0, [5, 6, 7]), (2, [8, 9, 9])], [5, 4, 8], (2, 3)),  # the last round has room for one
        ([(0, [5]), (1, [6, 7])], [5], (1, 1)),  # a round past the answer's end is none
        ([(0, [1, 2])], [2, 2], (0, 1)),  # after a mismatch nothing is judged, whatever it says
    ],
)
def test_guesses_are_counted_up_to_a_mismatch_and_the_answers_end(rounds, answer, counts):
    assert parity.recount(rounds, answer) == counts


def test_tokens_beyond_the_tokenizer_are_never_guessed(setting):
    """With the last entries of the vocabulary ruled out, as a padded vocabulary has them, both sides still agree."""
    ours, theirs, rows = setting
    used = max(max(row.tokens) for row in rows)
    fewer = {name: model.with_vocabulary(int(used) + 1) for name, model in ours.items()}
    assert parity.compare_pairs(fewer, theirs, rows, **knobs(max_new_tokens=8))["passed"]


def test_what_cannot_be_certified_is_one_line(finished, tmp_path, capsys, monkeypatch):
    def said(*arguments):
        status, _, errors = command_line(capsys, monkeypatch, "parity.__main__", *arguments)
        assert status == 2 and errors.count("\n") == 1
        return errors

    assert "is not a directory" in said("--workdir", tmp_path / "none")
    assert "has no report.json" in said("--workdir", tmp_path)
    assert "--num_prompts is 0" in said("--workdir", finished[0], "--num_prompts", 0)
    report = json.loads((finished[0] / "report.json").read_text())
    report["data"]["evaluation"]["examples_sha256"] = "0" * 64
    with pytest.raises(UserError, match="are not those the report was made with"):
        parity.held_out(report, data.load_tokenizer(finished[0] / "tokenizer"))
    imported = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("no torch", name="torch")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert "needs torch, which is not installed: pip install torch" in said("--workdir", finished[0])
