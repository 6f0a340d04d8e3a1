"""What `plan` says of heads: every guess is counted, and what a guess reads is counted once."""

import dataclasses

import jax
import pytest

from adaspec_jax import planning
from adaspec_jax.command_line import load_config
from adaspec_jax.data.tasks import TASKS
from adaspec_jax.devices import topologies
from adaspec_jax.planning.roofline import size_of
from adaspec_jax.planning.training import SUPERVISED
from tests.pipeline.test_heads import with_head
from tests.running import CHECKOUT

CHIP = topologies.CHIPS["v5e"]
HERE = topologies.find("cpu")


def test_a_plan_has_the_heads_bytes():
    """Parameters, two moments and a batch in float32, beside a whole target that is frozen."""
    plan = planning.Plan(with_head(), HERE)
    figures = {stage: plan.stage(stage, search=False) for stage in ("reference", "draft", "decode")}
    head, target = (size_of(plan._models[name]) for name in ("draft", "target"))
    assert all(each["fits"] and each["how"] == "compiled" for each in figures.values())
    for stage, models in (("reference", 3 * head + target), ("draft", 4 * head + target)):
        batch = figures[stage]["batch"] * figures[stage]["length"] * 5
        assert figures[stage]["arguments_bytes"] == pytest.approx(4 * models + batch, rel=0.01)
    assert figures["decode"]["arguments_bytes"] == pytest.approx(4 * (head + target), rel=0.02)


def planned(kind, head, stage, topology=HERE, **sizes):
    config = with_head(kind, head)
    config.target.architecture = dataclasses.replace(config.target.architecture, **sizes)
    plan = planning.Plan(config, topology, compiling=False)
    return plan, plan.stage(stage, search=False)


@pytest.mark.parametrize(
    ("kind", "knob", "laws"), [("eagle3", "steps", 1), ("medusa", "hard=false,heads", 1), ("medusa", "heads", 0)]
)
def test_a_plan_counts_the_labels_of_every_guess(kind, knob, laws):
    """Of a vocabulary so large that they are nearly all there is to compute.

    Heads that learn the text's own tokens read the target's law of the first and the last guess, for metrics.
    """
    plans = [planned(kind, f"{knob}={n}", "reference", vocab_size=8192) for n in (2, 3, 4)]
    (plan, one), (_, two), (_, three) = plans
    target = plan._models["target"].config
    labels = SUPERVISED * one["batch"] * one["length"]
    # The head's logits, forward and backward in both factors, and the target's.
    products = 2 * labels * target.hidden_size * target.vocab_size * (3 + laws)
    for more in (two["flops"] - one["flops"], three["flops"] - two["flops"]):
        assert products < more < 1.2 * products


def test_what_a_step_keeps_of_each_token_is_kept_for_every_guess():
    sizes = [planned("eagle3", f"steps={n},vocabulary=200", "reference")[1]["hbm_bytes"] for n in (1, 2, 7)]
    assert sizes[2] - sizes[1] == pytest.approx(5 * (sizes[1] - sizes[0]), rel=0.01)
    assert sizes[1] > sizes[0]


@pytest.mark.parametrize("kind", ["medusa", "eagle", "eagle3"])
def test_a_guess_costs_what_is_read_for_it(kind):
    topology = topologies.Topology("v5e:1x1", jax.devices("cpu")[:1], "cpu", CHIP)
    plan, figures = planned(kind, "heads=4" if kind == "medusa" else "steps=1", "decode", topology)
    target, draft = plan._models["target"], plan._models["draft"]
    slots = figures["length"] + plan._evaluation.max_new_tokens

    def read(parameters, config):
        cache = figures["batch"] * slots / 2 * config.num_layers * 2 * config.num_kv_heads * config.head_dim
        return parameters + cache

    its_own = read(size_of(draft), draft.config) / (4 if kind == "medusa" else 1)
    shared = size_of(target.unembedding()) if kind == "eagle" else 0
    plain = read(size_of(target), target.config)
    found = figures["break_even"]["draft_step_cost"]
    assert found == pytest.approx((its_own + shared) / plain, rel=1e-6)


def test_a_head_is_planned_with_the_attention_of_the_topology():
    topology = topologies.Topology("v5e:1x1", jax.devices("cpu")[:1], "tpu", CHIP)
    plan = planning.Plan(with_head(), topology, compiling=False)
    target, draft = (plan._models[name].config.attention_block for name in ("target", "draft"))
    assert target == draft == 1024


@pytest.mark.parametrize(
    "config, variant, examples",
    [("llama8b_eagle3", "", 52_002), ("stories_heads", "eagle3", 900), ("gsm8k_small", "", 7473)],
)
def test_a_plan_counts_the_rows_that_a_config_takes(config, variant, examples):
    loaded = load_config(f"{CHECKOUT}/configs/{config}.py:{variant}")
    assert planning.Plan(loaded, HERE, compiling=False).examples == examples


def test_every_task_that_is_not_generated_has_its_rows_in_plans():
    known = {name for name, task in TASKS.items() if task.splits and not task.generated_rows}
    assert known == set(planning.examples.EXAMPLES)


def test_blocks_at_some_places_are_planned_as_so_many():
    """Twice the anchors, twice what is computed beside the target."""

    def flops(anchors):
        return planned("dflash", f"anchors={anchors},block=3,depth=1", "reference", vocab_size=8192)[1]["flops"]

    assert flops(16) - flops(8) == pytest.approx(2 * (flops(8) - flops(4)), rel=0.1)
    assert flops(16) < flops(512)
