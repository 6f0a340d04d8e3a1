"""Engines measured beside ours: absent ones, resuming, text, and that none runs outside its turn."""

import json
import sys
import time
from pathlib import Path

import pytest

from adaspec_jax.errors import UserError
from benchmarks import peers
from benchmarks.interleave import PausedWorker
from benchmarks.peer_environments import Peer
from tests.running import CHECKOUT

FAKE = """
import argparse, json, sys
sys.path.insert(0, {folder!r})
from interleave import serve

parser = argparse.ArgumentParser()
parser.add_argument("engine")
for name in ("target", "draft", "cases", "precision", "gamma"):
    parser.add_argument(f"--{{name}}")
args = parser.parse_args()
cases = json.load(open(args.cases))
if args.engine == "dies":
    sys.exit("no such model")

def unit(number=None, what="whole", times="1"):
    with open({log!r}, "a") as log:
        log.write(f"{{args.engine}} {{args.precision}} {{number}}\\n")
    if number is None:
        return {{}}
    case = cases[int(number)]
    tokens = [row[: 1 if what == "first" else case["new"]] for row in case["prompts"]]
    if args.engine == "other" and what == "whole":
        tokens[0][0] += 1
    return {{"tokens": tokens, "seconds": float(times) * (0.1 if args.engine == "other" else 0.2)}}

serve(unit, {{"version": "1"}})
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*peers, **options) -> (exit status, report, what was printed, the units done)."""
    worker, log, out = tmp_path / "fake.py", tmp_path / "units", tmp_path / "out.json"
    worker.write_text(FAKE.format(folder=str(CHECKOUT / "benchmarks"), log=str(log)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"vocab_size": 99, "max_position_embeddings": 64}')
    known = {name: Peer(name, modes=("plain",), worker=worker) for name in ("same", "other", "dies")}
    known["absent"] = Peer("absent", module="absent", packages=("none",), modes=("plain",), worker=worker)
    known["alone"] = Peer("alone", speculates_in_batches=False, worker=worker)
    monkeypatch.setattr(peers, "PEERS", known)
    monkeypatch.setattr(peers, "OURS", Peer("ours", worker=worker))

    def run(*names, **options):
        options = {"batch": "2", "prompt": 4, "new": 3, "turns": 2, "precisions": "float32"} | options
        given = [f"--{key}={value}" for key, value in options.items()]
        log.write_text("")
        status = 0
        places = [f"--environments={tmp_path / 'envs'}", f"--target={tmp_path / 'model'}", f"--json={out}"]
        try:
            peers.main([*places, f"--engines={','.join(names)}", *given])
        except SystemExit as end:
            status = end.code
        return status, json.loads(out.read_text()), capsys.readouterr(), log.read_text().split("\n")[:-1]

    return run


def test_peers_take_turns_with_ours_and_text_is_compared(run):
    status, report, printed, units = run("same", "other", batch="1,2")
    assert status == 1 and "TEXT DIFFERS: other plain, float32, batch 1" in printed.out
    rows = {(row["engine"], row["batch"]): row for row in report["rows"]}
    assert len(rows) == 6
    assert rows["same plain", 2]["same_text"] == "2 of 2" and not rows["same plain", 2]["text_differs"]
    assert rows["other plain", 2]["same_text"] == "1 of 2" and rows["other plain", 2]["text_differs"]
    assert (
        rows["other plain", 2]["times_ours_plain"] == pytest.approx([2, 2, 2]) and rows["ours plain", 2]["turns"] == 2
    )
    assert rows["ours plain", 2]["tokens_per_second"] == pytest.approx(30)
    assert rows["ours plain", 2]["times_a_turn"] == 2 and rows["other plain", 2]["times_a_turn"] == 5
    asked = [unit.split()[0] for unit in units if unit.endswith("1")]  # the second case: how long it takes, then turns
    assert asked[:3] == ["ours", "same", "other"]
    assert asked[3:] == [name for name in ("ours", "same", "other", "other", "same", "ours") for _ in range(2)]


def test_one_that_is_not_there_or_dies_gets_a_row_and_the_run_goes_on(run):
    status, report, printed, _ = run("absent", "dies", "same")
    rows = {row["engine"]: row for row in report["rows"]}
    assert status == 0 and rows["same plain"]["same_text"] == "2 of 2"
    assert rows["absent plain"]["skipped"] == "not installed: --install absent does it"
    assert rows["dies plain"]["skipped"] == "did not start: no such model"
    assert "not installed" in printed.out and "did not start: no such model" in printed.out


def test_the_same_command_goes_on_with_what_is_missing(run):
    run("same")
    status, report, _, units = run("same")
    assert status == 0 and units == []
    before = report["rows"]
    status, report, _, units = run("same", batch="2,1")
    assert report["rows"][:2] == before and [row["batch"] for row in report["rows"]] == [2, 2, 1, 1] and units
    status, report, _, units = run("other", "same", batch="1")  # a new one is measured beside all others
    assert {row["engine"] for row in report["rows"] if row["batch"] == 1} == {"ours plain", "same plain", "other plain"}


def test_rows_of_other_settings_are_not_mixed(run, monkeypatch):
    run("same")
    with pytest.raises(UserError, match="measured with another turns"):
        run("same", turns=3)
    monkeypatch.setattr(peers, "digest_of_the_package", lambda: "other")
    with pytest.raises(UserError, match="measured with another code"):
        run("same")


def test_what_an_engine_cannot_is_said(run, tmp_path):
    draft = {"draft": tmp_path / "model"}
    _, report, _, _ = run("alone", "same", batch="1,2", **draft)
    rows = {(row["engine"], row["batch"]): row for row in report["rows"]}
    assert rows["alone speculative", 2]["skipped"] == "has no speculation in a batch"
    assert rows["alone speculative", 1]["turns"] == 2 and ("same speculative", 1) not in rows


def test_a_context_that_is_too_short_is_said(run):
    _, report, _, _ = run("same", prompt="4,62")
    assert {row["prompt"]: row.get("skipped") for row in report["rows"] if row["engine"] == "same plain"} == {
        4: None,
        62: "the target's context is 64 tokens",
    }


def test_by_default_ours_is_measured_in_both_types(run):
    _, report, _, units = run("same", precisions="default")
    assert [row["engine"] for row in report["rows"]] == ["ours plain", "ours plain bfloat16", "same plain"]
    assert {unit.rpartition(" ")[0] for unit in units} == {"ours float32", "ours bfloat16", "same default"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precisions": "float16"}, 'there is no "float16"'),
        ({"batch": "two"}, "must be at least 1"),
        ({"install": "sam"}, 'did you mean "same"'),
        ({"draft": "nowhere"}, "nowhere has no config.json"),
    ],
)
def test_a_mistake_is_one_line(run, options, says):
    with pytest.raises(UserError, match=says):
        run("same", **options)


