"""Runs beside the paper: read from reports that no run made, so that every case can be had."""

import copy
import json

import pytest

from adaspec_jax.command_line import load_config
from adaspec_jax.compare import read
from adaspec_jax.config import flatten, paper
from adaspec_jax.errors import UserError
from adaspec_jax.reporting.comparison import compare, table
from tests.running import CHECKOUT, command_line

PYTHIA_GSM8K = ("EleutherAI/pythia-1.4b", "EleutherAI/pythia-31m")


def draft(alpha, **also):
    return {
        "alpha": alpha,
        "ci95": [alpha - 0.01, alpha + 0.01],
        "accepted": 700,
        "judged": 1000,
        "prompts": 200,
    } | also


def report_of(gain=0.05, ci95=(0.03, 0.07), published=(57.58, 62.63), **also):
    """A run of the paper's row, Pythia on GSM8K at 3 epochs."""
    fit = {"epochs": 3, "batch_size": 16, "lr": 3e-4, "divergence": "forward_kl"}
    knobs = {"fraction": 0.4, "normalize": "paper", "budget": "official"}
    target, small = PYTHIA_GSM8K
    return {
        "task": "gsm8k",
        "settings": {
            **{"seed": 7, "dtype": "bfloat16", "eos_id": 0, "data": {"task": "gsm8k"}},
            "target": {"init": target, "lora_rank": 0, **fit, "lr": 1e-5},
            "reference": fit,
            "draft": {"init": small, **knobs, **fit},
            "evaluation": {"draft_length": 0, "temperature": 0.0, "max_new_tokens": 256},
            "published": dict(zip(("distillspec", "adaspec"), published, strict=True)),
        },
        "drafts": {"base": draft(0.02), "reference": draft(0.58), "draft": draft(0.58 + gain)},
        "paired": {"draft-reference": {"difference": gain, "ci95": list(ci95), "p_value": 1e-4}},
        "speed": {"draft_length": 4},
        "models": {"target": 1_414_647_808, "draft": 30_494_720},
    } | also


def written(directory, report):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report))
    return directory


@pytest.mark.parametrize(
    ("ci95", "verdict", "words"),
    [
        ((0.03, 0.07), "inside", "+5.05 points lies in our interval [+3.0, +7.0]"),
        ((0.01, 0.02), "above", "+5.05 points lies above our interval [+1.0, +2.0]"),
        ((0.06, 0.07), "below", "+5.05 points lies below our interval [+6.0, +7.0]"),
    ],
)
def test_it_says_where_the_published_gain_lies(ci95, verdict, words):
    found = compare(report_of(ci95=ci95))
    assert found["verdict"] == verdict and words in found["sentence"]
    assert found["published"] == {"distillspec": 57.58, "adaspec": 62.63, "gain": 5.05}
    assert words in table({"run": found}) and "57.58 %" in table({"run": found})


def test_a_run_without_a_row_in_the_paper_is_shown_alone():
    shown = table({"run": compare(report_of(published=(None, None)))})
    assert "the paper has no such row" in shown and "paper: gain" not in shown and "57.58" not in shown
    older = report_of()
    del older["settings"]["published"], older["models"], older["speed"]
    assert "the paper has no such row" in table({"run": compare(older)})


@pytest.mark.parametrize("prompts", [1, 200])
def test_without_an_interval_nothing_is_claimed(prompts):
    report = report_of()
    report["drafts"]["draft"]["prompts"] = prompts
    if prompts > 1:
        report["paired"]["draft-reference"] = {"difference": None, "ci95": None, "p_value": None}
    found = compare(report)
    assert found["verdict"] is None and "set against nothing" in found["sentence"] and table({"run": found})


def test_the_third_draft_has_its_columns_where_a_run_has_it():
    report = report_of()
    assert "KL, AdaSPEC's data" not in table({"run": compare(report)})
    report["drafts"]["reference_equal_data"] = draft(0.617)
    report["paired"]["draft-reference_equal_data"] = {"difference": 0.013, "ci95": [-0.002, 0.028], "p_value": 0.09}
    shown = table({"run": compare(report), "other": compare(report_of())})
    assert "KL, AdaSPEC's data" in shown and "61.7 % [60.7, 62.7]" in shown and "+1.3 [-0.2, +2.8], p = 0.090" in shown


