"""What `plan` says: counts that equal counts by hand, sizes that equal the compiler's, and one line for a mistake."""

import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from adaspec_jax import models, planning
from adaspec_jax.command_line import load_config
from adaspec_jax.config import Gemma3Text
from adaspec_jax.devices import sharding, topologies
from adaspec_jax.models import ring
from adaspec_jax.models.causal_lm import parameter_shapes
from adaspec_jax.planning import roofline
from adaspec_jax.planning.step_costs import collective_bytes, flops
from tests.running import CHECKOUT, command_line, slow

SMALL = [
    *("--config.data.buckets=(64,)", "--config.data.max_length=64", "--config.evaluation.max_new_tokens=32"),
    *(f"--config.{stage}.architecture.vocab_size=256" for stage in ("target", "draft")),
    *(f"--config.{stage}.architecture.num_hidden_layers=1" for stage in ("target", "draft")),
]
QUICKSTART = CHECKOUT / "configs" / "quickstart.py"
needs_libtpu = pytest.mark.skipif(
    not topologies.have_libtpu(), reason='libtpu is not installed (pip install "jax[tpu]")'
)


def test_flops_count_loops_as_often_as_they_run():
    def looped(x, w):
        def body(x, _):
            return jnp.tanh(x @ w), None

        x = jax.lax.scan(body, x, length=5)[0]
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 0, lambda x: x @ w, x)

    x, w = jnp.ones((3, 4)), jnp.ones((4, 4))
    once = 2 * 3 * 4 * 4
    assert flops(jax.jit(looped).trace(x, w).jaxpr, rounds=7) == (5 + 7) * once
    gradient = jax.grad(lambda w: jnp.sum(jax.checkpoint(lambda w: jnp.sin(x @ w) @ w)(w)))
    assert flops(jax.jit(gradient).trace(w).jaxpr, rounds=1) == pytest.approx(6 * once, abs=once)


def test_collectives_count_by_the_loops_they_are_in():
    mesh = sharding.make_mesh(1, 8, 1)
    cut, whole = NamedSharding(mesh, PartitionSpec(None, "fsdp")), NamedSharding(mesh, PartitionSpec())
    weights = jax.ShapeDtypeStruct((6, 16, 16), jnp.float32, sharding=cut)

    @partial(jax.jit, out_shardings=whole)
    def layers(x, weights):
        gather = lambda w: jax.lax.with_sharding_constraint(w, whole)  # noqa: E731
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ gather(w)), None), x, weights)[0]

    x = jax.ShapeDtypeStruct((4, 16), jnp.float32, sharding=whole)
    sent = collective_bytes(layers.lower(x, weights).compile().as_text(), rounds=1)
    assert sent == pytest.approx(6 * 16 * 16 * 4, rel=0.01)


def test_a_call_reads_no_more_of_a_windowed_layer_than_it_keeps():
    """At batch 64 and long texts the cache is most of what is read."""
    chip, mesh = topologies.CHIPS["v5e"], sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])

    def seconds(**keys):
        config = models.config_from_hf(Gemma3Text(**keys).hf_config())
        model = models.CausalLM(parameter_shapes(config), config)
        return roofline.call_seconds(chip, mesh, model, sharding.REPLICATED, rows=64, width=1, slots=16384)

    whole = seconds(layer_types=("full_attention",) * 18)
    layer = (whole - seconds()) / 15  # of 18 layers have windows
    read = 64 * 2 * 256 * 4 * (16384 / 2 - (512 + ring.AHEAD))  # rows, keys and values, features, bytes, tokens
    assert layer == pytest.approx(read / chip.bandwidth)


