"""Per-token arrays on disk: read back as written, written again where torn, refused where they are something else's."""

import json
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from adaspec_jax import data
from adaspec_jax.data import token_store
from adaspec_jax.errors import UserError

ORIGIN = {"target weights": "a", "code": "b"}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, 25)
    return [data.Encoded(np.arange(n, dtype=np.int32), int(rng.integers(1, n - 1))) for n in lengths]


def entries_of(rows, i, width=4):
    n = len(rows[i].tokens) - rows[i].prompt_length
    return (np.arange(n * width).reshape(n, width) / 8 + i).astype(np.float32)


def written(directory, rows, dtype=np.float32):
    store = data.TokenStore(directory, rows, rows_per_block=8)
    for number in store.begin("hidden", shape=(4,), dtype=dtype, origin=ORIGIN):
        store.write("hidden", number, [entries_of(rows, i) for i in store.blocks[number]])
    return store


def begun(directory, rows, **other):
    store = data.TokenStore(directory, rows, rows_per_block=8)
    return store, store.begin("hidden", **{"shape": (4,), "dtype": np.float32, "origin": ORIGIN} | other)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_entries_come_back_at_the_positions_that_predict_labels(tmp_path, rows, dtype):
    written(tmp_path, rows, dtype)
    store, missing = begun(tmp_path, rows, dtype=dtype)
    assert missing == []
    batch = store.padded([7, 3, 7], 24)["hidden"]
    assert batch.shape == (3, 24, 4) and batch.dtype == dtype
    for b, i in enumerate([7, 3, 7]):
        first, last = rows[i].prompt_length - 1, len(rows[i].tokens) - 1
        np.testing.assert_array_equal(batch[b, first:last], entries_of(rows, i).astype(dtype))
        assert not batch[b, :first].any() and not batch[b, last:].any()
    assert (
        store.bytes_of(shape=(4,), dtype=dtype) == sum(len(entries_of(rows, i)) for i in range(25)) * 4 * batch.itemsize
    )


def test_a_column_that_is_not_whole_is_in_no_batch(tmp_path, rows):
    store = written(tmp_path, rows)
    store.begin("reference", shape=(), dtype=np.float32, origin=ORIGIN)
    assert set(store.padded([0], 24)) == {"hidden"}


def test_a_column_may_lie_in_a_directory_of_its_own(tmp_path, rows):
    store = written(tmp_path / "shared", rows)
    for number in store.begin("own", shape=(), dtype=np.float32, origin=ORIGIN, directory=tmp_path / "own"):
        store.write("own", number, [entries_of(rows, i)[:, 0] for i in store.blocks[number]])
    assert set(store.padded([0], 24)) == {"hidden", "own"}
    assert store.holds("hidden") and not store.holds("own")
    assert {file.name.rpartition("-")[0] for file in (tmp_path / "own").glob("*.npy")} == {"own"}


