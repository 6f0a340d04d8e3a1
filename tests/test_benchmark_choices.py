"""Which methods a benchmark measures, with which drafts and knobs, and the command that its verdict ends with."""

# ruff: noqa: F811

import argparse
import json
import shlex

from adaspec_jax.command_line import take_knobs
from adaspec_jax.sampling_options import add_sampling, spelt_out
from tests import tiny_pair
from tests.running import command_line
from tests.test_benchmark_door import measured, root, run  # noqa: F401


def test_each_further_draft_is_named_beside_the_method(root, capsys, monkeypatch, tmp_path):
    drafts = ["--draft", root / "target", "--draft", root / "other", "--methods", "vanilla,plain"]
    report, _ = measured(capsys, monkeypatch, root, *drafts, json_file=tmp_path / "b.json")
    assert list(report["methods"]) == ["vanilla", f"vanilla@{root / 'target'}"]  # the smallest goes by the name alone
    own = report["methods"][f"vanilla@{root / 'target'}"]
    assert own["accepted"] == own["judged"] > 0 and set(own["accepted_at"]) == {1.0}


def test_generate_takes_as_many_drafts_as_a_method_needs(root, capsys, monkeypatch):
    arguments = ["--target", root / "target", "--prompt", tiny_pair.TEXTS[0], "--max_new_tokens", 8]
    arguments += ["--method", "pyramidsd_a", "--method.length=3", "--method.draft_length=2", "--draft", root / "draft"]
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments)
    given = f"given: {root / 'draft'} (a draft model)"
    assert (status, errors) == (2, f"error: the method pyramidsd_a needs two drafts (--draft PATH twice); {given}\n")
    status, out, errors = command_line(capsys, monkeypatch, "generate", *arguments, "--draft", root / "other")
    assert status == 0 and out, errors
    status, _, errors = command_line(capsys, monkeypatch, "generate", *arguments[:-2], "--qualifier", root / "draft")
    assert status == 2 and errors.count("\n") == 1 and "stands above a smaller draft, and there is none" in errors


def test_the_fastest_is_named_with_its_command_and_measured_again_on_prompts_held_back(
    root, capsys, monkeypatch, tmp_path
):
    arguments = ["--draft", root / "target", "--methods", "vanilla", "--num_prompts", 4]
    report, out = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    verdict, last = report["verdict"], out.splitlines()[-1]
    sides = {"plain": report["plain"], "vanilla": report["methods"]["vanilla"]}
    rates = {label: m["tokens_per_second"] for label, m in sides.items()}
    assert verdict["best"] == max(rates, key=rates.get) and 0 < verdict["first_in_resamples"] <= 1
    assert last.startswith("Verdict: ") and report["plain"]["prompts"] == 4
    if verdict["best"] == "vanilla":
        assert verdict["held_back"]["prompts"] == 1 and verdict["held_back"]["speedup"] > 0
        assert f"--target {root / 'target'} --draft {root / 'target'} --method vanilla --draft_length 3" in last


def test_the_verdicts_command_is_one_that_generate_takes(root, capsys, monkeypatch, tmp_path):
    """Knobs that were left alone are left out, and a method of one's own goes by where it was found."""
    from adaspec_jax import benchmark, generate
    from adaspec_jax.methods import Given, find

    given = Given(target=None, drafts={"a draft": None, "larger": None})
    shared = ["--target", "t", "--draft", "a draft", "--qualifier", "larger", "--draft_length", "3", "--min_p", "0.1"]
    shared += ["--mesh", "data=2,tensor=1", "--chat", "--chat_template", "t.jinja"]
    (tmp_path / "mine.py").write_text("from adaspec_jax.methods import METHODS\nmine = METHODS['anpd']\n")
    own, renamed = f"{root / 'own.py'}:zeros", f"{tmp_path / 'mine.py'}:mine"
    skipping = find("draft_and_verify").set(skip="2-3")
    arguments = benchmark._parser().parse_args([*shared, "--methods", "vanilla"])
    alone = Given(target=None, drafts={"larger": None}, qualifier="larger")  # as vanilla@larger has it
    assert "--draft larger" in benchmark._command(arguments, (find("vanilla"), alone))
    for name, method in ((own, find(own)), (renamed, find(renamed)), ("draft_and_verify", skipping)):
        arguments = benchmark._parser().parse_args([*shared, "--methods", f"plain,{name}"])
        words = shlex.split(benchmark._command(arguments, (method, given)))
        assert words[words.index("--method") + 1] == name and words[-2:] == ["--min_p", "0.1"]
        rest, knobs = take_knobs(words)
        assert find(name).set(**knobs).chosen == method.chosen
        taken = generate._parser().parse_args([*rest[3:], "--prompt", "x"])
        assert (taken.draft, taken.qualifier, taken.mesh, taken.chat) == (["a draft"], "larger", "tensor=1", True)
        assert (taken.chat_template, taken.draft_length, taken.datastore) == ("t.jinja", 3, None)


def test_a_sweep_measures_a_method_with_every_value_of_a_knob(root, capsys, monkeypatch, tmp_path):
    arguments = ["--draft", root / "draft", "--methods", "vanilla", "--sweep", "draft_length=1,2"]
    report, _ = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    for n, (name, m) in enumerate(report["methods"].items(), 1):
        assert name == f"vanilla[draft_length={n}]" and m["knobs"] == {"draft_length": n}
        assert len(m["histogram"]) == n + 1 and m["identical_to_plain"] == m["prompts"]


def test_a_sweep_sets_a_rules_threshold_against_the_tasks_score(root, capsys, monkeypatch, tmp_path):
    arguments = ["--target", root / "target", "--draft", root / "draft", "--task", "word_problems", "--num_prompts", 2]
    arguments += ["--max_prompt_length", 40, "--max_new_tokens", 6, "--draft_length", 3, "--json", tmp_path / "b.json"]
    arguments += ["--methods", "fsd", "--sweep", "fsd.threshold=0.01,99", "--svg", tmp_path / "s.svg"]
    monkeypatch.setattr("adaspec_jax.data.continuation", lambda *_, **__: "so it is 7")
    status, out, errors = command_line(capsys, monkeypatch, "benchmark", *arguments)
    assert status == 0, errors
    report = json.loads((tmp_path / "b.json").read_text())
    strict, all_kept = (report["methods"][f"fsd[threshold={value}]"] for value in (0.01, 99.0))
    assert strict["knobs"]["threshold"] == 0.01 and strict["knobs"]["divergence"] == "fsd_js"
    assert strict["accepted"] < strict["judged"] and all_kept["accepted"] == all_kept["judged"]
    assert all_kept["score"] == report["plain"]["score"] is not None and not strict["lossless"]
    assert report["verdict"]["best"] == "plain"
    rows = [line.split()[-1] for line in out.splitlines() if line.startswith(("method ", "plain decoding", "fsd["))]
    assert rows == ["score", *[f"{strict['score']:.3f}"] * 3]
    assert "Lossy, answers do not follow the target's law: fsd[threshold=0.01], fsd[threshold=99.0]." in out
    assert (tmp_path / "s.svg").read_text().count("(lossy)</text>") == 2


def test_a_verdicts_command_samples_as_it_was_measured():
    parser = argparse.ArgumentParser()
    add_sampling(parser)
    given = ["--logit_bias", "7=-2,9=0.5", "--suppress_tokens", "3,4", "--temperature", "0.7", "--shared_noise"]
    asked = parser.parse_args(given)
    assert parser.parse_args(spelt_out(asked)) == asked and spelt_out(parser.parse_args([])) == []
