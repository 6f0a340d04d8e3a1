"""Rows lie over as many devices as divide them, and no device count changes a count."""

import json

import jax
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.measuring import costs
from adaspec_jax.measuring.placing import mesh_of, placed
from adaspec_jax.methods import Given
from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("target", "draft")):
        tiny_pair.save(root / name, tiny_pair.GPT_NEOX | SIZES, seed=seed)
    lines = [json.dumps({"q": text, "a": "Yes."}) for text in tiny_pair.TEXTS[:8]]
    (root / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_rows_take_as_many_devices_as_divide_them():
    assert [mesh_of(None, rows).shape["data"] for rows in (1, 4, 6, 8, 24)] == [1, 4, 6, 8, 8]
    assert dict(mesh_of("tensor=4,data=2", 2).shape) == {"data": 2, "fsdp": 1, "tensor": 4}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("date=2", 'no axis "date"; did you mean "data"'),
        ("data", "is no number of devices"),
        ("data=0", "is no number of devices"),
        ("data=16", "needs 16 devices; there are 8"),
        ("data=4", "6 rows do not divide over 4"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_line(asked, says):
    with pytest.raises(UserError, match=says):
        mesh_of(asked, 6)


def test_a_model_that_is_target_and_draft_lies_there_once(directories):
    model = tiny_pair.save(directories / "again", tiny_pair.GPT_NEOX | SIZES)
    there = placed(Given(target=model, drafts={"own": model}), mesh_of("data=2", 2))
    assert there.target is there.draft
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(there.target)} == {2}


def test_one_device_and_eight_give_the_same_counts(directories, capsys, monkeypatch, tmp_path):
    shared = ["--target", directories / "target", "--draft", directories / "draft", "--data"]
    shared += [directories / "prompts.jsonl", "--prompt_column", "q", "--answer_column", "a", "--json"]
    knobs = "--max_new_tokens 16 --draft_length 2 --max_length 64 --method specinfer --mesh".split()
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: 1.0)  # what parts of a round cost is not asked here
    found = {}
    for mesh in ("data=1", "data=8"):
        arguments = [*shared, tmp_path / "e.json", *knobs, mesh]
        status, _, errors = command_line(capsys, monkeypatch, "evaluate", *arguments)
        assert status == 0, errors
        report = json.loads((tmp_path / "e.json").read_text())
        counted = ("accepted", "judged", "drafted", "rounds", "accepted_histogram")
        found[mesh] = {name: report["drafts"]["draft"][name] for name in counted}
        assert report["environment"]["devices"] == (1 if mesh == "data=1" else 8)
        assert report["speed"]["draft"]["identical_to_plain"] == 8
    assert found["data=1"] == found["data=8"]


def test_generate_takes_a_method_and_a_mesh(directories, capsys, monkeypatch):
    arguments = ["--target", directories / "target", "--prompt", "Tom has", "--max_new_tokens", 8]
    draft = ["--draft", directories / "draft"]
    texts = {}
    tree = [*draft, "--method", "specinfer", "--method.draft_length=2"]
    for given in ([], draft, tree, [*draft, "--mesh", "tensor=2"]):
        status, out, errors = command_line(capsys, monkeypatch, "generate", *arguments, *given)
        assert status == 0, errors
        texts[" ".join(map(str, given))] = out.rpartition("[")[0]
    assert len(set(texts.values())) == 1


@pytest.mark.parametrize(
    ("module", "method", "says"),
    [
        ("generate", "plain --method.window=3", 'error: the method plain has no knob "window"; it has none'),
        (
            "evaluate",
            "vanilla --method.lenght=3",
            'error: the method vanilla has no knob "lenght"; did you mean "draft_length"?',
        ),
        ("evaluate", "vanilla --method.draft_length", "error: --method.draft_length: give --method.NAME=VALUE"),
        ("generate", "vanila", 'error: there is no method "vanila"; did you mean "vanilla"?'),
        ("generate", "vanilla", "error: the method vanilla needs a draft model (--draft PATH)"),
        ("evaluate", "specinfr", 'error: there is no method "specinfr"; did you mean "specinfer"?'),
        ("evaluate", "specinfer", "error: the method specinfer needs a draft model (--draft PATH)"),
        (
            "evaluate",
            "tolerance --method.samples=0",
            "error: the method tolerance[samples=0]: tolerance needs at least one sample, not 0",
        ),
    ],
)
def test_a_method_that_cannot_be_is_one_line(module, method, says, directories, capsys, monkeypatch, tmp_path):
    arguments = {
        "generate": ["--prompt", "Tom"],
        "evaluate": ["--data", directories / "prompts.jsonl", "--prompt_column", "q", "--answer_column", "a"]
        + ["--max_new_tokens", 8, "--json", tmp_path / "e.json"],
    }
    given = ["--target", directories / "target", "--method", *method.split(), *arguments[module]]
    status, _, errors = command_line(capsys, monkeypatch, module, *given)
    assert (status, errors) == (2, f"{says}\n")


def test_a_lossy_method_is_said_to_be_and_has_no_say_in_text_of_shared_noise(
    directories, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: 1.0)
    shared = ["--target", directories / "target", "--draft", directories / "draft", "--method", "tolerance"]
    shared += ["--max_new_tokens", 4]
    columns = ["--data", directories / "prompts.jsonl", "--prompt_column", "q", "--answer_column", "a"]
    rows = {"generate": ["--prompt", "Tom"], "evaluate": [*columns, "--draft_length", 2, "--json", tmp_path / "e.json"]}
    for module, asked in rows.items():
        noise = ["--temperature", 1, "--shared_noise"]
        status, _, errors = command_line(capsys, monkeypatch, module, *shared, *asked, *noise)
        says = "error: the method tolerance is lossy, and shared noise settles what the target writes; leave it out\n"
        assert (status, errors) == (2, says)
    says = "error: the method tolerance has a lossy rule of its own; leave --lenience out\n"
    lenient = [*rows["evaluate"], "--lenience", 0.5]
    assert command_line(capsys, monkeypatch, "evaluate", *shared, *lenient, "--temperature", 1)[::2] == (2, says)
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *shared[:4], *lenient, *noise)
    assert status == 2 and errors.count("\n") == 1 and "--lenience has nothing to decide where --shared_noise" in errors
    asked = [*rows["evaluate"], "--max_length", 32, "--method.samples=3"]
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *shared, *asked)
    says = "the method tolerance[samples=3] is lossy: answers do not follow the target's law"
    assert status == 0 and says in errors and says in json.loads((tmp_path / "e.json").read_text())["notes"]


def test_a_length_is_chosen_only_where_there_is_one(directories, capsys, monkeypatch, tmp_path):
    arguments = ["--target", directories / "target", "--draft", directories / "draft", "--method", "specinfer"]
    arguments += ["--data", directories / "prompts.jsonl", "--prompt_column", "q", "--answer_column", "a"]
    arguments += ["--max_new_tokens", 8, "--json", tmp_path / "e.json", "--draft_length", 0]
    status, _, errors = command_line(capsys, monkeypatch, "evaluate", *arguments)
    assert status == 2 and "specinfer has no length to choose" in errors and errors.count("\n") == 1