def test_what_is_missing_is_counted_in_blocks(tmp_path, rows):
    column = {"shape": (4,), "dtype": np.float32}
    assert data.TokenStore(tmp_path, rows).bytes_missing("hidden", **column) == written(tmp_path, rows).bytes_of(
        **column
    )
    store, _ = begun(tmp_path, rows)
    assert store.bytes_missing("hidden", **column) == 0
    (tmp_path / "hidden-00002.npy").unlink()
    store, _ = begun(tmp_path, rows)
    assert store.bytes_missing("hidden", **column) == 16 * sum(len(entries_of(rows, i)) for i in store.blocks[2])


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "not numpy", "another width", "bits"])
def test_a_torn_block_and_only_it_is_written_again(tmp_path, rows, damage):
    written(tmp_path, rows)
    file = tmp_path / "hidden-00002.npy"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "bits":  # which NumPy reads as other numbers
        changed = bytearray(content)
        changed[len(content) // 2] ^= 0x40
        file.write_bytes(changed)
    elif damage == "another width":
        np.save(file, np.zeros((9, 3), np.float32))
    else:
        file.write_bytes({"truncated": content[:-5], "empty": b"", "not numpy": b"x" * 500}[damage])
    store, missing = begun(tmp_path, rows)
    assert missing == [2] and "hidden" not in store.padded([0], 24)
    store.write("hidden", 2, [entries_of(rows, i) for i in store.blocks[2]])
    assert file.read_bytes() == content and "hidden" in store.padded([0], 24)


def test_hosts_that_share_the_directory_and_a_process_id_write_at_once_and_lose_nothing(tmp_path, rows):
    def write(_):  # threads share the process id, as containers on several hosts do
        store, _ = begun(tmp_path / "shared", rows)
        for number, block in enumerate(store.blocks):
            store.write("hidden", number, [entries_of(rows, i) for i in block])

    with ThreadPoolExecutor(8) as hosts:
        list(hosts.map(write, range(32)))
    written(tmp_path / "alone", rows)
    shared, alone = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("shared", "alone")
    )
    assert shared == alone


def test_a_store_of_other_origin_is_refused_by_name(tmp_path, rows):
    written(tmp_path, rows)
    with pytest.raises(UserError, match=f"hidden computed from other target weights; delete {tmp_path}"):
        begun(tmp_path, rows, origin=ORIGIN | {"target weights": "c"})
    with pytest.raises(UserError, match=r"other type \(float32 there, bfloat16 here\); .* or --config.teacher_store"):
        begun(tmp_path, rows, dtype=ml_dtypes.bfloat16)
    with pytest.raises(UserError, match="other shape"):
        begun(tmp_path, rows, shape=(5,))
    manifest = tmp_path / "store.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()))[:-9])
    with pytest.raises(UserError, match="store.json is not valid JSON.*; delete"):
        begun(tmp_path, rows)


def test_too_little_disk_is_said_with_the_size(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(token_store, "free_bytes", lambda path: 10**9)
    store = data.TokenStore(tmp_path / "not" / "there", rows)
    store.check_room(10**9, "it")
    with pytest.raises(UserError, match=r"the teacher store takes 2.50 GB and .* has 1.00 GB free; .*recompute"):
        store.check_room(2_500_000_000, "the teacher store")


def test_batches_bring_what_lies_beside_their_rows(tmp_path, rows):
    store = written(tmp_path, rows)
    shapes = {"batch_size": 4, "epochs": 3, "seed": 1, "buckets": (12, 20), "pad_id": 0, "length_window": 2}
    plain = list(data.train_batches(rows, **shapes))
    beside = list(data.train_batches(rows, **shapes, beside=store))
    for a, b in zip(plain, beside, strict=True):
        np.testing.assert_array_equal(a["tokens_BT"], b["tokens_BT"])
        assert b["hidden"].shape == (*a["tokens_BT"].shape, 4)
        np.testing.assert_array_equal(b["hidden"].any(-1)[:, :-1], a["loss_mask_BT"][:, 1:])
    halves = [list(data.train_batches(rows, **shapes, beside=store, process_index=i, process_count=2)) for i in (0, 1)]
    for whole, first, second in zip(beside, *halves, strict=True):
        np.testing.assert_array_equal(whole["hidden"], np.concatenate([first["hidden"], second["hidden"]]))


def test_row_batches_visit_every_row_of_a_block_once(tmp_path, rows):
    store = written(tmp_path, rows)
    for block in store.blocks:
        lengths = [len(rows[i].tokens) for i in block]
        assert lengths == sorted(lengths)
        seen = []
        for numbers, batch in data.row_batches(rows, block, 3, buckets=(8, 20), pad_id=0, beside=store):
            assert len(batch["tokens_BT"]) == len(batch["hidden"]) == 3
            seen += numbers
        assert seen == block
    assert sorted(i for block in store.blocks for i in block) == list(range(25))
