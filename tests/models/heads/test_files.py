"""Heads on disk: what is read back is what was written, and what does not fit its target is refused by name."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax import models
from adaspec_jax.drafter_file import kind_in
from adaspec_jax.errors import UserError
from adaspec_jax.models import heads
from tests.models.heads import setting


@pytest.fixture(scope="module")
def target():
    hf = {"model_type": "llama", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3}
    hf |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    hf["rope_scaling"] = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return models.build(hf, jax.random.key(0))


def assert_equal(one, two):
    assert one.config == two.config
    for name in ("params", "tables"):
        there, here = getattr(one, name), getattr(two, name)
        assert jax.tree.structure(there) == jax.tree.structure(here)
        for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("variant", setting.VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_is_read_back_to_the_bit(variant, dtype, target, tmp_path):
    head = setting.new(variant, target).astype(dtype)
    models.save_head(head, tmp_path)
    assert kind_in(tmp_path) == head.config.name
    assert_equal(head, models.load_head(tmp_path, target, dtype=dtype))
    written = (tmp_path / "model.safetensors").read_bytes()
    models.save_head(models.load_head(tmp_path, target, dtype=dtype), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == written


def test_every_kind_that_there_is_has_a_round_trip():
    assert {kind for kind, _ in setting.VARIANTS.values()} == set(heads.kinds())


def test_a_kind_of_its_own_file_is_written_and_read_without_another_line(target, tmp_path, monkeypatch):
    class Mine(heads.find_kind("hydra")):
        name = "mine"

        def init(self, key, target, counts_V):
            return super().init(key, target, counts_V)[0], {"counts": np.asarray(counts_V, np.int32)}

    module = type(heads)("adaspec_jax.models.heads.mine")
    module.KIND = Mine
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    monkeypatch.setattr(heads, "kinds", lambda: ("mine",))
    config = heads.made_for("mine", {"heads": 2}, heads.Sizes.of(target.config))
    head = heads.new(config, target, jax.random.key(0), np.arange(61))
    models.save_head(head, tmp_path)
    assert_equal(head, models.load_head(tmp_path, target))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 64}, "hidden size 32 there and 64 here"),
        ({"vocab_size": 80}, "vocabulary rows 61 there and 80 here"),
        ({"num_layers": 4}, "layers 3 there and 4 here"),
    ],
)
def test_a_head_of_another_target_is_refused_by_what_differs(changes, says, target, tmp_path):
    models.save_head(setting.new("eagle", target), tmp_path)
    other = replace(target, config=replace(target.config, num_tokens=None, **changes))
    with pytest.raises(UserError, match=f"belongs to another target: .*{says}") as error:
        models.load_head(tmp_path, other)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_target_of_equal_sizes_and_other_weights_is_refused_by_its_fingerprint(target, tmp_path):
    head = setting.new("medusa", target)
    models.save_head(head, tmp_path, fingerprint="a" * 64)
    with pytest.raises(UserError, match="weights aaaaaaaaaaaa there and bbbbbbbbbbbb here"):
        models.load_head(tmp_path, target, fingerprint="b" * 64)
    for known in ("a" * 64, None):
        assert_equal(head, models.load_head(tmp_path, target, fingerprint=known))
    models.save_head(head, tmp_path)
    models.load_head(tmp_path, target, fingerprint="b" * 64)


def test_tokens_that_own_rows_are_the_heads_unless_the_target_knows_others(target, tmp_path):
    head = setting.new("medusa", target.with_vocabulary(50))
    models.save_head(head, tmp_path)
    assert models.load_head(tmp_path, target).config.sizes.num_tokens == 50
    assert_equal(head, models.load_head(tmp_path, target.with_vocabulary(50)))
    with pytest.raises(UserError, match="tokens 50 there and 40 here"):
        models.load_head(tmp_path, target.with_vocabulary(40))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def renamed(directory, **names):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    save_file({names.get(name, name): value for name, value in tensors.items()}, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: cut(d / "model.safetensors"), "model.safetensors cannot be read; is it truncated"),
        (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda d: cut(d / "drafter.json"), "drafter.json is not valid JSON"),
        (lambda d: edit(d / "drafter.json", knobs=None), '"knobs" and "sizes"'),
        (lambda d: edit(d / "drafter.json", sizes={"hidden_size": 32}), "does not describe a head"),
        (lambda d: edit(d / "drafter.json", knobs={"hedas": 2}), 'has no "hedas"'),
        (
            lambda d: edit(d / "drafter.json", kind="eagel3"),
            'kind "eagel3" are not known here; did you',
        ),
        (lambda d: edit(d / "drafter.json", kind="medusa", knobs={}), "missing .*blocks.0"),
        (lambda d: edit(d / "drafter.json", knobs={"vocabulary": 62}), "vocabulary is 62; the target has 61 tokens"),
        (lambda d: edit(d / "drafter.json", knobs={"vocabulary": 19}), r"d2t is \[20\]"),
        (lambda d: edit(d / "drafter.json", knobs={"taps": [0, 3]}), "taps has 3; the target has layers 0 to 2"),
        (lambda d: renamed(d, **{"norm.weight": "nrom.weight"}), "missing .*norm.weight; unexpected .*nrom.weight"),
        (lambda d: renamed(d, d2t="d3t"), "d2t is missing"),
    ],
)
def test_a_torn_directory_is_one_line_that_names_it(spoil, says, target, tmp_path):
    models.save_head(setting.new("eagle3_vocabulary", target), tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=says) as error:
        models.load_head(tmp_path, target)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_write_that_fails_leaves_the_files_that_were_there(target, tmp_path, monkeypatch):
    from adaspec_jax.models.files import safetensors

    head = setting.new("eagle", target)
    models.save_head(head, tmp_path)

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors, "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        models.save_head(setting.new("eagle", target, seed=1), tmp_path)
    assert_equal(head, models.load_head(tmp_path, target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "drafter.json", "model.safetensors"]


def test_a_plain_model_is_no_head(target, tmp_path):
    models.save(target, tmp_path)
    assert kind_in(tmp_path) is None
    with pytest.raises(UserError, match="holds no head on a target's features"):
        models.load_head(tmp_path, target)


def test_parameters_come_in_the_dtype_that_is_asked_for(target, tmp_path):
    models.save_head(setting.new("eagle3", target), tmp_path)
    head = models.load_head(tmp_path, target, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(head.params)} == {jnp.dtype("bfloat16")}