def test_a_plan_for_this_machine_has_every_stage(tmp_path, capsys, monkeypatch):
    out = tmp_path / "plan.json"
    small = ["--config.mesh.data=1", *SMALL]
    status, said, _ = command_line(
        capsys, monkeypatch, "plan", "--config", QUICKSTART, "--topology", "cpu", "--json", out, "--no_search", *small
    )
    assert status == 0
    stages = json.loads(out.read_text())["stages"]
    assert list(stages) == ["target", "reference", "draft", "decode"]
    for name, figures in stages.items():
        assert figures["fits"] is True and figures["how"] == "compiled"
        parts = figures["arguments_bytes"] + figures["temporaries_bytes"] + figures["outputs_bytes"]
        assert figures["hbm_bytes"] == parts > 0
        assert f"{name}: fits" in said
    # Parameters, two moments and a batch are the arguments; float32.
    target = stages["target"]
    batch = target["batch"] * target["length"] * 5
    config = load_config(str(QUICKSTART))
    config.target.architecture.vocab_size, config.target.architecture.num_hidden_layers = 256, 1
    weights = models.build(config.target.architecture.hf_config(), jax.random.key(0)).num_params
    assert target["arguments_bytes"] == pytest.approx(3 * 4 * weights + batch, abs=100)


@pytest.mark.parametrize(
    "stage, room", [("reference", 0.6), slow("decode", 3.0), slow("reference", 3.0), slow("decode", 0.6)]
)
def test_the_largest_batch_fits_and_one_a_little_larger_does_not(stage, room):
    def planned(rows):
        config = load_config(str(QUICKSTART))
        config.data.buckets, config.evaluation.max_new_tokens, config.mesh.data = (64,), 32, 1
        config.evaluation.batch_size = config.reference.batch_size = rows
        return planning.Plan(config, topologies.find("cpu"))

    plan = planned(16)
    plan.limit = int(room * plan.stage(stage, search=False)["hbm_bytes"])
    found = plan.stage(stage)
    assert found["fits"] == (room > 1)
    rows = found["largest_batch"]
    assert (rows > 16) == (room > 1) and rows > 1
    assert planned(rows).stage(stage, search=False)["hbm_bytes"] <= plan.limit
    assert planned(math.ceil(rows * 1.25)).stage(stage, search=False)["hbm_bytes"] > plan.limit


def test_what_fits_nowhere_is_planned_as_the_ladder_ended():
    """Not as the last that was compiled: single rows are, before the ladder knows whether to go there."""
    config = load_config(str(QUICKSTART))
    config.data.buckets, config.mesh.data, config.memory = (64,), 1, "auto"
    for key, value in {"rematerialise": True, "moments": "factored", "master": "bfloat16"}.items():
        setattr(config.reference, key, value)
    plan = planning.Plan(config, topologies.find("cpu"))
    plan.limit = 1
    figures = plan.stage("reference", search=False)
    assert figures["fits"] is False and figures["memory"]["micro_batches"] == 1
    assert figures["chosen"] == "layers rematerialised, factored moments, bfloat16 master weights"


@pytest.mark.slow
@needs_libtpu
def test_a_slice_that_is_not_there_is_planned_in_the_order_of_the_ladder(tmp_path, capsys, monkeypatch):
    """On one described chip; then with its memory said to be less than that took."""
    config_overrides = ["--config.memory=auto", *SMALL]
    found = []
    for number in range(2):
        if found:
            chip = topologies.CHIPS["v5e"]
            smaller = {"v5e": topologies.Chip(int(0.9 * found[0]["hbm_bytes"]), chip.flops, chip.bandwidth)}
            monkeypatch.setattr(topologies, "CHIPS", topologies.CHIPS | smaller)
        out = tmp_path / f"{number}.json"
        arguments = [
            "--config",
            QUICKSTART,
            "--topology",
            "v5e:1x1",
            "--stages",
            "target",
            "--json",
            out,
            "--no_search",
        ]
        status, said, _ = command_line(capsys, monkeypatch, "plan", *arguments, *config_overrides)
        monkeypatch.undo()
        assert status == 0, said
        found.append(json.loads(out.read_text())["stages"]["target"])
    roomy, narrow = found
    assert roomy["fits"] and roomy["chosen"] == "nothing given up to save memory" and roomy["step_seconds"] > 0
    assert narrow["memory"]["micro_batches"] > 1 and narrow["hbm_bytes"] < 0.9 * roomy["hbm_bytes"]