def test_an_end_that_is_asked_for_while_an_engine_starts_is_no_engines_failure(run, monkeypatch):
    def interrupted(*_, **__):
        raise SystemExit(143)

    monkeypatch.setattr(peers, "PausedWorker", interrupted)
    with pytest.raises(FileNotFoundError):  # the run is over, and no row was written
        run("same")


def test_a_model_is_converted_once_and_a_failure_leaves_nothing(tmp_path):
    program = Path(sys.executable).name
    good = ("-c", "import pathlib, sys; pathlib.Path(sys.argv[2], 'made').write_text(sys.argv[1])", "{model}", "{out}")
    model = tmp_path / "target"
    made = Peer("engine", converter=(program, *good)).converted(model, tmp_path)
    assert made == tmp_path / "target-engine" and (made / "made").read_text() == str(model)
    bad = (program, "-c", "raise SystemExit('no such shape')")
    assert Peer("engine", converter=bad).converted(model, tmp_path) == made  # it is there already
    with pytest.raises(RuntimeError, match="target could not be converted: no such shape"):
        Peer("other", converter=bad).converted(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["target-engine"]
    assert Peer("plain").converted(model, tmp_path) == model


def test_an_environment_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").touch()
    peer, place = Peer("engine", module="nothing", packages=("nothing",)), tmp_path / "file"
    assert "could not be installed: " in peer.install(place) and "not installed" in peer.absent(place)
    assert peer.variables(place) == {}


def test_a_worker_stands_still_outside_its_turn(tmp_path):
    file = tmp_path / "busy.py"
    file.write_text(
        f"import sys, threading, time; sys.path.insert(0, {str(CHECKOUT / 'benchmarks')!r})\n"
        "from interleave import serve\ncount = [0]\n"
        "def tick():\n    while True:\n        count[0] += 1; time.sleep(0.001)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "serve(lambda command='go': {'ticks': count[0]}, {})\n"
    )
    worker = PausedWorker("busy", [str(file)], python=sys.executable)
    state = f"/proc/{worker._process.pid}/stat"
    waited = time.monotonic()
    while (stopped := open(state).read().split()[2]) != "T" and time.monotonic() - waited < 30:
        time.sleep(0.01)
    assert stopped == "T"
    worker.unit()
    worker.stop()
    assert worker.rows[0]["ticks"] >= 1 and worker._process.returncode == 0
