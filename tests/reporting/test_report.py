"""report.json is strict and replaced whole; the printed table says what the numbers mean."""

import getpass
import io
import json
import os
import socket
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from adaspec_jax.reporting import environment, print_table, table, write_json


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_numpy_and_jax_values_become_unrounded_json_numbers(tmp_path):
    third = np.float64(1) / 3
    values = {
        "a": third,
        "b": np.int64(7),
        "c": np.array([1.5, 2.5]),
        "d": jnp.asarray(2, jnp.int32),
        "e": (1, None),
        "f": np.bool_(True),
        "g": jnp.asarray(1.5, jnp.bfloat16),
        "h": ml_dtypes.bfloat16(0.5),
        "i": Path("x/y"),
        3: "ß",
    }
    write_json(tmp_path / "deep" / "report.json", values)
    read = json.loads((tmp_path / "deep" / "report.json").read_text("utf-8"))
    assert read.pop("a") == 1 / 3
    assert read == {
        "b": 7,
        "c": [1.5, 2.5],
        "d": 2,
        "e": [1, None],
        "f": True,
        "g": 1.5,
        "h": 0.5,
        "i": "x/y",
        "3": "ß",
    }


@pytest.mark.parametrize("bad", [float("nan"), np.float32("inf"), np.array([0.0, np.nan])])
def test_a_nan_is_named_and_leaves_the_old_report_alone(tmp_path, bad):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match=r"report\.drafts\.base\.alpha"):
        write_json(path, {"drafts": {"base": {"alpha": bad}}})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_while_writing_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path, monkeypatch, call):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(os, call, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_the_environment_names_versions_and_nobody(monkeypatch):
    found = environment("TPU v5 lite")
    assert found["device"] == "TPU v5 lite" and found["cpu_count"] >= 1
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["adaspec_jax"]
    assert {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers"} <= found["versions"].keys()
    values = [str(value) for value in [*found.values(), *found["versions"].values()]]
    assert not any(socket.gethostname() in value or str(Path.home()) in value for value in values)
    assert not any(value == getpass.getuser() for value in values)
    json.dumps(found, allow_nan=False)


def test_the_table_has_a_row_per_draft_under_its_label(report):
    said, _, shown = table(report).partition("\n\n")
    assert said.startswith("The target accepts 67.2 % of the guesses of the AdaSPEC draft")
    lines = shown.splitlines()
    rows = {line.split("  ")[0]: line for line in lines}
    assert {"plain decoding", "untrained draft", "reference (DistillSpec)", "AdaSPEC draft"} <= rows.keys()
    for cell in ("67.2 %", "66.0 to 68.0", "2.75", "64.0 %", "66.0 %", "350.0", "1.75x"):
        assert cell in rows["AdaSPEC draft"]
    assert "200.0" in rows["plain decoding"] and "x" not in rows["untrained draft"]
    assert len({len(line) for line in lines[1:2]} | {max(map(len, lines[:6]))}) == 1  # the rule spans the widest row


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        ({"difference": 0.012, "ci95": [0.003, 0.021], "p_value": 0.008}, "the difference is distinguishable"),
        ({"difference": 0.012, "ci95": [-0.003, 0.027], "p_value": 0.12}, "the difference is not distinguishable"),
        ({"difference": 0.012, "ci95": [-0.001, 0.027], "p_value": 0.04}, "the difference is not distinguishable"),
        ({"difference": None, "ci95": None, "p_value": None}, "not tested"),
    ],
)
def test_the_paired_test_is_put_in_words(report, test, verdict):
    report["paired"]["draft-reference"] = test
    (sentence,) = [line for line in table(report).splitlines() if line.startswith("AdaSPEC draft minus")]
    assert verdict in sentence
    if test["difference"]:
        assert sentence.startswith("AdaSPEC draft minus reference (DistillSpec): +1.2 points, 95 % interval [")
        assert f"p = {test['p_value']:.3f}" in sentence and "(200)" in sentence


def test_the_settings_line_prints_what_makes_numbers_comparable(report):
    line = table(report).splitlines()[-1]
    for part in ("temperature 0 (greedy)", "draft length 5", "max_new_tokens 128", "200 prompts", "bonus", "sequence"):
        assert part in line
    report["settings"] = {"evaluation": {"temperature": 1.0, "draft_length": 3}, "temperature": 2.0, "eos_id": -1}
    line = table(report).splitlines()[-1]
    assert "temperature 1;" in line and "draft length 3" in line and "max_new_tokens (not recorded)" in line
    assert "end-of-sequence ignored" in line


def test_a_draft_that_was_never_judged_and_missing_parts_print_too(report):
    report["drafts"] = {"mine": {**report["drafts"]["base"], "alpha": None, "ci95": None, "expected_alpha": None}}
    del report["speed"], report["paired"], report["environment"]
    text = table(report)
    assert "mine" in text and "None" not in text and "tokens/s" not in text
    assert "Measured at" in table({"drafts": {}})


def test_one_prompt_is_not_given_an_interval(report):
    report["drafts"]["base"].update(prompts=1, ci95=[0.52, 0.52])
    assert "one prompt" in table(report) and "52.0 to 52.0" not in table(report)


def test_printing_is_plain_off_a_terminal_and_drawn_on_one(report, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    log, terminal = io.StringIO(), Terminal()
    report["task"] = "[red]gsm8k"
    print_table(report, file=log)
    print_table(report, file=terminal)
    assert log.getvalue() == table(report) + "\n" and "\x1b" not in log.getvalue()
    assert "┃" in terminal.getvalue() and "350.0" in terminal.getvalue()
    assert "AdaSPEC draft minus reference (DistillSpec): +1.2 points" in terminal.getvalue()


def test_what_drafting_costs_is_said_as_it_was_measured(report):
    costs = {"draft_step_cost": 0.1, "verification_cost": 1.25, "best_draft_length": 3}
    costs |= {"promised_speedup_at_best": 1.8, "promised_speedup": 1.6}
    report["speed"] |= {"draft_length": 2, "draft": costs}
    assert "AdaSPEC draft: a draft step costs 0.10 of a target step and verifying 2" in table(report)
    report["speed"]["draft"]["first_draft_step_cost"] = 0.3
    said = "the first draft step of a round costs 0.30 of a target step, each further one 0.10 and verifying 2"
    assert f"AdaSPEC draft: {said}" in table(report)
