"""The benchmarks' own parts: pairs that compute the same function, workers measured in turn."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.pipeline.learning import Pace
from benchmarks import heads, online
from benchmarks.interleave import Worker, interleave, machine, stop, table
from benchmarks.pairs import matched_pair
from tests.running import CHECKOUT, slow

WORKER = """
import sys
sys.path.insert(0, {folder!r})
from interleave import serve
def unit():
    return {{"answer": 42, "seconds": {seconds}}}
serve(unit, {{"name": {seconds}}})
"""


@pytest.mark.parametrize(  # the draft has 6 layers
    "target, layers", [slow("160m", 7), slow("410m", 7), slow("160m", None), slow("410m", None)]
)
def test_a_matched_pair_computes_the_same_logits(target, layers):
    big, small = matched_pair(target, noise=0.0, vocab_size=64, layers=layers)
    tokens_BT = np.random.default_rng(0).integers(0, 64, (2, 12))
    logits = big(tokens_BT)[0]
    assert float(logits.std()) > 0.5
    np.testing.assert_allclose(logits, small(tokens_BT)[0], atol=2e-4)
    noisy = matched_pair("31m", noise=0.3, vocab_size=64)[1](tokens_BT)[0]  # the draft of any target
    agreement = np.mean(noisy.argmax(-1) == logits.argmax(-1))
    assert 0.2 < agreement < 1


def test_workers_take_turns_and_are_compared(tmp_path):
    folder = str(CHECKOUT / "benchmarks")
    workers = []
    for name, seconds in (("slow", 0.08), ("fast", 0.02)):
        file = tmp_path / f"{name}.py"
        file.write_text(WORKER.format(folder=folder, seconds=seconds))
        workers.append(Worker(name, [str(file)]))
    results = interleave(workers, 3)
    stop(workers)
    assert results["slow"]["times_faster_than_first"] == 1
    assert results["fast"]["times_faster_than_first"] == pytest.approx(4)
    assert results["fast"]["repeats"] == 3 and results["fast"]["ready"]["name"] == 0.02
    assert results["slow"]["last"]["answer"] == 42 and results["slow"]["peak_mb"] > 1
    assert len(table(results).splitlines()) == 3 and machine()["cores"] >= 1


def test_a_worker_that_dies_is_named(tmp_path):
    file = tmp_path / "dies.py"
    file.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="the worker dies ended with status 3"):
        Worker("dies", [str(file)])


def test_further_commands_come_after_each_turn_and_stay_out_of_the_medians(tmp_path):
    file = tmp_path / "worker.py"
    folder = str(CHECKOUT / "benchmarks")
    file.write_text(
        f"import sys; sys.path.insert(0, {folder!r})\nfrom interleave import serve\n"
        "serve(lambda command='go': {'said': command}, {})\n"
    )
    worker = Worker("one", [str(file)])
    results = interleave([worker], 2, also={"one": ["more"]})
    worker.unit("rest")
    worker.stop()
    assert [row["said"] for row in worker.rows] == ["go", "go"] and len(worker.others["more"]) == 2
    assert worker.others["rest"][0]["said"] == "rest" and results["one"]["last"]["said"] == "go"


def test_growth_is_drawn_from_whatever_points_there_are():
    from benchmarks.growth import AXES, drawn

    points = [
        {"axis": axis, "value": value, "results": {"ours plain": {"seconds": 1.0 + i, "peak_mb": 100.0}}}
        for axis in AXES
        for i, value in enumerate(AXES[axis][2])
    ]
    import xml.etree.ElementTree as ET

    pytest.importorskip("matplotlib")
    picture = ET.fromstring(drawn({"points": points}))
    charts = picture.findall("{http://www.w3.org/2000/svg}svg")
    assert len(charts) == 10 and len({chart.get("width") for chart in charts}) == 1


def _part(names, **settings):
    m = {"tokens_per_target_call": 2.0, "speedup": 1.0, "requests": [], "batch_sizes": {}, "vllm": {}}
    plain = {"tokens_per_second": 10.0}
    shown = {"target": "t", "draft": [], "datastore": None, "prompts": None, "methods": ",".join(names), **settings}
    environment = {"environment": {}, "load_before": 0.0, "plain": plain, "methods": dict.fromkeys(names, m)}
    return {"settings": shown, **environment}


def test_a_table_of_methods_grows_by_parts_of_the_same_measurement(monkeypatch, tmp_path):
    from benchmarks import methods

    monkeypatch.setattr(methods, "sums_of", lambda name: {"model.safetensors": name})
    kept = methods.with_part({"parts": [], "methods": {}}, _part(["a"], seed=3), tmp_path)
    kept = methods.with_part(kept, _part(["b"], seed=3, new_option=None), tmp_path)  # an option that is new since
    assert list(kept["methods"]) == ["a", "b"] and [part["methods"] for part in kept["parts"]] == [["a"], ["b"]]
    assert "requests" not in kept["methods"]["a"] and kept["methods"]["b"]["plain_tokens_per_second"] == 10.0
    for other in ({"seed": 4}, {"seed": 3, "new_option": 1}, {"seed": 3, "target": "u"}):
        with pytest.raises(SystemExit, match="another measurement"):
            methods.with_part(kept, _part(["c"], **other), tmp_path)


def test_a_pyramid_is_drawn_and_told_over_its_seeds():
    import xml.etree.ElementTree as ET

    from benchmarks import pyramid

    def m(speedup, score, **knobs):
        shared = {"tokens_per_target_call": 2.0, "identical_to_plain": None, "prompts": 5}
        return {"speedup": speedup, "score": score, "knobs": knobs, **shared}

    def seed(factor):
        fuzzy = {
            f"{pyramid.FUZZY}[{q},{t}]": m(factor * (q + t), 1 - t, threshold_q=q, threshold_t=t)
            for q in (0.1, 0.2, 0.3, 0.4)
            for t in (0.2, 0.4)
        }
        methods = {"plain": m(1.0, 0.9), pyramid.STANDARD: m(2.0 * factor, 0.9), **fuzzy}
        return pyramid.over_its_own_standard({"methods": methods})

    report = {"methods": pyramid.over_seeds([seed(1.0), seed(2.0)])}
    assert report["methods"][f"{pyramid.FUZZY}[0.1,0.2]"]["over_standard"] == pytest.approx([0.15, 0.15])
    assert report["methods"]["plain"]["over_standard"] == [0.5, 0.25]
    assert "| `plain` | 0.38 (0.25 to 0.50) | 1.00 (1.00 to 1.00) |" in pyramid.table(report)
    pytest.importorskip("matplotlib")
    picture = ET.fromstring(pyramid.drawn(report))
    words = [text for text in picture.iter("{http://www.w3.org/2000/svg}text") if (text.text or "").startswith("inner")]
    assert len(words) == 8 and all(float(word.get("x")) < 880 - 60 for word in words)


@pytest.mark.parametrize("seeds", ["eagle3", "eagle3=x", "eagle3=0", "hydra=2"])
def test_seeds_of_heads_that_are_none_are_named(seeds):
    with pytest.raises(UserError, match=f'--seeds has "{seeds}"; give KIND=NUMBER'):
        heads.wanted(Namespace(config="c.py", kinds="eagle3,medusa", seeds=seeds, plain=None))
    runs = heads.wanted(Namespace(config="c.py", kinds="eagle3,medusa", seeds="eagle3=2", plain=None))
    assert [name for name, _, _ in runs] == ["eagle3_seed0", "eagle3_seed1", "medusa_seed0"]


def test_a_kind_of_head_that_is_none_is_said_before_any_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "trained", lambda *_: pytest.fail("it was trained"))
    config = CHECKOUT / "configs" / "stories_heads.py"
    words = ["heads", "--config", config, "--kinds", "eagle,medsa", "--workdir", tmp_path, "--json", tmp_path / "j"]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    with pytest.raises(UserError, match='no variant "medsa"; did you mean "medusa"'):
        heads.main()


def test_heads_decode_again_where_other_prompts_or_lengths_are_asked_for(tmp_path, monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        words = dict(zip(command[3::2], command[4::2], strict=False))
        settings = {"prompts": words["--prompts"], "max_new_tokens": int(words["--max_new_tokens"])}
        report = {"settings": settings | {"methods": words["--methods"]}, "methods": {"eagle3": {}}}
        Path(words["--json"]).write_text(json.dumps(report))

    monkeypatch.setattr(heads, "said", run)
    for prompts, tokens, times in (("a", 8, 1), ("a", 8, 1), ("a", 9, 2), ("b", 9, 3), ("b", 9, 3)):
        heads.decoded(Namespace(workdir=tmp_path, prompts=prompts, max_new_tokens=tokens), "eagle3_seed0")
        assert len(commands) == times


def test_the_seconds_of_heads_are_those_of_all_sessions(tmp_path, monkeypatch):
    directory, clock = tmp_path / "eagle3_seed0", iter((0.0, 5.0, 10.0, 17.0, 20.0, 29.0))
    figures = dict.fromkeys(heads.FIGURES)
    report = {"models": {"draft": 3}, "drafts": {"draft": figures}, "paired": {}, "environment": {}}
    report |= {"speed": {"draft": {"speedup": 1}, "draft_length": 4}}

    def interrupted(command):
        directory.mkdir()
        raise SystemExit(130)

    monkeypatch.setattr(heads.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(heads, "said", interrupted)
    args = Namespace(workdir=tmp_path, plain=None)
    with pytest.raises(SystemExit):
        heads.trained(args, "eagle3_seed0", "c.py:eagle3", 0, [])
    monkeypatch.setattr(heads, "said", lambda _: (directory / "report.json").write_text(json.dumps(report)))
    for _ in range(2):  # the second time there is nothing to do
        assert heads.trained(args, "eagle3_seed0", "c.py:eagle3", 0, [])["seconds"] == 12.0


@pytest.mark.parametrize("arm", ["refused", "some:1e-4", "refused:fast", "refused:1e-4:8:9"])
def test_an_arm_that_is_none_is_named(arm):
    with pytest.raises(UserError, match=f'--arms has "{arm}"; give AT:RATE'):
        online.arm_of(arm)
    assert online.arm_of("answers:0.5:3").pace == Pace(at="answers", rate=0.5, every=3)


def test_a_learning_draft_is_told_by_windows_and_by_kinds_of_requests():
    def rows(accepted):
        counted = {"judged": 10, "drafted": 10, "rounds": 5, "seconds": 0.5, "learning_before": 0.1}
        return [counted | {"accepted": each, "committed": each + 5} for each in accepted]

    frozen, learnt = rows([8] * 200 + [2] * 200), rows([8] * 200 + [3] * 100 + [6] * 100)
    figures = online.figures(learnt, frozen, 100)
    assert [window["alpha"] for window in figures["windows"]] == [0.8, 0.8, 0.3, 0.6]
    assert figures["windows"][3]["over_frozen"]["difference"] == pytest.approx(0.4)
    assert figures["receipts"]["alpha"] == 0.45 and figures["receipts"]["block_efficiency"] == 1.9
    shown = online.table({"arms": {"learnt": figures}})
    assert "| 201 to 300 | 30.0 [30.0, 30.0] |" in shown and "| all receipts | 45.0" in shown


def test_receipts_differ_and_add_up():
    rows = online.receipts(200, 3)
    assert len({row["question"] for row in rows}) == 200 and rows == online.receipts(300, 3)[:200]
    for row in rows:
        *lines, total, answer = row["answer"].splitlines()
        assert sum(int(line.rpartition("|")[2]) for line in lines) == int(total.rpartition("|")[2]) == int(answer[5:])
