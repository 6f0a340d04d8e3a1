"""tensorflow-datasets serves local files and its own gsm8k builder, without TensorFlow and without a network."""

import json
import sys

import pytest

from adaspec_jax.data import load_examples, sources, tfds_jsonl
from adaspec_jax.errors import UserError


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rows_of(count, mark=""):
    return [{"question": f"q{i} \u00e9{mark}", "answer": f"step\n#### {i}", "id": i} for i in range(count)]


def test_a_file_comes_back_from_array_record_in_its_order(tmp_path, tfds_folder):
    file = write(tmp_path / "mine.jsonl", rows_of(300))
    plain = load_examples("gsm8k", "train", path=file)
    packed = load_examples("gsm8k", "train", path=file, via="tfds")
    assert packed.examples == plain.examples
    assert packed.description == plain.description | {"kind": "tfds"}
    assert len(list(tfds_folder.rglob("*.array_record*"))) == 1
    assert "tensorflow" not in sys.modules


def test_real_gsm8k_comes_back_from_array_record(shared_data, tfds_folder):
    file = shared_data("gsm8k", "test.jsonl.gz")
    packed = load_examples("gsm8k", "test", path=file, via="tfds", rows="100:900")
    assert packed.examples == load_examples("gsm8k", "test", path=file, rows="100:900").examples


def test_a_changed_file_and_other_columns_are_packed_anew(tmp_path, tfds_folder):
    file = write(tmp_path / "mine.jsonl", rows_of(3))
    assert tfds_jsonl.read(file, columns=("answer",)) == [{"answer": f"step\n#### {i}"} for i in range(3)]
    assert tfds_jsonl.read(file, columns=("question",))[0] == {"question": "q0 \u00e9"}
    write(file, rows_of(4, mark="!"))
    assert [row["question"] for row in tfds_jsonl.read(file, columns=("question",))][3] == "q3 \u00e9!"
    prepared = tfds_jsonl.builder(file, columns=("question",))
    assert prepared.info.splits["rows"].num_examples == 4


def test_packing_prints_nothing(tmp_path, tfds_folder, capfd):
    load_examples("gsm8k", "train", path=write(tmp_path / "mine.jsonl", rows_of(3)), via="tfds")
    assert capfd.readouterr() == ("", "")


def test_a_malformed_row_is_named_before_anything_is_packed(tmp_path, tfds_folder):
    file = write(tmp_path / "mine.jsonl", [*rows_of(2), {"question": "q"}])
    with pytest.raises(UserError, match=r'mine.jsonl line 3: no column "answer"'):
        tfds_jsonl.read(file, columns=("question", "answer"))
    assert not tfds_folder.exists()


def test_the_real_gsm8k_builder_is_used(tmp_path, tfds_folder, monkeypatch):
    monkeypatch.delenv("ADASPEC_DATA", raising=False)
    tfds = tfds_jsonl.import_tfds()
    stand_ins = {}
    for split, count in {"train": 40, "test": 7, "train_socratic": 2, "test_socratic": 2}.items():
        rows = [{"question": row["question"], "answer": row["answer"]} for row in rows_of(count)]
        stand_ins[split] = write(tmp_path / f"{split}.jsonl", rows)
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, urls: stand_ins)
    monkeypatch.setattr(sources, "reachable", lambda url: True)
    source = load_examples("gsm8k", "train")
    assert source.description["kind"] == "tfds" and source.description["name"] == "gsm8k/1.0.0"
    assert len(source) == 40 and "tensorflow" not in sys.modules
    assert {example.answer for example in source} == {f"step\nThe final answer is:  {i}" for i in range(40)}
    # Once prepared, no network is asked for.
    monkeypatch.setattr(sources, "reachable", lambda url: pytest.fail("asked for a network"))
    assert len(load_examples("gsm8k", "test", via="tfds")) == 7


def test_a_half_installed_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", type(sys)("tensorflow_datasets"))
    with pytest.raises(UserError, match="only half installed"):
        tfds_jsonl.import_tfds()
    monkeypatch.setitem(sys.modules, "importlib_resources", None)
    with pytest.raises(UserError, match="importlib_resources"):
        tfds_jsonl.import_tfds()
