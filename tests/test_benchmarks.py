"""The benchmarks' own parts: pairs that compute the same function, workers measured in turn."""

import numpy as np
import pytest

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

    picture = ET.fromstring(drawn({"points": points}))
    charts = picture.findall("{http://www.w3.org/2000/svg}svg")
    assert len(charts) == 10 and all(chart.get("width") == "440" for chart in charts)
