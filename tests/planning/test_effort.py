"""Compiled at the lowest effort a training stage needs the memory that it needs at full effort, within 2 %."""

import pytest

from adaspec_jax import planning
from adaspec_jax.command_line import load_config
from adaspec_jax.devices import topologies
from tests.running import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not topologies.have_libtpu(), reason='libtpu is not installed (pip install "jax[tpu]")'),
]


@pytest.mark.parametrize("stage", ["reference", "draft"])
def test_a_row_of_the_paper_needs_the_same_at_either_effort(stage):
    config = load_config(f"{CHECKOUT}/configs/pythia_31m_1b4.py:gsm8k")
    plans = [planning.Plan(config, topologies.find("v5e:1x1"), full_effort=full) for full in (False, True)]
    quick, full = (plan.stage(stage, search=False) for plan in plans)
    assert (quick["effort"], full["effort"]) == (-1.0, 0.0)
    assert quick["hbm_bytes"] == pytest.approx(full["hbm_bytes"], rel=0.02)
    assert [quick[key] for key in ("flops", "arguments_bytes")] == [full[key] for key in ("flops", "arguments_bytes")]
