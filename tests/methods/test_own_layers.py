"""Layer sets and exits: given as numbers or a file, and refused in one line where they cannot be."""

import dataclasses
import json

import pytest

from adaspec_jax.errors import UserError
from adaspec_jax.methods import METHODS, Given
from adaspec_jax.methods.own_layers import every_other_layer, layer_set
from tests.decoding.bag_model import BagModel
from tests.decoding.recording import tiny_llama

GIVEN = Given(target=tiny_llama())


def test_the_first_set_leaves_out_every_other_layer_but_the_last():
    assert every_other_layer(4) == (2, 3)
    assert every_other_layer(6) == (2, 3, 6, 7)
    assert METHODS["draft_and_verify"].make(GIVEN).skipped == (2, 3)


def test_a_set_is_given_as_numbers_or_as_a_file(tmp_path):
    file = tmp_path / "set.json"
    file.write_text(json.dumps({"attention": [2, 1], "mlp": [1], "num_layers": 4}))
    assert layer_set(file, 4) == (2, 3, 4)
    method = METHODS["draft_and_verify"]
    assert method.set(layers=str(file)).make(GIVEN).skipped == method.set(skip="3-2-4").make(GIVEN).skipped == (2, 3, 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not valid JSON"),
        ({"attention": [1]}, "is no layer set: it must say"),
        ({"attention": [1], "mlp": ["x"]}, "layers are numbers"),
        ({"attention": [4], "mlp": []}, r"leaves out layers \[4\], and the target has layers 0 to 3"),
        ({"attention": [0, 1, 2, 3], "mlp": [0, 1, 2, 3]}, "leaves out every sublayer"),
        ({"attention": [1], "mlp": [], "num_layers": 30}, "is for a model of 30 layers, and the target has 4"),
    ],
)
def test_a_file_that_is_no_set_for_this_target_is_refused(tmp_path, content, says):
    file = tmp_path / "set.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=says):
        METHODS["draft_and_verify"].set(layers=str(file)).make(GIVEN)


def test_numbers_out_of_range_are_refused():
    for name, knobs, says in (
        ("draft_and_verify", {"skip": tuple(range(8))}, "leaves out every sublayer"),
        ("layerskip", {"exit_layer": 4}, "exit_layer is 4; the target has 4 layers, so give 1 to 3"),
        ("layerskip", {"length": 0}, "length is 0"),
        ("draft_on_the_fly", {"first": 2, "last": 2}, "first is 2 and last 2; the target has 4 layers"),
        ("draft_on_the_fly", {"every": 0}, "every are at least 1"),
        ("magicdec", {"select": "snap"}, 'select is "snap"; give sink or snapkv'),
        ("magicdec", {"select": "snapkv", "budget": 64}, "recent must be smaller than the budget"),
        ("magicdec", {"budget": 8, "sink": 8}, "the sink must be smaller than the budget"),
    ):
        with pytest.raises(UserError, match=says):
            METHODS[name].set(**knobs).make(GIVEN)


def test_the_exit_is_a_quarter_of_the_way():
    assert METHODS["layerskip"].make(GIVEN).exit_layer == 1
    assert METHODS["layerskip"].set(exit_layer=2).make(GIVEN).exit_layer == 2


def test_the_layers_whose_attention_may_go_lie_between_the_first_and_the_last():
    config = dataclasses.replace(GIVEN.target.config, num_layers=20)
    method, deep = METHODS["draft_on_the_fly"], Given(target=dataclasses.replace(GIVEN.target, config=config))
    assert list(method.make(GIVEN).candidates) == [1, 2]
    assert list(method.make(deep).candidates) == list(range(4, 18))
    assert list(method.set(first=6, last=9).make(deep).candidates) == list(range(6, 11))


def test_a_target_without_layers_to_run_is_refused():
    for name in ("draft_and_verify", "layerskip", "swift", "draft_on_the_fly"):
        for target in (BagModel.random(0), tiny_llama(num_hidden_layers=2)):
            assert "needs a target of at least three layers" in METHODS[name].lacks(Given(target=target))
