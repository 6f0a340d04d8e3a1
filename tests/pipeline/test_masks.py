"""Drafts that guess at mask tokens in a run: stages, directories, report and export are those of any draft."""

import dataclasses
import json

import numpy as np
import pytest

from adaspec_jax import methods, models, pipeline, planning
from adaspec_jax.config import validate
from adaspec_jax.decoding.drafters.models.masked import MaskDrafter
from adaspec_jax.errors import UserError
from adaspec_jax.reporting import read_metrics
from tests.pipeline.test_arms import short
from tests.planning.test_heads import HERE
from tests.running import command_line

STAGES = ("reference", "draft")


def at_masks(head="guesses=3", vocab_size=324, kind="pard", **changes):
    config = short(**changes)
    config.draft = dataclasses.replace(config.draft, kind=kind, head=head)
    for part in (config.target, config.draft):
        part.architecture = dataclasses.replace(part.architecture, vocab_size=vocab_size)
    return config


@pytest.fixture(scope="module")
def finished(few_costs_throughout, tmp_path_factory):
    directory = tmp_path_factory.mktemp("masks") / "run"
    return directory, pipeline.run(at_masks(), directory)


@pytest.mark.slow
def test_reference_and_draft_guess_at_a_row_that_no_token_owns(finished):
    directory, report = finished
    for stage in STAGES:
        draft = models.load(directory / stage)
        assert draft.config.mask_token == json.loads((directory / stage / "config.json").read_text())["pard_token"]
        assert draft.config.mask_token >= 320
        assert isinstance(methods.load_drafter(directory / stage), MaskDrafter)
        lines = read_metrics(directory / stage / "metrics.jsonl")
        assert {"agreement", "agreement_last"} <= set(lines[-1])
    assert methods.method_for([str(directory / "draft")]) == "pard"
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]
    assert 0.3 < read_metrics(directory / "draft" / "metrics.jsonl")[-1]["share_kept"] < 0.6


@pytest.mark.slow
def test_a_block_is_trained_named_and_guessed_at_as_one(few_costs, tmp_path):
    report = pipeline.run(at_masks(kind="specdec"), tmp_path / "run")
    said = json.loads((tmp_path / "run" / "draft" / "config.json").read_text())
    assert said["specdec_block"] == 3 and said["specdec_token"] >= 320 and "pard_token" not in said
    drafter = methods.load_drafter(tmp_path / "run" / "draft", length=9)
    assert (drafter.length, drafter.block) == (3, 3)
    assert report["drafts"]["reference"]["expected_alpha"] > report["drafts"]["base"]["expected_alpha"]
    assert report["speed"]["draft"]["identical_to_plain"] == report["drafts"]["draft"]["prompts"]


@pytest.mark.slow
def test_a_second_run_finds_everything_done(finished):
    directory, report = finished
    before = [(directory / stage / "model.safetensors").stat().st_mtime_ns for stage in STAGES]
    assert pipeline.run(at_masks(), directory) == report
    assert [(directory / stage / "model.safetensors").stat().st_mtime_ns for stage in STAGES] == before


@pytest.mark.slow
def test_an_export_keeps_what_is_read_at_a_mask_and_says_how_vllm_serves_it(finished, capsys, monkeypatch, tmp_path):
    directory, out = finished[0], tmp_path / "out"
    arguments = ("--workdir", directory, "--stage", "draft", "--out", out, "--dtype", "float32")
    status, _, errors = command_line(capsys, monkeypatch, "export", *arguments)
    assert status == 0, errors
    ours, theirs = models.load(directory / "draft").with_vocabulary(320), models.load(out).with_vocabulary(320)
    tokens = np.array([[5, 9, *[ours.config.mask_token] * 3]])
    np.testing.assert_allclose(ours(tokens)[0][..., :320], theirs(tokens)[0][..., :320], atol=1e-4)
    raw = np.asarray(models.load(out)(tokens)[0])
    assert (raw[..., 320:] < raw[..., :320].max(axis=-1, keepdims=True)).all()  # engines rule no row out
    arguments = ("--target", directory / "target", "--draft", out)
    status, said, errors = command_line(capsys, monkeypatch, "doctor", *arguments)
    assert status == 0 and '"parallel_drafting": true' in said, errors


@pytest.mark.slow
def test_generate_and_benchmark_decode_with_it(finished, capsys, monkeypatch, tmp_path):
    pair = ("--target", finished[0] / "target", "--draft", finished[0] / "draft")
    status, out, errors = command_line(capsys, monkeypatch, "generate", *pair, "--prompt", "Tom", "--max_new_tokens", 8)
    assert status == 0 and "target calls" in errors + out
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Tom has 3"}\n{"prompt": "Ann"}\n')
    how = ("--methods", "pard,vanilla", "--prompts", tmp_path / "prompts.jsonl", "--max_new_tokens", 12)
    status, _, errors = command_line(capsys, monkeypatch, "benchmark", *pair, *how, "--json", tmp_path / "out.json")
    assert status == 0, errors
    made = json.loads((tmp_path / "out.json").read_text())["methods"]
    assert made["pard"]["lossless"] and made["pard"]["identical_to_plain"] == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head": "guesses=0"}, "config.draft.head: guesses is 0; it must be from 1 to 64"),
        ({"head": "steps=3"}, 'config.draft.head: the kind pard has no knob "steps"'),
        ({"kind": "specdec", "head": "guesses=1"}, "guesses is 1, and a block has at least one mask"),
        ({"kind": "specdec", "head": "reveal=2"}, "reveal is 2.0; it must be from 0 to 1"),
        ({"kind": "specdec", "head": "confident=true"}, 'the kind specdec has no knob "confident"'),
        ({"head": "reveal=0.5"}, 'the kind pard has no knob "reveal"'),
        ({"head": "mask=100000"}, "mask is 100000, and the draft has"),
        ({"head": "mask=70"}, "and the text has it"),
        ({"vocab_size": 320}, "each of the 320 vocabulary rows is a token that text may have"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_before_anything_is_trained(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        pipeline.run(at_masks(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "target").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher": "top_k"}, 'teacher "top_k" does not know how likely the text\'s own tokens are'),
        ({"masks": "laws"}, 'draft.masks "laws" is for a head, and draft.kind is "pard"'),
    ],
)
def test_what_says_nothing_of_such_a_draft_is_refused(changes, says):
    config = at_masks()
    for key, value in changes.items():
        setattr(config if hasattr(config, key) else config.draft, key, value)
    with pytest.raises(UserError, match=says):
        validate(config)


def test_a_plan_counts_the_masks():
    plans = [planning.Plan(at_masks(f"guesses={n},keep=0.5,least=0.1"), HERE, compiling=False) for n in (1, 3)]
    one, three = (plan.stage("reference", search=False)["flops"] for plan in plans)
    assert 1.5 * one < three < 3 * one  # rows are 1 + 0.5 + 0.25 as long
    assert plans[1].stage("decode", search=False)["fits"]
