"""The benchmark's figures are those of the decodings it timed, and its command line is that of the contract."""

import json
import os
import re

import jax
import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.decoding import Context, Sampling, generate
from adaspec_jax.measuring.pair import load_given
from adaspec_jax.methods import METHODS, SAID
from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}
KNOBS = {"max_new_tokens": 12, "draft_length": 3}
OWN = """
import jax, dataclasses
import jax.numpy as jnp
from adaspec_jax.decoding import Lenient, Proposal
from adaspec_jax.methods import Method

class Zeros:
    num_nodes = 2
    def init(self, prompt, slots):
        return ()
    def propose(self, key, state, context):
        return Proposal(jnp.zeros((context.lengths_B.shape[0], 2), jnp.int32)), state

zeros = Method(name="zeros", drafter=lambda given: Zeros(), accept=Lenient(0.9), lossless=False)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    for seed, (name, inside) in enumerate({"target": 64, "draft": 32, "other": 32}.items()):
        tiny_pair.save(root / name, tiny_pair.GPT_NEOX | SIZES | {"intermediate_size": inside}, seed=seed)
    rows = [{"id": f"r{n}", "category": "ab"[n % 2], "prompt": text} for n, text in enumerate(tiny_pair.TEXTS[:5])]
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "own.py").write_text(OWN)
    return root


def run(capsys, monkeypatch, root, *arguments):
    shared = ["--target", root / "target", "--prompts", root / "prompts.jsonl"]
    shared += [part for name, value in KNOBS.items() for part in (f"--{name}", value)]
    return command_line(capsys, monkeypatch, "benchmark", *shared, *arguments)


def measured(capsys, monkeypatch, root, *arguments, json_file):
    status, out, errors = run(capsys, monkeypatch, root, "--json", json_file, *arguments)
    assert status == 0, errors
    return json.loads(json_file.read_text()), out


def decoded(root, name):
    """What each prompt's decoding alone gives, by `generate` itself."""
    given, eos_id = load_given(str(root / "target"), [str(root / "draft")], draft_length=KNOBS["draft_length"])
    for row in map(json.loads, (root / "prompts.jsonl").read_text().splitlines()):
        tokens = data.opening(given.tokenizer) + given.tokenizer(row["prompt"])["input_ids"]
        prompt = Context(np.asarray([tokens]), np.asarray([len(tokens)]))
        knobs = {"max_new_tokens": KNOBS["max_new_tokens"], "sampling": Sampling(0.0), "eos_id": eos_id}
        yield (
            len(tokens),
            jax.device_get(generate(given.target, METHODS[name].make(given), prompt, jax.random.key(0), **knobs)),
        )


