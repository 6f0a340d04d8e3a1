"""Methods replayed on a recorded text count what the benchmark counts, and say that nothing was timed."""

import json

import pytest

from adaspec_jax import methods
from tests import tiny_pair
from tests.running import command_line

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}
KNOBS = ["--max_new_tokens", "24", "--draft_length", "3"]
COUNTS = (
    "rounds accepted judged histogram accepted_at tokens_per_target_call ci95 mean_over_requests vllm knobs".split()
)
TIMES = "tokens_per_second speedup speedup_ci95 compile_seconds peak_bytes identical_to_plain score".split()
METHODS = ["--methods", "vanilla,anpd", "--sweep", "length=2,5"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    tiny_pair.save(root / "target", tiny_pair.GPT_NEOX | SIZES | {"intermediate_size": 64})
    tiny_pair.save(root / "draft", tiny_pair.GPT_NEOX | SIZES, seed=1)
    tiny_pair.save(root / "longer", tiny_pair.GPT_NEOX | SIZES | {"intermediate_size": 64}, seed=2)
    texts = tiny_pair.TEXTS
    for name, chosen in {"prompts": texts[:3], "others": texts[1:4], "fewer": texts[:2], "more": texts[:4]}.items():
        rows = [{"id": f"r{n}", "category": "ab"[n % 2], "prompt": text} for n, text in enumerate(chosen)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def run(root, capsys, monkeypatch):
    def benchmark(*arguments, target="target", prompts="prompts"):
        shared = ["--target", root / target, "--draft", root / "draft", *KNOBS]
        shared += ["--prompts", root / f"{prompts}.jsonl"] if prompts else []
        return command_line(capsys, monkeypatch, "benchmark", *shared, *arguments)

    return benchmark


@pytest.fixture
def record(run, root):
    if not (root / "record.json").is_file():
        status, out, errors = run("--record", root / "record.json")
        assert status == 0 and out == f"{root / 'record.json'}: 72 tokens after 3 prompts\n", errors
    return root / "record.json"


def report_of(run, path, *arguments, **where):
    status, out, errors = run("--json", path, *arguments, **where)
    assert status == 0, errors
    return json.loads(path.read_text()), out, errors


def test_the_best_of_all_methods_is_timed_and_those_that_lack_something_stay_skipped(
    run, record, tmp_path, monkeypatch
):
    few = {name: methods.METHODS[name] for name in ("plain", "anpd", "prompt_lookup", "rest", "jacobi")}
    monkeypatch.setattr("adaspec_jax.methods.table.METHODS", few)  # all there are
    knobs = ["--replay", record, "--time", 1, "--max_prompt_length", 0]
    report, _, _ = report_of(run, tmp_path / "a.json", *knobs, prompts=None)
    timed = [name for name, m in report["methods"].items() if m.get("speedup")]
    assert timed == [report["verdict"]["best"]] or report["verdict"]["best"] == "plain" and len(timed) == 1
    assert "datastore" in report["methods"]["rest"]["skipped"] and "asks" in report["methods"]["jacobi"]["skipped"]


def test_nothing_is_written_over_what_is_read(run, record, root, tmp_path):
    before = record.read_bytes()
    for arguments, says in (
        (["--replay", record, "--json", record], "--json and --replay are the same file"),
        (["--record", root / "prompts.jsonl"], "--record and --prompts are the same file"),
        (["--record", record], "is there already"),
    ):
        status, _, errors = run(*arguments)
        assert status == 2 and says in errors and errors.count("\n") == 1, errors
    assert record.read_bytes() == before


def test_counts_are_the_benchmarks_and_times_are_for_the_best_few(run, record, tmp_path):
    replayed, out, _ = report_of(run, tmp_path / "r.json", *METHODS, "--replay", record, prompts=None)
    best = replayed["verdict"]["best"]
    assert f"Replayed: {best}, " in out and "No times were taken" in out
    both, _, errors = report_of(run, tmp_path / "t.json", *METHODS, "--replay", record, "--time", 9)
    assert " as replayed and " not in errors  # a line for every count that differs
    assert set(replayed["methods"]) == set(both["methods"]) and len(both["methods"]) == 3
    calls = [replayed["methods"][n]["tokens_per_target_call"] for n in replayed["verdict"]["ranked"] if n != "plain"]
    assert calls == sorted(calls, reverse=True) and calls[0] > 1
    for label, real in {**both["methods"], "plain": both["plain"]}.items():
        m = {**replayed["methods"], "plain": replayed["plain"]}[label]
        assert {name: m[name] for name in COUNTS} == {name: real[name] for name in COUNTS}, label
        assert all(m[name] is None for name in TIMES) and m["repetitions"] == real["repetitions"] == 1
        assert [row | {"seconds": 0} for row in m["requests"]] == [row | {"seconds": 0} for row in real["requests"]]
        assert m["categories"]["a"]["accepted"] == real["categories"]["a"]["accepted"]
        assert m["requests"][0]["seconds"] is None and real["speedup"] > 0 and real["identical_to_plain"] == 3
    assert both["replayed"] == replayed["verdict"]


def test_the_best_are_measured_and_the_first_prompts_of_a_record_serve(run, record, tmp_path):
    arguments = [*METHODS, "--replay", record, "--time", 1, "--svg", tmp_path / "s.svg"]
    report, out, _ = report_of(run, tmp_path / "b.json", *arguments, prompts="fewer")
    timed = [label for label, m in report["methods"].items() if m["speedup"] is not None]
    assert timed == [label for label in report["replayed"]["ranked"] if label != "plain"][:1]
    assert report["plain"]["prompts"] == 2 and out.splitlines()[-1].startswith("Verdict: ")
    assert (tmp_path / "s.svg").read_text().count("<rect ") == 1


def test_methods_that_do_not_follow_from_a_text_are_refused_by_name_or_skipped(run, record, monkeypatch, tmp_path):
    from adaspec_jax import methods

    few = {name: methods.METHODS[name] for name in ("plain", "llma", "n_grammys", "jacobi", "magicdec", "rest")}
    monkeypatch.setattr("adaspec_jax.methods.table.METHODS", few)
    report, out, _ = report_of(run, tmp_path / "b.json", "--replay", record)
    assert [label for label, m in report["methods"].items() if "skipped" not in m] == ["llma"]
    assert "magicdec: skipped, needs a target whose cache can be selected from, which a record is not" in out
    assert "rest: skipped, needs a datastore (--datastore DIR)\n" in out
    for name, why in {
        "jacobi": "reads what the target says after guesses",
        "n_grammys": "needs a target that can be asked what follows any token, which a record is not",
        "magicdec": "needs a target whose cache can be selected from",
    }.items():
        status, _, errors = run("--replay", record, "--methods", f"llma,{name}")
        assert status == 2 and f"the method {name} cannot be replayed: it {why}" in errors and errors.count("\n") == 1


def test_a_lossy_method_is_refused(run, record, tmp_path):
    (tmp_path / "own.py").write_text(
        "from adaspec_jax.decoding import ChainDrafter, Lenient\nfrom adaspec_jax.methods import Method\n"
        "mine = Method(name='mine', drafter=lambda g: ChainDrafter(g.draft), accept=Lenient(0.9), lossless=False)\n"
    )
    status, _, errors = run("--replay", record, "--methods", f"{tmp_path / 'own.py'}:mine")
    assert status == 2 and "the method mine cannot be replayed: it is lossy" in errors


def torn(text):
    return text[: len(text) // 2]


def changed(text):
    return text.replace('"answer": [', '"answer": [1, ', 1)


@pytest.mark.parametrize(
    ("spoil", "where", "says"),
    [
        (torn, {}, "is not valid JSON"),
        (changed, {}, "is torn: its content is not what it was written with"),
        (lambda text: "{}", {}, "is no record of a target"),
        (str, {"target": "longer"}, "was made by another target than --target is"),
        (str, {"prompts": "others"}, "is of other prompts: r0 is not what r0 was"),
        (str, {"prompts": "more"}, "has 3 prompts, and 4 are asked"),
        (str, {"options": ["--max_new_tokens", "9"]}, "was made with --max_new_tokens 24, and here it is 9"),
        (str, {"options": ["--dtype", "bfloat16"]}, "was made with --dtype float32, and here it is bfloat16"),
        (str, {"ends": 3}, "with other ends of text"),
    ],
)
def test_a_record_that_does_not_fit_is_one_line(run, record, root, tmp_path, spoil, where, says, monkeypatch):
    (tmp_path / "spoilt.json").write_text(spoil(record.read_text()))
    if "ends" in where:
        from adaspec_jax import benchmark_replay
        from adaspec_jax.data import Ends

        terms = benchmark_replay._terms
        monkeypatch.setattr(benchmark_replay, "_terms", lambda a, g, e: terms(a, g, Ends([where["ends"]], 3)))
    place = {name: where[name] for name in ("target", "prompts") if name in where}
    arguments = ["--methods", "plain", "--replay", tmp_path / "spoilt.json", *where.get("options", [])]
    status, _, errors = run(*arguments, **place)
    assert status == 2 and says in errors and errors.count("\n") == 1, errors


MISTAKES = {
    "both": (["--record", "a", "--replay", "b"], "give one of them"),
    "sampled": (["--replay", "b", "--temperature", "1"], "greedy text; leave --temperature out"),
    "a bound": (["--replay", "b", "--fail_under", "plain=1"], "leave --fail_under out"),
    "a picture": (["--replay", "b", "--svg", "s"], "leave --svg out"),
    "conversations": (["--replay", "b", "--chat"], "leave --chat out"),
    "times of nothing": (["--time", "3"], "--time N measures the best N of a --replay FILE"),
    "no number": (["--replay", "b", "--time", "0"], "--time is 0; it must be at least 1"),
    "some methods": (["--record", "a", "--methods", "llma"], "leave --methods out"),
    "a report": (["--record", "a", "--json", "b"], "--record measures nothing; leave --json out"),
    "no folder": (["--record", "{root}/nowhere/r.json"], "there is no such directory"),
    "no file": (["--replay", "{root}/nowhere.json"], "cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_go_together_is_one_line(run, root, mistake):
    arguments, says = MISTAKES[mistake]
    status, _, errors = run(*(argument.replace("{root}", str(root)) for argument in arguments))
    assert status == 2 and says in errors and errors.count("\n") == 1, errors


def test_a_record_comes_back_as_it_was_written(tmp_path):
    from adaspec_jax.data.prompts import Prompt
    from adaspec_jax.measuring.records import Record, read_record, write_record

    prompts = (Prompt("a", "", "talk", 1, (3, 4)), Prompt(7, "", None, None, (5,)))
    record = Record({"ends": [0, 2], "target": {"config.json": "x"}}, prompts, ((1, 0), (2,)), 1)
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json", record.terms) == record
