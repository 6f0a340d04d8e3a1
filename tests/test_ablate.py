"""The ablation runner: its arms, its seeds, its table, and the statistics over runs."""

import dataclasses
import json

import numpy as np
import pytest

from adaspec_jax.config import Draft, Reference
from adaspec_jax.pipeline import ablation
from adaspec_jax.reporting import Counts, across_runs, paired
from tests.pipeline.test_arms import short
from tests.running import CHECKOUT, command_line

pytestmark = pytest.mark.usefixtures("few_costs_throughout")
CONFIG = """
import sys
sys.path.insert(0, {checkout!r})
from tests.pipeline.test_arms import short
def get_config(variant=""):
    return short()
"""


def counts(rng, alpha, prompts=40):
    judged = rng.integers(20, 60, prompts)
    accepted = rng.binomial(judged, alpha)
    zeros = np.zeros(prompts)
    return Counts(
        accepted=accepted,
        judged=judged,
        drafted=judged,
        committed=judged,
        rounds=judged,
        overlap_sum=zeros,
        agreement_sum=zeros,
        positions=judged,
    )


def test_one_run_has_the_interval_over_prompts_and_runs_that_differ_a_wider_one():
    rng = np.random.default_rng(0)
    a, b = counts(rng, 0.7), counts(rng, 0.6)
    alone, single = across_runs([a], [b]), paired(a, b)
    assert alone["value"] == pytest.approx(single["difference"])
    np.testing.assert_allclose(alone["ci95"], single["ci95"], atol=0.004)
    runs = [counts(rng, alpha) for alpha in (0.5, 0.7, 0.9)]
    spread = across_runs(runs)
    assert spread["value"] == pytest.approx(np.mean(spread["per_run"]))
    by_hand = np.std(spread["per_run"], ddof=1) / 3**0.5 * 4.303  # where runs differ, Student's t with two degrees
    assert (spread["ci95"][1] - spread["ci95"][0]) / 2 == pytest.approx(by_hand, rel=0.05)
    with pytest.raises(ValueError, match="as many runs on both sides"):
        across_runs(runs, runs[:2])
    with pytest.raises(ValueError, match="the same prompts"):
        across_runs(runs, [*runs[:2], counts(rng, 0.5, prompts=41)])


@pytest.mark.parametrize(("number", "deviation"), [(3, 0.03), (3, 0.003), (5, 0.01)])
def test_the_interval_over_runs_holds_the_truth_about_nineteen_times_in_twenty(number, deviation):
    held = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        runs = [counts(rng, rng.normal(0.65, deviation), prompts=100) for _ in range(number)]
        low, high = across_runs(runs, resamples=200)["ci95"]
        held += low <= 0.65 <= high
    assert 0.89 <= held / 150


def test_arms_say_what_is_trained_and_what_it_is_compared_with():
    config = short()
    arms = {arm.name: arm for arm in ablation.parse_arms("top:0.4,self:0.2,plain:0.4", "official,equal_compute")}
    assert list(arms) == ["top_0.4", "top_0.4_equal_compute", "self_0.2", "self_0.2_equal_compute", "plain_0.4"]
    run = {"draft": config.draft, "reference": config.reference}
    assert arms["top_0.4"].settings(**run) == config.draft and arms["top_0.4"].same_data(**run) == "plain_0.4"
    assert arms["top_0.4_equal_compute"].same_data(**run) is None  # other epochs than the reference
    config.reference.epochs = config.draft.epochs
    assert arms["top_0.4_equal_compute"].same_data(**run) == "reference"
    own = arms["self_0.2"].settings(**run)
    assert isinstance(own, Draft) and (own.reference, own.fraction) == ("moving_average", 0.2)
    plain = arms["plain_0.4"].settings(**run)
    assert isinstance(plain, Reference) and (plain.epochs, plain.batch_size) == (1.0, 20)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--arms", "topp:0.4"], 'begins with no kind of arm; did you mean "top"'),
        (["--arms", "top:1"], "needs a share between 0 and 1, as in top:0.4; 1 is the reference"),
        (["--arms", "top"], "needs a share between 0 and 1"),
        (["--arms", ","], "--arms names none"),
        (["--budgets", "equal"], 'no budget; did you mean "equal_compute"'),
        (["--seeds", "0"], "--seeds is 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, arguments, complaint):
    given = ["--config", CHECKOUT / "configs" / "quickstart.py", "--workdir", "unused", *arguments]
    status, _, err = command_line(capsys, monkeypatch, "ablate", *given)
    assert status == 2 and complaint in err and err.count("\n") == 1


def test_two_seeds_share_target_and_text_and_are_compared_in_one_table(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.py").write_text(CONFIG.format(checkout=str(CHECKOUT)))
    given = ["--config", tmp_path / "config.py", "--workdir", tmp_path / "run", "--seeds", 2]
    given += ["--arms", "top:0.4,random:0.4,plain:0.4", "--markdown", tmp_path / "table.md"]
    status, out, err = command_line(capsys, monkeypatch, "ablate", *given)
    assert status == 0, err
    results = json.loads((tmp_path / "run" / "ablation.json").read_text())
    assert list(results["arms"]) == ["reference", "top_0.4", "random_0.4", "plain_0.4"]
    arm = results["arms"]["top_0.4"]
    assert len(arm["per_run"]) == 2 and arm["sequences"] == results["arms"]["plain_0.4"]["sequences"]
    by_hand = [a - b for a, b in zip(arm["per_run"], results["arms"]["plain_0.4"]["per_run"], strict=True)]
    np.testing.assert_allclose(arm["minus_same_data"]["per_run"], by_hand)
    assert "minus_same_data" not in results["arms"]["plain_0.4"]
    table = (tmp_path / "table.md").read_text()
    assert table in out and "| DistillSpec (k = 1) |" in table and "2 seeds, 4 prompts" in table
    weights = [(tmp_path / "run" / f"seed{n}" / "target" / "model.safetensors").read_bytes() for n in range(2)]
    assert weights[0] == weights[1]
    reports = [json.loads((tmp_path / "run" / f"seed{n}" / "report.json").read_text()) for n in range(2)]
    assert reports[0]["data"]["train"] == reports[1]["data"]["train"]
    assert reports[0]["drafts"]["draft"] != reports[1]["drafts"]["draft"]
    before = [file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("model.safetensors")]
    assert command_line(capsys, monkeypatch, "ablate", *given)[0] == 0
    assert [file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("model.safetensors")] == before


def test_the_config_of_a_later_seed_changes_drafts_alone(tmp_path):
    config = short()
    first, second = (ablation.seeded(config, tmp_path, number) for number in range(2))
    assert first.seed == config.seed and second.seed == config.seed + 1 and first.data == second.data
    assert second.target.epochs == 0 and second.target.init == str(tmp_path / "seed0" / "target")
    assert dataclasses.asdict(config) == dataclasses.asdict(short())  # the given one stays as it was