@needs_libtpu
@pytest.mark.parametrize("alone_on", ["cpu", slow("v5e:2x2")])  # what is not cut is as large there as here
def test_a_slice_of_four_chips_takes_a_quarter_of_the_parameters(capsys, monkeypatch, tmp_path, alone_on):
    sizes = {}
    for fsdp, topology in ((1, alone_on), (4, "v5e:2x2")):
        out = tmp_path / f"{fsdp}.json"
        arguments = [
            "--config",
            QUICKSTART,
            "--topology",
            topology,
            "--stages",
            "target",
            "--json",
            out,
            "--no_search",
        ]
        mesh = ["--config.mesh.data=1", f"--config.mesh.fsdp={fsdp}", *SMALL]
        assert command_line(capsys, monkeypatch, "plan", *arguments, *mesh)[0] == 0
        sizes[fsdp] = json.loads(out.read_text())["stages"]["target"]
    assert sizes[4]["arguments_bytes"] < 0.35 * sizes[1]["arguments_bytes"]
    assert sizes[4]["collective_bytes"] > sizes[1]["collective_bytes"] == 0


def test_without_libtpu_it_estimates_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(topologies, "have_libtpu", lambda: False)
    monkeypatch.setattr(
        topologies,
        "stand_in",
        lambda name: topologies.Topology(name, jax.devices()[:1], "tpu", topologies.CHIPS["v5e"]),
    )
    out = tmp_path / "plan.json"
    status, said, _ = command_line(
        capsys, monkeypatch, "plan", "--config", CHECKOUT / "configs" / "pythia_31m_1b4.py", "--json", out
    )
    assert status == 0 and 'pip install "jax[tpu]"' in said and "rough estimates" in said
    stages = json.loads(out.read_text())["stages"]
    assert all(figures["how"].startswith("estimated") for figures in stages.values())
    # 1.41 billion float32 parameters with AdamW's moments alone are more than a v5e has.
    assert stages["target"]["memory"]["moments"] != "float32" or stages["target"]["memory"]["lora_rank"]
    assert stages["decode"]["break_even"]["published_alpha"] == 0.6828


def test_the_verdict_is_the_formula_of_the_speed_up():
    found = planning.verdict(0.1, lambda n: 1.0, 80.0)
    alpha = found["alpha_needed"]["5"]
    assert sum(alpha**n for n in range(6)) == pytest.approx(1.5, rel=1e-6)
    assert found["speedup"]["5"] == pytest.approx(sum(0.8**n for n in range(6)) / 1.5)
    never = planning.verdict(1.5, lambda n: 1.0, None)
    assert set(never["alpha_needed"].values()) == {None} and "published_alpha" not in never


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--topology", "v9z:1x1"], 'unknown topology "v9z:1x1"; known are v5e:1x1'),
        (["--topology", "v5e"], 'unknown topology "v5e"'),
        (["--stages", "drafts"], 'there is no stage "drafts"; did you mean "draft"?'),
        (["--json", "/absent/plan.json"], "there is no such directory"),
        (["--topology", "cpu", "--config.mesh.data=3"], "which mesh.data * mesh.fsdp = 3 does not divide"),
        (["--topology", "cpu", "--config.mesh.data=16"], "config.mesh: the mesh (16, 1, 1) needs 16 devices"),
        (["--topology", "cpu", "--config.mesh.tensor=4"], "does not divide the draft's num_heads 2"),
        (["--topology"], "--topology needs a value"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint, capsys, monkeypatch):
    extra = ["--config.draft.batch_size=16", "--config.draft.budget=equal_compute", "--config.target.batch_size=16"]
    extra += ["--config.reference.batch_size=16", "--config.evaluation.batch_size=16"]
    status, _, said = command_line(capsys, monkeypatch, "plan", "--config", QUICKSTART, *extra, *arguments)
    assert status == 2 and said.count("\n") == 1
    assert complaint in said


@needs_libtpu
def test_a_shape_that_no_slice_has_is_refused(capsys, monkeypatch):
    status, _, said = command_line(capsys, monkeypatch, "plan", "--config", QUICKSTART, "--topology", "v5e:3x7")
    assert status == 2 and 'topology "v5e:3x7" is none that libtpu knows' in said and said.count("\n") == 1


def test_chips_are_counted_from_the_name():
    for name, count in (("v5e:1x1", 1), ("v5e:16x16", 256), ("v5p:8x8x8", 512)):
        assert topologies.parse(name)[1] == count
    assert math.isclose(topologies.CHIPS["v5e"].memory / 2**30, 15.75)
    assert np.isfinite(topologies.CHIPS["v6e"].flops)
