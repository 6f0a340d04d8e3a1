"""Checkpoints hold what was there when they were asked for, on any layout of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaspec_jax.devices import sharding
from adaspec_jax.errors import UserError
from adaspec_jax.training import Checkpoints, adamw, init_state
from adaspec_jax.training.checkpoints import _sums, checksums
from tests.training import setting


def test_a_donated_state_does_not_change_the_checkpoint_being_written(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    state = {"a": jnp.arange(3_000_000, dtype=jnp.float32), "b": jnp.ones((1000, 1000))}
    expected = jax.tree.map(np.array, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, state, {"next_index": 3})
    state = jax.block_until_ready(change(state))
    checkpoints.close()
    step, restored, position = Checkpoints(tmp_path).restore(state)
    assert (step, position) == (7, {"next_index": 3})
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_a_checkpoint_of_one_device_resumes_on_eight(tmp_path):
    state = init_state(setting.model(2), adamw(1e-2), jax.random.key(3))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state) is None
    checkpoints.save(1, state, {"next_index": 1})
    checkpoints.save(2, state, {"next_index": 2})
    checkpoints.save(3, state, {"next_index": 3})
    checkpoints.close()
    assert steps_in(tmp_path) == ["2", "3"]  # the last two
    spread = sharding.shard(state, sharding.make_mesh(2, 2, 2))
    _, restored, _ = Checkpoints(tmp_path).restore(spread)
    for ours, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(spread), strict=True):
        assert ours.sharding == wanted.sharding
        np.testing.assert_array_equal(
            jax.random.key_data(ours) if ours.dtype == state.key.dtype else ours,
            jax.random.key_data(wanted) if wanted.dtype == state.key.dtype else wanted,
        )


def test_a_checkpoint_of_another_model_or_optimiser_is_refused_in_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, init_state(setting.model(2), adamw(1e-2), jax.random.key(3)), {"next_index": 1})
    checkpoints.close()
    wider = init_state(setting.model(2, hidden=64), adamw(1e-2), jax.random.key(3))
    factored = init_state(setting.model(2), adamw(1e-2, moments="factored"), jax.random.key(3))
    stacked = init_state(setting.model(2).stacked(), adamw(1e-2), jax.random.key(3))
    for other in (wider, factored, stacked):
        with pytest.raises(UserError, match="the checkpoint there is not one of this model and optimiser"):
            Checkpoints(tmp_path).restore(other)


def files_of(step):
    """The largest files of a checkpoint, where its arrays lie, and those of its position."""
    files = [file for file in step.rglob("*") if file.is_file() and file.stat().st_size]
    return sorted(files, key=lambda file: -file.stat().st_size)


def steps_in(directory):
    return sorted(path.name for path in directory.iterdir() if path.name.isdigit())


def flip(file, place=0.5):
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    file.write_bytes(content)


@pytest.fixture
def saved(tmp_path):
    """A function that says how the checkpoints of steps 1 and 2 below a directory are restored."""
    state = init_state(setting.model(2), adamw(1e-2), jax.random.key(3))
    later = jax.tree.map(lambda leaf: leaf if leaf.dtype == state.key.dtype else leaf + 1, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {"next_index": 1})
    checkpoints.save(2, later, {"next_index": 2})
    checkpoints.close()

    def restored():
        found = Checkpoints(tmp_path).restore(state)
        wanted = {1: state, 2: later}[found[0]]
        for ours, theirs in zip(jax.tree.leaves(found[1].model), jax.tree.leaves(wanted.model), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        return found[0], found[2]["next_index"]

    return tmp_path, restored


@pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
def test_a_checkpoint_whose_arrays_changed_on_the_disk_is_passed_over_and_said(saved, place, capsys):
    directory, restored = saved
    assert restored() == (2, 2)
    flip(files_of(directory / "2")[0], place)
    assert restored() == (1, 1)
    assert "the checkpoint of step 2 is damaged; step 1 is taken" in capsys.readouterr().out
    assert steps_in(directory) == ["1"]  # so that it is not found again


def test_a_first_checkpoint_that_was_never_known_to_be_on_the_disk_is_begun_anew_where_it_is_torn(tmp_path, capsys):
    """As a power cut leaves it; one that was known to be there and is damaged now is the user's to look at."""
    state = init_state(setting.model(2), adamw(1e-2), jax.random.key(3))
    checkpoints, noted = Checkpoints(tmp_path), tmp_path / ".settled"
    checkpoints.save(1, state, {"next_index": 1})
    checkpoints._saving[1].result()
    assert not noted.exists()
    for file in files_of(tmp_path / "1"):
        file.write_bytes(b"")
    assert Checkpoints(tmp_path).restore(state) is None
    assert "was not written to its end; the stage begins again" in capsys.readouterr().out
    assert steps_in(tmp_path) == []
    for step in (1, 2, 3):
        checkpoints = Checkpoints(tmp_path) if step == 1 else checkpoints
        checkpoints.save(step, state, {"next_index": step})
        assert not noted.exists() if step == 1 else noted.read_text() == str(step - 1)
    checkpoints.close()
    assert noted.read_text() == "3"


