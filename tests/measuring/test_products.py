"""In which type decoding multiplies: asked for, measured, said."""

import jax
import jax.numpy as jnp
import pytest

from adaspec_jax import options
from adaspec_jax.config import Experiment, validate
from adaspec_jax.devices.sharding import make_mesh
from adaspec_jax.errors import UserError
from adaspec_jax.measuring import products
from adaspec_jax.measuring.placing import placed
from adaspec_jax.methods import Given
from tests import tiny_pair

SIZES = {"vocab_size": tiny_pair.TOKENS, "max_position_embeddings": 128}


@pytest.fixture
def directory(tmp_path):
    tiny_pair.save(tmp_path / "target", tiny_pair.GPT_NEOX | SIZES)
    return tmp_path / "target"


def weights(model):
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {str(leaf.dtype) for path, leaf in leaves if path[-1].key in ("kernel", "weight")}


@pytest.mark.parametrize("asked", ["bfloat16", "auto"])
def test_what_a_measurement_says_is_taken_and_said(monkeypatch, asked):
    for times, taken in ((3.0, "bfloat16"), (1.1, None)):
        monkeypatch.setattr(products, "times_as_fast", lambda times=times: times)
        found = products.chosen(asked, make_mesh(2))
        assert found.dtype == taken
        [note] = found.notes
        assert asked in note and f"{times:.2f} times" in note and ("matrix units" in note) == (taken is None)


def test_one_process_measures_for_all(monkeypatch):
    """Clocks differ, and processes that took different types would decode different programs."""
    monkeypatch.setattr(products, "times_as_fast", lambda: 1.0)  # what this one would say
    monkeypatch.setattr("adaspec_jax.devices.processes.once", lambda measure: 3.0)  # what the first one says
    assert products.chosen("auto", make_mesh(1)).dtype == "bfloat16"


def test_float32_measures_nothing_and_says_nothing(monkeypatch):
    monkeypatch.setattr(products, "times_as_fast", lambda: pytest.fail("measured"))
    assert products.chosen("float32", make_mesh(1, tensor=2)) == (None, ())


def test_models_that_are_cut_are_refused():
    with pytest.raises(UserError, match="every device holds whole"):
        products.chosen("bfloat16", make_mesh(1, tensor=2))


def test_a_measurement_is_a_ratio_of_seconds(monkeypatch):
    monkeypatch.setattr(products, "_SIZES", (2, 8, 8))
    seconds = {jnp.dtype("float32"): 4.0, jnp.dtype("bfloat16"): 0.5}
    monkeypatch.setattr(products, "_seconds", lambda rows, weight: seconds[weight.dtype])
    assert products.times_as_fast() == 8.0


def test_both_models_multiply_in_the_type_chosen_wherever_they_are_placed(directory):
    model = tiny_pair.save(directory.parent / "again", tiny_pair.GPT_NEOX | SIZES)
    given = products.multiplied(Given(target=model, drafts={"own": model}), products.Products("bfloat16", ()))
    there = placed(given, make_mesh(2))
    assert weights(there.target) == {"bfloat16"} and there.target is there.draft
    assert weights(placed(Given(target=model), make_mesh(1)).target) == {"float32"}


def test_a_text_goes_on_in_bfloat16_and_the_line_says_so(directory, capsys, monkeypatch):
    monkeypatch.setattr(products, "times_as_fast", lambda: 2.0)
    arguments = ["--target", directory, "--prompt", tiny_pair.TEXTS[0], "--max_new_tokens", "4", "--matmul", "auto"]
    monkeypatch.setattr("sys.argv", ["generate", *map(str, arguments)])
    from adaspec_jax import generate

    generate.main()
    assert "products in bfloat16 with float32 sums (bfloat16 is 2.00 times" in capsys.readouterr().err


def test_a_word_that_is_none_has_the_nearest_beside_it():
    parser = options.parser_of("generate", None)
    options.add_types(parser)
    with pytest.raises(UserError, match='--matmul is "bfloat61"; did you mean "bfloat16"'):
        options.parse_arguments(parser, ["--matmul", "bfloat61"])
    config = Experiment()
    config.evaluation.matmul = "flaot32"
    with pytest.raises(UserError, match='evaluation.matmul is "flaot32"; did you mean "float32"'):
        validate(config)
