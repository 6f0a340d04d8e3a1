"""Heads at the doors that decode: whose target they belong to, how many there may be, what a report says of them."""

import json
import shutil

import jax
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.errors import UserError
from adaspec_jax.files import weights_sha256
from adaspec_jax.measuring import bench, costs
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.methods import METHODS
from adaspec_jax.models import heads
from tests import tiny_pair
from tests.running import command_line

LLAMA = tiny_pair.LLAMA | {"vocab_size": tiny_pair.TOKENS, "tie_word_embeddings": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two targets that differ in their weights alone, each a run's, heads on the first, and a draft model."""
    root = tmp_path_factory.mktemp("heads")
    for seed, name in enumerate(("target", "other")):
        target = tiny_pair.save(root / name, LLAMA, seed=seed)
        (root / name / "stage.json").write_text("{}")
        if not seed:
            for each, kind in enumerate(("eagle", "eagle", "medusa")):
                config = heads.made_for(kind, {}, heads.Sizes.of(target.config))
                head = heads.new(config, target, jax.random.key(each), np.arange(tiny_pair.TOKENS))
                directory = root / ("second" if each == 1 else kind)
                models.save_head(head, directory, fingerprint=weights_sha256(root / name))
    tiny_pair.save(root / "draft", LLAMA | {"intermediate_size": 16}, seed=2)
    rows = [{"prompt": text, "answer": "x"} for text in tiny_pair.TEXTS[:2]]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def door(root, capsys, monkeypatch, tmp_path):
    def run(name, target, drafts, *arguments):
        asked = {
            "generate": ("--prompt", "Tom"),
            "evaluate": ("--data", root / "prompts.jsonl", "--prompt_column", "prompt", "--answer_column", "answer")
            + ("--batch_size", 2, "--json", tmp_path / "report.json"),
            "benchmark": ("--prompts", root / "prompts.jsonl", "--json", tmp_path / "report.json"),
        }[name]
        drafts = [word for each in drafts for word in ("--draft", root / each)]
        given = ("--target", root / target, *drafts, *asked, "--max_new_tokens", 6, *arguments)
        return command_line(capsys, monkeypatch, name, *given)

    run.report = lambda: json.loads((tmp_path / "report.json").read_text())
    return run


@pytest.mark.parametrize("name", ["generate", "evaluate", "benchmark"])
def test_a_head_of_another_runs_target_is_refused_by_its_weights(name, door):
    methods = ("--methods", "eagle_chain") if name == "benchmark" else ()
    status, _, said = door(name, "other", ["eagle"], *methods)
    assert status == 2 and said.count("\n") == 1 and "the head belongs to another target: weights" in said


def test_of_a_target_that_is_no_runs_another_sum_is_a_note(root, door):
    shutil.copytree(root / "other", root / "elsewhere")
    (root / "elsewhere" / "stage.json").unlink()
    status, out, said = door("generate", "elsewhere", ["eagle"])
    assert status == 0 and "tokens per call" in out
    assert said.count("was trained on a target with the weights") == 1
    assert "was trained on" not in door("generate", "target", ["eagle"])[2]


def test_a_second_head_of_a_kind_is_refused_where_one_decodes_and_measured_by_a_benchmark(root, door):
    both = ["eagle", "second"]
    status, _, said = door("generate", "target", both)
    assert status == 2 and said.count("\n") == 1 and "takes one head" in said and str(root / "second") in said
    assert door("evaluate", "target", both)[0] == 2
    assert door("generate", "target", ["eagle", "medusa"])[0] == 0  # of another kind: not meant
    given, _ = load_given(str(root / "target"), [str(root / name) for name in (*both, "medusa", "draft")])
    entered, _ = bench.entries([METHODS[name] for name in ("vanilla", "eagle_chain", "medusa_chain")], given)
    assert list(entered) == ["vanilla", "eagle_chain", f"eagle_chain@{root / 'second'}", "medusa_chain"]
    made = [method.make(alone).head.head for method, alone in list(entered.values())[1:3]]
    assert [head is given.heads[str(root / name)] for head, name in zip(made, both, strict=True)] == [True, True]


def test_a_report_has_the_size_of_what_drafted_beside_a_model_that_did_not(root, door, few_costs):
    assert door("evaluate", "target", ["draft", "eagle"], "--method", "eagle_chain", "--draft_length", 2)[0] == 0
    said = door.report()["models"]
    assert said["draft"] == models.load_head(root / "eagle", models.load(root / "target")).num_params
    assert door("evaluate", "target", ["draft", "eagle"], "--method", "vanilla", "--draft_length", 2)[0] == 0
    assert door.report()["models"]["draft"] == models.load(root / "draft").num_params


@pytest.mark.parametrize("kind", ["eagle", "medusa"])
def test_the_length_of_a_heads_chain_is_chosen_by_what_it_costs(kind, door, few_costs, monkeypatch):
    works = []
    monkeypatch.setattr(costs, "_median_seconds", lambda loop: works.append(jax.block_until_ready(loop())) or 1.0)
    assert door("evaluate", "target", [kind], "--draft_length", 0)[0] == 0
    speed = door.report()["speed"]["draft"]
    # Nothing costs more than one guess, and none is right.
    assert speed["best_draft_length"] == 0 and door.report()["speed"]["draft_length"] == 1
    assert speed["first_draft_step_cost"] == 1 and speed["draft_step_cost"] == 0 and len(works) == 6


def test_a_tree_has_no_length_to_choose(door):
    status, _, said = door("evaluate", "target", ["eagle"], "--draft_length", 0, "--method", "eagle")
    assert status == 2 and "the method eagle has no length to choose; give one above 0" in said


def test_a_method_that_lacks_something_says_what_it_was_given(root, door, monkeypatch):
    status, _, said = door("generate", "target", ["eagle"], "--method", "vanilla")
    assert status == 2 and said.count("\n") == 1
    assert f"needs a draft model (--draft PATH); given: {root / 'eagle'} (a head of the kind eagle)" in said
    status, _, said = door("generate", "target", ["draft"], "--method", "eagle")
    assert status == 2 and f"given: {root / 'draft'} (a draft model)" in said


def test_a_head_where_a_model_is_needed_is_refused_before_the_target_is_read(root, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("the target was read"))
    with pytest.raises(UserError, match="is a head on the target's features, and a draft model is needed"):
        load_given(str(root / "target"), [str(root / "eagle")], takes_heads=False)
    with pytest.raises(UserError, match="--qualifier .* it must be a draft model"):
        load_given(str(root / "target"), [str(root / "draft")], qualifier=str(root / "eagle"))