def test_any_file_of_a_checkpoint_may_be_damaged(saved):
    """Emptied or gone: the older one, or the same where the file says nothing of the state."""
    directory, restored = saved
    for number, file in enumerate(files_of(directory / "2")):
        file.write_bytes(b"") if number % 2 else file.unlink()
    assert restored() == (1, 1)


def test_where_all_are_damaged_the_directory_is_named(saved):
    directory, restored = saved
    for step in "12":
        flip(files_of(directory / step)[0])
    with pytest.raises(
        UserError, match=f"{directory}: the checkpoint there is not one of this .* delete that directory"
    ):
        restored()


def test_a_position_that_changed_is_found(saved, monkeypatch):
    directory, restored = saved
    read = Checkpoints._read

    def other(self, step, like):
        load = self._checkpointer.load_checkpointables

        def changed(step, abstract):
            loaded = load(step, abstract)
            if step == 2:
                loaded["position"]["data"]["next_index"] = 6
            return loaded

        monkeypatch.setattr(self._checkpointer, "load_checkpointables", changed)
        return read(self, step, like)

    monkeypatch.setattr(Checkpoints, "_read", other)
    assert restored() == (1, 1)


MESH = sharding.make_mesh(2, 2, 2)


def by_hand(array):
    """The same sum in Python's own integers."""
    array = np.asarray(array, np.uint8) if array.dtype == bool else np.asarray(array)
    bits = array.reshape(-1).view(f"uint{8 * array.dtype.itemsize}").tolist()
    return sum(value * (2 * place + 1) for place, value in enumerate(bits)) % 2**32


def placed(array, *axes):
    return jax.device_put(array, jax.sharding.NamedSharding(MESH, jax.sharding.PartitionSpec(*axes)))


def test_checksums_are_those_of_any_layout_and_change_with_any_bit():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(8, 6, 4)).astype(np.float32), rng.integers(0, 9, 16).astype(np.int32)]
    arrays += [np.asarray(arrays[0], jnp.bfloat16), rng.integers(0, 2, 24).astype(bool), np.float32(3)]
    whole = checksums([jnp.asarray(x) for x in arrays]).tolist()
    assert whole == [by_hand(array) for array in arrays]
    assert checksums([placed(x) for x in arrays]).tolist() == whole
    assert checksums([placed(arrays[0], *MESH.axis_names)]).tolist() == whole[:1]
    for _ in range(100):
        number = rng.integers(len(arrays) - 2)
        changed = [np.array(x) for x in arrays]
        changed[number].reshape(-1).view(np.uint8)[rng.integers(changed[number].nbytes)] ^= 1 << rng.integers(8)
        found = checksums([jnp.asarray(x) for x in changed]).tolist()
        assert [a != b for a, b in zip(found, whole, strict=True)] == [n == number for n in range(len(arrays))]


def test_a_device_needs_no_more_for_checksums_than_its_own_part():
    """No whole array of places is made, of a state that is cut over devices because none could hold it."""
    large = placed(np.zeros((64, 256, 256), np.float32), *MESH.axis_names)
    needed = _sums.lower([large]).compile().memory_analysis().temp_size_in_bytes
    assert needed <= 3 * large.nbytes // MESH.size


def test_what_the_machine_refuses_now_is_no_damage(saved, monkeypatch):
    """A checkpoint that could not be read for want of memory is as good as before, and stays."""
    directory, restored = saved

    def short(self, step, like):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_read", short)
        with pytest.raises(jax.errors.JaxRuntimeError):
            restored()
    assert restored() == (2, 2)
