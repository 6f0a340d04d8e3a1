"""LayerSkip's tuning of the target, as a config says it."""

import inspect

import pytest

from adaspec_jax.config import Experiment, Target, validate
from adaspec_jax.config.early_exits import KNOBS, WORDS, read_early_exit
from adaspec_jax.errors import UserError
from adaspec_jax.training.objectives import early_exit


def test_its_knobs_and_their_defaults_are_the_objectives():
    defaults = {name: each.default for name, each in inspect.signature(early_exit).parameters.items()}
    assert {name: defaults[name] for name in KNOBS} == dict(KNOBS)
    for curriculum in WORDS["curriculum"]:
        for weights in WORDS["weights"]:
            early_exit(curriculum=curriculum, weights=weights)
    assert read_early_exit("p_max=0.2,curriculum=one") == {**KNOBS, "p_max": 0.2, "curriculum": "one"}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("p_mx=1", 'has no knob "p_mx"; did you mean "p_max"'),
        ("p_max", "give each KNOB=VALUE once"),
        ("p_max=0.1,p_max=0.2", "give each KNOB=VALUE once"),
        ("p_max=1", "p_max is 1.0; it must be from 0 to below 1"),
        ("scale=-1", "scale is -1.0; it must be from 0 on"),
        ("period=0", "period is 0; it must be from 1 on"),
        ("weights=odd", 'weights is "odd"'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(said, says):
    with pytest.raises(UserError, match=says) as error:
        validate(Experiment(target=Target(early_exit=said)))
    assert "\n" not in str(error.value)