def test_every_figure_is_that_of_the_decodings(root, capsys, monkeypatch, tmp_path):
    arguments = ["--draft", root / "draft", "--svg", tmp_path / "s.svg", "--methods", "vanilla,specinfer"]
    report, out = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    assert list(report["methods"]) == ["vanilla", "specinfer"]
    for name, m in {**report["methods"], "plain": report["plain"]}.items():
        alone = list(decoded(root, name))
        new = [int(out.lengths_B[0]) - length for length, out in alone]
        rounds = [int(out.rounds_B[0]) for _, out in alone]
        accepted, judged = (sum(int(getattr(out, f"{k}_BN").sum()) for _, out in alone) for k in ("accepted", "judged"))
        assert (m["accepted"], m["judged"], m["rounds"]) == (accepted, judged, sum(rounds))
        assert m["tokens_per_target_call"] == sum(new) / sum(rounds)
        assert m["mean_over_requests"] == pytest.approx(np.mean(np.divide(new, rounds)))
        assert m["histogram"] == sum(out.histogram_BM[0] for _, out in alone).tolist()
        assert sum(m["histogram"]) == m["rounds"] and m["prompts"] == m["identical_to_plain"] == 5
        assert np.dot(m["histogram"], range(len(m["histogram"]))) == accepted
        if name == "vanilla":  # node n of a chain is its guess at depth n + 1
            by_node = [sum(getattr(out, f"{k}_BN")[0] for _, out in alone) for k in ("accepted", "judged")]
            assert m["accepted_at"] == [a / j for a, j in zip(*by_node, strict=True) if j]
            drafted = sum(int(out.drafted_B[0]) for _, out in alone)
            assert m["vllm"]["draft_acceptance_rate"] == accepted / drafted
            assert m["vllm"]["per_position_acceptance_rates"] == [a / m["rounds"] for a in by_node[0]]
        assert m["vllm"]["mean_acceptance_length"] == 1 + accepted / m["rounds"]
        assert [row["id"] for row in m["requests"]] == [f"r{n}" for n in range(5)]
        assert [row["new_tokens"] for row in m["requests"]] == new
        assert [row["rounds"] for row in m["requests"]] == rounds
        assert sum(row["accepted"] for row in m["requests"]) == accepted
        assert all(row["seconds"] > 0 for row in m["requests"])
        assert m["ci95"][0] <= m["tokens_per_target_call"] <= m["ci95"][1]
        assert m["speedup_ci95"][0] <= m["speedup"] <= m["speedup_ci95"][1] and m["tokens_per_second"] > 0
        assert m["compile_seconds"] > 0 and m["peak_bytes"] > 0 and m["score"] is None and m["lossless"] is True
        assert set(m["batch_sizes"]) == {"1"} and m["batch_sizes"]["1"].items() <= m.items()
        assert {c: part["prompts"] for c, part in m["categories"].items()} == {"a": 3, "b": 2}
        assert sum(part["accepted"] for part in m["categories"].values()) == accepted
    claim = report["methods"]["vanilla"]["published"][0]
    assert (claim["speedup"], claim["tokens_per_target_call"], claim["machine"]) == ("1.52", 2.28, "one A100")
    assert "1.52x*" in out and "Published: of other models, texts and machines" in out
    assert report["methods"]["specinfer"]["published"] == []
    plain = report["plain"]
    assert (plain["speedup"], plain["speedup_ci95"], plain["accepted_at"]) == (1.0, [1.0, 1.0], [])
    assert plain["tokens_per_target_call"] == 1.0 and plain["vllm"]["draft_acceptance_rate"] is None
    assert report["environment"]["devices"] == 1 and report["settings"]["measured"]["speedup"]
    assert re.search(r"^vanilla .* 5/5 +1\.52x\*$", out, re.MULTILINE) and "temperature 0 (greedy)" in out
    assert (tmp_path / "s.svg").read_text().count("<rect ") == 2 and "http://www.w3.org" in (
        tmp_path / "s.svg"
    ).read_text()


def test_methods_without_what_they_need_are_skipped_with_the_reason(root, capsys, monkeypatch, tmp_path):
    few = {name: METHODS[name] for name in ("plain", "vanilla", "specinfer", "prompt_lookup")}
    monkeypatch.setattr("adaspec_jax.methods.table.METHODS", few)
    report, out = measured(capsys, monkeypatch, root, json_file=tmp_path / "b.json")
    assert report["methods"].pop("prompt_lookup")["identical_to_plain"] == 5
    assert report["methods"] == dict.fromkeys(
        ("vanilla", "specinfer"), {"skipped": "needs a draft model (--draft PATH)"}
    )
    assert "vanilla: skipped, needs a draft" in out and report["plain"]["prompts"] == 5
    status, _, errors = run(capsys, monkeypatch, root, "--methods", "vanilla")
    assert (status, errors) == (2, "error: the method vanilla needs a draft model (--draft PATH)\n")


def test_all_is_timed_again_until_the_intervals_are_as_narrow_as_asked(root, capsys, monkeypatch, tmp_path):
    from adaspec_jax.measuring import tallies

    monkeypatch.setattr(tallies, "speedup_interval", lambda tally, plain: [1.0, 1.0 + 0.6 / tally.repetitions])
    arguments = ["--draft", root / "draft", "--methods", "vanilla", "--until", 0.2]
    report, _ = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    m, plain = report["methods"]["vanilla"], report["plain"]
    assert m["repetitions"] == plain["repetitions"] == 3
    once, _ = measured(capsys, monkeypatch, root, *arguments[:4], json_file=tmp_path / "o.json")
    for counted in ("accepted", "judged", "rounds", "histogram", "prompts", "tokens_per_target_call", "ci95"):
        assert m[counted] == once["methods"]["vanilla"][counted]
    assert once["plain"]["repetitions"] == 1