def test_settings_are_listed_and_those_unlike_the_papers_are_named():
    report = report_of()
    found = compare(report)
    assert found["departures"] == []
    shown = table({"run": found})
    for words in ("draft length 4", "temperature 0 (greedy)", "prompts 200", "seed 7", "dtype bfloat16", "3 / 3 / 3"):
        assert words in shown
    settings = report["settings"]
    settings["evaluation"]["temperature"] = 1.0
    settings["draft"] |= {"fraction": 0.2, "budget": "equal_compute", "lr": 1e-3, "init": "random"}
    settings["reference"] = settings["reference"] | {"epochs": 15, "divergence": "reverse_kl"}
    settings["target"] |= {"lora_rank": 16, "init": "/models/pythia-1.4B/"}
    apart = "; ".join(compare(report)["departures"])
    for words in (
        *("temperature 1 (paper: greedy)", "k = 0.2 (paper: 0.4)", "budget equal_compute", "LoRA of rank 16"),
        *("draft trained from scratch (paper: EleutherAI/pythia-31m)", "reference epochs 15 (paper: 3)"),
        *("draft lr 0.001 (paper: 0.0003)", "reference distilled by reverse_kl"),
    ):
        assert words in apart
    assert "target begun" not in apart and "target lr" not in apart


def test_the_table_of_the_paper_is_that_of_the_configs():
    variants = [
        f"{task}{suffix}" for task in ("gsm8k", "alpaca", "mbpp", "cnn_dailymail", "xsum") for suffix in ("", "_3epoch")
    ]
    files = {"pythia_31m_1b4": variants, "codegen350m_phi2": variants, "qwen05b_32b": ["gsm8k_3epoch"]}
    found = []
    for name, of_file in files.items():
        for variant in of_file:
            flat = flatten(load_config(f"{CHECKOUT}/configs/{name}.py:{variant}"))
            settings = {"evaluation": {}}
            for key, value in flat.items():
                stage, _, field = key.partition(".")
                if field:
                    settings.setdefault(stage, {})[field] = value
            found.append(paper.row_of(settings))
            assert found[-1] is not None and paper.departures(settings) == []
    assert found and set(found) == set(paper.ROWS)


def test_several_runs_are_several_rows_and_the_json_is_unrounded(tmp_path, capsys, monkeypatch):
    one = written(tmp_path / "one", report_of(gain=0.0512345))
    other = written(tmp_path / "other", report_of(published=(None, None)))
    out = tmp_path / "out.json"
    arguments = ("--workdir", one, other / "report.json", "--json", out)
    status, printed, errors = command_line(capsys, monkeypatch, "compare", *arguments)
    assert status == 0 and not errors
    assert len([line for line in printed.splitlines() if line.startswith(str(tmp_path)) and "gsm8k" in line]) == 2
    runs = json.loads(out.read_text())["runs"]
    assert [run["verdict"] for run in runs] == ["inside", None]
    assert runs[0]["gain_over"]["reference"]["difference"] == 0.0512345


def broken(change):
    report = copy.deepcopy(report_of())
    change(report)
    return json.dumps(report)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "has no report.json"),
        ('{"task": "gsm', "is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "is not the report of a training run"),
        (broken(lambda report: report["drafts"].pop("reference")), "trained no reference"),
        (broken(lambda report: report.pop("paired")), "has no paired"),
        (broken(lambda report: report["paired"].update({"draft-reference": 3})), "is damaged"),
        (broken(lambda report: report["drafts"]["draft"].update(alpha="high")), "is damaged"),
        (broken(lambda report: report["paired"]["draft-reference"].update(ci95=[1])), "is damaged"),
    ],
)
def test_what_is_no_report_of_a_run_is_one_line(tmp_path, capsys, monkeypatch, text, complaint):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    status, printed, errors = command_line(capsys, monkeypatch, "compare", "--workdir", tmp_path)
    assert (status, printed) == (2, "") and complaint in errors and errors.count("\n") == 1
    with pytest.raises(UserError):
        read(tmp_path)


def test_parity_of_a_lone_report_is_refused(tmp_path, capsys, monkeypatch):
    file = written(tmp_path / "run", report_of()) / "report.json"
    status, _, errors = command_line(capsys, monkeypatch, "compare", "--workdir", file, "--parity")
    assert status == 2 and "needs the run's directory" in errors