def test_a_prompt_beyond_the_context_loses_its_middle_and_is_counted(root, capsys, monkeypatch, tmp_path):
    long = {"prompt": " ".join(tiny_pair.TEXTS)}
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "Tom has"}) + "\n" + json.dumps(long) + "\n")
    arguments = ["--prompts", tmp_path / "p.jsonl", "--methods", "plain"]
    report, out = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    assert report["prompts_cut"] == 1 and report["plain"]["prompts"] == 2
    assert "1 prompts lost their middle" in out


def test_answers_are_scored_by_their_tasks_measure(root, capsys, monkeypatch, tmp_path):
    arguments = ["--target", root / "target", "--task", "word_problems", "--num_prompts", 2, "--max_prompt_length", 40]
    arguments += ["--methods", "plain", "--max_new_tokens", 4, "--json", tmp_path / "b.json"]
    monkeypatch.setattr("adaspec_jax.data.continuation", lambda *_, **__: "so it is 7")
    examples = data.load_examples("word_problems", "test", num=3)
    expected = np.mean([example.answer.endswith(" 7") for example in examples[:2]])
    status, _, errors = command_line(capsys, monkeypatch, "benchmark", *arguments)
    assert status == 0, errors
    assert json.loads((tmp_path / "b.json").read_text())["plain"]["score"] == expected


def test_a_method_of_ones_own_and_a_temperature(root, capsys, monkeypatch, tmp_path):
    own = f"{root / 'own.py'}:zeros"
    arguments = ["--methods", own, "--temperature", 1, "--fail_under", "zeros=0.0001"]
    report, out = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    m = report["methods"]["zeros"]
    assert m["lossless"] is False and m["identical_to_plain"] is None is report["plain"]["identical_to_plain"]
    assert "Lossy, answers do not follow the target's law: zeros." in out


def test_with_shared_noise_a_seed_has_one_text_and_lossy_methods_none(root, capsys, monkeypatch, tmp_path):
    arguments = ["--draft", root / "draft", "--methods", f"vanilla,{root / 'own.py'}:zeros", "--temperature", 1]
    arguments += ["--shared_noise", "--repetition_penalty", 1.3, "--logit_bias", "7=-2,9=0.5"]
    found, _ = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    assert found["settings"]["repetition_penalty"] == 1.3
    assert found["methods"]["vanilla"]["identical_to_plain"] == 5
    assert "a lossy one does not" in found["methods"]["zeros"]["skipped"]


def test_a_speed_up_surely_below_the_least_is_exit_status_1(root, capsys, monkeypatch):
    arguments = ["--methods", "vanilla", "--draft", root / "draft", "--fail_under"]
    status, _, errors = run(capsys, monkeypatch, root, *arguments, "vanilla=1000")
    says = r"^vanilla: at most [\d.]+x plain decoding, below --fail_under 1000$"
    assert status == 1 and re.search(says, errors, re.MULTILINE)


def test_the_list_needs_nothing(capsys, monkeypatch):
    status, out, _ = command_line(capsys, monkeypatch, "benchmark", "--methods", "list")
    assert status == 0
    named = [line.split()[0] for line in out.splitlines() if re.match(r"  \w", line)]
    assert sorted(named) == sorted(METHODS) == sorted(SAID)
    assert out.index("\na draft model (--draft PATH):\n  vanilla ") < out.index("2305.09781")
    assert re.search(r"\n  fsd +lossy: keeps", out) and "Where to begin: with a draft --methods vanilla," in out
    assert max(map(len, out.splitlines())) <= 120


def test_prompts_come_from_a_task_too(root, capsys, monkeypatch, tmp_path):
    arguments = ["--target", root / "target", "--task", "word_problems", "--num_prompts", 2, "--max_prompt_length", 40]
    arguments += ["--methods", "plain", "--max_new_tokens", 4, "--json", tmp_path / "b.json"]
    arguments += ["--profile", tmp_path / "trace"]
    status, _, errors = command_line(capsys, monkeypatch, "benchmark", *arguments)
    assert status == 0, errors
    plain = json.loads((tmp_path / "b.json").read_text())["plain"]
    assert [row["id"] for row in plain["requests"]] == [1, 2] and plain["categories"] == {}
    (trace,) = (tmp_path / "trace").rglob("*.xplane.pb")
    assert all(f"/{region}/".encode() in trace.read_bytes() for region in ("verify", "accept"))


MISTAKES = {
    "no target": (["--methods", "all"], "--target is missing"),
    "unknown method": (["--methods", "vanila"], 'there is no method "vanila"; did you mean "vanilla"'),
    "no such knob": (["--sweep", "lenght=3"], "none of the methods has it; did you mean"),
    "no method": (["--methods", ","], "no method is named"),
    "two sources": (["--task", "gsm8k"], "either --prompts FILE or --task NAME"),
    "bad batch size": (["--batch_size", "1,x"], "--batch_size is "),
    "bad temperature": (["--temperature", "-1"], "--temperature is -1; it must be at least 0"),
    "bad bound": (["--fail_under", "vanilla"], "give NAME=SPEEDUP"),
    "bad number": (["--fail_under", "vanilla=fast"], "--fail_under is fast; give a number"),
    "not measured": (["--fail_under", "vanila=1"], '"vanila" is not measured; did you mean "vanilla"'),
    "no directory": (["--json", "{root}/nowhere/b.json"], "there is no such directory"),
    "a directory": (["--svg", "{root}"], "is a directory; name a file in it"),
    "no file": (["--prompts", "{root}/nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
    "too long": (["--max_new_tokens", "500"], "the target has a context of 128 tokens"),
    "no width": (["--until", "0"], "--until is 0; it must be above 0"),
    "one batch": (["--until", "0.1", "--batch_size", "8"], "--until is for an interval, and one batch has none"),
    "no length": (["--max_prompt_length", "-1"], "--max_prompt_length is -1; it must be at least 0"),
    "bad mesh": (["--mesh", "data=3"], "1 rows do not divide over 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_is_one_line_and_exit_status_2(mistake, root, capsys, monkeypatch):
    arguments, says = MISTAKES[mistake]
    arguments = [argument.replace("{root}", str(root)) for argument in arguments]
    if mistake == "no target":
        status, _, errors = command_line(capsys, monkeypatch, "benchmark", *arguments)
    else:
        status, _, errors = run(capsys, monkeypatch, root, "--draft", root / "draft", *arguments)
    assert status == 2 and says in errors and errors.count("\n") == 1, errors


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_that_cannot_be_written_is_said_beforehand(root, capsys, monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    status, _, errors = run(capsys, monkeypatch, root, "--json", tmp_path / "b.json")
    assert status == 2 and "cannot be written to" in errors


def test_batch_sizes_change_times_alone(root, capsys, monkeypatch, tmp_path):
    arguments = ["--draft", root / "draft", "--methods", "vanilla", "--batch_size", "8,1"]
    report, _ = measured(capsys, monkeypatch, root, *arguments, json_file=tmp_path / "b.json")
    m = report["methods"]["vanilla"]
    assert list(m["batch_sizes"]) == ["8", "1"] and m["batch_sizes"]["8"].items() <= m.items()
    for field in ("accepted", "judged", "rounds", "histogram", "accepted_at", "identical_to_plain", "ci95", "vllm"):
        assert m["batch_sizes"]["1"][field] == m[field], field
    assert m["speedup_ci95"] == [pytest.approx(m["speedup"])] * 2  # one batch has one time
    assert len({row["seconds"] for row in m["requests"]}) == 1 and "speedup" not in m["categories"]["a"]
